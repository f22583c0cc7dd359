"""SplitNN against the joint network trained in one place, and what it does when a party is silent or forgets."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thornbed.defenses.vertical.block_dropout import BlockDropout
from thornbed.tasks.blocks import block_shapes, split
from thornbed.tasks.blocks.grid import grid
from thornbed.tasks.bottoms import bottom
from thornbed.tasks.bottoms.patch_cnn import patch_cnn
from thornbed.tasks.digits import digits
from thornbed.tasks.split.kept_state import kept, restore
from thornbed.tasks.split.parties import HonestParty, gathered, train_parties
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records
from thornbed.tasks.split.top_model import two_layers
from thornbed.tasks.split.top_work import TopWork, usable

PARTIES, SIZE = 6, 5


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def setting() -> tuple[list[Tensor], Tensor, list[nn.Module], nn.Module]:
    task = digits(None, num_train=200)
    samples = task.samples("train")
    blocks = grid(task.sample_shape, PARTIES, rows=2)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        bottoms = [
            bottom(lambda *sizes: patch_cnn(*sizes, width=4), block, shape, SIZE, mean=task.mean, std=task.std)
            for block, shape in zip(blocks, block_shapes(blocks, task.sample_shape))
        ]
        top = two_layers(PARTIES, SIZE, 10, hidden=16)
    return split(samples.x, blocks), samples.y, bottoms, top


def batches(steps: int = 40, size: int = 20) -> list[Tensor]:
    return [torch.randperm(200, generator=source(step))[:size] for step in range(steps)]


def parties_of(parts: list[Tensor], bottoms: list[nn.Module], make=sgd, **options) -> list[HonestParty]:
    ids = torch.arange(200)
    return [
        HonestParty(Records(ids, x), PartyWork(copy.deepcopy(net), make, **options)) for x, net in zip(parts, bottoms)
    ]


@pytest.mark.parametrize("make", [sgd, adam])
def test_losses_and_weights_are_those_of_joint_training_in_one_place(make) -> None:
    parts, y, bottoms, top = setting()
    parties = parties_of(parts, bottoms, make)
    work = TopWork(copy.deepcopy(top), adam)
    losses = train_parties(parties, work, y, batches(), source()).losses

    joint = nn.ModuleList([*copy.deepcopy(bottoms), copy.deepcopy(top)])
    optimizers = [make(joint[:-1].parameters()), adam(joint[-1].parameters())]
    expected = []
    for ids in batches():
        embeddings = torch.stack([net(x[ids]) for net, x in zip(joint[:-1], parts)], dim=1)
        loss = F.cross_entropy(joint[-1](embeddings), y[ids])
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        expected.append(float(loss.detach()))
    assert expected[-1] < 0.9 * expected[0]
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), atol=1e-6, rtol=0)
    for own, other in zip([*(party.work.bottom for party in parties), work.top], joint):
        for mine, theirs in zip(own.parameters(), other.parameters()):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_whoever_forgets_everything_between_two_messages_but_its_state_learns_the_same() -> None:
    class Forgetful(HonestParty):
        def step(self, gradient, ids):
            state, fresh = self.work.state(), PartyWork(copy.deepcopy(setting()[2][self.number]), adam)
            assert all(isinstance(tensor, Tensor) for tensor in state.values())
            fresh.restore(state)
            self.work = fresh
            return super().step(gradient, ids)

    parts, y, bottoms, top = setting()
    whole = parties_of(parts, bottoms, adam)
    forgetful = [Forgetful(party.records, party.work) for party in parties_of(parts, bottoms, adam)]
    for number, party in enumerate(forgetful):
        party.number = number
    losses = [
        train_parties(parties, TopWork(copy.deepcopy(top), adam), y, batches(), source()).losses
        for parties in (whole, forgetful)
    ]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), atol=1e-6, rtol=0)
    assert len(set(losses[0])) == len(losses[0])


def test_a_top_model_goes_on_from_its_state() -> None:
    _, y, _, top = setting()
    embeddings = torch.randn(200, PARTIES, SIZE, generator=source(1))
    everybody = torch.ones(PARTIES, dtype=torch.bool)
    work = TopWork(copy.deepcopy(top), adam)
    again = TopWork(copy.deepcopy(top), adam)
    work.step(embeddings, everybody, y, source())
    again.restore(work.state())
    first, second = (each.step(embeddings, everybody, y, source()) for each in (work, again))
    assert first.loss == second.loss
    assert torch.equal(*(each.predict(embeddings, everybody, source()) for each in (work, again)))


def test_local_steps_repeat_the_gradient_that_came_at_embeddings_of_their_own() -> None:
    parts, _, bottoms, _ = setting()
    work = PartyWork(copy.deepcopy(bottoms[0]), sgd, local_steps=3)
    gradient = torch.randn(20, SIZE, generator=source(2)) / 20
    work.step(None, parts[0][:20])
    work.step(gradient, None)
    slow = copy.deepcopy(bottoms[0])
    optimizer = sgd(slow.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        (slow(parts[0][:20]) * gradient).sum().backward()
        optimizer.step()
    for mine, theirs in zip(work.bottom.parameters(), slow.parameters()):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_local_steps_of_the_top_model_send_back_the_gradient_before_the_first() -> None:
    _, y, _, top = setting()
    embeddings, everybody = torch.randn(200, PARTIES, SIZE, generator=source(1)), torch.ones(PARTIES, dtype=torch.bool)
    one, three = TopWork(copy.deepcopy(top), sgd), TopWork(copy.deepcopy(top), sgd, local_steps=3)
    results = [work.step(embeddings, everybody, y, source()) for work in (one, three)]
    assert torch.equal(results[0].gradients, results[1].gradients)
    assert results[0].loss == results[1].loss
    for _ in range(2):
        one.step(embeddings, everybody, y, source())
    for mine, theirs in zip(one.top.parameters(), three.top.parameters()):
        torch.testing.assert_close(mine, theirs)


def test_a_silent_party_is_masked_and_counted_and_learns_nothing_from_that_step() -> None:
    class Silent(HonestParty):
        heard = 0

        def step(self, gradient, ids):
            self.heard += gradient is not None

    parts, y, bottoms, top = setting()
    parties = parties_of(parts, bottoms)
    parties[2] = Silent(parties[2].records, parties[2].work)
    seen = []
    done = train_parties(
        parties,
        TopWork(copy.deepcopy(top), adam),
        y,
        batches(),
        source(),
        min_parties=5,
        after_step=lambda number, ids, embeddings, result: seen.append(embeddings[:, 2]),
    )
    assert done.missed.tolist() == [0, 0, 40, 0, 0, 0]
    assert parties[2].heard == 0
    assert all(not bool(block.any()) for block in seen)
    with pytest.raises(ValueError, match="step 0 needs answers of 6 parties: 5 answered"):
        train_parties(parties, TopWork(copy.deepcopy(top), adam), y, batches(), source(), min_parties=6)


def test_blocks_that_are_not_finite_are_not_used_and_get_no_gradient() -> None:
    _, y, _, top = setting()
    embeddings, present = torch.randn(200, PARTIES, SIZE, generator=source(1)), torch.ones(PARTIES, dtype=torch.bool)
    zeroed = embeddings.clone()
    zeroed[3, 1] = 0
    broken = embeddings.clone()
    broken[3, 1, 2] = torch.inf
    results = [TopWork(copy.deepcopy(top), sgd).step(each, present, y, source()) for each in (zeroed, broken)]
    assert results[0].loss == results[1].loss
    assert (results[0].rejected, results[1].rejected) == (0, 1)
    assert bool(results[1].gradients.isfinite().all())
    assert not bool(results[1].gradients[3, 1].any())


def test_the_gradient_of_the_top_model_is_the_one_it_steps_along() -> None:
    _, y, _, top = setting()
    embeddings, present = torch.randn(200, PARTIES, SIZE, generator=source(1)), torch.ones(PARTIES, dtype=torch.bool)
    work = TopWork(copy.deepcopy(top), lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    [gradient] = work.gradients([embeddings], present, y, source())
    before = torch.nn.utils.parameters_to_vector(work.top.parameters()).detach().clone()
    work.step(embeddings, present, y, source())
    after = torch.nn.utils.parameters_to_vector(work.top.parameters()).detach()
    torch.testing.assert_close(before - after, gradient)


def test_the_gradient_behind_a_guard_is_the_one_it_steps_along_there_with_equal_luck_for_all_versions() -> None:
    _, y, _, top = setting()
    embeddings, present = torch.randn(200, PARTIES, SIZE, generator=source(1)), torch.ones(PARTIES, dtype=torch.bool)
    work = TopWork(top, lambda parameters: torch.optim.SGD(parameters, lr=1.0), guard=BlockDropout(share=0.5))
    one, same, other = work.gradients([embeddings, embeddings, 2 * embeddings], present, y, source())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    [open_] = TopWork(top, sgd).gradients([embeddings], present, y, source())
    assert not torch.allclose(one, open_)
    before = torch.nn.utils.parameters_to_vector(top.parameters()).detach().clone()
    work.step(embeddings, present, y, source())
    torch.testing.assert_close(before - torch.nn.utils.parameters_to_vector(top.parameters()).detach(), one)


def test_a_gradient_comes_back_for_what_is_below_0_where_the_top_model_is_not_rectified() -> None:
    embeddings, present = torch.randn(50, 3, 4, generator=source(1)), torch.ones(3, dtype=torch.bool)
    y = torch.randint(2, (50,), generator=source(2))
    for rectified in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            top = two_layers(3, 4, 2, hidden=8, rectified=rectified)
        gradients = TopWork(top, sgd).step(embeddings, present, y, source()).gradients
        assert bool((gradients[embeddings > 0] != 0).any())
        assert bool((gradients[embeddings < 0] != 0).any()) != rectified


def test_records_are_found_by_id() -> None:
    records = Records(torch.tensor([7, 3, 5]), torch.tensor([[7.0], [3.0], [5.0]]))
    assert records.take(torch.tensor([5, 7, 5]))[:, 0].tolist() == [5, 7, 5]
    assert records.in_order[:, 0].tolist() == [3, 5, 7]
    assert records.ranks(torch.tensor([5, 7])).tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"there is no record of id 4 here \(2 such\)"):
        records.take(torch.tensor([3, 4, 9]))
    with pytest.raises(ValueError, match=r"records have id 3 twice \(1 such\)"):
        Records(torch.tensor([3, 3]), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"one int64 id a row: torch.int64 \(2,\), 3 rows"):
        Records(torch.tensor([3, 4]), torch.zeros(3, 1))


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    _, y, bottoms, top = setting()
    work = PartyWork(bottoms[0], sgd)
    with pytest.raises(ValueError, match="a gradient came, and no embedding is waiting for one"):
        work.step(torch.zeros(1, SIZE), None)
    work.step(None, torch.zeros(4, 12))
    with pytest.raises(ValueError, match=r"gradient of an embedding \(4, 5\) has its shape: \(3, 5\)"):
        work.step(torch.zeros(3, SIZE), None)
    with pytest.raises(ValueError, match="party needs local_steps >= 1: local_steps = 0"):
        PartyWork(bottoms[0], sgd, local_steps=0)
    with pytest.raises(ValueError, match="top model needs local_steps >= 1: local_steps = 0"):
        TopWork(top, sgd, local_steps=0)
    with pytest.raises(ValueError, match="a top model needs hidden >= 1: hidden = 0"):
        two_layers(2, 2, 2, hidden=0)
    with pytest.raises(ValueError, match="at least one party: K = 2, present = 0"):
        usable(torch.zeros(1, 2, 3), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(1, 2, 3\), present is torch.bool \(3,\)"):
        usable(torch.zeros(1, 2, 3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="one label a sample: 3 samples, 200 labels"):
        TopWork(top, sgd).step(torch.zeros(3, PARTIES, SIZE), torch.ones(PARTIES, dtype=torch.bool), y, source())
    with pytest.raises(ValueError, match=r"party 0 sent \(2, 3\), party 2 \(2, 4\)"):
        gathered([torch.zeros(2, 3), None, torch.zeros(2, 4)])
    with pytest.raises(ValueError, match="no party answered: K = 2"):
        gathered([None, None])


def test_a_state_of_another_network_is_refused() -> None:
    one, two = nn.Linear(2, 3), nn.Linear(2, 4)
    state = kept(one, adam(one.parameters()))
    with pytest.raises(ValueError, match=r"weight has shape \(3, 2\), here \(4, 2\)"):
        restore(two, adam(two.parameters()), state)
    with pytest.raises(ValueError, match="bias is in one of them only"):
        restore(nn.Linear(2, 3, bias=False), adam(one.parameters()), state)
    with pytest.raises(ValueError, match="step of extra, which the network has not"):
        restore(one, adam(one.parameters()), {**state, "optimizer.extra.step": torch.tensor(1.0)})
