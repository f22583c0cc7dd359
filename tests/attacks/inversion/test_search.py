"""The search: exact where it can be, the best iterate by its own loss, and each inversion for itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from thornbed.attacks.inversion._problem import Objective, alone, weigh_all
from thornbed.attacks.inversion._search import Search, search
from thornbed.attacks.inversion.dlg_adam import dlg_adam
from thornbed.attacks.inversion.inverting_gradients import inverting_gradients

COSINE = Objective(distance="cosine", local_steps="one_batch", total_variation=0.0)
DEFAULTS = {
    "steps": 20, "step_size": 0.1, "signed": False, "decay": "none", "box": False, "start": "normal", "restarts": 1,
    "parallel": 16, "snapshots": 0,
}  # fmt: skip


def settings(**changed: object) -> Search:
    return Search(**{**DEFAULTS, **changed})


@pytest.fixture
def problem(network, observe, images):
    def make(seed: int = 0, **more: object):
        seen = observe(network(seed), images(1, seed=seed), torch.tensor([seed % 5]), **more)
        return alone(seen, seen.labels, weigh_all(seen.model))

    return make


@pytest.mark.parametrize("attack", [dlg_adam, inverting_gradients])
def test_one_sample_comes_out_exactly_through_one_linear_layer(attack, observe, images, generator) -> None:
    """The gradient is (p - y) [x, 1], so x is there up to nothing: the search has to find it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).to(torch.float64)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    x, y = images(1, (1, 4, 4)), torch.tensor([2])
    seen = observe(model, x, y, mean=(0.5,), std=(0.25,), labels=None)
    read = seen.gradient["1.weight"][2] / seen.gradient["1.bias"][2]
    torch.testing.assert_close(read, x.flatten())
    options = {"steps": 600, "decay": "cosine", "labels": "idlg"}
    if attack is inverting_gradients:
        options |= {"signed": False, "total_variation": 0.0}
    (found,) = attack([seen], generator, **options)
    assert found.labels.tolist() == [2]
    assert float((found.images - x).abs().max()) < 1e-3
    assert found.failure is None


def test_the_loss_falls_and_the_images_are_those_of_the_smallest(problem, generator) -> None:
    # steps much too long, so that the last iterate is not the best
    (found,) = search([problem()], COSINE, settings(steps=60, step_size=2.0, snapshots=61), generator)
    assert found.losses.shape == (61,)
    assert found.best_step == int(found.losses.argmin())
    assert found.best_step not in (0, 60)
    assert found.snapshot_steps == tuple(range(61))
    assert torch.equal(found.images, found.snapshots[found.best_step])
    assert not torch.equal(found.images, found.snapshots[-1])


def test_the_restart_with_the_smallest_loss_is_kept(problem) -> None:
    def source() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    (best,) = search([problem()], COSINE, settings(restarts=3), source())
    assert best.together == 3
    one_after_the_other, drawing = [], source()
    for _ in range(3):
        one_after_the_other += search([problem()], COSINE, settings(), drawing)
    smallest = min(one_after_the_other, key=lambda found: float(found.losses.min()))
    assert len({float(found.losses.min()) for found in one_after_the_other}) == 3
    torch.testing.assert_close(best.images, smallest.images, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("parallel", [1, 2, 5])
def test_inversions_together_are_inversions_one_by_one(parallel, problem) -> None:
    problems = [problem(seed) for seed in range(4)]
    together = search(problems, COSINE, settings(parallel=16), torch.Generator().manual_seed(1))
    parts = search(problems, COSINE, settings(parallel=parallel), torch.Generator().manual_seed(1))
    assert [found.together for found in together] == [4] * 4
    assert {found.together for found in parts} <= {parallel, 4 % parallel, min(parallel, 4)}
    for one, other in zip(together, parts, strict=True):
        torch.testing.assert_close(one.images, other.images, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(one.losses, other.losses, rtol=1e-6, atol=1e-10)


def test_problems_of_several_kinds_come_back_in_their_order(network, observe, images, generator) -> None:
    sizes = [2, 1, 2, 3]
    seen = [observe(network(), images(n, seed=n), torch.arange(n)) for n in sizes]
    problems = [alone(each, each.labels, weigh_all(each.model)) for each in seen]
    assert [len(found.images) for found in search(problems, COSINE, settings(steps=2), generator)] == sizes


def test_what_is_not_finite_ends_alone_and_says_so(problem) -> None:
    problems = [problem(seed) for seed in range(3)]
    healthy = search(problems, COSINE, settings(), torch.Generator().manual_seed(1))
    bad = dict(problems[1].first.gradient)
    bad["3.bias"] = torch.full_like(bad["3.bias"], math.nan)
    broken = alone(type(problems[1].first)(**{**vars(problems[1].first), "gradient": bad}), problems[1].labels,
                   weigh_all(problems[1].first.model))  # fmt: skip
    found = search([problems[0], broken, problems[2]], COSINE, settings(), torch.Generator().manual_seed(1))
    assert [each.failure for each in found] == [None, "the update is not finite", None]
    assert found[1].losses.isnan().all()
    assert found[1].images.isfinite().all()
    for i in (0, 2):
        torch.testing.assert_close(found[i].images, healthy[i].images, rtol=1e-6, atol=1e-8)


def test_one_that_diverges_on_the_way_keeps_its_best(problem, monkeypatch, generator) -> None:
    whole = Objective.of

    def breaking(self, problems):
        losses, calls = whole(self, problems), iter(range(100))

        def broken(z):
            # the second inversion is lost from its sixth step on
            lost = torch.tensor([0.0, math.nan if next(calls) >= 6 else 0.0, 0.0], dtype=z.dtype)
            return losses(z) + lost

        return broken

    monkeypatch.setattr(Objective, "of", breaking)
    found = search([problem(seed) for seed in range(3)], COSINE, settings(steps=15), generator)
    assert [each.failure is None for each in found] == [True, False, True]
    assert found[1].failure == "the loss or its gradient was not finite after 6 steps"
    assert found[1].losses[:6].isfinite().all()
    assert found[1].losses[6:].isnan().all()
    assert found[1].best_step == int(found[1].losses[:6].argmin())
    assert found[0].losses.isfinite().all()


def test_the_search_ends_when_nothing_is_left_to_search(problem, monkeypatch) -> None:
    calls, whole = [], Objective.of
    monkeypatch.setattr(Objective, "of", lambda *them: lambda z: calls.append(1) or whole(*them)(z) * math.nan)
    (found,) = search([problem()], COSINE, settings(steps=1000, restarts=2), torch.Generator().manual_seed(0))
    assert found.failure == "the loss or its gradient was not finite after 0 steps"
    assert found.losses.shape == (1001,)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("value", "distance", "failure"),
    [
        (math.nan, "cosine", "the update is not finite"),
        (math.inf, "l2", "the update is not finite"),
        (0.0, "cosine", "the update is zero, and has no direction"),
        (0.0, "l2", None),
    ],
)
def test_an_update_with_nothing_to_go_by_is_not_searched(value, distance, failure, problem, monkeypatch) -> None:
    seen = problem().first
    odd = {name: torch.full_like(tensor, value) for name, tensor in seen.gradient.items()}
    only = alone(type(seen)(**{**vars(seen), "gradient": odd}), seen.labels, weigh_all(seen.model))
    calls, whole = [], Objective.of
    monkeypatch.setattr(Objective, "of", lambda *them: calls.append(1) or whole(*them))
    objective = Objective(distance=distance, local_steps="one_batch", total_variation=0.0)
    (found,) = search([only], objective, settings(snapshots=3), torch.Generator().manual_seed(0))
    assert found.failure == failure
    assert calls == ([] if failure else [1])
    assert found.losses.shape == (21,)
    assert found.snapshots.shape == (3, 1, 2, 6, 6)
    if failure:
        assert found.losses.isnan().all()
        assert torch.equal(found.snapshots[2], found.images)


def test_layers_that_do_not_count_need_not_be_finite(problem) -> None:
    whole = problem()
    odd = {name: torch.full_like(t, math.nan if name == "3.bias" else 1.0) for name, t in whole.first.gradient.items()}
    seen = type(whole.first)(**{**vars(whole.first), "gradient": odd})
    weights = {**weigh_all(seen.model), "3.bias": 0.0}
    (found,) = search([alone(seen, whole.labels, weights)], COSINE, settings(), torch.Generator().manual_seed(0))
    assert found.failure is None


def test_the_box_keeps_images_valid_and_snapshots_are_clipped(problem) -> None:
    kept = {"mean": (0.5, 0.5), "std": (0.25, 0.25)}
    free, again, boxed = (
        search(
            [problem(**kept)], COSINE, settings(step_size=1.0, snapshots=3, box=box), torch.Generator().manual_seed(3)
        )[0]
        for box in (False, False, True)
    )
    for found in (free, boxed):
        assert 0 <= float(found.snapshots.min()) <= float(found.snapshots.max()) <= 1
        assert found.snapshot_steps == (0, 10, 20)
    # All begin at one place, so that what differs is the box.
    assert torch.equal(free.images, again.images)
    assert torch.equal(free.snapshots[0], boxed.snapshots[0])
    assert not torch.equal(free.snapshots[2], boxed.snapshots[2])


def test_the_box_ends_where_pixels_are_0_and_1_in_every_channel(problem, generator) -> None:
    """What is searched lies beyond it on both sides, so that every number ends at its border."""
    places: list[torch.Tensor] = []
    up = torch.arange(36).view(6, 6) % 2 == 0

    class Pull(Objective):
        def of(self, problems):
            def losses(z: torch.Tensor) -> torch.Tensor:
                places.append(z.detach().clone())
                return (z - torch.where(up, 50.0, -50.0)).square().flatten(1).sum(dim=1)

            return losses

    boxed = settings(step_size=1.0, box=True)
    search(
        [problem(mean=(0.5, 0.25), std=(0.25, 0.5))],
        Pull(distance="cosine", local_steps="one_batch", total_variation=0.0),
        boxed,
        generator,
    )
    assert len(places) == 21
    for channel, (low, high) in enumerate([(-2.0, 2.0), (-0.5, 1.5)]):
        for z in places[1:]:  # it may begin outside
            assert low <= float(z[0, 0, channel].min()) <= float(z[0, 0, channel].max()) <= high
        assert places[-1][0, 0, channel].unique().tolist() == [low, high]


def test_of_the_gradient_only_the_sign_counts_where_it_is_asked_for(problem) -> None:
    def moved(signed: bool) -> set[float]:
        few = settings(steps=2, step_size=0.01, signed=signed, start="uniform", snapshots=3)
        (found,) = search([problem()], COSINE, few, torch.Generator().manual_seed(0))
        inside = (found.snapshots > 0).all(dim=0) & (found.snapshots < 1).all(dim=0)
        steps = (found.snapshots[2] - found.snapshots[0]).abs()[inside] / 0.01
        return {round(step, 5) for step in steps.tolist()}

    # Adam on +-1: two steps the same way, or one back by (0.1 - 0.09) / 0.19
    assert moved(True) <= {2.0, round(1 - 0.01 / 0.19, 5)}
    assert len(moved(False)) > 10


def test_step_sizes_decay_as_they_are_said_to() -> None:
    stepped = settings(steps=8, decay="step")
    assert [stepped.rate(step) for step in range(8)] == pytest.approx([0.1] * 3 + [0.01] * 2 + [1e-3] * 2 + [1e-4])
    cosine = settings(steps=4, decay="cosine")
    assert [cosine.rate(step) for step in range(4)] == pytest.approx(
        [0.1, 0.05 + 0.05 / math.sqrt(2), 0.05, 0.05 - 0.05 / math.sqrt(2)]
    )
    assert settings().rate(19) == 0.1


def test_starts_are_what_they_are_called(problem) -> None:
    kept = {"mean": (0.5, 0.5), "std": (0.25, 0.25)}
    images = {}
    for start in ("normal", "uniform", "zero"):
        source = torch.Generator().manual_seed(0)
        (found,) = search([problem(**kept)], COSINE, settings(steps=1, start=start, snapshots=2), source)
        images[start] = found.snapshots[0]
    assert images["zero"].unique().tolist() == [0.5]
    expected = torch.rand(1, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(images["uniform"], expected)
    expected = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(images["normal"], (0.5 + 0.25 * expected).clamp(0, 1))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"steps": 0}, "it needs steps >= 1: steps = 0"),
        ({"restarts": 0}, "it needs restarts >= 1: restarts = 0"),
        ({"parallel": 0}, "it needs parallel >= 1: parallel = 0"),
        ({"snapshots": -1}, "it needs snapshots >= 0: snapshots = -1"),
        ({"step_size": math.inf}, "it needs a finite step_size > 0: step_size = inf"),
        ({"decay": "linear"}, "it needs decay out of none, step, cosine: decay = linear"),
        ({"start": "noise"}, "it needs start out of normal, uniform, zero: start = noise"),
    ],
)
def test_options_out_of_range_are_refused(wrong, sentence) -> None:
    settings().check("it")
    with pytest.raises(ValueError, match=sentence):
        settings(**wrong).check("it")
