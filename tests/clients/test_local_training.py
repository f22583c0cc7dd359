"""Local training against a plain loop, and what it owes to others: their randomness, their modes, their bytes."""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thornbed.clients.local_training
import thornbed.protocol.threads
from thornbed.clients.local_training import batches, evaluate, one_thread, taken, train
from thornbed.clients.optimizers.sgd import sgd
from thornbed.tasks import Samples


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Train with one thread: with two on a busy machine these small models wait for each other most of the time."""
    with one_thread():
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def local(rows: int, seed: int = 1) -> Samples:
    x = torch.randn(rows, 5, generator=generator(seed))
    return Samples(x, x[:, :3].argmax(dim=1))


def network(*, norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(5, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.ReLU(), nn.Dropout(dropout)]
        return nn.Sequential(*layers, nn.Linear(8, 3))


def plain_sgd(parameters: object) -> torch.optim.Optimizer:
    return sgd(parameters, 0.1, momentum=0.9)  # type: ignore[arg-type]


def run(model: nn.Module, samples: Samples, *, batch_size: int = 8, epochs: float = 1.0, seed: int = 0) -> float:
    return train(model, samples, optimizer=plain_sgd, batch_size=batch_size, epochs=epochs, generator=generator(seed))


def flat(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().to(torch.float64) for value in model.state_dict().values()])


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "epochs", "sizes"),
    [
        (8, 4, 1, [4, 4]),
        (10, 4, 1, [4, 4, 2]),
        (9, 4, 1, [4, 5]),
        (9, 4, 2, [4, 5, 4, 5]),
        (5, 4, 1, [5]),
        (3, 4, 1, [3]),
        (1, 4, 1, [1]),
        (1, 1, 2, [1, 1]),
        (3, 1, 1, [1, 1, 1]),
        (3, 2, 1, [3]),
        (100, 10, 0.1, [10]),
        (100, 10, 0.11, [10, 10]),
        (200, 2, 0.07, [2] * 7),
        (100, 10, 0.0001, [10]),
        (10, 4, 1.5, [4, 4, 2, 4, 4]),
    ],
)
def test_sizes_of_the_batches(num_samples: int, batch_size: int, epochs: float, sizes: list[int]) -> None:
    steps = batches(num_samples, batch_size=batch_size, epochs=epochs, generator=generator())
    assert [len(rows) for rows in steps] == sizes


def test_an_epoch_sees_every_sample_once_and_each_in_another_order() -> None:
    rows = torch.cat(list(batches(9, batch_size=4, epochs=2, generator=generator()))).tolist()
    first, second = rows[:9], rows[9:]
    assert sorted(first) == sorted(second) == list(range(9))
    assert first != second
    assert first != list(range(9))


def test_training_is_the_plain_loop() -> None:
    samples, model = local(26), network()
    slow = copy.deepcopy(model)
    loss = run(model, samples, epochs=2)

    optimizer = torch.optim.SGD(slow.parameters(), lr=0.1, momentum=0.9)
    stream, total, seen = generator(), 0.0, 0
    torch.randint(2**63 - 1, (), generator=stream)  # the seed of the layers that draw
    for _ in range(2):
        order = torch.randperm(26, generator=stream)
        for start in range(0, 26, 8):
            rows = order[start : start + 8]
            optimizer.zero_grad()
            step_loss = F.cross_entropy(slow(samples.x[rows]), samples.y[rows])
            step_loss.backward()
            optimizer.step()
            total, seen = total + step_loss.item() * len(rows), seen + len(rows)
    assert torch.equal(flat(model), flat(slow))
    assert loss == pytest.approx(total / seen, rel=1e-6)


def test_it_learns() -> None:
    samples, model = local(60), network(norm=True)
    before = evaluate(model, samples)[0]
    run(model, samples, epochs=30)
    assert evaluate(model, samples)[0] < 0.5 * before


def test_nobody_elses_randomness_is_used_and_two_runs_give_the_same_bytes() -> None:
    first, second, other = (network(norm=True, dropout=0.5) for _ in range(3))
    torch.manual_seed(17)
    state = torch.get_rng_state()
    run(first, local(26), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    run(second, local(26), seed=3)
    run(other, local(26), seed=4)
    assert torch.equal(flat(first), flat(second))
    assert not torch.equal(flat(first), flat(other))


def test_dropout_draws_anew_from_the_generator_in_every_call() -> None:
    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))
            self.seen: list[float] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(torch.rand(()).item())
            return x[:, :3] * self.weight

    model, stream = Recorder(), generator()
    for _ in range(2):
        train(model, local(8), optimizer=plain_sgd, batch_size=8, epochs=1, generator=stream)
    assert model.seen[0] != model.seen[1]


def test_randomness_is_given_back_when_training_fails() -> None:
    state = torch.get_rng_state()
    wrong = Samples(torch.randn(8, 4, generator=generator()), torch.zeros(8, dtype=torch.int64))
    model = network(dropout=0.5).eval()
    with pytest.raises(RuntimeError):
        run(model, wrong)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training


@pytest.mark.parametrize("num_samples", [2, 9, 10])
def test_batch_norm_learns_its_statistics_from_every_batch(num_samples: int) -> None:
    model = network(norm=True)
    run(model, local(num_samples), batch_size=4)
    assert model[1].num_batches_tracked == math.ceil(num_samples / 4) - (num_samples == 9)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(1, 8), (5, 1)])
def test_batch_norm_keeps_its_statistics_where_a_batch_is_one_sample(num_samples: int, batch_size: int) -> None:
    model = network(norm=True)
    before = copy.deepcopy(model)
    run(model, local(num_samples), batch_size=batch_size)
    assert torch.equal(model[1].running_mean, before[1].running_mean)
    assert model[1].num_batches_tracked == 0
    assert not torch.equal(model[0].weight, before[0].weight)
    assert not torch.equal(model[1].weight, before[1].weight)
    assert model[1].training


def test_modes_are_restored_layer_by_layer_and_gradients_freed() -> None:
    model = network(norm=True)
    model[1].eval()
    run(model, local(10))
    evaluate(model, local(10))
    assert [layer.training for layer in model] == [True, False, True, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_samples_are_left_alone_and_encoded_pixels_decoded() -> None:
    samples = Samples(torch.arange(40, dtype=torch.uint8).reshape(8, 5), torch.arange(8) % 3)
    before, first, second = samples.x.clone(), network(), network()
    assert run(first, samples) == run(second, samples.decoded())
    assert torch.equal(flat(first), flat(second))
    assert torch.equal(samples.x, before)
    assert evaluate(first, samples) == evaluate(first, samples.decoded())


def test_a_diverging_client_does_not_crash() -> None:
    samples = Samples(torch.full((8, 5), 1e30), torch.arange(8) % 3)
    model = network()
    loss = run(model, samples, epochs=5)
    assert not math.isfinite(loss)
    assert not flat(model).isfinite().all()


class Fixed(nn.Module):
    """A model whose logits are its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_evaluation_in_numbers() -> None:
    # p(right) = 3/4, 1/4, 1/2
    x = torch.tensor([[3.0, 1.0], [3.0, 1.0], [1.0, 1.0]]).log()
    loss, accuracy = evaluate(Fixed(), Samples(x, torch.tensor([0, 1, 0])))
    assert loss == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4) + math.log(1 / 2)) / 3)
    assert accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1024])
def test_evaluation_does_not_depend_on_the_batches(batch_size: int) -> None:
    model, samples = network(norm=True, dropout=0.5), local(10)
    loss, accuracy = evaluate(model, samples, batch_size=batch_size)
    model.eval()
    with torch.no_grad():
        logits = model(samples.x)
    assert loss == pytest.approx(F.cross_entropy(logits, samples.y).item(), rel=1e-6)
    assert accuracy == (logits.argmax(dim=1) == samples.y).sum().item() / 10


def test_evaluation_changes_nothing_of_the_model() -> None:
    model = network(norm=True)
    before, state = flat(model), torch.get_rng_state()
    evaluate(model, local(10))
    assert torch.equal(flat(model), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_logits_that_are_not_numbers_are_no_success_on_class_zero() -> None:
    x = torch.tensor([[math.nan, math.nan], [1.0, math.nan], [math.inf, 1.0], [0.0, 1.0]])
    loss, accuracy = evaluate(Fixed(), Samples(x, torch.zeros(4, dtype=torch.int64)))
    assert math.isnan(loss)
    assert accuracy == 0.25


def test_one_thread_inside_and_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs", "sentence"),
    [
        (0, 8, 1.0, "at least one sample: samples = 0"),
        (8, 0, 1.0, "batch_size >= 1: batch_size = 0"),
        (8, 8, 0.0, "epochs > 0: epochs = 0.0"),
        (8, 8, math.inf, "epochs > 0: epochs = inf"),
        (8, 8, math.nan, "epochs > 0: epochs = nan"),
    ],
)
def test_refused_training(rows: int, batch_size: int, epochs: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(network(), local(rows), batch_size=batch_size, epochs=epochs)


def test_refused_evaluation() -> None:
    with pytest.raises(ValueError, match="samples = 0"):
        evaluate(network(), local(0))
    with pytest.raises(ValueError, match="batch_size = 0"):
        evaluate(network(), local(3), batch_size=0)


@pytest.mark.parametrize("module", [thornbed.clients.local_training, thornbed.protocol.threads])
def test_it_knows_nothing_of_flower(module) -> None:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    imported += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported
    others = [name for name in imported if name.split(".")[0] in ("flwr", "protocol", "flower_apps", "strategies")]
    assert set(others) <= {"thornbed.protocol.threads"}


class Says(nn.Module):
    """Says for each sample the logits that it is made of."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_predictions_of_low_confidence_are_rejected_right_or_wrong() -> None:
    # largest softmax probabilities: 1/2 (exactly), 3/4, 9/10; the last is wrong
    logits = torch.tensor([[0.0, 0.0], [3.0, 1.0], [1.0, 9.0]]).log().nan_to_num(neginf=0.0)
    samples = Samples(logits, torch.tensor([0, 0, 0]))
    accuracies = [evaluate(Says(), samples, min_confidence=least)[1] for least in (0.0, 0.5, 0.51, 0.74, 0.76, 1.0)]
    assert accuracies == [pytest.approx(share / 3) for share in (2, 2, 1, 1, 0, 0)]
    # of attacked samples it is the success of the attack
    attacked = Samples(logits[2:], torch.tensor([1]))
    assert [evaluate(Says(), attacked, min_confidence=least)[1] for least in (0.8, 0.95)] == [1.0, 0.0]
    assert evaluate(Says(), samples, min_confidence=0.8)[0] == evaluate(Says(), samples)[0]


def test_infinite_logits_count_as_they_did_where_nothing_is_rejected() -> None:
    samples = Samples(torch.tensor([[float("inf"), 0.0], [float("nan"), 0.0]]), torch.tensor([0, 0]))
    assert evaluate(Says(), samples)[1] == 0.5
    assert evaluate(Says(), samples, min_confidence=0.1)[1] == 0.0


@pytest.mark.parametrize("least", [-0.1, 1.1, math.nan])
def test_a_confidence_that_is_no_probability_is_refused(least: float) -> None:
    with pytest.raises(ValueError, match=f"0 <= min_confidence <= 1: min_confidence = {least}"):
        evaluate(Says(), local(3), min_confidence=least)


@pytest.mark.parametrize(("num_samples", "batch_size", "epochs"), [(9, 4, 2), (7, 1, 0.3), (12, 4, 0.3), (3, 5, 1)])
def test_taken_are_the_rows_that_training_takes(num_samples: int, batch_size: int, epochs: float) -> None:
    """A linear model without bias, fed unit vectors: the columns that move are the samples that were seen."""
    samples = Samples(torch.eye(num_samples), torch.zeros(num_samples, dtype=torch.int64))
    for skipped in (0, 1, 5):
        model = nn.Linear(num_samples, 2, bias=False)
        nn.init.zeros_(model.weight)
        order = {"batch_size": batch_size, "epochs": epochs, "skipped": skipped}
        train(model, samples, optimizer=lambda p: torch.optim.SGD(p, 0.1), generator=generator(), **order)
        rows = torch.cat(taken(num_samples, generator=generator(), **order))
        assert set(rows.tolist()) == set(model.weight[0].nonzero().flatten().tolist())


def test_rounds_that_skip_what_was_taken_pass_over_all_samples() -> None:
    rounds = [taken(10, batch_size=3, epochs=0.5, generator=generator(), skipped=2 * number) for number in range(4)]
    assert [[len(rows) for rows in steps] for steps in rounds] == [[3, 3], [4, 3], [3, 4], [3, 3]]
    first = torch.cat([rows for steps in rounds[:2] for rows in steps][:3])
    assert sorted(first.tolist()) == list(range(10))
