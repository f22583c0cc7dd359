"""What every attack on multitask learning keeps to; a new file of its folder is covered without a word here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

import thornbed.attacks.multitask
from thornbed.attacks import Knowledge
from thornbed.attacks.multitask import Injection, NodesView
from thornbed.tasks.mocha.objective import Coupling, unrelated
from thornbed.tasks.multitask import Points

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.attacks.multitask.__path__) if module.name[0] != "_"
)
LOSSES = ("hinge", "squared")


def function(name: str) -> Callable[..., Injection]:
    return getattr(importlib.import_module(f"thornbed.attacks.multitask.{name}"), name)


def quick(name: str) -> dict[str, object]:
    """Return options with which a search is short."""
    return {"iterations": 3} if "iterations" in inspect.signature(function(name)).parameters else {}


def seen(loss: str, intercept: bool = True) -> NodesView:
    rng = np.random.default_rng(0)
    nodes = []
    for node in range(6):
        x = rng.normal(size=(12 + node, 3))
        if intercept:
            x[:, -1] = 1
        z = x @ np.array([1.0, -1.0, 0.5])
        nodes.append(Points(x, np.where(z > 0, 1.0, -1.0) if loss == "hinge" else z))
    related = Coupling(unrelated(6), 0.3, 0.05)
    return NodesView(points=tuple(nodes), targets=(1, 4), loss=loss, coupling=related, intercept=intercept)


def test_the_folder_is_not_empty() -> None:
    assert {"at2fl", "random_direct", "random_indirect", "random_hybrid"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_where_it_is_from_and_what_it_must_know(name: str) -> None:
    module = importlib.import_module(f"thornbed.attacks.multitask.{name}")
    first, blank, rest = (inspect.getdoc(module) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))
    assert isinstance(module.NEEDS, frozenset)
    assert module.NEEDS
    assert all(isinstance(need, Knowledge) for need in module.NEEDS)
    view, generator, *options = inspect.signature(function(name)).parameters.values()
    assert (view.name, generator.name) == ("view", "generator")
    for option in options:
        assert option.kind is option.KEYWORD_ONLY
        assert option.default is not option.empty


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_points_stay_in_the_ball_with_an_intercept_of_one_and_as_many_as_asked_for(name, loss, intercept) -> None:
    view = seen(loss, intercept)
    for radius in (0.5, None):
        found = function(name)(view, torch.Generator().manual_seed(0), ratio=0.3, radius=radius, **quick(name))
        assert len(found.points) == 2
        for source, points in found.points.items():
            clean = view.points[source]
            assert len(points) == int(np.ceil(0.3 * len(clean)))
            lengths = np.linalg.norm(clean.x[:, : view.movable], axis=1)
            reach = np.quantile(lengths, 0.95) if radius is None else radius
            assert (np.linalg.norm(points.x[:, : view.movable], axis=1) <= reach * (1 + 1e-9)).all()
            assert (points.x[:, view.movable :] == 1).all()
            if loss == "hinge":
                assert (np.abs(points.y) == 1).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_gives_the_same_points_and_input_is_left_alone(name: str, loss: str) -> None:
    view = seen(loss)
    copies = [(each.x.copy(), each.y.copy()) for each in view.points]
    before = torch.get_rng_state(), random.getstate()
    runs = [function(name)(view, torch.Generator().manual_seed(seed), **quick(name)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert all((each.x == x).all() and (each.y == y).all() for each, (x, y) in zip(view.points, copies))
    first, again, other = ({source: points.x.tolist() for source, points in run.points.items()} for run in runs)
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"ratio": -0.1}, "0 <= ratio <= 10: ratio = -0.1"),
        ({"radius": -1.0}, "0 < radius < 1e100: radius = -1.0"),
        ({"labels": "wrong"}, "labels out of flipped, copied, random: labels = wrong"),
    ],
)
def test_options_out_of_range_are_refused_with_the_name(name: str, wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"{name} .*{sentence}"):
        function(name)(seen("hinge"), torch.Generator(), **wrong)
