"""What every inversion keeps to; a new file of attacks/inversion is covered without a word here."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import pkgutil
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thornbed.attacks.inversion
from thornbed.attacks import Knowledge
from thornbed.attacks.inversion import Observation, Reconstruction
from thornbed.clients.local_training import one_thread

NAMES = sorted(
    module.name for module in pkgutil.iter_modules(thornbed.attacks.inversion.__path__) if module.name[0] != "_"
)
Inversion = Callable[..., list[Reconstruction]]
every_inversion = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


def inversion(name: str) -> Inversion:
    return getattr(importlib.import_module(f"thornbed.attacks.inversion.{name}"), name)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observed(truth: list[int], seed: int = 0, **more: object) -> Observation:
    """Return what a server sees of a client's gradient of random images; the mode of the model is another one."""
    source = generator(seed)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=source)
    nn.init.constant_(model[1].bias, 0.5)  # of random networks one in some has no unit behind the ReLU that is alive
    nn.init.normal_(model[-1].weight, std=0.01, generator=source)  # even probabilities, which label inference wants
    x, y = torch.rand(len(truth), 1, 5, 5, generator=source), torch.tensor(truth)
    gradients = torch.autograd.grad(F.cross_entropy(model.eval()(x), y), list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    fields = {
        "model": model.train(),
        "gradient": dict(zip(names, gradients, strict=True)),
        "num_samples": len(truth),
        "sample_shape": (1, 5, 5),
        "num_classes": 4,
        "mean": (0.5,),
        "std": (0.3,),
    }
    return Observation(**{**fields, **more})


SEVERAL = [[2], [0, 3], [1]]


def several() -> list[Observation]:
    return [observed(labels, seed) for seed, labels in enumerate(SEVERAL)]


def test_the_folder_is_not_empty() -> None:
    assert {"agic", "inverting_gradients", "dlg_adam"} <= set(NAMES)


@every_inversion
def test_observations_and_generator_come_first_and_options_are_keywords_with_types_and_defaults(name: str) -> None:
    parameters = list(inspect.signature(inversion(name)).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["observations", "generator"]
    for option in parameters[2:]:
        assert option.kind is option.KEYWORD_ONLY
        assert option.default is not option.empty
        assert option.annotation is not option.empty
    assert "steps" in [option.name for option in parameters[2:]]


@every_inversion
def test_the_first_line_is_a_sentence_and_the_paper_is_named_and_so_is_what_the_attacker_knows(name: str) -> None:
    module = importlib.import_module(f"thornbed.attacks.inversion.{name}")
    first, blank, rest = (inspect.getdoc(module) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith("Paper: ")
    assert Knowledge.SERVER_MODEL in module.NEEDS


@every_inversion
def test_there_is_a_reconstruction_for_each_observation_and_it_is_made_of_valid_images(name: str) -> None:
    found = inversion(name)(several(), generator(), steps=5, snapshots=2)
    assert [each.labels.tolist() for each in found] == SEVERAL
    for labels, each in zip(SEVERAL, found, strict=True):
        assert each.images.shape == (len(labels), 1, 5, 5)
        assert each.images.dtype == torch.float32
        assert each.snapshots.shape == (2, len(labels), 1, 5, 5)
        for images in (each.images, each.snapshots):
            assert 0 <= float(images.min()) <= float(images.max()) <= 1
        assert each.losses.shape == (6,)
        assert bool(each.losses.isfinite().all())
        assert each.best_step == int(each.losses.argmin())
        assert each.seconds_per_step > 0
        assert each.failure is None
        assert not any(tensor.requires_grad for tensor in (each.images, each.losses, each.snapshots))
    assert inversion(name)([], generator()) == []


@every_inversion
@pytest.mark.parametrize("batch_norm", ["evaluation", "training"])
def test_the_loss_falls(name: str, batch_norm: str) -> None:
    (found,) = inversion(name)([observed([0, 3], batch_norm=batch_norm)], generator(), steps=40)
    assert float(found.losses.min()) < 0.9 * float(found.losses[0])


@every_inversion
def test_input_and_global_randomness_are_left_alone(name: str) -> None:
    seen = several()
    before = copy.deepcopy(seen)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    for each in inversion(name)(seen, generator(), steps=3):
        each.images.zero_()
    for now, then in zip(seen, before, strict=True):
        assert [layer.training for layer in now.model.modules()] == [layer.training for layer in then.model.modules()]
        for key, tensor in then.model.state_dict().items():
            assert torch.equal(now.model.state_dict()[key], tensor), key
        assert all(parameter.grad is None for parameter in now.model.parameters())
        assert all(torch.equal(now.gradient[key], tensor) for key, tensor in then.gradient.items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@every_inversion
def test_it_depends_on_the_generator_alone(name: str) -> None:
    one, two, other = (inversion(name)(several(), generator(seed), steps=3) for seed in (3, 3, 4))
    for first, same, different in zip(one, two, other, strict=True):
        assert torch.equal(first.images, same.images)
        assert torch.equal(first.losses, same.losses)
        assert not torch.equal(first.images, different.images)


@every_inversion
def test_labels_that_are_known_make_the_model_head_irrelevant(name: str) -> None:
    seen = observed([3, 3, 0, 1, 1], labels=torch.tensor([3, 3, 0, 1, 1]))
    (found,) = inversion(name)([seen], generator(), steps=2, labels="known")
    assert found.labels.tolist() == [3, 3, 0, 1, 1]
    with pytest.raises(ValueError, match=f"^{name}.*num_samples = 5, num_classes = 4"):
        inversion(name)([seen], generator(), steps=2)


@every_inversion
def test_a_gradient_that_is_not_finite_ends_alone_and_says_so(name: str) -> None:
    seen = several()
    bad = {key: torch.full_like(tensor, math.inf) for key, tensor in seen[2].gradient.items()}
    broken = observed([1], 2, gradient=bad, labels=torch.tensor([1]))
    known = [observed(labels, seed, labels=torch.tensor(labels)) for seed, labels in enumerate(SEVERAL)]
    found = inversion(name)([*known[:2], broken], generator(), steps=4, labels="known")
    healthy = inversion(name)(known, generator(), steps=4, labels="known")
    assert [each.failure is None for each in found] == [True, True, False]
    for i in (0, 1):
        torch.testing.assert_close(found[i].images, healthy[i].images, rtol=1e-4, atol=1e-5)


@every_inversion
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_not_searched_for(name: str, value: float) -> None:
    """So a run can show the attack, before it trains, what it will read: in a look or two, however many steps."""
    looks = []

    class Counting(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            looks.append(1)
            return super().forward(x)

    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), Counting(27, 4))
    nothing = {key: torch.tensor(value).expand(tensor.shape) for key, tensor in model.named_parameters()}
    seen = observed([1, 2], model=model, gradient=nothing, labels=torch.tensor([1, 2]))
    (found,) = inversion(name)([seen], generator(), steps=5000, labels="known")
    assert found.failure is not None
    assert len(looks) <= 2


@every_inversion
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_numbers_that_make_no_attack_are_refused(name: str, value: float) -> None:
    parameters = inspect.signature(inversion(name)).parameters.values()
    for option in parameters:
        if isinstance(option.default, float):
            with pytest.raises(ValueError, match=f"^{name} needs .*{option.name}.* = {value}"):
                inversion(name)(several(), generator(), **{option.name: value})


@every_inversion
def test_whole_numbers_out_of_range_are_refused(name: str) -> None:
    parameters = inspect.signature(inversion(name)).parameters.values()
    for option in parameters:
        if type(option.default) is int:
            with pytest.raises(ValueError, match=f"^{name} needs {option.name} >= .: {option.name} = -1"):
                inversion(name)(several(), generator(), **{option.name: -1})


@every_inversion
def test_something_else_than_observations_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} takes a sequence of observations: one is a Tensor"):
        inversion(name)([torch.zeros(3)], generator())
