"""How a server may relate nodes: by hand, by contract, and that what is bounded stays bounded."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import thornbed.defenses.relations
from thornbed.defenses.relations.bounded_influence import bounded_influence
from thornbed.defenses.relations.rank_relations import rank_relations
from thornbed.defenses.reporting import listening

NAMES = sorted(module.name for module in pkgutil.iter_modules(thornbed.defenses.relations.__path__))
LAMBDAS = (0.7, 0.05)


def function(name: str):
    return getattr(importlib.import_module(f"thornbed.defenses.relations.{name}"), name)


def related(m: int = 5, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, m)), np.eye(m) - 1 / m


def influence(omega, lambdas=LAMBDAS):
    return np.linalg.inv(lambdas[0] * omega + lambdas[1] * np.eye(len(omega))) / 2


def test_the_folder_has_both() -> None:
    assert NAMES == ["bounded_influence", "rank_relations"]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_it_is_from_and_has_options_by_keyword(name):
    first, blank, rest = inspect.getdoc(importlib.import_module(f"thornbed.defenses.relations.{name}")).split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Source: ")
    *given, option = inspect.signature(function(name)).parameters.values()
    assert [each.name for each in given] == ["weights", "omega", "lambdas"]
    assert option.kind is option.KEYWORD_ONLY


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_can_be_used_as_a_relation_and_nothing_is_changed(name):
    for seed in range(5):
        weights, omega = related(seed=seed)
        copies = weights.copy(), omega.copy()
        found = function(name)(weights, omega, LAMBDAS)
        np.testing.assert_allclose(found, found.T)
        assert np.linalg.eigvalsh(LAMBDAS[0] * found + LAMBDAS[1] * np.eye(5))[0] > 0
        assert np.array_equal(weights, copies[0])
        assert np.array_equal(omega, copies[1])


@pytest.mark.parametrize("bound", [0.0, 0.05, 0.3])
def test_no_node_moves_another_beyond_the_bound_and_its_own_share_stays(bound):
    weights, omega = related()
    with listening() as figures:
        after = influence(bounded_influence(weights, omega, LAMBDAS, bound=bound))
    before = influence(omega)
    np.testing.assert_allclose(np.diag(after), np.diag(before))
    own = np.sqrt(np.diag(after))
    across = np.abs(after / np.outer(own, own))[~np.eye(5, dtype=bool)]
    assert across.max() == pytest.approx(bound, abs=1e-9)
    assert figures["weakened_share"] == pytest.approx(1 - bound / 0.7368, abs=1e-3)


def test_two_nodes_by_hand():
    """A = [[2, -1], [-1, 2]] has A^-1 = [[2, 1], [1, 2]] / 3, a cross share of 1/2: at 1/4 the ones are halved."""
    omega = np.array([[0.5, -0.5], [-0.5, 0.5]])
    found = bounded_influence(np.ones((1, 2)), omega, (2.0, 1.0), bound=0.25)
    np.testing.assert_allclose(2 * found + np.eye(2), 3 / 3.75 * np.array([[2, -0.5], [-0.5, 2]]))


def test_a_bound_that_holds_changes_nothing():
    weights, omega = related()
    with listening() as figures:
        assert np.array_equal(bounded_influence(weights, omega, LAMBDAS, bound=0.9), omega)
    assert figures == {"weakened_share": 0.0}
    assert np.array_equal(bounded_influence(weights, np.eye(5), LAMBDAS, bound=0.0), np.eye(5))


def test_ranks_by_hand():
    """Ranks 1 2 3 and 3 2 1 correlate by -1, so R has eigenvalues 2 and 0: Sigma 1 and the floor's, 0.1 / 2."""
    weights = np.array([[1.0, 9.0], [2.0, 5.0], [30.0, -1.0]])
    with listening() as figures:
        found = rank_relations(weights, np.eye(2), LAMBDAS, floor=0.1)
    assert figures == {"floored_share": 0.5}
    apart, alike = np.array([1, -1]) / np.sqrt(2), np.array([1, 1]) / np.sqrt(2)
    np.testing.assert_allclose(found, 1.05 * np.outer(apart, apart) + 1.05 / 0.05 * np.outer(alike, alike))


def test_a_node_cannot_shout():
    weights, omega = related()
    loud = weights.copy()
    loud[:, 2] *= 1e6
    np.testing.assert_allclose(rank_relations(loud, omega, LAMBDAS), rank_relations(weights, omega, LAMBDAS))
    mute = weights.copy()
    mute[:, 2] = 3.0
    alone = rank_relations(mute, omega, LAMBDAS)
    np.testing.assert_allclose(alone[2, [0, 1, 3, 4]], 0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_refused_with_the_name(name):
    weights, omega = related()
    for wrong, sentence in (
        ((weights[:, :3], omega, LAMBDAS), r"shapes \(4, 3\) and \(5, 5\)"),
        ((weights * np.nan, omega, LAMBDAS), "finite weights and relations"),
        ((weights, omega, (0.0, 1.0)), r"lambdas = \(0.0, 1.0\)"),
        ((weights, -omega, LAMBDAS), "positive definite: smallest value -0.65"),
    ):
        with pytest.raises(ValueError, match=f"{name} needs .*{sentence}"):
            function(name)(*wrong)
    with pytest.raises(ValueError, match="0 <= bound <= 1: bound = 2"):
        bounded_influence(weights, omega, LAMBDAS, bound=2)
    with pytest.raises(ValueError, match="0 < floor <= 1: floor = 0"):
        rank_relations(weights, omega, LAMBDAS, floor=0)
