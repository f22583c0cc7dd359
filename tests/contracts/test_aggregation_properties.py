"""What rules keep to on any updates: one client or many, ties, zeros of either sign, numbers of very different sizes.

The contract beside this file has who claims what on updates as a run has them; `HELD` has it for any updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.contracts.test_aggregation_contract import NAMES, equal, module_called, server_of
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import aggregate

Bound = Callable[[Tensor, Tensor, int], bool]
"""`(result (d,), honest updates (n - f, d), n) -> bool`: whether attackers have not led it beyond where they can."""

ODD = [0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 1e-45, 1e15, -1e15, 1e30, -1e30, 0.01]
HUGE = 1e30
HOW = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
NIGHTLY = pytest.mark.parametrize("count", [25, pytest.param(500, marks=pytest.mark.nightly)])


def _in_range(result: Tensor, honest: Tensor, n: int, width: float = 0.0) -> bool:
    low, high = honest.min(dim=0).values, honest.max(dim=0).values
    room = width * (high - low) + 1e-5 * honest.abs().max(dim=0).values
    return bool(((result >= low - room) & (result <= high + room)).all())


def _in_range_or_0(result: Tensor, honest: Tensor, n: int) -> bool:
    return _in_range(torch.where(result == 0, honest[0], result), honest, n)


def _around(result: Tensor, honest: Tensor, n: int) -> bool:
    """Tell whether the result lies within a range that is wider by its width on both sides."""
    return _in_range(result, honest, n, width=1.0)


def _no_longer(result: Tensor, honest: Tensor, n: int) -> bool:
    return float(result.double().norm()) <= 1.0001 * float(honest.double().norm(dim=1).max())


def _no_further_than_the_diameter(result: Tensor, honest: Tensor, n: int) -> bool:
    """Tell whether the result is near an honest update.

    What Krum selects has a score of at most (n - f - 2) D^2, for the diameter D of the honest ones, and at least two
    honest neighbours, so one within sqrt((n - f) / 2) D.
    """
    honest = honest.double()
    diameter = float(torch.cdist(honest, honest, compute_mode="donot_use_mm_for_euclid_dist").max())
    nearest = float((honest - result.double()).norm(dim=1).min())
    return nearest <= diameter * (1 + math.sqrt(len(honest) / 2)) + 1e-5 * float(honest.abs().max())


def _no_step_larger(result: Tensor, honest: Tensor, n: int) -> bool:
    return float(result.abs().max()) <= 1.0001 * float(honest.abs().double().mean(dim=1).max())


def _as_long_as_the_root(result: Tensor, honest: Tensor, n: int) -> bool:
    root = server_of(result.expand(n, -1)).root_update(1)
    return float(result.double().norm()) <= 1.0001 * float(root.double().norm())


def _geometric(result: Tensor, honest: Tensor, n: int) -> bool:
    """Tell whether the result is where a geometric median is.

    About any point that is within (1 - a) / sqrt(1 - 2a) radii of the honest ones, a = f / n: Minsker, "Geometric
    Median and Robust Estimation in Banach Spaces", Bernoulli 2015, Lemma 2.1.
    """
    middle, share = honest.double().mean(dim=0), 1 - len(honest) / n
    radius = float((honest.double() - middle).norm(dim=1).max())
    rounding = 1e-5 * float(honest.abs().max())
    return (
        float((result.double() - middle).norm()) <= 1.001 * (1 - share) / math.sqrt(1 - 2 * share) * radius + rounding
    )


def _minority(n: int) -> int:
    return (n - 1) // 2


def _quarter(n: int) -> int:
    return math.ceil(n / 4) if 2 * math.ceil(n / 4) < n else 0


def _krums(n: int) -> int:
    return max(0, (n - 3) // 2)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a rule keeps to on any updates; a text says why it does not.

    order: the order of clients does not matter. translation: rule(u + v) = rule(u) + v. scale: rule(c u) = c rule(u)
    for c > 0. within: each coordinate stays between the smallest and the largest that was sent. withstands: how many of
    n clients may send anything, and `bound`, where the result stays then.
    """

    order: bool | str
    translation: bool | str
    scale: bool | str
    within: bool | str
    withstands: Callable[[int], int] | str
    bound: Bound | None = None
    options: dict[str, Any] | None = None


SIGNS, ZERO = "it reads signs", "it shortens towards 0, and a translation changes norms"
MASKED = "what is masked is 0, whatever was sent"
TIES = "of updates that are equally good it takes the first"
ONE_LEADS = "one client leads a mean"
KRUM = {"scale": True, "within": True, "withstands": _krums, "bound": _no_further_than_the_diameter}
HELD = {
    "fedavg": Held(order=True, translation=True, scale=True, within=True, withstands=ONE_LEADS),
    "median": Held(order=True, translation=True, scale=True, within=True, withstands=_minority, bound=_in_range),
    "trimmed_mean": Held(order=True, translation=True, scale=True, within=True, withstands=_quarter, bound=_in_range),
    "invariant": Held(
        order=True, translation=SIGNS, scale=True, within=MASKED, withstands=_quarter, bound=_in_range_or_0
    ),
    "and_mask": Held(order=True, translation=SIGNS, scale=True, within=MASKED, withstands=ONE_LEADS),
    "mean_variance_ratio": Held(
        order=True,
        translation="the mean changes, the variance does not",
        scale=True,
        within=MASKED,
        withstands=_quarter,
        bound=_in_range_or_0,
    ),
    "rlr": Held(
        order=True, translation=SIGNS, scale=True, within="the step of a coordinate is turned", withstands=ONE_LEADS
    ),
    "sign_sgd": Held(
        order=True,
        translation=SIGNS,
        scale=True,
        within="each step has one size",
        withstands=_minority,
        bound=_no_step_larger,
    ),
    "krum": Held(order=TIES, translation=True, **KRUM),
    "multi_krum": Held(order=TIES, translation=True, **KRUM),
    "krum_trimmed_mean": Held(order=TIES, translation=True, **KRUM),
    "multi_krum_cosine": Held(
        order=TIES, translation=SIGNS, scale=True, within=True, withstands="it does not look at lengths"
    ),
    "bulyan": Held(
        order=TIES,
        translation=True,
        scale=True,
        within=True,
        withstands=lambda n: max(0, (n - 3) // 4),
        bound=_around,
    ),
    "rfa": Held(
        order=True,
        translation=True,
        scale=True,
        within=True,
        withstands=_minority,
        bound=_geometric,
    ),
    "norm_clipping": Held(
        order=True,
        translation=ZERO,
        scale=True,
        within="what is shortened comes nearer to 0",
        withstands=_minority,
        bound=_no_longer,
    ),
    "weak_dp": Held(
        order=True,
        translation=ZERO,
        scale=True,  # without its noise, whose size is its own
        within="what is shortened comes nearer to 0",
        withstands=_minority,
        bound=_no_longer,
        options={"noise": 0.0},
    ),
    "sparse_fed": Held(
        order="of coordinates that round to one size it takes the first",
        translation=ZERO,
        scale=True,
        within="what waits is 0",
        withstands=_minority,
        bound=_no_longer,
    ),
    "centered_clipping": Held(
        order=True,
        translation=ZERO,
        scale=True,
        within="the first round walks from 0",
        withstands=_minority,
        bound=_no_longer,
    ),
    "flame": Held(
        order="of clusters that are equally good it takes one",
        translation=ZERO,
        scale=True,
        within="what is shortened comes nearer to 0",
        withstands=_minority,
        bound=_no_longer,
        options={"noise": 0.0},
    ),
    "fltrust": Held(
        order=True,
        translation="trust reads angles from 0",
        scale="the result is as long as the root update",
        within="the result is as long as the root update",
        withstands=lambda n: n - 1,  # by length; where it points is for the trusted data to say
        bound=_as_long_as_the_root,
    ),
    "foolsgold": Held(
        order=True,
        translation="similarity reads angles from 0",
        scale=True,
        within="who is slowed counts as 0",
        withstands="sybils repeat each other; one attacker alone does not",
    ),
}
ROBUST = [name for name in NAMES if name in HELD and callable(HELD[name].withstands)]
OPEN = [name for name in NAMES if name in HELD and not callable(HELD[name].withstands)]


def _holding(property_: str, *, also: bool = True) -> list[str]:
    return [name for name in NAMES if name in HELD and (getattr(HELD[name], property_) is True) is also]


def _rule(name: str, sent: Tensor) -> Tensor:
    held = HELD.get(name)
    rule = partial(getattr(module_called(name), name), **(held.options or {} if held else {}))
    return aggregate(rule, sent, equal(len(sent)), server_of(sent))


def _or_refused(name: str, sent: Tensor) -> Tensor | None:
    """Return what a rule makes of updates; None where it says that they are too few for it."""
    before = sent.clone()
    try:
        found = _rule(name, sent)
    except ValueError as refusal:
        assert name in str(refusal)  # noqa: PT017 (either way is right)
        assert "n = " in str(refusal)  # noqa: PT017
        return None
    assert torch.equal(sent, before)
    assert torch.equal(sent.signbit(), before.signbit())
    assert found.shape == sent.shape[1:]
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    return found


@st.composite
def updates(draw: Any, least: int = 1) -> Tensor:
    """Return updates (n, d) of n up to 25 and d up to 40, some of them equal."""
    n, d = draw(st.integers(least, 25)), draw(st.one_of(st.integers(1, 6), st.integers(1, 40)))
    numbers = st.one_of(st.sampled_from(ODD), st.floats(-10, 10, width=32))
    rows = draw(st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=1, max_size=min(n, 6)))
    picked = draw(st.lists(st.integers(0, len(rows) - 1), min_size=n, max_size=n))
    return torch.tensor([rows[row] for row in picked], dtype=torch.float32)


@st.composite
def eighths(draw: Any) -> Tensor:
    """Return updates (n, d) of which sums and differences are exact, so that ties stay ties."""
    n, d, seed = draw(st.integers(1, 25)), draw(st.integers(1, 40)), draw(st.integers(0, 10**6))
    most = draw(st.sampled_from([1, 8, 1000]))
    return torch.randint(-most, most + 1, (n, d), generator=torch.Generator().manual_seed(seed)) / 8


def sizes() -> Any:
    """Return n, d, and a seed for whatever is drawn of that size."""
    return st.tuples(st.integers(1, 25), st.integers(1, 40), st.integers(0, 10**6))


def drawn(size: tuple[int, int, int]) -> Tensor:
    """Return updates of which no two are equal, about a direction of their own."""
    n, d, seed = size
    source = torch.Generator().manual_seed(seed)
    return torch.randn(d, generator=source) + torch.randn(n, d, generator=source)


@contextmanager
def enough(count: int) -> Iterator[list[bool]]:
    """Give a list to note in which examples a rule answered; more than a third of them have to be."""
    answered: list[bool] = []
    yield answered
    assert 3 * sum(answered) > len(answered) >= count / 2


def test_every_rule_of_this_house_has_its_line() -> None:
    """A line states each property; a rule that somebody adds gets the checks that need none."""
    assert set(HELD) <= set(NAMES)


@NIGHTLY
@pytest.mark.parametrize("name", NAMES)
def test_any_updates_give_a_finite_vector_or_a_sentence(name: str, count: int):
    with enough(count) as answered:

        @settings(HOW, max_examples=count)
        @given(sent=updates())
        def check(sent: Tensor) -> None:
            answered.append(_or_refused(name, sent) is not None)

        check()


@NIGHTLY
@pytest.mark.parametrize("name", _holding("order"))
def test_the_order_of_clients_does_not_matter(name: str, count: int):
    with enough(count) as answered:

        @settings(HOW, max_examples=count)
        @given(sent=updates(), seed=st.integers(0, 9))
        def check(sent: Tensor, seed: int) -> None:
            order = torch.randperm(len(sent), generator=torch.Generator().manual_seed(seed))
            one, other = _or_refused(name, sent), _or_refused(name, sent[order])
            assert (one is None) == (other is None)
            answered.append(one is not None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(sent.abs().max()))

        check()


@NIGHTLY
@pytest.mark.parametrize("name", _holding("order", also=False))
def test_the_order_of_clients_does_not_matter_where_nothing_is_equally_good(name: str, count: int):
    with enough(count) as answered:

        @settings(HOW, max_examples=count)
        @given(size=sizes())
        def check(size: tuple[int, int, int]) -> None:
            sent = drawn(size)
            order = torch.randperm(len(sent), generator=torch.Generator().manual_seed(1))
            with listening() as figures:
                one = _or_refused(name, sent)
            scores = figures.get("scores", [])
            assert isinstance(scores, list)
            if one is None or len(set(scores)) < len(scores):
                return
            answered.append(True)
            torch.testing.assert_close(_rule(name, sent[order]), one, rtol=1e-4, atol=1e-5)

        check()


@NIGHTLY
@pytest.mark.parametrize("name", _holding("translation"))
def test_a_translation_translates_the_result(name: str, count: int):
    with enough(count) as answered:

        @settings(HOW, max_examples=count)
        @given(sent=eighths(), seed=st.integers(0, 99))
        def check(sent: Tensor, seed: int) -> None:
            source = torch.Generator().manual_seed(seed)
            shift = torch.randint(-800, 801, sent.shape[1:], generator=source) / 8
            one, other = _or_refused(name, sent), _or_refused(name, sent + shift)
            assert (one is None) == (other is None)
            answered.append(one is not None)
            if one is not None and other is not None:
                torch.testing.assert_close(other, one + shift, rtol=1e-5, atol=1e-4)

        check()


@pytest.mark.parametrize("name", _holding("translation", also=False))
def test_where_a_translation_does_more_it_is_seen(name: str):
    moved = []
    for seed in range(40):
        sent, shift = drawn((9, 5, seed)), torch.tensor([3.0, -2.0, 5.0, -7.0, 1.0])
        moved.append(float((_rule(name, sent + shift) - _rule(name, sent) - shift).abs().max()))
    assert max(moved) > 0.1


@NIGHTLY
@pytest.mark.parametrize("name", _holding("within"))
def test_the_result_lies_within_what_was_sent(name: str, count: int):
    with enough(count) as answered:

        @settings(HOW, max_examples=count)
        @given(sent=updates())
        def check(sent: Tensor) -> None:
            if (found := _or_refused(name, sent)) is not None:
                assert _in_range(found, sent, len(sent))
            answered.append(found is not None)

        check()


@NIGHTLY
@pytest.mark.parametrize("name", _holding("scale"))
def test_a_positive_factor_scales_the_result(name: str, count: int):
    with enough(count) as answered:

        @settings(HOW, max_examples=count)
        @given(sent=updates(), power=st.integers(-8, 8))
        def check(sent: Tensor, power: int) -> None:
            sent = torch.where(sent.abs() < 1e-20, 0.0, sent)  # a subnormal number loses bits
            one, other = _or_refused(name, sent), _or_refused(name, sent * 2.0**power)
            assert (one is None) == (other is None)
            answered.append(one is not None)
            if one is not None and other is not None:
                torch.testing.assert_close(
                    other, one * 2.0**power, rtol=1e-5, atol=1e-6 * 2.0**power * float(sent.abs().max())
                )

        check()


def _attack(honest: Tensor, kind: str, bad: int, source: torch.Generator) -> Tensor:
    """Return the updates (bad, d) of attackers."""
    if kind == "far":
        return torch.full((bad, honest.shape[1]), HUGE)
    if kind == "scattered":
        return HUGE * torch.randn(bad, honest.shape[1], generator=source)
    if kind == "turned":
        return (-HUGE * honest.mean(dim=0).sign()).expand(bad, -1)
    if kind == "one coordinate":
        lie = honest.mean(dim=0).expand(bad, -1).clone()
        lie[:, 0] = -HUGE
        return lie
    width = {"edge": 3.0, "near": 1.5}[kind]  # beside the honest ones, where no distance gives them away
    return (honest.mean(dim=0) + width * honest.std(dim=0, correction=0)).expand(bad, -1)


KINDS = ["far", "scattered", "turned", "one coordinate", "edge", "near"]


@NIGHTLY
@pytest.mark.parametrize("name", ROBUST)
def test_whatever_a_minority_sends_the_result_stays_where_the_table_says(name: str, count: int):
    held = HELD[name]
    number = held.withstands
    assert callable(number)

    @settings(HOW, max_examples=2 * count)
    @given(size=st.tuples(st.integers(7, 25), st.integers(1, 40), st.integers(0, 10**6)), kind=st.sampled_from(KINDS))
    def check(size: tuple[int, int, int], kind: str) -> None:
        n, _, seed = size
        sent, source = drawn(size), torch.Generator().manual_seed(seed + 1)
        bad = number(n)
        order = torch.randperm(n, generator=source)
        honest = sent[order[bad:]]
        sent[order[:bad]] = _attack(honest, kind, bad, source)
        found = _or_refused(name, sent)
        assert found is not None
        assert held.bound is not None
        assert held.bound(found, honest, n)

    check()


@pytest.mark.parametrize("name", OPEN)
def test_where_the_table_says_so_one_client_leads_the_result_away(name: str):
    reached = []
    for direction in (1.0, torch.tensor([-1.0, 1.0] * 4)):  # that of the others, and one of its own
        sent = drawn((9, 8, 3))
        sent[4] = HUGE * direction * sent[[0, 1, 2, 3, 5, 6, 7, 8]].mean(dim=0)
        reached.append(float(_rule(name, sent).abs().max()))
    assert max(reached) > 1e25
