"""The types that tasks share: samples, a task with its data, and its defaults. Torch only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

Modality = Literal["image", "table", "text"]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Samples:
    """Labelled samples, row by row.

    `x` is (N, ...): images are (N, C, H, W) float32 in [0, 1] once decoded, uint8 while they rest in a task; tables are
    (N, features) float32; texts are (N, length) int64 token ids, 0 where the text has ended. `y` is (N,) int64, in
    [0, num_classes). `vocabulary` says which word has which id, of texts; samples made from these keep it.
    """

    x: Tensor
    y: Tensor
    vocabulary: Mapping[str, int] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"samples need one label each: {len(self.x)} samples, {len(self.y)} labels")

    def __len__(self) -> int:
        return len(self.y)

    def select(self, rows: Tensor) -> Samples:
        """Return the rows asked for, by index (k,) or by mask (N,), as new samples."""
        return replace(self, x=self.x[rows], y=self.y[rows])

    def decoded(self) -> Samples:
        """Return the samples with uint8 pixels turned into float32 in [0, 1]; others as they are."""
        if self.x.dtype == torch.uint8:
            return replace(self, x=self.x.to(torch.float32) / 255)
        return self

    def join(self, other: Samples) -> Samples:
        """Return these samples followed by the others; those without a vocabulary are taken to share the one there is.

        Raises ValueError where the same word has different ids in the two, since the rows would mean different texts.
        """
        vocabularies = [samples.vocabulary for samples in (self, other) if samples.vocabulary is not None]
        if len(vocabularies) == 2 and vocabularies[0] is not vocabularies[1] and vocabularies[0] != vocabularies[1]:
            sizes = " and ".join(str(len(vocabulary)) for vocabulary in vocabularies)
            raise ValueError(f"samples of different vocabularies cannot be joined: they have {sizes} words")
        vocabulary = vocabularies[0] if vocabularies else None
        return Samples(torch.cat([self.x, other.x]), torch.cat([self.y, other.y]), vocabulary)


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a task is trained with where no flag says otherwise; each has the meaning of the flag of its name."""

    model: str
    optimizer: str = "sgd(momentum=0.9)"
    learning_rate: float = 0.05
    batch_size: int = 64
    local_epochs: float = 1.0
    rounds: int = 30
    num_clients: int = 100
    clients_per_round: int = 20
    malicious_share: float = 0.2
    partition: str = "dirichlet(alpha=0.5)"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What was chosen on one task, by a paper or on rows held out of its training rows, and is no other task's default.

    A module of a task may have one as `TUNED`; docs/defaults.md says where each value comes from.

    Attributes
    ----------
    settings : by strategy, what takes the place of the defaults of its scheme, under the names of `Defaults`.
    options : by plug-in (strategy, attack, defense or inversion), options that a spec has where it does not name them.
    """

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification task with its data.

    `mean` and `std` have one entry per channel (images) or feature (tables) and describe decoded samples; models
    normalise with them, so that attacks work on what a camera or a table gives. Empty tuples: no normalisation.
    `vectors` is (V, D) float32, of texts: row i is what a model sees of token i, and row 0, the padding, is zero. They
    are data, like mean and std: no model learns or sends them.
    `blocks` has, where the features belong to parties by nature, the columns of each in a flattened sample; empty where
    they do not, and `tasks.blocks` divides them.
    """

    name: str
    modality: Modality
    num_classes: int
    train: Samples
    test: Samples
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()
    vectors: Tensor | None = None
    blocks: tuple[tuple[int, ...], ...] = ()

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (C, H, W) for images, (features,) for tables, (length,) for texts."""
        return tuple(self.train.x.shape[1:])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what a model of tasks/models takes: (length, D) where tokens have vectors, else `sample_shape`."""
        return self.sample_shape if self.vectors is None else (*self.sample_shape, self.vectors.shape[1])

    def samples(self, split: Split, rows: Tensor | None = None) -> Samples:
        """Return decoded samples of a split, all or the rows asked for."""
        chosen: Samples = self.train if split == "train" else self.test
        return (chosen if rows is None else chosen.select(rows)).decoded()
