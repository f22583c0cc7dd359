"""Roles change one verb each, and add up."""

import pytest
import torch

from thornbed.attacks.data.label_flip import LabelFlip
from thornbed.attacks.data.pixel_trigger import PixelTrigger
from thornbed.attacks.update import Sight
from thornbed.attacks.update.scaling import scaling
from thornbed.clients.backdoor import Backdoor
from thornbed.clients.benign import Benign
from thornbed.clients.poisoning import DataPoisoning, UpdatePoisoning
from thornbed.clients.role import Role, Roles
from thornbed.tasks import Samples


@pytest.fixture
def samples():
    return Samples(torch.zeros(8, 1, 4, 4), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]))


SIGHT = Sight(benign=lambda: torch.zeros(3), last_step=lambda: None)


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("role", [Role(), Benign()])
def test_an_honest_client_changes_nothing(samples, role):
    update = torch.ones(3)
    assert role.data(samples, generator()) is samples
    assert role.incoming({"w": update})["w"] is update
    assert role.prepare(torch.nn.Linear(1, 1), samples, generator()) is samples
    assert role.outgoing(update, update[None], generator(), SIGHT) is update
    assert not role.edits_update


def test_a_defended_client_sends_what_the_defense_makes_of_its_update():
    role = Benign([lambda update, generator: update / 2])
    assert role.edits_update
    assert role.outgoing(torch.ones(2), torch.ones(1, 2), generator(), SIGHT).tolist() == [0.5, 0.5]


class Brighter:
    """A hardening that adds to every sample, to see that it was asked, with what, and in which order."""

    modalities = frozenset({"image"})

    def __init__(self, step, times=1):
        self.step, self.times, self.min_confidence = step, times, 0.0

    def harden(self, network, x, y, generator):
        assert x.dtype == torch.float32
        return x * self.times + self.step * network.bias.item(), y


def test_a_hardened_client_trains_on_what_the_defense_makes_of_its_samples(samples):
    network = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(network.bias, 0.5)
    role = Benign(hardenings=[Brighter(1.0)])
    assert not role.edits_update
    assert role.data(samples, generator()) is samples
    assert role.prepare(network, samples, generator()).x.unique().tolist() == [0.5]
    assert torch.equal(role.prepare(network, samples, generator()).y, samples.y)
    encoded = Samples(torch.full((8, 1, 4, 4), 255, dtype=torch.uint8), samples.y)
    assert role.prepare(network, encoded, generator()).x.unique().tolist() == [1.5]
    parts = Brighter(1.0), Brighter(0.0, times=4)
    for both in (Benign(hardenings=parts), Roles([Benign(hardenings=[part]) for part in parts])):
        assert both.prepare(network, samples, generator()).x.unique().tolist() == [2.0]


def test_a_backdoor_poisons_data_and_sends_an_honest_update(samples):
    role = Backdoor(PixelTrigger(size=2, target=3, fraction=0.5))
    assert (role.data(samples, generator()).y == 3).sum() > (samples.y == 3).sum()
    assert not role.edits_update
    with pytest.raises(ValueError, match="LabelFlip plants no backdoor"):
        Backdoor(LabelFlip())


def test_parts_act_in_order_and_see_what_the_one_before_made(samples):
    def plus_one(peers, generator):
        return peers[0] + 1

    def twice(peers, generator):
        return scaling(peers, generator, factor=2.0)

    update = torch.tensor([1.0])
    one = Roles([UpdatePoisoning(plus_one), UpdatePoisoning(twice)])
    other = Roles([UpdatePoisoning(twice), UpdatePoisoning(plus_one)])
    assert one.outgoing(update, update[None], generator(), SIGHT).tolist() == [4.0]
    assert other.outgoing(update, update[None], generator(), SIGHT).tolist() == [3.0]
    assert one.edits_update


def test_names_say_what_a_client_is():
    both = Roles([Backdoor(PixelTrigger()), UpdatePoisoning(lambda peers, generator: peers[0])])
    assert both.name == "backdoor+poisoning"
    assert DataPoisoning(LabelFlip()).name == "poisoning"
    assert Benign().name == "benign"
    with pytest.raises(ValueError, match="at least one part"):
        Roles([])
