"""The objective against slow ones in float64: distances, layer weights, one batch, local steps, several views."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thornbed.attacks.inversion import InversionWarning, gradient_of_update
from thornbed.attacks.inversion._network import Network
from thornbed.attacks.inversion._problem import Objective, ObservedView, Problem, alone, total_variation, weigh_all

COSINE = Objective(distance="cosine", local_steps="one_batch", total_variation=0.0)
L2 = Objective(distance="l2", local_steps="one_batch", total_variation=0.0)


def slow_gradient(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, list[float]]:
    """Return plain lists, by name, so that nothing of the code that is tested is used on them."""
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    return {name: g.flatten().tolist() for (name, _), g in zip(model.named_parameters(), gradients, strict=True)}


def slow_cosine(one: dict[str, list[float]], other: dict[str, list[float]], weights: dict[str, float]) -> float:
    """Return 1 - Equation 6, number by number."""
    dot = sum(weights[k] * math.fsum(a * b for a, b in zip(one[k], other[k], strict=True)) for k in weights)
    sizes = [sum(weights[k] * math.fsum(a * a for a in each[k]) for k in weights) for each in (one, other)]
    return 1 - dot / (math.sqrt(sizes[0]) * math.sqrt(sizes[1]))


@pytest.mark.parametrize("mode", ["evaluation", "training"])
def test_the_weighted_cosine_is_equation_six(mode, network, observe, images) -> None:
    model, y = network(), torch.tensor([3, 0])
    seen = observe(model, images(2), y, batch_norm=mode, mean=(0.4, 0.6), std=(0.5, 2.0))
    guess = images(2, seed=9)
    weights = {name: 0.5 + i for i, name in enumerate(seen.gradient)}
    weights["1.bias"] = 0.0
    deviation, mean = guess.new_tensor([0.5, 2.0]).view(2, 1, 1), guess.new_tensor([0.4, 0.6]).view(2, 1, 1)
    pixels = guess * deviation + mean
    model.train(mode == "training")
    target = {name: tensor.flatten().tolist() for name, tensor in seen.gradient.items()}
    expected = slow_cosine(slow_gradient(model, pixels, y), target, weights)
    found = COSINE.of([alone(seen, y, weights)])(guess[None])
    assert found.shape == (1,)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    # and the weights matter: without them the number is another
    assert abs(float(COSINE.of([alone(seen, y, weigh_all(model))])(guess[None])) - expected) > 1e-4


def test_the_l2_distance_is_the_sum_of_squares(network, observe, images) -> None:
    model, y = network().eval(), torch.tensor([3])
    seen = observe(model, images(1), y)
    guess = images(1, seed=9)
    slow = slow_gradient(model, guess, y)
    expected = math.fsum(
        (a - b) ** 2 for name, g in slow.items() for a, b in zip(g, seen.gradient[name].flatten().tolist(), strict=True)
    )
    assert float(L2.of([alone(seen, y, weigh_all(model))])(guess[None])) == pytest.approx(expected, rel=1e-9)


def test_the_truth_has_distance_zero(network, observe, images) -> None:
    x, y = images(2), torch.tensor([1, 2])
    for mode in ("evaluation", "training"):
        seen = observe(network(), x, y, batch_norm=mode)
        for objective in (COSINE, L2):
            assert abs(float(objective.of([alone(seen, y, weigh_all(seen.model))])(x[None]))) < 1e-12


def test_batch_norm_of_the_other_mode_does_not_explain_the_gradient(network, observe, images) -> None:
    x, y = images(2), torch.tensor([1, 2])
    seen = observe(network(), x, y, batch_norm="training")
    other = observe(network(), x, y)
    wrong = alone(type(seen)(**{**vars(seen), "gradient": other.gradient}), y, weigh_all(seen.model))
    assert float(COSINE.of([wrong])(x[None])) > 1e-3


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0, 1.0], [0.0, 3.0, 0.0]]]]).repeat(2, 1, 1, 1, 1)
    # rows: 1, 0, 3, 3 of four differences; columns: 0, 2, 1 of three
    assert total_variation(image).tolist() == pytest.approx([7 / 4 + 3 / 3] * 2)
    assert total_variation(torch.ones(1, 1, 1, 1, 1)).tolist() == [0.0]


@pytest.fixture
def trained(network, images):
    """Return a function: the true mean gradient of local steps at a learning rate, by plain training."""

    def run(rate: float, steps: int, batch: int | tuple[int, ...], n: int = 4):
        model, x, y = network(norm=False).eval(), images(n), torch.tensor([3, 0, 1, 2])[:n]
        local = network(norm=False).eval()
        optimizer = torch.optim.SGD(local.parameters(), lr=rate)
        batches = torch.arange(n).split(batch)
        for step in range(steps):
            rows = batches[step % len(batches)]
            optimizer.zero_grad()
            F.cross_entropy(local(x[rows]), y[rows]).backward()
            optimizer.step()
        sent, received = dict(model.named_parameters()), dict(local.named_parameters())
        return model, x, y, gradient_of_update(sent, received, learning_rate=rate, local_steps=steps)

    return run


@pytest.mark.parametrize(("steps", "batch"), [(1, 4), (2, 2), (4, 1), (3, 2), (2, 3), (2, (1, 3)), (5, (1, 1, 2))])
def test_simulation_gives_what_training_gave(steps, batch, trained, observe) -> None:
    model, x, y, gradient = trained(0.3, steps, batch)
    seen = observe(model, x, y, gradient=gradient, learning_rate=0.3, local_steps=steps, batch_size=batch)
    objective = Objective(distance="l2", local_steps="simulated", total_variation=0.0)
    assert float(objective.of([alone(seen, y, weigh_all(model))])(x[None])) < 1e-20


def test_one_simulated_step_is_the_gradient(network, images) -> None:
    model, x, y = network(norm=False), images(4), torch.tensor([3, 0, 1, 2])
    observation = type("Seen", (), {"model": model, "batch_norm": "evaluation"})()
    pure = Network(observation)
    plain = pure.gradient(pure.parameters, pure.buffers, x, y)
    one = pure.mean_gradient(pure.parameters, pure.buffers, x, y, [torch.arange(4)], 7.0)
    assert all(torch.equal(plain[name], one[name]) for name in plain)


@pytest.mark.parametrize(("rate", "low", "high"), [(1e-6, 0.0, 1e-9), (1e-2, 1e-8, 1e-2), (0.5, 1e-2, 2.0)])
def test_one_batch_explains_small_steps_and_not_large_ones(rate, low, high, trained, observe) -> None:
    """Equation 4: of four steps of one sample each, at learning rates of 1e-6, 1e-2 and 0.5."""
    model, x, y, gradient = trained(rate, 4, 1)
    seen = observe(model, x, y, gradient=gradient, learning_rate=rate, local_steps=4, batch_size=1)
    distance = float(COSINE.of([alone(seen, y, weigh_all(model))])(x[None]))
    assert low <= distance < high


@pytest.mark.filterwarnings("error")
def test_a_learning_rate_too_large_for_one_batch_is_warned_of(trained, observe) -> None:
    model, x, y, gradient = trained(0.01, 2, 2)
    seen = observe(model, x, y, gradient=gradient, learning_rate=0.01, local_steps=2, batch_size=2)
    with pytest.warns(InversionWarning, match="learning rates are up to 0.01, the paper has 0.0001"):
        COSINE.check("agic", [seen])
    quiet = type(seen)(**{**vars(seen), "learning_rate": 1e-4})
    COSINE.check("agic", [quiet])  # a warning would be an error here
    unknown = type(seen)(**{**vars(seen), "learning_rate": None})
    with pytest.raises(ValueError, match="simulates local steps at the learning rate of the client, which is not"):
        Objective(distance="l2", local_steps="simulated", total_variation=0.0).check("dlg_adam", [unknown])


@pytest.mark.parametrize("same_model", [True, False])
@pytest.mark.parametrize("local_steps", ["one_batch", "simulated"])
def test_problems_together_are_problems_one_by_one(same_model, local_steps, network, observe, images) -> None:
    objective = Objective(distance="cosine", local_steps=local_steps, total_variation=0.1)
    problems = []
    shared = network(0)
    for i in range(3):
        y = torch.tensor([i, (i + 1) % 5])
        more = {"learning_rate": 0.1, "local_steps": 2, "batch_size": 1}
        seen = observe(shared if same_model else network(i), images(2, seed=i), y, **more)
        weights = dict.fromkeys(seen.gradient, 1.0 + i) | {"0.weight": 7.0}
        problems.append(alone(seen, y, weights))
    assert len({objective.key(problem) for problem in problems}) == 1
    z = torch.stack([images(2, seed=10 + i) for i in range(3)]).requires_grad_()
    together = objective.of(problems)(z)
    gradient = torch.autograd.grad(together.sum(), z)[0]
    for i, problem in enumerate(problems):
        single = z[i : i + 1].detach().requires_grad_()
        loss = objective.of([problem])(single)
        torch.testing.assert_close(loss[0], together[i], rtol=1e-9, atol=1e-12)
        own = torch.autograd.grad(loss.sum(), single)[0]
        torch.testing.assert_close(own[0], gradient[i], rtol=1e-7, atol=1e-12)


def test_problems_of_other_networks_sizes_or_modes_are_not_computed_together(network, observe, images) -> None:
    def key(model: nn.Module, n: int = 2, **more: object) -> object:
        y = torch.arange(n)
        return COSINE.key(alone(observe(model, images(n), y, **more), y, weigh_all(model)))

    assert key(network(0)) == key(network(1))
    other = network(0)
    other[3].stride = (2, 2)  # as it is
    assert key(other) == key(network(0))
    strided = network(0)
    strided[3].padding = (1, 1)
    strided[2] = nn.LeakyReLU(0.5)
    keys = {key(network(0)), key(network(0), n=3), key(strided), key(network(0), batch_norm="training"),
            key(network(0, norm=False)), key(network(0), mean=(0.0, 0.0), std=(2.0, 1.0))}  # fmt: skip
    assert len(keys) == 6


def test_two_views_share_an_image_and_add_up_with_gamma(network, observe, images) -> None:
    """Equation 5, with a shared image in another place of the second update, and a third image of its own."""
    x = images(3)
    first = observe(network(0), x[[0, 1]], torch.tensor([4, 1]))
    second = observe(network(7), x[[2, 0]], torch.tensor([3, 4]))
    views = (
        ObservedView(first, torch.tensor([0, 1]), torch.tensor([4, 1]), weigh_all(first.model), 1.0),
        ObservedView(second, torch.tensor([2, 0]), torch.tensor([3, 4]), weigh_all(second.model), 0.1),
    )
    problem = Problem(views, torch.tensor([4, 1, 3]))
    assert abs(float(COSINE.of([problem])(x[None]))) < 1e-12
    guess = images(3, seed=5)
    parts = [
        float(COSINE.of([alone(seen, view.labels, weigh_all(seen.model))])(guess[view.rows][None]))
        for seen, view in zip((first, second), views, strict=True)
    ]
    assert float(COSINE.of([problem])(guess[None])) == pytest.approx(parts[0] + 0.1 * parts[1], rel=1e-9)
