"""What every network keeps to, with and without batch norm; a new file of tasks/models is covered without a word."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import thornbed.tasks.models
from thornbed.tasks.digits import digits
from thornbed.tasks.models import embedded, normalised

NAMES = sorted(module.name for module in pkgutil.iter_modules(thornbed.tasks.models.__path__) if module.name[0] != "_")
IMAGES: list[tuple[int, ...]] = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
# A network of something else than images: the shapes it is tried with. One of (8, 8) can read digits line by line.
SHAPES: dict[str, list[tuple[int, ...]]] = {"lstm": [(8, 8), (5, 3), (30, 25)]}
# Plain steps leave an LSTM on the plateau it starts from for longer than a few of them.
ADAM = {"lstm"}
# ResNet-50 divides images by 32: of digits of 8 x 8 its last stage sees one pixel, and 0.02 is too much for it.
LEARNING_RATES = {"resnet50": 0.005}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks only wait for each other's threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def shapes(name: str) -> list[tuple[int, ...]]:
    return SHAPES.get(name, IMAGES)


def function(name: str) -> Callable[..., nn.Module]:
    return getattr(importlib.import_module(f"thornbed.tasks.models.{name}"), name)


def norms(name: str) -> list[str]:
    """Return what the option `norm` of a network takes; one empty string for a network without it."""
    return list(typing.get_args(typing.get_type_hints(function(name)).get("norm"))) or [""]


CASES = [(name, norm) for name in NAMES for norm in norms(name)]
SHAPED_CASES = [(name, norm, shape) for name, norm in CASES for shape in shapes(name)]
IMAGE_CASES = [(name, norm) for name, norm in CASES if name not in SHAPES]
every_network = pytest.mark.parametrize(("name", "norm"), CASES)


def build(
    name: str,
    norm: str,
    shape: tuple[int, ...] | None = None,
    num_classes: int = 10,
    seed: int = 0,
    narrow: bool = False,
) -> nn.Module:
    """Build a network from a seed, for the first of its shapes where none is given.

    A narrow one, where it has the option, is for tests that take many steps.
    """
    options: dict[str, object] = {"norm": norm} if norm else {}
    if narrow and "width" in inspect.signature(function(name)).parameters:
        options["width"] = 16
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return function(name)(shape or shapes(name)[0], num_classes, **options)


def test_the_folder_is_not_empty() -> None:
    assert {"cnn", "lstm", "mlp", "resnet18", "resnet20", "resnet50"} <= set(NAMES)
    for name in ("cnn", "mlp", "resnet18", "resnet20"):
        assert sorted(norms(name)) == ["batch", "frozen", "none"]
    assert norms("resnet50") == ["batch"]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_paper_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(importlib.import_module(f"thornbed.tasks.models.{name}")) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_classes_come_first_and_options_are_keywords_with_types_and_defaults(name: str) -> None:
    shape, classes, *others = inspect.signature(function(name)).parameters.values()
    assert (shape.name, classes.name) == ("sample_shape", "num_classes")
    for option in others:
        assert option.kind is option.KEYWORD_ONLY
        assert option.default is not option.empty
        assert option.annotation is not option.empty


@pytest.mark.parametrize(("name", "norm", "shape"), SHAPED_CASES)
def test_logits_are_finite_and_every_parameter_gets_a_gradient(name: str, norm: str, shape: tuple[int, ...]) -> None:
    network = build(name, norm, shape, num_classes=7)
    logits = network(torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (4, 7)
    assert bool(logits.isfinite().all())
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 6])).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.isfinite().all()), key
        assert float(parameter.grad.abs().max()) > 0, key


@every_network
def test_an_evaluated_sample_does_not_depend_on_its_neighbours(name: str, norm: str) -> None:
    network = build(name, norm).eval()
    x = torch.rand(5, *shapes(name)[0], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=1e-4, atol=1e-5)


@every_network
def test_the_same_seed_gives_the_same_network_and_another_seed_another(name: str, norm: str) -> None:
    one, two, other = (build(name, norm, seed=seed).state_dict() for seed in (0, 0, 1))
    assert list(one) == list(two) == list(other)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@every_network
def test_batch_norm_is_there_or_not(name: str, norm: str) -> None:
    layers = [module for module in build(name, norm).modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert bool(layers) == (norm == "batch")


@pytest.mark.parametrize(("name", "norm"), IMAGE_CASES)
def test_weights_go_to_the_normalised_network_and_back(name: str, norm: str) -> None:
    plain = build(name, norm).eval()
    wrapped = normalised(plain, (0.25,), (0.5,))
    keys = list(plain.state_dict())
    assert list(wrapped.state_dict()) == keys
    assert [key for key, _ in wrapped.named_parameters()] == [key for key, _ in plain.named_parameters()]
    wrapped.load_state_dict(build(name, norm, seed=1).state_dict())
    plain.load_state_dict(wrapped.state_dict())
    wrapped(torch.rand(4, 1, 8, 8))
    assert list(wrapped.state_dict()) == keys
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(wrapped(x), plain((x - 0.25) / 0.5))
    assert torch.equal(copy.deepcopy(wrapped)(x), wrapped(x))


@pytest.mark.parametrize("name", ["lstm", "mlp"])
def test_weights_go_to_the_embedded_network_and_back(name: str) -> None:
    plain = build(name, "", (6, 4)).eval()
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    wrapped = embedded(plain, vectors)
    keys = list(plain.state_dict())
    assert list(wrapped.state_dict()) == keys
    assert [key for key, _ in wrapped.named_parameters()] == [key for key, _ in plain.named_parameters()]
    wrapped.load_state_dict(build(name, "", (6, 4), seed=1).state_dict())
    plain.load_state_dict(wrapped.state_dict())
    ids = torch.randint(9, (5, 6), generator=torch.Generator().manual_seed(0))
    assert torch.equal(wrapped(ids), plain(vectors[ids]))
    assert torch.equal(copy.deepcopy(wrapped)(ids), wrapped(ids))


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if case[1] != "frozen"])  # that is for trained ones
def test_a_few_steps_learn_a_few_digits(name: str, norm: str) -> None:
    task = digits(None, num_train=64)
    few = task.samples("train")
    x = few.x.reshape(-1, *shapes(name)[0])
    network = build(name, norm, narrow=True)
    if name not in SHAPES:
        network = normalised(network, task.mean, task.std)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATES.get(name, 0.02), momentum=0.9
    )
    if name in ADAM:
        optimizer = torch.optim.Adam(network.parameters(), 0.005)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), few.y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], losses
    assert max(losses) < 1.5 * losses[0], losses


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_taken_or_refused_with_a_sentence(name: str) -> None:
    if name == "mlp":
        assert function(name)((9,), 3).eval()(torch.rand(2, 9)).shape == (2, 3)
        return
    takes = r"sequences of shape \(length, features\)" if name == "lstm" else r"images of shape \(channels, .*\)"
    with pytest.raises(ValueError, match=rf"^{name} takes {takes}: .*\(9,\)"):
        function(name)((9,), 3)


@pytest.mark.parametrize("name", [name for name in NAMES if norms(name) != [""]])
def test_an_unknown_norm_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} takes norm .*'group'"):
        function(name)((1, 8, 8), 10, norm="group")


@pytest.mark.parametrize("name", NAMES)
def test_importing_draws_nothing(name: str) -> None:
    before = torch.get_rng_state()
    importlib.reload(importlib.import_module(f"thornbed.tasks.models.{name}"))
    assert torch.equal(torch.get_rng_state(), before)
