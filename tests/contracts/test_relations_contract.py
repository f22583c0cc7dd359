"""What every defense in how nodes are related keeps to; a new file of defenses/relations is covered by itself."""

from __future__ import annotations

import inspect
import math
import random
import typing
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.contracts.options import options_of
from thornbed.defenses.relations import Floats
from thornbed.defenses.reporting import did_something, listening
from thornbed.flower_apps.settings import plugins

NAMES = sorted(name for name, folder in plugins.available("defense").items() if folder == "defenses/relations")
LAMBDAS = (0.7, 0.05)
# Options for which a number below nought makes a defense, as (defense, option).
SIGNED: frozenset[tuple[str, str]] = frozenset()
every_defense = pytest.mark.parametrize("name", NAMES)


def defense_called(name: str) -> Callable[..., Floats]:
    return plugins.find("defense", name)


def related(m: int = 5, d: int = 4, seed: int = 0) -> tuple[Floats, Floats]:
    """Return weights (d, m) of nodes that are nearly alike, and the relation matrix (m, m) that a run begins with."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(d, 1)) + 0.3 * rng.normal(size=(d, m)), np.eye(m) - 1 / m


def smallest(omega: Floats, lambdas: tuple[float, float] = LAMBDAS) -> float:
    return float(np.linalg.eigvalsh(lambdas[0] * omega + lambdas[1] * np.eye(len(omega)))[0])


def test_the_folder_is_not_empty() -> None:
    assert {"bounded_influence", "rank_relations"} <= set(NAMES)


@every_defense
def test_weights_omega_and_lambdas_come_first_and_options_are_keywords_with_defaults(name: str) -> None:
    parameters = list(inspect.signature(defense_called(name)).parameters.values())
    assert [each.name for each in parameters[:3]] == ["weights", "omega", "lambdas"]
    assert all(each.kind is each.KEYWORD_ONLY and each.default is not each.empty for each in parameters[3:])
    # the command line reads the types of the options
    assert {each.name for each in parameters[3:]} <= set(typing.get_type_hints(defense_called(name)))


@every_defense
def test_the_first_line_is_a_sentence_and_its_source_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(inspect.getmodule(defense_called(name))) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))


@every_defense
@pytest.mark.parametrize(("m", "d"), [(1, 1), (2, 1), (5, 4), (12, 3), (30, 60)])
def test_a_run_can_go_on_with_the_answer(name: str, m: int, d: int) -> None:
    for seed in range(5):
        found = defense_called(name)(*related(m, d, seed), LAMBDAS)
        assert isinstance(found, np.ndarray)
        assert found.shape == (m, m)
        assert found.dtype == np.float64
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, found.T, rtol=1e-12, atol=1e-12)
        assert smallest(found) > 0


@every_defense
def test_it_goes_on_with_its_own_answer_and_without_a_second_lambda(name: str) -> None:
    """In a run with learn_omega=0 it is asked once; in others whenever a matrix was learnt, of any eigenvalues."""
    weights, omega = related()
    first = defense_called(name)(weights, omega, LAMBDAS)
    assert smallest(defense_called(name)(weights, first, LAMBDAS)) > 0
    alone = defense_called(name)(weights, omega + 0.2 * np.eye(5), (0.7, 0.0))
    assert smallest(alone, (0.7, 0.0)) > 0


@every_defense
def test_it_relates_nodes_otherwise_and_says_so(name: str) -> None:
    weights, omega = related()
    with listening() as figures:
        found = defense_called(name)(weights, omega, LAMBDAS)
    assert not np.allclose(found, omega)
    shares = {key: value for key, value in figures.items() if key.endswith("_share")}
    assert shares
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in shares.values())
    assert did_something(figures, 0)


@every_defense
def test_before_any_node_has_learnt_there_is_an_answer(name: str) -> None:
    weights, omega = related()
    assert smallest(defense_called(name)(0 * weights, omega, LAMBDAS)) > 0


@every_defense
@pytest.mark.parametrize("case", ["learnt", "all zeros", "unrelated"])
def test_input_and_global_randomness_are_left_alone_and_the_answer_is_not_their_memory(name: str, case: str) -> None:
    weights, omega = related()
    weights, omega = (0 * weights if case == "all zeros" else weights), (np.eye(5) if case == "unrelated" else omega)
    copies = weights.copy(), omega.copy()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    found = defense_called(name)(weights, omega, LAMBDAS)
    assert not np.shares_memory(found, weights)
    assert not np.shares_memory(found, omega)
    found.fill(7.0)
    assert np.array_equal(weights, copies[0])
    assert np.array_equal(omega, copies[1])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@every_defense
def test_twice_the_same_and_nodes_in_another_order_are_related_alike(name: str) -> None:
    """No generator comes in, so nothing may be drawn."""
    (weights, omega), order = related(), [3, 0, 4, 1, 2]
    found = defense_called(name)(weights, omega, LAMBDAS)
    assert np.array_equal(found, defense_called(name)(weights, omega, LAMBDAS))
    turned = defense_called(name)(weights[:, order], omega[np.ix_(order, order)], LAMBDAS)
    # Of an eigenvalue that is 0 but for rounding the root is 1e-8.
    np.testing.assert_allclose(turned, found[np.ix_(order, order)], rtol=1e-6, atol=1e-6)


@every_defense
@pytest.mark.parametrize("broken", ["nodes", "not finite", "lambda1", "lambda2", "not definite"])
def test_what_does_not_fit_is_refused_with_the_name(name: str, broken: str) -> None:
    weights, omega = related()
    given, sentence = {
        "nodes": ((weights[:, :3], omega, LAMBDAS), r"shapes \(4, 3\) and \(5, 5\)"),
        "not finite": ((weights * np.nan, omega, LAMBDAS), "finite weights and relations"),
        "lambda1": ((weights, omega, (0.0, 1.0)), r"lambdas = \(0.0, 1.0\)"),
        "lambda2": ((weights, omega, (1.0, -1.0)), r"lambdas = \(1.0, -1.0\)"),
        "not definite": ((weights, -omega, LAMBDAS), "positive definite: smallest value -0.65"),
    }[broken]
    with pytest.raises(ValueError, match=f"{name} needs .*{sentence}"):
        defense_called(name)(*given)


@every_defense
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1])
def test_numbers_that_make_no_defense_are_refused(name: str, value: float) -> None:
    for option in options_of(defense_called(name), float):
        if value != -0.1 or (name, option) not in SIGNED:
            with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = {value}"):
                defense_called(name)(*related(), LAMBDAS, **{option: value})


@every_defense
def test_counts_below_nought_are_refused(name: str) -> None:
    for option in options_of(defense_called(name), int):
        with pytest.raises(ValueError, match=f"{name} needs .*{option}.* = -1"):
            defense_called(name)(*related(), LAMBDAS, **{option: -1})
