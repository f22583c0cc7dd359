"""What every aggregation rule keeps to; a new file of defenses/aggregation is covered without a word here.

A rule that is not in `CLAIMS` gets the general checks. Its line there adds what it claims beyond them; where a rule
has NOT a property, the reason stands in the line and a test shows that the property is really missing.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch
from torch import Tensor

import thornbed.defenses.aggregation
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Server, aggregate

Rule = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What one rule claims, with its default options unless `make` builds it otherwise.

    translation: rule(u + v) = rule(u) + v. scale: rule(c u) = c rule(u) for c > 0. withstands: of 20 clients so many
    may send anything and each coordinate stays between the honest extremes, or is 0. ignores_weights: whatever is
    claimed. reports: the names told to `defenses.reporting`. A string in place of True is the reason why the rule has
    not the property. waived: general checks that the rule cannot hold, each with its reason.
    """

    translation: bool | str | None = None
    scale: bool | str | None = None
    ignores_weights: bool | str | None = None
    withstands: int | None = None
    reports: tuple[str, ...] | None = None
    make: Callable[[], Rule] | None = None
    waived: Mapping[str, str] = field(default_factory=dict)


SIGNS = "the mask reads signs, and a translation changes them"
CLAIMS = {
    "fedavg": Claims(
        translation=True, scale=True, ignores_weights="it is the mean by these weights", withstands=0, reports=()
    ),
    "invariant": Claims(
        translation=SIGNS,
        scale=True,
        ignores_weights=True,
        withstands=5,
        reports=("masked_share", "trimmed_per_tail"),
    ),
    "and_mask": Claims(translation=SIGNS, scale=True, ignores_weights=True, withstands=0, reports=("masked_share",)),
    "trimmed_mean": Claims(
        translation=True, scale=True, ignores_weights=True, withstands=5, reports=("trimmed_per_tail",)
    ),
    "median": Claims(translation=True, scale=True, ignores_weights=True, withstands=9, reports=("trimmed_per_tail",)),
    "krum": Claims(
        translation=True,
        scale=True,
        ignores_weights=True,
        withstands=8,
        reports=("selected", "scores", "num_byzantine"),
    ),
    "multi_krum": Claims(
        translation=True,
        scale=True,
        ignores_weights=True,
        withstands=8,
        reports=("selected", "scores", "num_byzantine"),
    ),
    # Its own tests show that it follows neither a translation nor, by length, an honest range.
    "multi_krum_cosine": Claims(
        scale=True,
        ignores_weights=True,
        reports=("selected", "scores", "num_byzantine"),
    ),
    "krum_trimmed_mean": Claims(
        translation=True,
        scale=True,
        ignores_weights=True,
        withstands=8,
        reports=("selected", "scores", "num_byzantine", "trimmed_per_tail"),
    ),
    "sign_sgd": Claims(  # the result is one step long everywhere, in the honest range or not
        translation=SIGNS,
        scale=True,
        ignores_weights=True,
        reports=("overruled_share", "step_size"),
        waived={"unanimity": "only the signs of what all send remain", "steps": "shown by its own test"},
    ),
    "rlr": Claims(
        translation=SIGNS,
        scale=True,
        ignores_weights="it is the mean by these weights, with signs flipped",
        withstands=0,
        reports=("flipped_share",),
    ),
    "rfa": Claims(  # it stays near the honest updates, but not between them: tests/defenses/aggregation/test_rfa.py
        translation=True,
        scale=True,
        ignores_weights=True,
        reports=("downweighted_share", "weiszfeld_weights", "iterations"),
    ),
    "mean_variance_ratio": Claims(
        translation="a translation changes the mean and not the variance",
        scale=True,
        ignores_weights=True,
        withstands=5,
        reports=("masked_share", "trimmed_per_tail"),
    ),
    "norm_clipping": Claims(  # it bounds the length of what each client adds, not the coordinate it adds it to
        translation="a translation changes the norms",
        scale=True,
        ignores_weights=True,
        reports=("clipped_share", "norms", "clip_norm"),
    ),
    "bulyan": Claims(
        translation=True, scale=True, ignores_weights=True, withstands=4, reports=("selected", "num_byzantine")
    ),
    "weak_dp": Claims(
        translation="clipping pulls towards 0",
        scale="the noise keeps its size",
        ignores_weights=True,
        reports=("clipped_share", "noise_share"),
        waived={"unanimity": "noise is added"},
    ),
    "sparse_fed": Claims(
        translation="clipping pulls towards 0, and a translation changes which coordinates are large",
        scale=True,
        ignores_weights=True,
        reports=("masked_share", "clipped_share"),
        waived={"unanimity": "only the largest coordinates are taken"},
    ),
    "fltrust": Claims(
        translation="trust reads angles from 0",
        scale="every update is given the length of the root update",
        ignores_weights=True,
        reports=("trust_scores", "distrusted_share", "withheld_share"),
        waived={"unanimity": "the result has the length of the root update"},
    ),
    "centered_clipping": Claims(
        translation="the first round clips around 0",
        scale=True,
        ignores_weights=True,
        reports=("clipped_share",),
    ),
    "foolsgold": Claims(
        scale=True,
        ignores_weights=True,
        reports=("learning_rates", "slowed_share"),
        waived={
            "unanimity": "clients who all send the same are what it takes for sybils",
            "steps": "the same; shown by its own test",
        },
    ),
    "flame": Claims(
        translation="the cluster reads angles from 0",
        scale=True,
        ignores_weights=True,
        withstands=9,
        reports=("selected", "clipped_share"),
        waived={"unanimity": "noise is added"},
    ),
}
NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.defenses.aggregation.__path__) if module.name[0] != "_"
)


def module_called(name: str) -> object:
    return importlib.import_module(f"thornbed.defenses.aggregation.{name}")


def rule_called(name: str) -> Rule:
    """Build the rule afresh, so that a rule with memory begins without any."""
    claims = CLAIMS.get(name, Claims())
    if claims.make is not None:
        return claims.make()
    rule = getattr(module_called(name), name)

    def afresh(updates: Tensor, weights: Tensor) -> Tensor:
        return aggregate(rule, updates, weights, server_of(updates))

    return afresh


def server_of(updates: Tensor) -> Server:
    """Make a server without memories, whose trusted data say what honest clients say."""
    n, d = updates.shape if updates.ndim == 2 else (1, 1)
    return Server(
        clients=range(n),
        generator=torch.Generator().manual_seed(7),
        root_update=lambda num_samples: updates_of(n, d)[0],
    )


def claimed(name: str, property_: str) -> bool:
    """Tell whether the property holds; skip where nothing is said about it."""
    value = getattr(CLAIMS.get(name, Claims()), property_)
    if value is None:
        pytest.skip(f"{name} says nothing about {property_}")
    return value is True


def unless_waived(name: str, check: str) -> None:
    reason = CLAIMS.get(name, Claims()).waived.get(check)
    if reason is not None:
        pytest.skip(reason)


def updates_of(n: int, d: int, seed: int = 0) -> Tensor:
    """Make honest updates: a common direction in most coordinates and noise of every client in all of them."""
    generator = torch.Generator().manual_seed(1000 * n + d + seed)
    direction = torch.randn(d, generator=generator)
    return 0.01 * (direction + torch.randn(n, d, generator=generator))


def equal(n: int) -> Tensor:
    return torch.full((n,), 1 / n)


def claims_of_size(n: int) -> Tensor:
    weights = torch.arange(1.0, n + 1)
    return weights / weights.sum()


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def test_the_folder_holds_the_rules_of_this_house() -> None:
    assert set(CLAIMS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(module_called(name)) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")


@pytest.mark.parametrize("name", NAMES)
def test_updates_and_weights_come_first_and_options_are_annotated_keywords_with_defaults(name: str) -> None:
    rule = getattr(module_called(name), name)
    parameters = list(inspect.signature(rule).parameters.values())
    given = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert given in (["updates", "weights"], ["updates", "weights", "server"])
    options = parameters[len(given) :]
    for option in options:
        assert option.kind is option.KEYWORD_ONLY
        assert option.annotation is not option.empty
        assert option.default is not option.empty or name in CLAIMS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "d"), [(3, 1), (4, 7), (20, 1000), (50, 3)])
def test_shape_and_dtype(name: str, n: int, d: int) -> None:
    result = rule_called(name)(updates_of(n, d), equal(n))
    assert result.shape == (d,)
    assert result.dtype == torch.float32
    assert result.isfinite().all()
    assert not result.requires_grad


DOUBLE = torch.float64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "d"), [(4, 7), (20, 1000)])
def test_float64_gives_float64(name: str, n: int, d: int) -> None:
    result = rule_called(name)(updates_of(n, d).double(), equal(n).double())
    assert result.shape == (d,)
    assert result.dtype == DOUBLE
    assert result.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("memory", [1, 3])
def test_float64_keeps_what_float32_would_round_away(name: str, memory: int) -> None:
    """Updates near 1 with steps of 1e-9 come out with those steps, also from what the rule remembers."""
    unless_waived(name, "steps")
    options = {"flame": {"noise": 0.0}, "weak_dp": {"noise": 0.0}, "sparse_fed": {"top_k": 1.0}}.get(name, {})
    steps = 1e-9 * torch.arange(8, dtype=DOUBLE).sub(3.5)
    rule, server = partial(getattr(module_called(name), name), **options), server_of(updates_of(9, 8))
    server = replace(server, root_update=lambda num_samples: 1 + steps)
    # Of no two clients the same, and all of them so near each other that no mask and no tail takes anything away.
    updates = 1 + steps + 1e-11 * torch.randn(9, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(updates.float(), torch.ones(9, 8))
    for _ in range(memory):
        result = aggregate(rule, updates, equal(9).double(), server)
    found = result / result.mean()  # of any length: what is asked for is the direction
    torch.testing.assert_close(found, (1 + steps) / (1 + steps).mean(), rtol=0, atol=2e-10)


@pytest.mark.parametrize("name", NAMES)
def test_float64_beyond_the_range_of_float32_is_refused_not_overflowed(name: str) -> None:
    """Squares of float64 have no room in float64: a length of infinity would make an angle of NaN."""
    updates = updates_of(9, 30).double()
    updates[4, 7] = -3.5e38
    with pytest.raises(ValueError, match=rf"^{name} needs float64 updates of values within 3\.40282e\+38"):
        rule_called(name)(updates, equal(9).double())
    updates[4, 7] = -3.4e38
    assert rule_called(name)(updates, equal(9).double()).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_left_alone_and_the_result_is_not_their_memory(name: str) -> None:
    updates, weights = updates_of(9, 400), claims_of_size(9)
    before = updates.clone(), weights.clone()
    rule_called(name)(updates, weights).fill_(7.0)
    assert torch.equal(updates, before[0])
    assert torch.equal(weights, before[1])


@pytest.mark.parametrize("name", NAMES)
def test_twice_the_same_bytes(name: str) -> None:
    unless_waived(name, "twice the same bytes")
    updates, weights = updates_of(9, 400), claims_of_size(9)
    first = rule_called(name)(updates, weights)
    assert torch.equal(first, rule_called(name)(updates, weights))


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_threads_changes_no_byte(name: str) -> None:
    updates, weights, threads = updates_of(7, 200_001), claims_of_size(7), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = rule_called(name)(updates, weights)
        torch.set_num_threads(3)
        together = rule_called(name)(updates, weights)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, together)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["transposed", "every other column", "every other row", "a window"])
def test_any_layout_in_memory_gives_the_same_result(name: str, layout: str) -> None:
    updates, weights = updates_of(9, 700), equal(9)
    if layout == "transposed":
        laid_out = updates.T.contiguous().T
    elif layout == "every other column":
        laid_out = updates.repeat_interleave(2, dim=1)[:, ::2]
    elif layout == "every other row":
        laid_out = updates.repeat_interleave(2, dim=0)[::2]
    else:
        laid_out = torch.cat([updates, updates], dim=1)[:, 700:]
    assert not laid_out.is_contiguous()
    there, here = rule_called(name)(laid_out, weights), rule_called(name)(updates, weights)
    if name in CLAIMS:
        assert torch.equal(there, here)
    else:  # numpy and torch sum in an order that follows the layout: no fault of a rule that uses them
        torch.testing.assert_close(there, here, rtol=1e-6, atol=1e-9)
    assert torch.equal(laid_out, updates)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [4, 9, 20])
def test_the_order_of_the_clients_does_not_matter(name: str, n: int) -> None:
    unless_waived(name, "permutation")
    updates, weights = updates_of(n, 300), claims_of_size(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(n))
    there, here = rule_called(name)(updates[order], weights[order]), rule_called(name)(updates, weights)
    torch.testing.assert_close(there, here, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [3, 4, 20])
def test_what_all_clients_send_is_the_result(name: str, n: int) -> None:
    unless_waived(name, "unanimity")
    row = updates_of(1, 300)[0]
    row[::7] = 0.0
    result = rule_called(name)(row.expand(n, 300).contiguous(), claims_of_size(n))
    torch.testing.assert_close(result, row, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_translated_updates_translate_the_result(name: str) -> None:
    held = claimed(name, "translation")
    updates, weights = updates_of(9, 300), claims_of_size(9)
    shift = 0.02 * torch.randn(300, generator=torch.Generator().manual_seed(5))
    error = apart(rule_called(name)(updates + shift, weights), rule_called(name)(updates, weights) + shift)
    assert (error < 1e-7) == held


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [2.0**-20, 1e-3, 3.0, 2.0**20])
def test_scaled_updates_scale_the_result(name: str, factor: float) -> None:
    held = claimed(name, "scale")
    updates, weights = updates_of(9, 300), claims_of_size(9)
    scaled, result = rule_called(name)(factor * updates, weights), rule_called(name)(updates, weights)
    assert (apart(scaled, factor * result) <= 1e-6 * factor * float(updates.abs().max())) == held
    if held and factor in (2.0**-20, 2.0**20):
        assert torch.equal(scaled, factor * result)  # a power of two rounds nothing


@pytest.mark.parametrize("name", NAMES)
def test_what_clients_claim_is_ignored(name: str) -> None:
    held = claimed(name, "ignores_weights")
    updates = updates_of(9, 300)
    greedy = torch.tensor([0.92] + [0.01] * 8)
    assert torch.equal(rule_called(name)(updates, greedy), rule_called(name)(updates, equal(9))) == held


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attack", ["one far point", "far and scattered", "every sign flipped, far"])
@pytest.mark.parametrize("size", [1e2, 1e8, 1e30])
def test_a_minority_cannot_lead_the_result_out_of_the_honest_range(name: str, attack: str, size: float) -> None:
    number = CLAIMS.get(name, Claims()).withstands
    if number is None:
        pytest.skip(f"{name} says nothing about withstands")
    updates = updates_of(20, 500)
    generator = torch.Generator().manual_seed(6)
    order = torch.randperm(20, generator=generator)
    bad, honest = order[: max(1, number)], order[max(1, number) :]
    if attack == "one far point":
        updates[bad] = size
    elif attack == "far and scattered":
        updates[bad] = size * torch.randn(len(bad), 500, generator=generator)
    else:
        updates[bad] = -size * updates[honest].mean(0).sign()
    result = rule_called(name)(updates, equal(20))
    low, high = updates[honest].min(0).values, updates[honest].max(0).values
    slack = 1e-6 * (high - low)
    inside = ((result >= low - slack) & (result <= high + slack)) | (result == 0)
    assert bool(inside.all()) == (number > 0)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_did(name: str) -> None:
    names = CLAIMS.get(name, Claims()).reports
    updates = updates_of(20, 500)
    updates[3] *= -50  # far away, and in the other direction
    with listening() as figures:
        rule_called(name)(updates, equal(20))
    if names is None:
        assert figures
        return
    assert tuple(figures) == names
    for figure, value in figures.items():  # a defense that did nothing would report zeros or every client
        if figure == "masked_share":
            assert 0 < value < 1
        elif figure == "selected":
            assert 3 not in value
            assert 1 <= len(value) < 20
        elif figure in ("scores", "norms"):
            assert max(range(20), key=value.__getitem__) == 3
        elif figure == "weiszfeld_weights":
            assert min(range(20), key=value.__getitem__) == 3
            assert sum(value) == pytest.approx(1)
        elif isinstance(value, list):
            assert len(value) == 20
            assert len(set(value)) > 1
        else:
            assert value > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("updates", "weights", "said"),
    [
        (torch.zeros(9), equal(9), "1"),
        (torch.zeros(9, 2, 2), equal(9), "3"),
        (torch.zeros(9, 2).half(), equal(9), "float16"),
        (torch.zeros(0, 2), torch.zeros(0), "0"),
        (torch.zeros(9, 2), equal(8), "8"),
    ],
    ids=["a vector", "a block", "float16", "no clients", "too few weights"],
)
def test_refusals_name_the_rule_and_what_was_given(name: str, updates: Tensor, weights: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} .*{said}"):
        rule_called(name)(updates, weights)
