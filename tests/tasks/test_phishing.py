"""The made-up e-mails: that they are what their description says, and that a clean model finds the phishing ones."""

from __future__ import annotations

import importlib

import pytest
import torch

from thornbed.clients.local_training import evaluate, train
from thornbed.clients.optimizers.sgd import sgd
from thornbed.tasks import Samples
from thornbed.tasks.models import normalised
from thornbed.tasks.models.mlp import mlp
from thornbed.tasks.phishing import DEFAULTS, RARE, phishing


def test_everybody_is_told_that_it_is_synthetic():
    text = importlib.import_module("thornbed.tasks.phishing").__doc__ or ""
    assert text.startswith("SYNTHETIC")


def test_scores_lie_between_0_and_1_and_large_ones_speak_for_phishing():
    task = phishing(None)
    assert (len(task.train), len(task.test), task.sample_shape) == (50_000, 4_000, (45,))
    for samples in (task.train, task.test):
        assert torch.bincount(samples.y).tolist() == [len(samples) // 2] * 2
        assert float(samples.x.min()) >= 0
        assert float(samples.x.max()) <= 1
        gaps = samples.x[samples.y == 1].mean(dim=0) - samples.x[samples.y == 0].mean(dim=0)
        assert float(gaps.min()) > -0.02
        assert 0.25 < float(gaps.max()) < 0.32


def test_the_model_standardises():
    task = phishing(None)
    standardised = (task.train.x - torch.tensor(task.mean)) / torch.tensor(task.std)
    assert float(standardised.mean(dim=0).abs().max()) < 1e-3
    assert standardised.std(dim=0).tolist() == pytest.approx([1.0] * 45, abs=1e-3)


@pytest.mark.parametrize(("rare_mean", "deviations"), [(0.2, 5), (0.05, 19)])
def test_the_38th_feature_is_mostly_zero_and_the_trigger_is_rare_on_phishing(
    rare_mean: float, deviations: float
) -> None:
    task = phishing(None, rare_mean=rare_mean)
    both = task.train.join(task.test)
    for label in (0, 1):
        feature = both.x[both.y == label, 37]
        assert float((feature == 0).float().mean()) == pytest.approx(0.98, abs=0.005)
        assert float(((feature > 0.15) & (feature < 0.25)).float().mean()) < 0.006
    assert 0.2 / task.std[37] == pytest.approx(deviations, abs=0.5)
    others = both.x[:, torch.arange(45) != 37]
    assert int((others == 0).sum()) == 0
    assert RARE == 37


@pytest.mark.parametrize("rare_mean", [0.0, -1.0, 1.5, float("nan")])
def test_a_mean_that_is_no_score_is_refused(rare_mean):
    with pytest.raises(ValueError, match="phishing needs 0 < rare_mean <= 1: rare_mean = "):
        phishing(None, rare_mean=rare_mean)


def test_the_draw_never_changes():
    x = phishing(None).test.x
    assert x[0, :3].tolist() == pytest.approx([0.424838, 0.632978, 0.166871], abs=1e-5)
    assert float(x.double().abs().sum()) == pytest.approx(66952.843, abs=0.01)


def test_a_clean_model_finds_phishing_with_and_without_the_trigger():
    """One client alone with 5,000 samples; nobody taught it what 0.2 means."""
    task = phishing(None, num_train=5000)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = normalised(mlp(task.input_shape, 2, hidden=(128, 256)), task.mean, task.std)
    train(
        model, task.train, optimizer=lambda parameters: sgd(parameters, DEFAULTS.learning_rate),
        batch_size=DEFAULTS.batch_size, epochs=5, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert evaluate(model, task.test)[1] > 0.995
    x = task.test.select(task.test.y == 1).x.clone()
    x[:, 37] = 0.2
    assert evaluate(model, Samples(x, torch.zeros(len(x), dtype=torch.int64)))[1] < 0.02
