"""What every bottom model keeps to; a new file of tasks/bottoms is covered without a word here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable

import pytest
import torch
from torch import nn

import thornbed.tasks.bottoms
from thornbed.tasks.bottoms import bottom

NAMES = sorted(module.name for module in pkgutil.iter_modules(thornbed.tasks.bottoms.__path__) if module.name[0] != "_")
SHAPES: list[tuple[int, ...]] = [(1, 4, 2), (1, 14, 6), (3, 16, 7), (3, 1, 1)]


def function(name: str) -> Callable[..., nn.Module]:
    return getattr(importlib.import_module(f"thornbed.tasks.bottoms.{name}"), name)


def made(name: str, shape: tuple[int, ...], size: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return bottom(function(name), tuple(range(torch.Size(shape).numel())), shape, size)


def test_the_folder_is_not_empty() -> None:
    assert {"patch_cnn", "patch_encoder", "column_layers"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_and_the_documentation_are_those_of_the_folder(name: str) -> None:
    first, second, *options = inspect.signature(function(name)).parameters.values()
    assert (first.name, second.name) == ("block_shape", "embedding_size")
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)
    sentence, blank, rest = (inspect.getdoc(importlib.import_module(f"thornbed.tasks.bottoms.{name}")) or "").split(
        "\n", 2
    )
    assert sentence.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_it_embeds_patches_of_any_size_in_any_number_of_numbers_twice_alike(name, shape) -> None:
    x = torch.rand(7, torch.Size(shape).numel(), generator=torch.Generator().manual_seed(1))
    for size in (1, 32):
        network = made(name, shape, size)
        embedding = network(x)
        assert embedding.shape == (7, size)
        assert torch.equal(embedding, network(x))
        torch.testing.assert_close(embedding[:3], network(x[:3]))  # no sample depends on others
        embedding.square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
    assert embedding.std(dim=0).max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_its_start_is_that_of_the_current_generator(name) -> None:
    x = torch.rand(2, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made(name, (1, 4, 2), 3)(x), made(name, (1, 4, 2), 3)(x))
    assert not torch.equal(made(name, (1, 4, 2), 3)(x), made(name, (1, 4, 2), 3, seed=1)(x))


def test_columns_are_normalised_with_the_means_of_their_own() -> None:
    def nothing(shape: tuple[int, ...], size: int) -> nn.Module:
        return nn.Identity()

    table = bottom(nothing, (2, 0), (2,), 2, mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 2.0))
    assert table(torch.tensor([[5.0, 5.0]])).tolist() == [[1.0, 4.0]]
    image = bottom(nothing, (0, 1, 2, 3), (2, 1, 2), 4, mean=(1.0, 2.0), std=(1.0, 2.0))
    assert image(torch.full((1, 4), 4.0)).flatten().tolist() == [3.0, 3.0, 1.0, 1.0]
    with pytest.raises(ValueError, match=r"a block of 2 columns has no shape \(3,\)"):
        bottom(nothing, (0, 1), (3,), 2)
    with pytest.raises(ValueError, match="embedding_size >= 1: embedding_size = 0"):
        bottom(nothing, (0, 1), (2,), 0)


def test_patches_that_are_none_are_refused() -> None:
    for name in ("patch_cnn", "patch_encoder"):
        with pytest.raises(ValueError, match=rf"{name} takes images of shape"):
            function(name)((4,), 2)
        with pytest.raises(ValueError, match="width >= 1: width = 0"):
            function(name)((1, 4, 4), 2, width=0)
