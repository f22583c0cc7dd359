"""Theorem 10: the closed forms against every pattern of signs, the counts against the closed forms."""

from __future__ import annotations

import itertools
import math

import pandas as pd
import pytest
import torch
from scipy.stats import binom

from thornbed.experiments.figures.theorem10 import Theorem10

SMALL = {"num_clients": 8, "num_malicious": 2, "alpha": 0.25, "taus": (0.2, 0.6)}
TRIALS = 4000


@pytest.fixture(scope="module")
def paper():
    return Theorem10(taus=(0.2,), trials=TRIALS, num_points=5).draw([]).tables[""]


def of(table, rule):
    return table[table["rule"] == rule].reset_index(drop=True)


def extremes(case, signs, attackers):
    """Return the least and the largest sign of the aggregate over sizes of the honest elements."""
    results = set()
    for kept, flipped in itertools.product((1e-3, 1.0, 1e3), repeat=2):
        values = [kept if sign > 0 else -flipped for sign in signs]
        column = torch.tensor([*values, *[-1e6] * attackers])[:, None]
        results.add(int(torch.sign(case.rule(column, torch.full((len(column),), 1 / len(column))))))
    return min(results), max(results)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("place", range(6))
def test_bounds_are_what_every_pattern_of_signs_gives(p, place):
    """The slow truth: all 64 patterns through the rule itself, with sizes that favour the one side and the other."""
    figure = Theorem10(**SMALL)
    case = figure._cases()[place]
    least = most = 0.0
    for signs in itertools.product((1, -1), repeat=6):
        chance = math.prod(1 - p if sign > 0 else p for sign in signs)
        low, high = extremes(case, signs, attackers=2)
        least += chance * (low > 0)
        most += chance * (low < 0)
        assert high >= low
    assert figure.exact(case, p) == pytest.approx((least, most))


def test_counts_are_the_exact_probabilities_where_sizes_do_not_matter(paper):
    # Hoeffding: of 4,000 trials a share is further than this from its probability once in 10**9.
    within = math.sqrt(math.log(2e9) / (2 * TRIALS))
    for rule in ("invariant, τ = 0.5", "AND-mask, τ = 0.5", "mean"):
        rows = of(paper, rule)
        assert (rows["p_minus_estimate"] - rows["p_minus_at_least"]).abs().max() < within
        assert (rows["p_plus_estimate"] - rows["p_plus_at_most"]).abs().max() < within
    for rule in ("trimmed mean", "invariant, τ = 0.2"):
        rows = of(paper, rule)
        assert (rows["p_minus_estimate"] > rows["p_minus_at_least"] - within).all()
        assert (rows["p_plus_estimate"] < rows["p_plus_at_most"] + within).all()
    assert of(paper, "mean")["p_plus_estimate"].tolist() == [1.0] * 5


def test_the_theorems_numbers_for_the_papers_round(paper):
    """N = 20, N' = 4, alpha = 1/4: 16 honest clients, of whom 15 have to keep their sign, or 12 or 2 to flip it."""
    invariant, trimmed = of(paper, "invariant, τ = 0.5"), of(paper, "trimmed mean")
    for row in range(5):
        p = invariant["flip_probability"][row]
        assert p == pytest.approx(0.1 * (row + 1))
        for rows, flips in ((invariant, 12), (trimmed, 2)):
            assert rows["p_minus_theorem"][row] == pytest.approx(binom.sf(14, 16, 1 - p))
            assert rows["p_plus_theorem"][row] == pytest.approx(binom.sf(flips - 1, 16, p))
            assert rows["p_minus_printed"][row] == pytest.approx((1 - p) ** 15 + (1 - p) ** 16)
            assert rows["p_plus_printed"][row] == pytest.approx(sum(p**i for i in range(flips, 17)))
        # What the strict mask takes away: it asks for all 16.
        assert invariant["p_minus_at_least"][row] == pytest.approx((1 - p) ** 16)
    assert (invariant["p_minus_estimate"][:2] < invariant["p_minus_theorem"][:2] - 0.1).all()
    assert invariant["p_plus_at_most"].tolist() == pytest.approx(invariant["p_plus_theorem"].tolist())
    assert trimmed["p_minus_at_least"].tolist() == pytest.approx(trimmed["p_minus_theorem"].tolist())
    assert trimmed["p_plus_at_most"].tolist() == pytest.approx(trimmed["p_plus_theorem"].tolist())
    assert (invariant["p_plus_at_most"] > invariant["p_plus_printed"]).all()
    mean = of(paper, "mean")
    assert mean[["p_minus_theorem", "p_plus_theorem"]].drop_duplicates().to_numpy().tolist() == [[0.0, 1.0]]
    assert of(paper, "invariant, τ = 0.2")["p_minus_theorem"].isna().all()


def test_the_seed_decides():
    tables = [Theorem10(trials=50, num_points=3, seed=seed).draw([]).tables[""] for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])


def test_the_picture_names_its_sides():
    left, right = Theorem10(trials=10, num_points=2).draw([]).picture.axes
    assert left.get_title(loc="left").startswith("p−")
    assert right.get_title(loc="left").startswith("p+")
    assert all("flips its sign" in axes.get_xlabel() for axes in (left, right))
    assert left.get_ylabel() == "probability"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_malicious": 6}, "num_malicious = 6, alpha = 0.25, num_clients = 20"),
        ({"num_malicious": 0}, "num_malicious = 0"),
        ({"alpha": 0.5}, "alpha = 0.5"),
        ({"alpha": float("nan")}, "alpha = nan"),
        ({"alpha": 0.48}, r"2\*ceil\(alpha\*n\) < n: n = 20, alpha = 0.48"),
        ({"taus": (1.0,)}, "needs 0 <= tau < 1: n = 20, tau = 1.0"),
        ({"trials": 0}, "needs trials >= 1: trials = 0"),
        ({"num_points": 0}, "needs num_points >= 1: num_points = 0"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Theorem10(**options)
