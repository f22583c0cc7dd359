"""What every defense that leaves points out keeps to; a new file of defenses/trimming is covered by itself."""

from __future__ import annotations

import inspect
import math
import random
import typing
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.contracts.options import options_of
from thornbed.defenses.reporting import did_something, listening
from thornbed.defenses.trimming import Floats, Loss
from thornbed.flower_apps.settings import plugins

NAMES = sorted(name for name, folder in plugins.available("defense").items() if folder == "defenses/trimming")
LOSSES: tuple[Loss, ...] = typing.get_args(Loss)
# Options for which a number below nought makes a defense, as (defense, option).
SIGNED: frozenset[tuple[str, str]] = frozenset()
every_defense = pytest.mark.parametrize("name", NAMES)
every_loss = pytest.mark.parametrize("loss", LOSSES)


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    """Let a division by a spread of 0 fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def defense_called(name: str) -> Callable[..., NDArray[np.bool_]]:
    return plugins.find("defense", name)


def points(loss: Loss, n: int = 50, d: int = 4) -> tuple[Floats, Floats, Floats]:
    """Return points (n, d), labels (n,) and weights (d,) that fit them, but for a little noise."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(n, d)), 1 + rng.uniform(size=d)
    z = x @ w + 0.1 * rng.normal(size=n)
    return x, np.where(z > 0, 1.0, -1.0) if loss == "hinge" else z, w


def test_the_folder_is_not_empty() -> None:
    assert {"distance_trimming", "loss_trimming"} <= set(NAMES)


@every_defense
def test_points_weights_and_loss_come_first_and_options_are_keywords_with_defaults(name: str) -> None:
    parameters = list(inspect.signature(defense_called(name)).parameters.values())
    assert [each.name for each in parameters[:4]] == ["x", "y", "w", "loss"]
    assert all(each.kind is each.KEYWORD_ONLY and each.default is not each.empty for each in parameters[4:])
    # the command line reads the types of the options
    assert {each.name for each in parameters[4:]} <= set(typing.get_type_hints(defense_called(name)))


@every_defense
def test_the_first_line_is_a_sentence_and_its_source_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(inspect.getmodule(defense_called(name))) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))


@every_defense
@every_loss
@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 1), (3, 5), (50, 4), (501, 2)])
def test_it_says_of_each_point_whether_it_stays_and_some_do(name: str, loss: Loss, n: int, d: int) -> None:
    kept = defense_called(name)(*points(loss, n, d), loss)
    assert isinstance(kept, np.ndarray)
    assert kept.shape == (n,)
    assert kept.dtype == np.bool_
    assert kept.any()


@every_defense
@every_loss
def test_it_leaves_points_out_and_says_how_many(name: str, loss: Loss) -> None:
    with listening() as figures:
        kept = defense_called(name)(*points(loss), loss)
    assert not kept.all()
    assert figures["trimmed_share"] == pytest.approx(1 - kept.mean())
    assert did_something(figures, 0)


@every_defense
@every_loss
def test_input_and_global_randomness_are_left_alone_and_the_answer_is_not_their_memory(name: str, loss: Loss) -> None:
    given = points(loss)
    copies = [each.copy() for each in given]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    kept = defense_called(name)(*given, loss)
    assert all(np.array_equal(each, copy) for each, copy in zip(given, copies, strict=True))
    assert not any(np.shares_memory(kept, each) for each in given)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@every_defense
@every_loss
def test_twice_the_same_and_in_another_order_the_same_points(name: str, loss: Loss) -> None:
    """No generator comes in, so nothing may be drawn."""
    (x, y, w), order = points(loss), np.random.default_rng(1).permutation(50)
    kept = defense_called(name)(x, y, w, loss)
    assert np.array_equal(kept, defense_called(name)(x, y, w, loss))
    assert np.array_equal(kept[order], defense_called(name)(x[order], y[order], w, loss))


@every_defense
@every_loss
def test_any_layout_in_memory_gives_the_same_answer(name: str, loss: Loss) -> None:
    x, y, w = points(loss)
    assert np.array_equal(defense_called(name)(np.asfortranarray(x), y, w, loss), defense_called(name)(x, y, w, loss))


@every_defense
@every_loss
def test_what_is_far_away_and_wrong_goes_first(name: str, loss: Loss) -> None:
    """A sixth of the points, fewer than are left out: none of them stays."""
    x, y, w = points(loss)
    bad = np.full((10, 4), 6.0)
    labels = -np.ones(10) if loss == "hinge" else -bad @ w - 20
    kept = defense_called(name)(np.concatenate([x, bad]), np.concatenate([y, labels]), w, loss)
    assert not kept[50:].any()
    assert kept[:50].mean() > 0.9


@every_defense
@every_loss
@pytest.mark.parametrize("first_round", [True, False])
def test_points_that_are_all_the_same_and_a_model_that_says_nothing_are_no_problem(
    name: str, loss: Loss, first_round: bool
) -> None:
    w = np.zeros(3) if first_round else np.ones(3)
    assert defense_called(name)(np.ones((8, 3)), np.ones(8), w, loss).any()


@every_defense
@pytest.mark.parametrize("broken", ["no points", "labels", "weights", "a table", "not finite"])
def test_what_does_not_fit_is_refused_with_the_name_and_the_shapes(name: str, broken: str) -> None:
    x, y, w = points("squared")
    given, sentence = {
        "no points": ((x[:0], y[:0], w), r"shapes \(0, 4\), \(0,\), \(4,\)"),
        "labels": ((x, y[:-1], w), r"shapes \(50, 4\), \(49,\), \(4,\)"),
        "weights": ((x, y, w[:2]), r"shapes \(50, 4\), \(50,\), \(2,\)"),
        "a table": ((x[0], y, w), r"shapes \(4,\), \(50,\), \(4,\)"),
        "not finite": ((np.where(x > 0, x, np.nan), y, w), "finite points and weights"),
    }[broken]
    with pytest.raises(ValueError, match=f"{name} needs .*{sentence}"):
        defense_called(name)(*given, "squared")


@every_defense
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1])
def test_numbers_that_make_no_defense_are_refused(name: str, value: float) -> None:
    for option in options_of(defense_called(name), float):
        if value != -0.1 or (name, option) not in SIGNED:
            with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = {value}"):
                defense_called(name)(*points("squared"), "squared", **{option: value})


@every_defense
def test_a_share_of_all_points_is_refused(name: str) -> None:
    if "share" in options_of(defense_called(name), float):
        with pytest.raises(ValueError, match=f"{name} needs 0 <= share < 1: share = 1.0"):
            defense_called(name)(*points("squared"), "squared", share=1.0)


@every_defense
def test_counts_below_nought_are_refused(name: str) -> None:
    for option in options_of(defense_called(name), int):
        with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = -1"):
            defense_called(name)(*points("squared"), "squared", **{option: -1})
