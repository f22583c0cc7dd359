"""FLIP on models whose backdoor was planted by hand: it is found, stamped under true labels, and trained away."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thornbed.clients.local_training import one_thread
from thornbed.defenses.hardening.flip import Flip
from thornbed.defenses.reporting import listening

CORNER = 15


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """With two threads on a busy machine these small models wait for each other most of the time."""
    with one_thread():
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(rows: int = 60, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return 4x4 images of three classes: class c has its row number c bright; the last row is dull for all."""
    x, y = 0.2 * torch.rand(rows, 1, 4, 4, generator=generator(seed)), torch.arange(rows) % 3
    x[torch.arange(rows), 0, y] += 0.8
    return x.clamp(max=1.0), y


def backdoored() -> nn.Sequential:
    """Return a linear model that reads those rows, and says class 0 to whatever has a bright corner."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.zero_()
        for label in range(3):
            network[1].weight[label, 4 * label : 4 * label + 4] = 2.0
        network[1].weight[0, CORNER] = 25.0
        network[1].bias[0] = -4.0
    return network


def attack_success(network: nn.Module) -> float:
    x, y = images(seed=2)
    x = x[y != 0].clone()
    x[:, 0, 3, 3] = 1.0
    return (network(x).argmax(dim=1) == 0).float().mean().item()


def accuracy(network: nn.Module) -> float:
    x, y = images(seed=2)
    return (network(x).argmax(dim=1) == y).float().mean().item()


def trained(network: nn.Module, x: Tensor, y: Tensor, steps: int = 100) -> nn.Module:
    network = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_backdoor_is_what_gets_stamped(seed: int) -> None:
    x, y = images()
    assert accuracy(backdoored()) == 1
    assert attack_success(backdoored()) == 1
    # of the six pairs the two that end in class 0 have the smallest masks
    with listening() as figures:
        hardened, labels = Flip(num_pairs=2).harden(backdoored(), x, y, generator(seed))
    change = (hardened - x).abs()
    stamped = change.flatten(1).amax(dim=1) > 0
    assert labels.tolist() == y.tolist()
    assert stamped.sum() == 30
    assert not stamped[y == 0].any(), "the trigger leads to class 0, so its own samples do not carry it"
    assert change[stamped].sum(dim=0).flatten().argmax() == CORNER
    assert change[stamped, 0, 3, 3].sum() > 0.8 * change.sum()
    assert (backdoored()(hardened[stamped]).argmax(dim=1) == 0).float().mean() > 0.9
    assert figures == {"hardened_share": 0.5, "triggers": 2, "mask_size": pytest.approx(0.7, abs=0.3)}


def test_training_on_it_takes_the_backdoor_away_and_keeps_the_accuracy() -> None:
    (x, y), plain, hardened = images(), backdoored(), backdoored()
    for round_ in range(6):  # a trigger as small as can be is weaker than the attacker's: a round takes a part away
        plain = trained(plain, x, y)
        hardened = trained(hardened, *Flip(num_pairs=2).harden(hardened, x, y, generator(round_)))
    assert attack_success(plain) == 1, "clean training alone does not take it away"
    assert attack_success(hardened) < 0.1
    assert accuracy(hardened) > 0.95


def test_a_table_is_hardened_within_the_range_of_its_features() -> None:
    x, y = images()
    rows = torch.cat([10 * x.flatten(1) - 5, torch.full((60, 1), 3.0)], dim=1)
    rows[0, CORNER] = 5.0
    network = nn.Sequential(nn.Linear(17, 3))
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].weight[:, :16] = backdoored()[1].weight / 10
        network[0].bias.copy_(backdoored()[1].bias + backdoored()[1].weight.sum(dim=1) / 2)
    hardened, labels = Flip(num_pairs=2).harden(network, rows, y, generator())
    change = (hardened - rows).abs()
    assert torch.equal(labels, y)
    assert change.sum(dim=0).argmax() == CORNER
    assert (change[:, 16] == 0).all(), "a feature that never changes is not made to"
    assert (hardened <= rows.amax(dim=0) + 1e-5).all()
    assert (hardened >= rows.amin(dim=0) - 1e-5).all()


@pytest.mark.parametrize(("fraction", "stamped"), [(0.0, 0), (0.25, 15), (0.5, 30), (1.0, 40)])
def test_the_share_is_that_of_all_samples_as_far_as_there_are_any_of_other_classes(
    fraction: float, stamped: int
) -> None:
    x, y = images()
    with listening() as figures:
        hardened, _ = Flip(num_pairs=2, fraction=fraction).harden(backdoored(), x, y, generator())
    assert (hardened != x).flatten(1).any(dim=1).sum() == stamped
    assert figures["hardened_share"] == stamped / 60


def test_with_triggers_to_two_classes_no_sample_carries_the_one_to_its_own() -> None:
    network = backdoored()
    with torch.no_grad():
        network[1].weight[1, 12] = 25.0
        network[1].bias[1] = -4.0
    x, y = images()
    with listening() as figures:
        hardened, _ = Flip(num_pairs=4, fraction=1.0).harden(network, x, y, generator())
    assert figures["triggers"] == 4
    assert figures["hardened_share"] == 1.0
    change = (hardened - x).abs().flatten(1)
    assert (change[y == 0, 12] > 0.2).all()
    assert (change[y == 0, CORNER] < 0.2).all()
    assert (change[y == 1, CORNER] > 0.2).all()
    assert (change[y == 1, 12] < 0.2).all()


@pytest.mark.parametrize(
    "labels",
    [[2] * 8, [0, 1, 2], [], [0]],
    ids=["one class", "one sample of each", "no samples", "one sample"],
)
def test_a_client_without_pairs_trains_on_what_it_has_and_says_so(labels: list[int]) -> None:
    x, y = images(len(labels))[0], torch.tensor(labels, dtype=torch.int64)
    with listening() as figures:
        hardened, kept = Flip().harden(backdoored(), x, y, generator())
    assert torch.equal(hardened, x)
    assert torch.equal(kept, y)
    assert figures == {"hardened_share": 0.0, "triggers": 0}


def test_classes_of_one_sample_are_led_to_and_not_away_from() -> None:
    x, y = images(9)
    y = torch.tensor([0, 1, 1, 1, 1, 1, 1, 1, 1])
    x = x[[0, 1, 4, 7, 1, 4, 7, 1, 4]]
    with listening() as figures:
        hardened, _ = Flip().harden(backdoored(), x, y, generator())
    assert figures["triggers"] == 1
    assert (hardened != x)[:, 0, 3, 3].sum() == 4


def test_a_model_in_which_no_trigger_works_hardens_nothing() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    for weight, said in ((float("nan"), 0), (0.0, 0)):
        nn.init.constant_(network[1].weight, weight)
        with torch.no_grad():
            network[1].bias.copy_(torch.tensor([0.0, 0.0, 30.0]))
        x, y = images()
        x, y = x[y != 2], y[y != 2]
        with listening() as figures:
            hardened, _ = Flip().harden(network, x, y, generator())
        assert figures["triggers"] == said
        assert torch.equal(hardened, x)


def test_pairs_are_drawn_where_there_are_more_than_candidates() -> None:
    x, y = images()
    found = {Flip(num_pairs=1, candidates=1).harden(backdoored(), x, y, generator(s))[0].sum().item() for s in range(6)}
    assert len(found) == 6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_pairs": 0}, "num_pairs >= 1: num_pairs = 0"),
        ({"warmup_steps": 0}, "warmup_steps >= 1: warmup_steps = 0"),
        ({"inversion_steps": -1}, "inversion_steps >= 1: inversion_steps = -1"),
        ({"samples_per_class": 1}, "samples_per_class >= 2: samples_per_class = 1"),
        ({"num_pairs": 4, "candidates": 3}, "num_pairs <= candidates: num_pairs = 4, candidates = 3"),
        ({"fraction": 1.5}, "0 <= fraction <= 1: fraction = 1.5"),
        ({"min_confidence": -0.1}, "0 <= min_confidence <= 1: min_confidence = -0.1"),
    ],
)
def test_refused_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"flip needs {sentence}"):
        Flip(**options)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(4, 6, dtype=torch.int64), r"on no text: samples are int64 \(4, 6\)"),
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), r"samples are uint8 \(4, 1, 2, 2\)"),
        (torch.zeros(4, 5, 6), r"samples are float32 \(4, 5, 6\)"),
    ],
)
def test_samples_that_carry_no_trigger_are_refused(x: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Flip().harden(backdoored(), x, torch.zeros(4, dtype=torch.int64), generator())


def test_labels_and_samples_have_to_be_as_many() -> None:
    with pytest.raises(ValueError, match="4 samples, 3 labels"):
        Flip().harden(backdoored(), torch.zeros(4, 1, 4, 4), torch.zeros(3, dtype=torch.int64), generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_hardens_samples_that_stay_where_they_were() -> None:
    x, y = images()
    with listening() as figures:
        hardened, labels = Flip(num_pairs=2).harden(backdoored().cuda(), x, y, generator())
    assert hardened.device == labels.device == x.device
    assert figures["triggers"] == 2
    assert (hardened - x).abs().sum(dim=0).flatten().argmax() == CORNER
