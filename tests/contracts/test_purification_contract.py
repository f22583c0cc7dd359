"""What every purification keeps to; a new file of defenses/purification is covered without a word here."""

from __future__ import annotations

import doctest
import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import thornbed.defenses.purification
from thornbed.clients.local_training import one_thread
from thornbed.defenses.autoencoder import Autoencoder
from thornbed.defenses.autoencoder_fit import fit_autoencoder
from thornbed.defenses.purification import Purified
from thornbed.defenses.reporting import listening

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.defenses.purification.__path__) if module.name[0] != "_"
)
every_purification = pytest.mark.parametrize("name", NAMES)
ALL = torch.ones(5, dtype=torch.bool)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


def purification(name: str) -> Callable[..., Purified]:
    return getattr(importlib.import_module(f"thornbed.defenses.purification.{name}"), name)


def near_a_plane(n: int = 50) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    codes = torch.randn(n, 2, generator=draw)
    return (codes @ torch.randn(2, 15, generator=draw)).view(n, 5, 3) + 0.1 * torch.randn(n, 5, 3, generator=draw)


def plane() -> Autoencoder:
    return fit_autoencoder(near_a_plane(), torch.Generator().manual_seed(0), bottleneck=2).autoencoder


def test_the_folder_is_not_empty() -> None:
    assert {"copur", "manifold_projection", "unsecured"} <= set(NAMES)


@every_purification
def test_the_signature_is_that_of_the_folder(name: str) -> None:
    parameters = list(inspect.signature(purification(name)).parameters.values())
    assert [parameter.name for parameter in parameters[:3]] == ["embeddings", "observed", "manifold"]
    for option in parameters[3:]:
        assert option.kind is option.KEYWORD_ONLY
        assert option.default is not option.empty
        assert option.annotation is not option.empty


@every_purification
def test_it_says_whether_its_features_are_on_the_manifold(name: str) -> None:
    manifold, sent = plane(), near_a_plane()
    features = purification(name)(sent, torch.ones(5, dtype=torch.bool), manifold).features
    on_it = bool(torch.allclose(manifold(features), features, atol=1e-4))
    assert importlib.import_module(f"thornbed.defenses.purification.{name}").ON_MANIFOLD is on_it


@every_purification
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_have_the_form_of_embeddings_and_input_is_left_alone(name: str, dtype: torch.dtype) -> None:
    sent, state = near_a_plane(6).to(dtype), torch.get_rng_state()
    before, observed = sent.clone(), ALL.clone()
    manifold = plane().to(dtype)
    result = purification(name)(sent, observed, manifold)
    assert result.features.shape == sent.shape
    assert result.features.dtype == dtype
    assert bool(result.features.isfinite().all())
    assert not result.features.requires_grad
    assert torch.equal(sent, before)
    assert torch.equal(observed, ALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert bool(result.usable.all())
    assert bool(result.answered.all())
    torch.testing.assert_close(result.moved, (sent.double() - result.features.double()).norm(dim=2))
    again = purification(name)(sent, observed, manifold)
    assert torch.equal(again.features, result.features)


@every_purification
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_a_block_that_is_not_finite_counts_as_missing_and_is_reported(name: str, bad: float) -> None:
    sent = near_a_plane(4)
    missing = sent.clone()
    sent[1, 2, 0] = bad
    with listening() as figures:
        result = purification(name)(sent, ALL, plane())
    assert bool(result.features.isfinite().all())
    if bad == 3e38:  # large, but its norm is a number in double precision
        assert not bool(result.rejected.any())
        return
    assert result.rejected.nonzero().tolist() == [[1, 2]]
    assert figures["rejected_share"] == pytest.approx(1 / 20)
    assert figures["rejected_by_agent"] == [0, 0, 1, 0, 0]
    silent = ALL.clone()
    silent[2] = False
    expected = purification(name)(missing, silent, plane()).features[1]
    torch.testing.assert_close(result.features[1], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result.features[0], purification(name)(missing, ALL, plane()).features[0])


@every_purification
def test_what_a_silent_agent_would_have_sent_does_not_matter(name: str) -> None:
    observed = torch.tensor([True, False, True, True, True])
    one, other = near_a_plane(3), near_a_plane(3)
    one[:, 1], other[:, 1] = math.nan, 99.0
    results = [purification(name)(sent, observed, plane()) for sent in (one, other)]
    assert torch.equal(results[0].features, results[1].features)
    assert not bool(results[0].rejected.any())
    assert bool(results[0].moved[:, 1].isnan().all())


@every_purification
def test_a_sample_of_which_nothing_is_left_is_not_answered_and_others_are(name: str) -> None:
    sent = near_a_plane(3)
    sent[1] = math.nan
    with listening() as figures:
        result = purification(name)(sent, ALL, plane())
    assert result.answered.tolist() == [True, False, True]
    assert bool(result.features[1].isnan().all())
    assert bool(result.features[[0, 2]].isfinite().all())
    assert figures["unanswered_share"] == pytest.approx(1 / 3)


@every_purification
def test_no_queries_are_no_features(name: str) -> None:
    assert purification(name)(near_a_plane(0), ALL, plane()).features.shape == (0, 5, 3)


@every_purification
@pytest.mark.parametrize(
    ("sent", "observed", "sentence"),
    [
        (torch.zeros(2, 15), ALL, r"floating-point embeddings \(n, M, d\): torch.float32 \(2, 15\)"),
        (torch.zeros(2, 5, 3, dtype=torch.int64), ALL, "floating-point embeddings"),
        (torch.zeros(2, 5, 4), ALL, r"they have \(5, 4\), the manifold \(5, 3\)"),
        (torch.zeros(2, 4, 3), ALL, r"they have \(4, 3\), the manifold \(5, 3\)"),
        (torch.zeros(2, 5, 3), ALL[:4], r"M = 5, observed is torch.bool \(4,\)"),
        (torch.zeros(2, 5, 3), torch.ones(5), r"M = 5, observed is torch.float32 \(5,\)"),
        (torch.zeros(2, 5, 3), ~ALL, "at least one observed agent: M = 5, observed = 0"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, sent: Tensor, observed: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} needs .*{sentence}"):
        purification(name)(sent, observed, plane())


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(thornbed.defenses.purification)
    assert result.attempted >= 7
    assert result.failed == 0
