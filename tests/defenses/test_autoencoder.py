"""The autoencoder: its units, its last layer, its exact linear fit, its training, and what it says it explains."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from thornbed.clients.local_training import one_thread
from thornbed.defenses.autoencoder import Autoencoder, explained_variance
from thornbed.defenses.autoencoder_fit import fit_autoencoder


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(n: int = 300, agents: int = 4, dim: int = 3, rank: int = 2, noise: float = 0.0) -> Tensor:
    """Embeddings near a random plane, with unlike scales and means."""
    draw = source(5)
    codes = torch.randn(n, rank, generator=draw, dtype=torch.float64)
    basis = torch.randn(rank, agents * dim, generator=draw, dtype=torch.float64)
    clean = (codes @ basis).view(n, agents, dim)
    clean = clean + noise * torch.randn(clean.shape, generator=draw, dtype=torch.float64)
    return clean * torch.tensor([1.0, 10.0, 0.1, 3.0]).double()[:agents, None] + 5.0


def test_a_plane_is_found_exactly_and_its_points_come_back() -> None:
    given = rows()
    fitted = fit_autoencoder(given, source(), bottleneck=2, drop=0.3)
    assert fitted.explained_variance == pytest.approx(1.0)
    assert fitted.by_agent == pytest.approx([1.0] * 4)
    torch.testing.assert_close(fitted.autoencoder(given), given, rtol=1e-6, atol=1e-6)
    once = fitted.autoencoder(torch.randn(5, 4, 3, generator=source(1), dtype=torch.float64))
    torch.testing.assert_close(fitted.autoencoder(once), once)  # a projection
    assert not any(parameter.requires_grad for parameter in fitted.autoencoder.parameters())


def test_without_blanks_it_is_the_principal_components_of_scaled_embeddings() -> None:
    given = rows(noise=0.5)
    centred = given - given.mean(dim=0)
    scale = centred.square().mean(dim=(0, 2)).sqrt()
    scaled = (centred / scale[:, None]).flatten(1)
    kept = torch.linalg.svd(scaled, full_matrices=False)[2][:2]
    expected = (scaled @ kept.T @ kept).view_as(given) * scale[:, None] + given.mean(dim=0)
    fitted = fit_autoencoder(given, source(), bottleneck=2, drop=0.0)
    torch.testing.assert_close(fitted.autoencoder(given), expected)
    left = (given - expected).square().sum() / centred.square().sum()
    assert fitted.explained_variance == pytest.approx(1 - float(left))
    assert fitted.losses == [pytest.approx(float((scaled - scaled @ kept.T @ kept).square().mean()))]


def test_blanks_prefer_what_agents_share_to_what_one_has_alone() -> None:
    draw = source(2)
    shared = torch.randn(2000, 1, generator=draw, dtype=torch.float64)
    given = torch.randn(2000, 5, 2, generator=draw, dtype=torch.float64) * 0.1
    given[:, :, 0] += shared
    given[:, 0, 1] += 30 * torch.randn(2000, generator=draw, dtype=torch.float64)  # loud, and nobody else's business
    given[:, 0, 0] = 0.0

    def follows(drop: float) -> float:
        """How much of what is shared the single code tells."""
        codes = fit_autoencoder(given, source(), bottleneck=1, drop=drop).autoencoder.encode(given)[:, 0]
        return abs(float(torch.corrcoef(torch.stack([codes, shared[:, 0]]))[0, 1]))

    assert follows(0.5) > 0.99


def test_the_reduced_rank_regression_beats_other_planes_at_its_own_task() -> None:
    given = rows(2000, rank=5, noise=0.5)
    one, other = (fit_autoencoder(given, source(), bottleneck=3, drop=drop).autoencoder for drop in (0.6, 0.0))
    scaled = ((given - one.mean) / one.scale[:, None]).flatten(1)
    blank = (torch.rand(2000, 4, 1, generator=source(9)) >= 0.6).double().expand(-1, -1, 3).flatten(1)

    def best_from_blanked(plane: Autoencoder) -> float:
        """The error of the best linear prediction of all blocks, out of the ones left, inside the plane."""
        basis = plane.output.weight
        blanked = scaled * blank
        solved = torch.linalg.lstsq(blanked, scaled @ basis).solution
        return float((scaled - blanked @ solved @ basis.T).square().mean())

    assert best_from_blanked(one) < best_from_blanked(other) - 1e-3


@pytest.mark.parametrize("hidden", [(16,), (16, 8)])
def test_a_curve_needs_hidden_layers(hidden) -> None:
    angle = 2 * math.pi * torch.rand(600, 1, generator=source(1), dtype=torch.float64)
    turned = torch.cat([angle + shift for shift in (0.0, 1.0, 2.0)], dim=1)
    given = torch.stack([turned.cos(), turned.sin()], dim=2).float()
    with one_thread():
        fitted = fit_autoencoder(given, source(), bottleneck=1, hidden=hidden, drop=0.0, epochs=60, learning_rate=1e-2)
    linear = fit_autoencoder(given, source(), bottleneck=1, drop=0.0)
    assert linear.explained_variance < 0.6
    assert fitted.explained_variance > 0.85
    assert len(fitted.losses) == 60
    assert fitted.losses[-1] < 0.3 * fitted.losses[0]
    assert not fitted.autoencoder.is_affine
    assert linear.autoencoder.is_affine


def test_it_is_made_of_its_generator_alone() -> None:
    state = torch.get_rng_state()
    options = {"bottleneck": 2, "hidden": (5,), "epochs": 2}
    one, same, other = (fit_autoencoder(rows(), source(seed), **options).autoencoder for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.output.weight, other.output.weight)


def test_the_last_layer_spans_the_differences_of_what_is_decoded() -> None:
    deep = Autoencoder(rows().mean(dim=0), torch.tensor([1.0, 2.0, 0.5, 4.0]).double(), 2, source(), hidden=(6,))
    weight, offset = deep.last_layer()
    assert weight.shape == (4, 3, 6)
    codes = torch.randn(3, 2, generator=source(1), dtype=torch.float64)
    inside = deep.decoder[:-1](codes)
    expected = torch.einsum("mdk,nk->nmd", weight, inside) + offset
    torch.testing.assert_close(deep.decode(codes), expected)


def test_shares_of_variance_by_hand() -> None:
    class Half(torch.nn.Module):
        def forward(self, embeddings: Tensor) -> Tensor:
            return torch.stack([embeddings[:, 0] / 2, embeddings[:, 1]], dim=1)

    given = torch.tensor([[[2.0], [1.0]], [[-2.0], [-1.0]]])
    whole, by_agent = explained_variance(Half(), given, torch.zeros(2, 1))
    assert by_agent == [0.75, 1.0]
    assert whole == pytest.approx(1 - 2 / 10)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"bottleneck": 0}, r"1 <= bottleneck <= M \* d = 12: bottleneck = 0"),
        ({"bottleneck": 13}, r"1 <= bottleneck <= M \* d = 12: bottleneck = 13"),
        ({"drop": 1.0}, r"0 <= drop < 1: drop = 1\.0"),
        ({"epochs": 0}, "epochs >= 1 and batch_size >= 1: epochs = 0, batch_size = 64"),
        ({"learning_rate": math.nan}, r"finite learning_rate > 0: learning_rate = nan"),
        ({"hidden": (0,)}, r"widths >= 1: bottleneck = 5, hidden = \(0,\)"),
    ],
)
def test_options_out_of_range_are_refused(wrong, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit_autoencoder(rows(), source(), **{"bottleneck": 5, **wrong})


def test_rows_that_cannot_be_fitted_are_refused() -> None:
    bad = rows()
    bad[3, 1, 2] = math.inf
    with pytest.raises(ValueError, match="finite embeddings: 1 of 300 rows are not"):
        fit_autoencoder(bad, source(), bottleneck=5)
    for wrong in (rows()[:1], rows()[:, 0], rows().long()):
        with pytest.raises(ValueError, match=r"needs embeddings \(N, M, d\) of N >= 2 rows"):
            fit_autoencoder(wrong, source(), bottleneck=5)
    with pytest.raises(ValueError, match=r"mean \(M, d\) and a scale \(M,\) of M agents: mean is \(3,\), scale \(3,\)"):
        Autoencoder(torch.zeros(3), torch.ones(3), 1, source())
    with pytest.raises(ValueError, match=r"finite scales > 0: the smallest is 0\.0"):
        Autoencoder(torch.zeros(2, 3), torch.tensor([0.0, 1.0]), 1, source())
