"""A model as a pure function of its parameters, so that gradients of many inversions can be taken at once."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from thornbed.attacks.inversion import Observation

Tensors = Mapping[str, Tensor]


class Network:
    """A model as a pure function of its parameters, in the mode in which the client used it."""

    def __init__(self, observation: Observation) -> None:
        module = copy.deepcopy(observation.model).eval()
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.contiguous()  # whatever the order of channels, which stacking would not keep
        if observation.batch_norm == "training":
            # Without running statistics nothing is written in the forward pass, which no transform would allow.
            replace_all_batch_norm_modules_(module)
            for layer in module.modules():
                if isinstance(layer, BatchNorm):
                    layer.train()
        else:
            for layer in module.modules():
                if isinstance(layer, BatchNorm) and layer.running_mean is not None and layer.weight is not None:
                    layer.forward = partial(_affine, layer)  # type: ignore[method-assign]
        self.module = module
        self.parameters = {name: tensor.detach() for name, tensor in module.named_parameters()}
        self.buffers = dict(module.named_buffers())

    def gradient(self, parameters: Tensors, buffers: Tensors, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the gradient of the mean cross-entropy at `parameters`; images (n, C, H, W), labels (n,)."""

        def loss(at: Tensors) -> Tensor:
            return F.cross_entropy(functional_call(self.module, (dict(at), dict(buffers)), (images,)), labels)

        gradient: dict[str, Tensor] = grad(loss)(parameters)
        return gradient

    def mean_gradient(
        self,
        parameters: Tensors,
        buffers: Tensors,
        images: Tensor,
        labels: Tensor,
        batches: Sequence[Tensor],
        learning_rate: float,
    ) -> dict[str, Tensor]:
        """Return the mean of the gradients of plain SGD steps, one for each of `batches`, rows of the images.

        Geiping, Bauermeister, Dröge, Moeller, "Inverting Gradients", NeurIPS 2020, Section 6: differentiable through
        all steps. It is (W - W_T) / (learning_rate * T), summed before it could be rounded away beside the weights.
        """
        at, total = dict(parameters), dict.fromkeys(parameters, torch.zeros(()))
        for step, rows in enumerate(batches, start=1):
            rows = rows.to(images.device)
            gradient = self.gradient(at, buffers, images.index_select(0, rows), labels.index_select(0, rows))
            total = {name: gradient[name] if step == 1 else total[name] + gradient[name] for name in total}
            if step < len(batches):
                at = {name: at[name] - learning_rate * gradient[name] for name in at}
        return {name: tensor / len(batches) for name, tensor in total.items()}


def _affine(layer: BatchNorm, x: Tensor) -> Tensor:
    """Return what batch norm does in evaluation mode, from two operations.

    Differentiated twice, as it is here, torch's own takes a fifth of the time of a whole step of ResNet-20.
    """
    mean, variance = cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var)
    scale = layer.weight * (variance + layer.eps).rsqrt()
    wide = (-1, *[1] * (x.dim() - 2))
    return x * scale.view(wide) + (layer.bias - mean * scale).view(wide)


def structure(model: nn.Module) -> Hashable:
    """Return what makes two models the same function of their parameters and buffers, as far as it can be seen.

    The types of the layers, their plain attributes, and the shapes of their tensors.
    """
    plain = (bool, int, float, str, tuple, type(None))
    layers = tuple(
        (name, type(layer), tuple((key, repr(value)) for key, value in vars(layer).items() if isinstance(value, plain)))
        for name, layer in model.named_modules()
    )
    tensors: Mapping[str, Any] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return layers, tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items())
