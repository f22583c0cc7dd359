"""What rules keep to on any updates: one client or many, ties, zeros of either sign, numbers of very different sizes.

The contract beside this file has the table of who claims what, on updates as a run has them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.contracts.test_aggregation_contract import CLAIMS, NAMES, equal, rule_called

ODD = [0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 1e-45, 1e15, -1e15, 0.01]
# Each coordinate of the result depends on that of the updates alone, so that the order of clients cannot matter, not
# even in a tie. A rule that selects clients takes the first of two that are equally good.
BY_COORDINATE = ("fedavg", "invariant", "and_mask", "trimmed_mean", "median", "mean_variance_ratio", "rlr")
WITHIN = ("fedavg", "trimmed_mean", "median", "krum", "multi_krum", "krum_trimmed_mean")  # the range of what was sent
HOW = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
NIGHTLY = pytest.mark.parametrize("count", [25, pytest.param(500, marks=pytest.mark.nightly)])


@st.composite
def updates(draw: Any) -> Tensor:
    """Return updates (n, d) of n from 1 to 25 and d from 1 to 12, some of them equal."""
    n, d = draw(st.integers(1, 25)), draw(st.integers(1, 12))
    numbers = st.one_of(st.sampled_from(ODD), st.floats(-10, 10, width=32))
    rows = draw(st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=1, max_size=n))
    picked = draw(st.lists(st.integers(0, len(rows) - 1), min_size=n, max_size=n))
    return torch.tensor([rows[row] for row in picked], dtype=torch.float32)


def _or_refused(name: str, given_updates: Tensor) -> Tensor | None:
    """Return what a rule makes of updates; None where it says that they are too few for it."""
    before = given_updates.clone()
    try:
        found = rule_called(name)(given_updates, equal(len(given_updates)))
    except ValueError as refusal:
        assert name in str(refusal)  # noqa: PT017 (either way is right)
        return None
    assert torch.equal(given_updates, before)
    assert found.shape == given_updates.shape[1:]
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    return found


@NIGHTLY
@pytest.mark.parametrize("name", NAMES)
def test_any_updates_give_a_finite_vector_or_a_sentence(name: str, count: int):
    @settings(HOW, max_examples=count)
    @given(sent=updates())
    def check(sent: Tensor) -> None:
        _or_refused(name, sent)

    check()


@NIGHTLY
@pytest.mark.parametrize("name", [name for name in NAMES if name in BY_COORDINATE])
def test_the_order_of_clients_does_not_matter(name: str, count: int):
    @settings(HOW, max_examples=count)
    @given(sent=updates(), seed=st.integers(0, 9))
    def check(sent: Tensor, seed: int) -> None:
        order = torch.randperm(len(sent), generator=torch.Generator().manual_seed(seed))
        one, other = _or_refused(name, sent), _or_refused(name, sent[order])
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(sent.abs().max()))

    check()


@NIGHTLY
@pytest.mark.parametrize("name", [name for name in NAMES if name in WITHIN])
def test_the_result_lies_within_what_was_sent(name: str, count: int):
    @settings(HOW, max_examples=count)
    @given(sent=updates())
    def check(sent: Tensor) -> None:
        if (found := _or_refused(name, sent)) is not None:
            slack = 1e-6 * sent.abs().max(dim=0).values
            assert bool((found >= sent.min(dim=0).values - slack).all())
            assert bool((found <= sent.max(dim=0).values + slack).all())

    check()


@NIGHTLY
@pytest.mark.parametrize("name", [name for name in NAMES if (claim := CLAIMS.get(name)) and claim.scale is True])
def test_a_power_of_two_scales_the_result(name: str, count: int):
    @settings(HOW, max_examples=count)
    @given(sent=updates(), power=st.integers(-8, 8))
    def check(sent: Tensor, power: int) -> None:
        sent = torch.where(sent.abs() < 1e-20, 0.0, sent)  # a subnormal number loses bits
        one, other = _or_refused(name, sent), _or_refused(name, sent * 2.0**power)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(
                other, one * 2.0**power, rtol=1e-5, atol=1e-6 * 2.0**power * float(sent.abs().max())
            )

    check()
