"""Sizes of the networks counted by hand, ResNet-18 against torchvision's, normalisation, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from thornbed.tasks.models import embedded, normalised
from thornbed.tasks.models.cnn import cnn
from thornbed.tasks.models.lstm import lstm
from thornbed.tasks.models.mlp import mlp
from thornbed.tasks.models.resnet18 import resnet18
from thornbed.tasks.models.resnet20 import resnet20
from thornbed.tasks.models.resnet50 import resnet50
from thornbed.tasks.sources.torchvision_shim import declare_missing_operators


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
    # four gates a layer, each with weights for the input and for the state and torch's two biases
    assert size(lstm((30, 25), 2)) == 4 * 200 * (25 + 200 + 2) + 4 * 200 * (200 + 200 + 2) + 2 * 201
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


def test_resnet50_has_the_size_that_the_literature_gives_and_takes_grey_images():
    network = resnet50((3, 224, 224), 1000)
    assert size(network) == 25_557_032
    assert len(convolutions(network)) == 53
    grey = resnet50((1, 40, 40), 10, width=4).eval()
    assert grey(torch.rand(1, 1, 40, 40)).shape == (1, 10)


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


def test_resnet20_may_start_as_torchs_own_layers_do():
    def first(initial):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return resnet20((3, 32, 32), 10, initial=initial).layer3[2].conv2.weight.detach()

    fan = 64 * 9  # uniform within 1 / sqrt(fan), against normal with a deviation of sqrt(2 / fan)
    assert first("torch").abs().max() <= fan**-0.5
    assert float(first("torch").std()) == pytest.approx((3 * fan) ** -0.5, rel=0.02)
    assert float(first("he").std()) == pytest.approx((2 / fan) ** 0.5, rel=0.02)
    with pytest.raises(ValueError, match=r'resnet20 takes initial "he" or "torch": initial = .xavier.'):
        resnet20((3, 32, 32), 10, initial="xavier")


def test_frozen_batch_norm_is_batch_norm_in_evaluation_mode_whatever_its_own():
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for make in (cnn, mlp, resnet20):
        usual, frozen = make((3, 32, 32), 10, norm="batch"), make((3, 32, 32), 10, norm="frozen")
        for layer in usual.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                for values in (layer.weight, layer.running_mean, layer.running_var):
                    nn.init.uniform_(values, 0.5, 1.5)
        frozen.load_state_dict(usual.state_dict())
        before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
        torch.testing.assert_close(frozen.train()(x), usual.eval()(x), rtol=1e-4, atol=1e-4)
        assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.state_dict().items())


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


def test_the_lstm_computes_what_its_equations_say():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = lstm((4, 3), 2, num_layers=1, hidden=5)
    w = {name.removeprefix("lstm.").removesuffix("_l0"): value for name, value in network.state_dict().items()}
    x = torch.randn(4, 3, generator=seeded())
    h, c = torch.zeros(5), torch.zeros(5)
    for step in x:
        gates = w["weight_ih"] @ step + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"]
        i, f, g, o = gates.split(5)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    expected = w["logits.weight"] @ h + w["logits.bias"]
    torch.testing.assert_close(network(x[None])[0], expected)


def test_padding_after_the_end_of_a_sequence_changes_nothing_and_a_gap_inside_is_no_end():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = lstm((6, 3), 2, hidden=5)
    x = torch.randn(4, 6, 3, generator=seeded())
    lengths = (6, 4, 1, 0)
    for row, length in enumerate(lengths):
        x[row, length:] = 0
    logits = network(x)
    for row, length in enumerate(lengths):  # of length 0: as of one zero vector
        torch.testing.assert_close(logits[row], network(x[row : row + 1, : max(length, 1)])[0])
    gap = x[:1].clone()
    gap[0, 2] = 0
    torch.testing.assert_close(network(gap), network.logits(network.lstm(gap)[0][:, -1]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden": 0}, "lstm needs hidden >= 1: hidden = 0"),
        ({"num_layers": 0}, "lstm needs num_layers >= 1: num_layers = 0"),
        ({"dropout": 1.0}, "lstm needs 0 <= dropout < 1: dropout = 1.0"),
        ({"num_layers": 1, "dropout": 0.5}, "lstm needs num_layers >= 2 with dropout: num_layers = 1, dropout = 0.5"),
    ],
)
def test_impossible_lstms_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        lstm((30, 25), 2, **options)


def test_embedding_by_hand():
    vectors = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    network = embedded(nn.Flatten(), vectors)
    assert network(torch.tensor([[2, 1, 0]])).tolist() == [[3.0, 4.0, 1.0, 2.0, 0.0, 0.0]]


def test_embedding_leaves_the_network_and_the_vectors_alone_and_trains_neither():
    vectors = torch.randn(5, 2, generator=seeded())
    before, inner = vectors.clone(), nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    network = embedded(inner, vectors)
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    network(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()
    assert torch.equal(vectors, before)
    assert len(list(network.buffers())) == 1
    assert not torch.equal(network[1].bias, inner[1].bias)
    assert inner(torch.zeros(1, 3, 2)).shape == (1, 2)  # takes vectors, as before


def test_embedding_survives_copying_pickling_and_functional_calls():
    network = embedded(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), torch.randn(5, 2, generator=seeded()))
    ids = torch.tensor([[1, 2, 3], [4, 0, 0]])
    expected = network(ids)
    assert torch.equal(copy.deepcopy(network)(ids), expected)
    assert torch.equal(pickle.loads(pickle.dumps(network))(ids), expected)
    assert torch.equal(torch.func.functional_call(network, dict(network.named_parameters()), (ids,)), expected)


def test_impossible_embeddings_are_refused():
    vectors = torch.zeros(5, 2)
    for wrong in (torch.zeros(5), vectors.double(), vectors.long()):
        with pytest.raises(ValueError, match=r"embedding needs vectors \(V, D\) float32: they are"):
            embedded(nn.Identity(), wrong)
    for taken in (embedded(nn.Identity(), vectors), normalised(nn.Identity(), (0.5,), (0.5,))):
        with pytest.raises(ValueError, match="embeds or normalises its input already"):
            embedded(taken, vectors)
    for wrong in (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"takes token ids \(n, L\) int64: the input is"):
            embedded(nn.Identity(), vectors)(wrong)
