"""Inversion finds a backdoor that was planted by hand, and leaves the network as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from thornbed.clients.local_training import one_thread
from thornbed.defenses.trigger_inversion import SUCCESS, Triggers, evaluating, invert

LOW, HIGH = torch.zeros(()), torch.ones(())


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """With two threads on a busy machine these small models wait for each other most of the time."""
    with one_thread():
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(inputs: int = 16, row: int = 15) -> nn.Sequential:
    """Return a linear model of two classes: class 1 unless input number `row` is above 0.5."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 2))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].weight[0, row] = 20.0
        network[1].bias.copy_(torch.tensor([-10.0, 0.0]))
    return network


def dull(*shape: int, seed: int = 1) -> Tensor:
    return 0.3 * torch.rand(*shape, generator=generator(seed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("channels", [1, 3])
def test_the_mask_is_the_pixel_that_carries_the_backdoor(seed: int, channels: int) -> None:
    network, x = planted(16 * channels), dull(1, 6, channels, 4, 4)
    found = invert(network, x, torch.tensor([0]), LOW, HIGH, steps=30, generator=generator(seed))
    assert found.mask.shape == (1, 1, 4, 4)
    assert found.pattern.shape == (1, channels, 4, 4)
    assert found.work.tolist() == [True]
    assert found.mask[0, 0, 3, 3] > 0.9 * found.mask.sum()
    # pixel 15 of the flat input is the corner of the first channel
    assert found.pattern[0, 0, 3, 3] > 0.9
    stamped = found.stamp(x[0], torch.zeros(6, dtype=torch.int64))
    assert network(stamped).argmax(dim=1).tolist() == [0] * 6
    # the backdoor is all that is stamped: what it takes to reach 0.5 there, and next to nothing elsewhere
    assert found.mask.sum() < 1


def test_of_a_table_it_is_the_feature_within_its_range() -> None:
    network, x = planted(6, row=2), 2 * dull(1, 8, 6) - 0.5
    low, high = torch.full((6,), -1.0), torch.tensor([1.0, 1.0, 0.7, 1.0, 1.0, 1.0])
    found = invert(network, x, torch.tensor([0]), low, high, steps=40, generator=generator())
    assert found.mask.shape == found.pattern.shape == (1, 6)
    assert found.work.all()
    assert found.mask[0, 2] > 0.9 * found.mask.sum()
    assert 0.5 < found.pattern[0, 2] <= 0.7
    assert (found.pattern >= low).all()
    assert (found.pattern <= high).all()
    closed = invert(network, x, torch.tensor([0]), low, low.new_tensor([0.4] * 6), steps=40, generator=generator())
    assert not closed.work.any(), "0.5 lies outside of the range"


def test_pairs_do_not_meet_although_they_share_a_batch() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].weight[0, 15] = network[1].weight[2, 0] = 20.0
        network[1].bias.copy_(torch.tensor([-10.0, 0.0, -10.0]))
    x = dull(1, 6, 1, 4, 4)
    both = invert(network, x.repeat(2, 1, 1, 1, 1), torch.tensor([0, 2]), LOW, HIGH, steps=30, generator=generator())
    alone = invert(network, x, torch.tensor([0]), LOW, HIGH, steps=30, generator=generator())
    assert both.mask.flatten(1).argmax(dim=1).tolist() == [15, 0]
    torch.testing.assert_close(both.mask[0], alone.mask[0], rtol=1e-3, atol=1e-4)


def test_the_best_step_is_returned_and_not_the_last() -> None:
    network, x = planted(), dull(1, 6, 1, 4, 4)
    scores = [
        float(invert(network, x, torch.tensor([0]), LOW, HIGH, steps=steps, generator=generator()).score)
        for steps in range(0, 40, 4)
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 1  # it did not work at the start: 1 plus its cross-entropy
    assert scores[-1] < 0.1  # the mean of its mask
    best = invert(network, x, torch.tensor([0]), LOW, HIGH, steps=36, generator=generator())
    assert best.score.item() == pytest.approx(best.mask.mean().item())


def test_a_trigger_that_cannot_be_there_does_not_work() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([-1.0, 0.0]))
    found = invert(network, dull(1, 6, 1, 4, 4), torch.tensor([0]), LOW, HIGH, steps=5, generator=generator())
    assert found.work.tolist() == [False]
    assert found.score.item() == pytest.approx(1 + torch.tensor(1.0).exp().add(1).log().item(), rel=1e-4)


def test_some_flipped_samples_are_not_enough() -> None:
    """One sample in three, whose bright pixel no mask of this start hides, keeps its class: 2/3 < SUCCESS."""
    assert SUCCESS == 0.9
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]]))
        network[1].bias.copy_(torch.tensor([0.0, -1.0]))
    x = torch.zeros(1, 3, 1, 2, 2)
    x[0, 0] = 1.0
    some = invert(network, x, torch.tensor([0]), LOW, torch.zeros(()), steps=0, generator=generator())
    assert network(some.stamp(x[0], torch.zeros(3, dtype=torch.int64))).argmax(dim=1).tolist() == [1, 0, 0]
    assert not some.work.any()


def test_a_diverged_network_has_no_trigger_although_argmax_calls_nan_class_zero() -> None:
    network = planted()
    nn.init.constant_(network[1].weight, float("nan"))
    found = invert(network, dull(1, 6, 1, 4, 4), torch.tensor([0]), LOW, HIGH, steps=3, generator=generator())
    assert found.score.tolist() == [float("inf")]
    assert not found.work.any()
    assert found.mask.isfinite().all()


def test_the_network_is_left_as_it_was_and_layers_that_draw_are_still() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    network[2].eval()
    network[1].weight.requires_grad_(False)
    network[4].bias.grad = torch.ones(2)
    before, x = copy.deepcopy(network), dull(2, 6, 1, 4, 4)
    given, state = x.clone(), torch.get_rng_state()
    with torch.no_grad():
        one = invert(network, x, torch.tensor([0, 1]), LOW, HIGH, steps=4, generator=generator())
    again = invert(network, x, torch.tensor([0, 1]), LOW, HIGH, steps=4, generator=generator())
    other = invert(network, x, torch.tensor([0, 1]), LOW, HIGH, steps=4, generator=generator(1))
    assert torch.equal(one.pattern, again.pattern)
    assert torch.equal(one.mask, again.mask)
    assert not torch.equal(one.pattern, other.pattern)
    assert not one.mask.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, given)
    for (name, value), old in zip(network.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(value, old), name
    assert [layer.training for layer in network] == [True, True, False, True, True]
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, *[True] * 5]
    grads = [parameter.grad for parameter in network.parameters()]
    assert grads[:-1] == [None] * 5
    assert grads[-1].tolist() == [1.0, 1.0]  # type: ignore[union-attr]


def test_modes_come_back_where_the_network_fails() -> None:
    network = planted()
    with pytest.raises(RuntimeError):
        invert(network, dull(1, 2, 1, 5, 5), torch.tensor([0]), LOW, HIGH, steps=1, generator=generator())
    assert network[0].training
    with evaluating(network):
        assert not network[1].training
    assert network[1].training


def test_stamping_and_selecting_by_hand() -> None:
    triggers = Triggers(
        mask=torch.tensor([[[[0.0, 1.0]]], [[[0.5, 0.0]]]]),
        pattern=torch.tensor([[[[9.0, 3.0]]], [[[4.0, 9.0]]]]),
        score=torch.tensor([0.5, 1.5]),
    )
    x = torch.full((3, 1, 1, 2), 2.0)
    assert triggers.stamp(x, torch.tensor([0, 1, 0])).flatten(1).tolist() == [[2, 3], [3, 2], [2, 3]]
    assert triggers.work.tolist() == [True, False]
    assert triggers.select(~triggers.work).pattern.flatten().tolist() == [4, 9]
