"""Networks of all widths train on images of all sizes: what crashes is a process of its own, and its case is named."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from thornbed.tasks.models import channels_last
from thornbed.tasks.models.resnet18 import resnet18
from thornbed.tasks.models.resnet20 import resnet20

STEPS = """
import importlib, json, sys
import torch
from torch.nn import functional as F
from thornbed.tasks.models import channels_last

name, cases = sys.argv[1], json.loads(sys.argv[2])
torch.set_num_threads(1)
make = getattr(importlib.import_module(f"thornbed.tasks.models.{name}"), name)
for width, side in cases:
    print(f"{name}(width={width}) on images of side {side}", flush=True)
    network = channels_last(make((3, side, side), 10, width=width, norm="none"))
    x = torch.rand(1, 3, side, side)
    F.cross_entropy(network(x), torch.zeros(1, dtype=torch.int64)).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
print("done", flush=True)
"""


def assert_trains(name, cases):
    command = [sys.executable, "-c", STEPS, name, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"{last} ends with {done.returncode}: {done.stderr[-500:]}"
    assert last == ["done"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_a_step_of_every_width_and_size_ends(name):
    assert_trains(name, [(width, side) for width in (4, 8, 16, 32, 64) for side in (28, 32, 64, 112, 224)])


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_a_step_of_every_width_and_every_size_ends(name):
    sides = sorted({*range(28, 228, 4), 63, 65, 223})
    assert_trains(name, [(width, side) for width in (1, 4, 8, 12, 16) for side in sides])
    assert_trains(name, [(width, side) for width in (32, 64) for side in (96, 224)])


def last_first(network):
    return [p.is_contiguous(memory_format=torch.channels_last) for p in network.parameters() if p.shape[-1:] == (3,)]


@pytest.mark.parametrize(("make", "width"), [(resnet20, 16), (resnet20, 64), (resnet18, 16), (resnet18, 64)])
def test_a_wide_network_has_its_channels_last(make, width):
    assert all(last_first(channels_last(make((3, 32, 32), 10, width=width))))


@pytest.mark.parametrize(("make", "width"), [(resnet20, 8), (resnet20, 15), (resnet18, 4)])
def test_a_narrow_network_stays_as_it_came(make, width):
    assert not any(last_first(channels_last(make((3, 32, 32), 10, width=width))))


@pytest.mark.parametrize(
    ("convolution", "unsafe"),
    [
        (nn.Conv2d(15, 16, 1, 2), True),
        (nn.Conv2d(8, 16, 1, (1, 2)), True),
        (nn.Conv2d(32, 32, 1, 2, groups=4), True),
        (nn.Conv2d(16, 8, 1, 2), False),
        (nn.Conv2d(8, 16, 1, 1), False),
        (nn.Conv2d(8, 16, (1, 2), 2), False),
        (nn.Conv2d(8, 16, 3, 2), False),
    ],
)
def test_a_strided_convolution_of_single_pixels_with_few_channels_keeps_all_as_they_came(convolution, unsafe):
    network = nn.Sequential(nn.Conv2d(3, convolution.in_channels, 3), nn.Sequential(convolution))
    assert channels_last(network) is network
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last) is not unsafe
