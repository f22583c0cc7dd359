"""What the autoencoder learns: its loss and its triplets on hand-made numbers, its vote on made-up rows."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from thornbed.attacks.vertical._inference import LabelInference
from thornbed.attacks.vertical._triplets import batch_hard
from thornbed.attacks.vertical._vae import Vae, divergence


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inference(**changes) -> LabelInference:
    given = {
        "attack": "it",
        "layers": "linear",
        "latent": 4,
        "hidden": 32,
        "margin": 0.4,
        "triplet_weight": 1.0,
        "rebuilding": 0.9,
        "confidence": 0.9,
        "epochs": 300,
        "steps": 300,
        "learning_rate": 3e-3,
    }
    return LabelInference(**{**given, **changes})


def test_the_hardest_positive_and_the_hardest_negative_are_mined() -> None:
    #  positives on a line at 0, 1 and 3; negatives at (0, 2) and (5, 0)
    positives = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    negatives = torch.tensor([[0.0, 2.0], [5.0, 0.0]])
    # farthest positive: 9, 4, 9; nearest negative: 4, 5, 4
    assert batch_hard(positives, negatives, 0.25).tolist() == [5.25, 0.0, 5.25]
    assert batch_hard(positives, negatives, 2.0).tolist() == [7.0, 1.0, 7.0]
    far = batch_hard(positives, negatives + 100, 0.4)
    assert far.tolist() == [0.0, 0.0, 0.0]
    for few in ((positives[:1], negatives), (positives, negatives[:0])):
        with pytest.raises(ValueError, match=f"one of another: {len(few[0])} and {len(few[1])}"):
            batch_hard(*few, 0.4)


def test_batch_hard_is_the_slow_truth_over_all_triplets() -> None:
    positives, negatives = torch.randn(7, 3, generator=source(1)), torch.randn(9, 3, generator=source(2))
    for anchor, loss in zip(positives, batch_hard(positives, negatives, 0.4)):
        worst = max(
            float((anchor - near).square().sum() - (anchor - far).square().sum())
            for near in positives
            for far in negatives
        )
        assert float(loss) == pytest.approx(max(worst + 0.4, 0.0), abs=1e-5)


def test_the_divergence_is_that_of_torchs_normal_distributions() -> None:
    mu, log_variance = torch.randn(5, 3, generator=source(1)), torch.randn(5, 3, generator=source(2))
    normal = torch.distributions.Normal(mu, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(divergence(mu, log_variance), expected)
    assert not bool(divergence(torch.zeros(2, 3), torch.zeros(2, 3)).any())


def test_the_loss_weighs_the_rebuilt_and_the_divergence() -> None:
    vae = Vae((2, 3, 5), 4, layers="convolutions", hidden=8, bounded=True)
    x = torch.rand(6, 2, 3, 5, generator=source(1))
    mu, log_variance = vae.encode(x)
    assert mu.shape == log_variance.shape == (6, 4)
    certain = torch.full_like(log_variance, -60.0)  # no noise is left, and what is decoded is that of mu
    decoded = vae.decode(mu)
    assert decoded.shape == x.shape
    assert 0 <= float(decoded.detach().min()) <= float(decoded.detach().max()) <= 1
    rebuilt = (decoded - x).square().flatten(1).sum(dim=1)
    expected = 0.7 * rebuilt + 0.3 * divergence(mu, certain)
    torch.testing.assert_close(vae.loss(x, mu, certain, 0.7, source()), expected)


@pytest.mark.parametrize("layers", ["linear", "convolutions"])
def test_an_adversary_finds_the_targets_rows_in_what_it_holds_with_its_neighbours(made, layers) -> None:
    view = made()
    own = torch.cat([view.x.view(-1, 1, 4, 3), view.shared[4].view(-1, 1, 4, 3)], dim=3)
    features = own.flatten(1) if layers == "linear" else own
    quick = inference(layers=layers, epochs=250 if layers == "linear" else 200)
    rows = quick.rows(features, view.known, view.labels, 2, 3, source())
    truth = torch.arange(2, 120, 3)
    found = torch.isin(rows, truth)
    assert bool(torch.isin(view.known_targets, rows).all())
    assert float(found.double().mean()) > 0.9
    assert int(found.sum()) > 25  # of 40, ten of which it was told
    assert torch.equal(rows, quick.rows(features, view.known, view.labels, 2, 3, source()))


def test_only_what_it_is_sure_of_counts_and_nothing_but_what_it_was_told_where_it_is_never_sure(made) -> None:
    view = made()
    sure = inference(confidence=1 - 1e-7, epochs=20)
    assert sure.rows(view.x, view.known, view.labels, 2, 3, source()).tolist() == view.known_targets.tolist()
    wrong = made(labels=(torch.arange(30) + 1) % 3)  # told otherwise, it finds another class
    rows = inference().rows(wrong.x, wrong.known, wrong.labels, 2, 3, source())
    assert float((rows % 3 == 1).double().mean()) > 0.9


def test_what_is_generated_looks_like_what_was_given_and_not_like_the_others(made) -> None:
    view = made()
    own = view.x[2::3].view(-1, 1, 4, 3)
    new = inference().generated(own, 64, source())
    assert new.shape == (64, 1, 4, 3)
    columns = new.mean(dim=(0, 1, 2))
    assert float(columns[2] - columns[:2].max()) > 0.4
    assert len({tuple(each.flatten().tolist()) for each in new}) == 64
    assert torch.equal(new, inference().generated(own, 64, source()))


def test_torchs_own_generator_is_left_alone(made) -> None:
    view, state = made(), torch.get_rng_state()
    inference(epochs=1, steps=1).rows(view.x, view.known, view.labels, 2, 3, source())
    inference(epochs=1, steps=1).generated(view.x, 3, source())
    assert torch.equal(torch.get_rng_state(), state)


def test_fewer_known_labels_than_a_triplet_needs_are_refused(made) -> None:
    for labels in (torch.tensor([2] + [0] * 29), torch.tensor([2] * 30)):
        view = made(labels=labels)
        with pytest.raises(ValueError, match="it needs two known labels of the target class and one of another"):
            inference().rows(view.x, view.known, view.labels, 2, 3, source())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"margin": -1.0}, "finite margin >= 0: margin = -1.0"),
        ({"triplet_weight": math.inf}, "finite triplet_weight >= 0: triplet_weight = inf"),
        ({"rebuilding": 1.0}, "0 < rebuilding < 1: rebuilding = 1.0"),
        ({"confidence": 0.0}, "0 < confidence < 1: confidence = 0.0"),
        ({"latent": 0}, "latent >= 1: latent = 0"),
        ({"epochs": 0}, "epochs >= 1: epochs = 0"),
        ({"learning_rate": 0.0}, "finite learning_rate > 0: learning_rate = 0.0"),
    ],
)
def test_options_out_of_range_are_refused(wrong, sentence) -> None:
    with pytest.raises(ValueError, match=f"it needs .*{sentence}"):
        inference(**wrong)
    with pytest.raises(ValueError, match="layers out of linear, convolutions: layers = other"):
        Vae((4,), 2, layers="other", hidden=2, bounded=True)
    with pytest.raises(ValueError, match=r"features of shape \(C, h, w\): they have \(4,\)"):
        Vae((4,), 2, layers="convolutions", hidden=2, bounded=True)


def test_the_triplet_loss_pulls_the_targets_together_in_mu(made) -> None:
    """Equation 4 against Equation 2: the hardest triplets of mu are fewer with the loss than without."""
    view = made()
    own, others = view.x[view.known_targets], view.x[view.known[view.labels != 2]]
    left = []
    for weight in (0.0, 5.0):
        made_of = inference(triplet_weight=weight, margin=2.0)
        vae = made_of._autoencoder(view.x, source(3))
        made_of._fit(vae, own, others, source(4))
        with torch.no_grad():
            left.append(float(F.relu(batch_hard(vae.encode(own)[0], vae.encode(others)[0], 2.0)).mean()))
    assert left[1] < 0.5 * left[0]
