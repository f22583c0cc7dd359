"""How a server may relate nodes: by hand, and that what is bounded stays bounded."""

from __future__ import annotations

import numpy as np
import pytest

from thornbed.defenses.relations.bounded_influence import bounded_influence
from thornbed.defenses.relations.rank_relations import rank_relations
from thornbed.defenses.reporting import listening

LAMBDAS = (0.7, 0.05)


def related(m: int = 5, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, m)), np.eye(m) - 1 / m


def influence(omega, lambdas=LAMBDAS):
    return np.linalg.inv(lambdas[0] * omega + lambdas[1] * np.eye(len(omega))) / 2


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


def test_options_out_of_range_are_refused():
    weights, omega = related()
    with pytest.raises(ValueError, match="0 <= bound <= 1: bound = 2"):
        bounded_influence(weights, omega, LAMBDAS, bound=2)
    with pytest.raises(ValueError, match="0 < floor <= 1: floor = 0"):
        rank_relations(weights, omega, LAMBDAS, floor=0)
