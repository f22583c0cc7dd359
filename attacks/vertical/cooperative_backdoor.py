"""Infer the target's samples with autoencoders before training, vote, and put generated samples with a trigger there.

Paper: S. Lee, W. Fang, A. B. Das, S. Hosseinalipour, D. J. Love, C. G. Brinton, "Cooperative Decentralized Backdoor
Attacks on Vertical Federated Learning", 2025, Algorithms 1 and 2, Equations 2 to 5; the defaults are those of Table II
for MNIST. It reads no gradient: its adversaries do not watch.

A poisoned row is embedded from a generated sample with the trigger wherever it comes up, another one each time, out of
a pool as the decoder gave it. When the model is used only the trigger is added, to the sample as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import networkx as nx
import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.vertical import VerticalAttack, View
from thornbed.attacks.vertical._inference import LabelInference
from thornbed.attacks.vertical._replacing import ReplacingAdversary
from thornbed.attacks.vertical._vae import Layers
from thornbed.attacks.vertical.graphs import Topology, adversary_graph
from thornbed.attacks.vertical.triggers import Size, Trigger, check_area, crossed, one_trigger, subtriggers
from thornbed.tasks.blocks import Block, block_shapes

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.OTHER_ATTACKERS, Knowledge.FEW_LABELS})
POOL = 512


@dataclass(frozen=True, kw_only=True)
class CooperativeBackdoor(VerticalAttack):
    """The attack of the paper; see `VerticalAttack` for options that all have, and `LabelInference` for the learning.

    `method` 1: one trigger of `size` (h, w) over neighbouring blocks, around `center` (None: the middle of what the
    adversaries hold); 2: a subtrigger of `size` at a random place of each block. All its pixels are at most `area`, and
    add `intensity` in units of a decoded pixel, save on the cross. `swap`: poisoned rows are replaced by generated
    ones; False adds the trigger to what was there (Table IV). `graph`, `edge_probability`, `average_degree` and
    `graph_file`: see `attacks.vertical.graphs`.
    """

    method: Literal[1, 2] = 1
    size: Size = (5, 7)
    center: tuple[int, int] | None = None
    area: int = 40
    intensity: float = 20.0
    swap: bool = True
    graph: Topology = "complete"
    edge_probability: float | None = None
    average_degree: float | None = None
    graph_file: Path | None = None
    confidence: float = 0.999
    margin: float = 0.4
    triplet_weight: float = 1.0
    rebuilding: float = 0.9
    layers: Layers = "linear"
    latent: int = 32
    hidden: int = 256
    epochs: int = 200
    steps: int = 600
    learning_rate: float = 1e-3

    name: ClassVar[str] = "cooperative_backdoor"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in (1, 2):
            raise ValueError(f"cooperative_backdoor has method 1 or 2: method = {self.method}")
        if self.method == 2 and self.center is not None:
            raise ValueError(f"cooperative_backdoor has a center with method 1 only: center = {self.center}")
        most = torch.finfo(torch.float32).max
        if not 0 < self.intensity < most:
            raise ValueError(f"cooperative_backdoor needs 0 < intensity < {most:.2g}: intensity = {self.intensity}")
        check_area(self.name, self.size, 1, self.area)
        self._inference()

    def check(self, blocks: Mapping[int, Block], sample_shape: tuple[int, ...], num_classes: int) -> None:
        """See `VerticalAttack`."""
        super().check(blocks, sample_shape, num_classes)
        if self.layers == "convolutions":
            self._check_patches(blocks, sample_shape)
        self._check_room(sum(map(len, blocks.values())))
        self._triggers(blocks, sample_shape)

    def connected(self, parties: tuple[int, ...], generator: torch.Generator) -> nx.Graph:
        """Return how the adversaries are connected."""
        return adversary_graph(
            parties,
            self.graph,
            generator,
            average_degree=self.average_degree,
            edge_probability=self.edge_probability,
            file=self.graph_file,
        )

    def begins(self, view: View, generator: torch.Generator) -> dict[str, Tensor]:
        """Infer the target's rows, learn to generate, and return the vote, the pool and the trigger."""
        inference = self._inference()
        parties = sorted({view.party, *view.shared})
        features = _together(view, parties) if self.layers == "linear" else _canvas(view, parties)
        rows = inference.rows(features, view.known, view.labels, view.target, view.num_classes, generator)
        shape = block_shapes([view.blocks[view.party]], view.sample_shape)[0]
        trigger = self._triggers(view.blocks, view.sample_shape)[view.party]
        memory = {"vote": rows, "keep": trigger.keep, "add": trigger.add}
        if self.swap:
            memory["pool"] = inference.generated(view.x[rows].reshape(-1, *shape), POOL, generator).flatten(1)
        return memory

    def recalled(self, view: View, memory: Mapping[str, Tensor]) -> CooperativeAdversary:
        """See `VerticalAttack`."""
        return CooperativeAdversary(view, memory)

    def _inference(self) -> LabelInference:
        return LabelInference(
            attack=self.name,
            layers=self.layers,
            latent=self.latent,
            hidden=self.hidden,
            margin=self.margin,
            triplet_weight=self.triplet_weight,
            rebuilding=self.rebuilding,
            confidence=self.confidence,
            epochs=self.epochs,
            steps=self.steps,
            learning_rate=self.learning_rate,
        )

    def _check_patches(self, blocks: Mapping[int, Block], sample_shape: tuple[int, ...]) -> None:
        """Refuse what convolutions cannot take: tables, and blocks that are no patch, as each generates its own."""
        if len(sample_shape) != 3:
            raise ValueError(f"{self.name} takes images where layers = convolutions: a sample has shape {sample_shape}")
        for party, block in blocks.items() if self.swap else ():
            if len(shape := block_shapes([block], sample_shape)[0]) != 3:
                raise ValueError(
                    f"{self.name} generates patches of images where layers = convolutions, and the block of adversary "
                    f"{party}, {shape[0]} columns of samples {sample_shape}, is none; divide the features as grid "
                    "does, or choose layers = linear"
                )

    def _check_room(self, columns: int) -> None:
        """Refuse sizes whose weights find no room, of so many columns; with convolutions there are hardly more."""
        try:
            torch.empty(columns + self.hidden, self.hidden + self.latent)
        except (RuntimeError, MemoryError, TypeError) as error:  # the last is of sizes that no tensor can have
            raise ValueError(
                f"{self.name} has no room for autoencoders of latent = {self.latent} and hidden = {self.hidden}; make "
                "them smaller"
            ) from error

    def _triggers(self, blocks: Mapping[int, Block], sample_shape: tuple[int, ...]) -> dict[int, Trigger]:
        pattern = crossed(self.size, self.intensity)
        if self.method == 2:
            check_area(self.name, self.size, len(blocks), self.area)
            return subtriggers(blocks, sample_shape, pattern)
        return one_trigger(blocks, sample_shape, pattern, center=self.center)


class CooperativeAdversary(ReplacingAdversary):
    """One adversary, that has its vote before the first step."""

    def vote(self) -> Tensor:
        """See `Adversary`."""
        return self.memory["vote"]


def _together(view: View, parties: list[int]) -> Tensor:
    """Return the features of these parties side by side, (N, f)."""
    return torch.cat([view.x if party == view.party else view.shared[party] for party in parties], dim=1)


def _canvas(view: View, parties: list[int]) -> Tensor:
    """Return the features of these parties in their places, (N, C, h, w): all they span, 0 where nobody holds it."""
    channels, height, width = view.sample_shape
    columns = [column for party in parties for column in view.blocks[party]]
    whole = torch.zeros(len(view.x), channels * height * width, dtype=view.x.dtype)
    whole[:, columns] = _together(view, parties)
    held = torch.zeros(channels * height * width, dtype=torch.bool)
    held[columns] = True
    pixels = held.view(channels, height, width).any(dim=0).nonzero()
    (top, left), (bottom, right) = pixels.amin(dim=0).tolist(), pixels.amax(dim=0).tolist()
    return whole.view(-1, channels, height, width)[:, :, top : bottom + 1, left : right + 1]
