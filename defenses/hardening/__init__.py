"""Defenses that harden what an honest client trains on, one a file: a frozen dataclass whose fields are its options.

The class has the name of its file without underscores (`Flip` in flip.py) and is a `Hardening`. An example without any
engine; the client then trains the model on `x` and `y`, in place of its own samples:

    >>> import torch
    >>> from thornbed.defenses.hardening.flip import Flip
    >>> own = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2, bias=False))
    >>> _ = torch.nn.init.constant_(model[1].weight[0], 0.0), torch.nn.init.constant_(model[1].weight[1], -1.0)
    >>> x, y = Flip(fraction=0.5).harden(model, own, labels, torch.Generator().manual_seed(0))
    >>> (x != own).flatten(1).any(dim=1).sum().item(), torch.equal(y, labels)
    (4, True)
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn


class Hardening(Protocol):
    """What every defense of this folder is: a verb, a constant and a threshold, on top of options with defaults.

    The options are checked when the defense is made. ValueErrors are one sentence that names the plug-in.
    """

    modalities: ClassVar[frozenset[str]]
    """The kinds of samples it works on: a subset of `image`, `table` and `text`."""

    @property
    def min_confidence(self) -> float:
        """At inference a prediction whose largest softmax probability is below is rejected; 0 rejects none."""

    def harden(self, network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return what an honest client trains on, (M, ...) and (M,), once it has the server's model.

        `x` (N, ...) are its own decoded samples, float32 (images in [0, 1], tables of any range), and `y` (N,) int64
        their labels. The network takes decoded samples and gives logits; it may lie on another device than the samples,
        and what comes back lies where the samples did. Nothing that was given is modified: not the samples, and of the
        network neither parameters nor buffers, modes or gradients. Randomness comes from the generator (of the CPU)
        alone. What was done is told to `defenses.reporting.acted`, as numbers that can be averaged over clients.
        """
