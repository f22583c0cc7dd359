"""A network and its optimiser as plain tensors by name, to be kept between two messages without pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

MODEL, OPTIMIZER = "model.", "optimizer."


def kept(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies: `model.NAME` of parameters and buffers, `optimizer.NAME.KEY` of what the optimiser remembers.

    Its options, such as the learning rate, are not kept: whoever restores makes it with the same ones. Raises TypeError
    for an optimiser that remembers anything but tensors.
    """
    found = {f"{MODEL}{name}": tensor.detach().clone() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is None:  # SGD without momentum remembers that it has none
                continue
            if not isinstance(value, Tensor):
                raise TypeError(f"the optimiser remembers {key} of {name} as {type(value).__name__}, not as a tensor")
            found[f"{OPTIMIZER}{name}.{key}"] = value.detach().clone()
    return found


def restore(network: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Set the network and its optimiser, in place, to what `kept` returned.

    Raises ValueError for tensors that are missing, of another shape, or of no parameter.
    """
    own = network.state_dict()
    given = {name.removeprefix(MODEL): tensor for name, tensor in state.items() if name.startswith(MODEL)}
    if differing := sorted(own.keys() ^ given.keys()):
        raise ValueError(f"the kept state is of another network: {differing[0]} is in one of them only")
    for name, tensor in own.items():
        if given[name].shape != tensor.shape:
            raise ValueError(
                f"the kept state is of another network: {name} has shape {tuple(given[name].shape)}, "
                f"here {tuple(tensor.shape)}"
            )
    network.load_state_dict(given)
    parameters = dict(network.named_parameters())
    optimizer.state.clear()
    for name, tensor in state.items():
        if not name.startswith(OPTIMIZER):
            continue
        owner, _, key = name.removeprefix(OPTIMIZER).rpartition(".")
        if owner not in parameters:
            raise ValueError(f"the kept state has {key} of {owner}, which the network has not")
        optimizer.state[parameters[owner]][key] = tensor.clone()
