"""Sizes of the networks counted by hand, ResNet-18 against torchvision's, normalisation, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from tasks.models import normalised
from tasks.models.cnn import cnn
from tasks.models.mlp import mlp
from tasks.models.resnet18 import resnet18
from tasks.models.resnet20 import resnet20
from tasks.sources.torchvision_shim import declare_missing_operators


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sizes_counted_by_hand():
    # weights and biases, layer by layer
    assert size(cnn((3, 32, 32), 10)) == 896 + 18_496 + 36_928 + (64 * 4 * 4 * 64 + 64) + 650 == 122_570
    assert size(mlp((1, 28, 28), 10)) == 157_000 + 40_200 + 2_010
    assert size(mlp((5,), 3, hidden=())) == 18
    assert size(mlp((30,), 2, hidden=(128, 256))) == (30 * 128 + 128) + (128 * 256 + 256) + (256 * 2 + 2)
    # one scale and one shift a channel instead of one bias
    assert size(cnn((3, 32, 32), 10, norm="batch")) == 122_570 + 32 + 64 + 64


def test_resnet18_has_the_size_that_the_literature_gives():
    assert size(resnet18((3, 32, 32), 10)) == 11_173_962
    assert size(resnet18((3, 224, 224), 1000)) == 11_689_512
    assert len(convolutions(resnet18((3, 32, 32), 10))) == 20


def test_resnet20_and_its_wide_version_of_gradient_inversion():
    assert size(resnet20((3, 32, 32), 10)) == 272_474
    wide = resnet20((3, 32, 32), 10, width=64)
    assert size(wide) == 4_327_754
    kernels = [module.kernel_size for module in convolutions(wide)]
    assert len(kernels) == 21
    assert kernels.count((1, 1)) == 2


@pytest.mark.parametrize(("side", "first_features"), [(32, 32), (64, 64), (65, 17), (224, 56)])
def test_small_images_keep_their_size_in_the_stem_and_large_ones_are_divided_by_four(side, first_features):
    network = resnet18((3, side, side), 10, width=4).eval()
    seen = []
    network.layer1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    network(torch.rand(1, 3, side, side))
    assert seen == [(1, 4, first_features, first_features)]


def test_resnet18_computes_what_torchvision_computes_with_the_same_weights():
    declare_missing_operators()
    from torchvision.models import resnet18 as theirs_of_torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = theirs_of_torchvision(num_classes=10)
        ours = resnet18((3, 96, 96), 10)
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 96, 96, generator=seeded())
    torch.testing.assert_close(ours(x), theirs(x))  # batch norm in training mode
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_without_batch_norm_the_signal_stays_of_one_size_whatever_the_depth():
    x = torch.randn(8, 3, 32, 32, generator=seeded())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet20((3, 32, 32), 10, norm="none")
    sizes = []
    for name in ("layer1", "layer2", "layer3"):
        network.get_submodule(name).register_forward_hook(
            lambda *seen: sizes.append(float(seen[2].detach().square().mean()))
        )
    network(x)
    assert all(0.3 < value < 10 for value in sizes), sizes


def test_cnn_takes_images_of_any_side():
    for shape in ((1, 1, 1), (1, 5, 9), (3, 96, 64)):
        assert cnn(shape, 4)(torch.rand(2, *shape)).shape == (2, 4)


@pytest.mark.parametrize("network", [cnn, resnet18, resnet20])
def test_a_width_below_one_is_refused(network):
    with pytest.raises(ValueError, match=f"{network.__name__} needs width >= 1: width = 0"):
        network((3, 32, 32), 10, width=0)


def test_an_empty_hidden_layer_is_refused():
    with pytest.raises(ValueError, match=r"mlp needs every entry of hidden >= 1: .* = 0"):
        mlp((9,), 2, hidden=(5, 0))


def test_normalisation_by_hand():
    network = normalised(nn.Flatten(), (1.0, 10.0), (2.0, 5.0))
    x = torch.tensor([[[[3.0, 5.0]], [[20.0, 0.0]]]])
    assert network(x).tolist() == [[1.0, 2.0, 2.0, -2.0]]
    table = normalised(nn.Identity(), (1.0, 10.0), (2.0, 5.0))
    assert table(torch.tensor([[3.0, 20.0]])).tolist() == [[1.0, 2.0]]


def test_normalisation_leaves_the_network_it_was_given_alone():
    network = nn.Linear(2, 2)
    x = torch.rand(3, 2)
    before = network(x)
    wrapped = normalised(network, (0.5, 0.5), (0.1, 0.1))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.zero_()
    assert torch.equal(network(x), before)


def test_without_constants_nothing_is_normalised():
    network = nn.Linear(2, 2)
    x = torch.rand(3, 2)
    assert torch.equal(normalised(network, (), ())(x), network(x))


def test_normalisation_survives_copying_pickling_other_types_and_functional_calls():
    network = normalised(nn.Linear(2, 3), (0.5, 0.25), (0.5, 2.0))
    x = torch.rand(4, 2)
    expected = network(x)
    assert torch.equal(copy.deepcopy(network)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), expected)
    parameters = dict(network.named_parameters())
    assert torch.equal(torch.func.functional_call(network, parameters, (x,)), expected)
    torch.testing.assert_close(copy.deepcopy(network).double()(x.double()), expected.double())


def test_pixels_get_their_gradient_through_the_normalisation():
    network = normalised(nn.Flatten(), (0.5,), (0.25,))
    x = torch.rand(1, 1, 2, 2, requires_grad=True)
    network(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [4.0] * 4


@pytest.mark.parametrize(
    ("mean", "std", "sentence"),
    [
        ((0.5,), (), "1 means, 0 deviations"),
        ((0.5,), (0.0,), "deviations above 0"),
        ((0.5,), (float("nan"),), "deviations above 0"),
    ],
)
def test_impossible_normalisations_are_refused(mean, std, sentence):
    with pytest.raises(ValueError, match=sentence):
        normalised(nn.Identity(), mean, std)


def test_normalising_twice_is_refused():
    with pytest.raises(ValueError, match="normalises its input already"):
        normalised(normalised(nn.Identity(), (0.5,), (0.5,)), (0.5,), (0.5,))


def test_an_input_with_other_channels_is_refused():
    with pytest.raises(ValueError, match="the input has 3 channels or features, the normalisation 1"):
        normalised(nn.Identity(), (0.5,), (0.5,))(torch.rand(2, 3, 4, 4))
