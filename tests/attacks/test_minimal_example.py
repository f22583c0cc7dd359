"""An attack on a model without any engine, in the lines a user would write; and the example of the documentation."""

from __future__ import annotations

import doctest

import torch
from torch import nn

import thornbed.attacks.data
from thornbed.attacks.data.pixel_trigger import PixelTrigger
from thornbed.clients.local_training import evaluate, one_thread, train
from thornbed.clients.optimizers.sgd import sgd
from thornbed.tasks import Samples


def success_rate(fraction: float) -> tuple[float, float]:
    """Train on two classes, dark above and dark below, and return accuracy and attack success rate."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    x = torch.rand(400, 1, 8, 8, generator=generator) * 0.5
    x[y == 0, :, :4] += 0.3
    x[y == 1, :, 4:] += 0.3
    samples = Samples(x, y)
    attack = PixelTrigger(size=2, place="top_right", target=1, fraction=fraction)
    attack.check(num_classes=2, sample_shape=(1, 8, 8))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    train(
        model,
        attack.poison(samples, generator),
        optimizer=lambda parameters: sgd(parameters, 0.1, momentum=0.9),
        batch_size=32,
        epochs=10,
        generator=generator,
    )
    attacked = attack.measure(samples)
    assert attacked is not None
    return evaluate(model, samples)[1], evaluate(model, attacked)[1]


def test_the_backdoor_is_planted_and_the_control_has_none() -> None:
    with one_thread():
        (accuracy, rate), control = success_rate(fraction=0.25), success_rate(fraction=0.0)
    assert accuracy > 0.95
    assert rate > 0.95
    accuracy, rate = control
    assert accuracy > 0.95
    assert rate < 0.2


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(thornbed.attacks.data)
    assert result.attempted >= 9
    assert result.failed == 0
