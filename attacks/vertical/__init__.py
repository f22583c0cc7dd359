"""Backdoors in vertical learning by parties that collude, one attack a file: a frozen dataclass of options.

The class has the name of its file without underscores (`CooperativeBackdoor` in cooperative_backdoor.py) and is a
`VerticalAttack`; `adversary(view, generator)` makes one adversary of it, which changes what it embeds and what it sends
in the ordinary protocol, and nothing else. Adversaries talk to each other along their graph (`attacks.vertical.graphs`,
`attacks.vertical.coalition`, `clients.collusion`), never through the server. What an adversary knows is its `View`, and
what it hears: the gradients of its own embeddings, where its attack `watches` and says so in `NEEDS`. An attack that
does not watch has no place to read them.

`attacks.vertical.in_process` runs one against a whole SplitNN in a few lines:

    >>> import torch
    >>> from thornbed.attacks.vertical.cooperative_backdoor import CooperativeBackdoor
    >>> from thornbed.attacks.vertical.in_process import Training, attack_in_process
    >>> from thornbed.tasks.blocks.grid import grid
    >>> from thornbed.tasks.digits import digits
    >>> task = digits(None, num_train=300)
    >>> attack = CooperativeBackdoor(size=(3, 3), num_known=60, epochs=20, steps=50)
    >>> outcome = attack_in_process(
    ...     task, grid(task.sample_shape, 4), (0, 1), attack, torch.Generator().manual_seed(0), Training(epochs=2)
    ... )
    >>> sorted(outcome.rates)
    ['attack_success_rate', 'clean_data_accuracy', 'label_inference_accuracy', 'replaced_rate', 'untriggered_rate']
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import networkx as nx
import torch
from torch import Tensor

from thornbed.tasks.blocks import Block

Vote = Literal["printed", "simple", "none"]
"""How many of A adversaries must name a row: more than ceil(A/2), as the paper prints it; more than A/2; or nobody is
asked, and each adversary poisons what it takes for the target class itself."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What one adversary knows before the first step. Rows are numbers in the order that all parties have in common.

    Attributes
    ----------
    party : its number.
    x : (N, c), its own part of the training samples, decoded.
    shared : by neighbour in the graph, (N, c_j), what that one has.
    blocks : by adversary, itself included, which columns of a flattened sample it holds.
    sample_shape : of a whole sample.
    known, labels : (k,) int64, the rows whose labels it knows, and these.
    target : the class that triggered samples are to be taken for.
    num_classes : of the task.

    Raises ValueError where these do not fit each other.
    """

    party: int
    x: Tensor
    shared: Mapping[int, Tensor]
    blocks: Mapping[int, Block]
    sample_shape: tuple[int, ...]
    known: Tensor
    labels: Tensor
    target: int
    num_classes: int

    def __post_init__(self) -> None:
        for party, part in {**self.shared, self.party: self.x}.items():
            if party not in self.blocks or part.shape != (len(self.x), len(self.blocks[party])):
                raise ValueError(
                    f"adversary {self.party} holds {len(self.x)} rows, and of adversary {party} "
                    f"{len(self.blocks.get(party, ()))} columns: it was given {tuple(part.shape)}"
                )
        if not 0 <= self.target < self.num_classes:
            raise ValueError(f"the target is a class from 0 to {self.num_classes - 1}: target = {self.target}")
        if self.known.shape != self.labels.shape:
            raise ValueError(f"known rows need one label each: {len(self.known)} rows, {len(self.labels)} labels")

    @property
    def known_targets(self) -> Tensor:
        """The known rows of the target class."""
        return self.known[self.labels == self.target]


class Adversary(ABC):
    """One adversary of a run: verbs that are those of an honest party until an attack overrides them.

    All that it remembers from one step to the next is `memory`, plain tensors by name: whoever keeps it between two
    messages goes on from it with `VerticalAttack.recalled`. x and embeddings that are passed in are never modified.
    """

    watches: ClassVar[bool] = False
    """Whether it is told the gradients of its own embeddings; `hears` and `learns` are never called otherwise."""

    def __init__(self, view: View, memory: Mapping[str, Tensor]) -> None:
        self.view = view
        self.memory = dict(memory)

    @abstractmethod
    def vote(self) -> Tensor | None:
        """Return the rows (v,) that it takes for the target's, ascending; None as long as it does not know."""

    @abstractmethod
    def agree(self, rows: Tensor, generator: torch.Generator) -> None:
        """Take the rows (p,) that it is to poison from now on."""

    def embeds(self, rows: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return what it embeds for training rows (b,) in place of its part of them, x (b, c)."""
        return x

    def sends(self, rows: Tensor, embeddings: Tensor, generator: torch.Generator) -> Tensor:
        """Return what it sends for training rows (b,) in place of their embeddings (b, d)."""
        return embeddings

    def hears(self, rows: Tensor, gradients: Tensor) -> None:  # noqa: B027  # who does not watch has no need of it
        """Take notice of the gradients (b, d) that came back for what it sent."""

    def learns(self, rows: Tensor, gradients: Tensor) -> Tensor:
        """Return the gradients (b, d) that its bottom model learns from."""
        return gradients

    def triggers(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return its part (n, c) of samples with the trigger, to be embedded when the model is used."""
        return x

    def triggers_embeddings(self, embeddings: Tensor) -> Tensor:
        """Return embeddings (n, d) with the trigger, to be sent when the model is used."""
        return embeddings

    def replaces(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return its part (n, c) of samples as in training, but without a trigger: the control of what that does."""
        return x


@dataclass(frozen=True, kw_only=True)
class VerticalAttack(ABC):
    """What every attack of this folder is, and the options that all of them have.

    `budget`: the share of all training rows that is poisoned, at most. `num_known`: rows whose labels the adversaries
    know, of which the share `known_target_share` is of the target class. `vote`: see `Vote`.
    """

    target: int = 0
    budget: float = 0.01
    num_known: int = 360
    known_target_share: float = 0.16
    vote: Vote = "printed"

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.target < 0:
            raise ValueError(f"{self.name} needs target >= 0: target = {self.target}")
        if not 0 <= self.budget <= 1:
            raise ValueError(f"{self.name} needs 0 <= budget <= 1: budget = {self.budget}")
        if not 0 < self.known_target_share < 1:
            raise ValueError(
                f"{self.name} needs 0 < known_target_share < 1: known_target_share = {self.known_target_share}"
            )
        if self.num_known < 2:
            raise ValueError(f"{self.name} needs at least two known labels: num_known = {self.num_known}")
        if self.vote not in get_args(Vote):
            raise ValueError(f"{self.name} needs a vote out of {', '.join(get_args(Vote))}: vote = {self.vote}")

    def check(self, blocks: Mapping[int, Block], sample_shape: tuple[int, ...], num_classes: int) -> None:
        """Raise ValueError where the attack does not fit the adversaries' blocks or the task, before anything starts.

        An attack that needs more than a target overrides it, and calls it.
        """
        if self.target >= num_classes:
            raise ValueError(
                f"{self.name} needs target < number of classes: target = {self.target}, classes = {num_classes}"
            )

    def connected(self, parties: tuple[int, ...], generator: torch.Generator) -> nx.Graph:
        """Return how the adversaries are connected: completely, unless an attack has an option for it."""
        return nx.complete_graph(parties)

    def adversary(self, view: View, generator: torch.Generator) -> Adversary:
        """Return one adversary, which has thought about its view as far as it can before the first step."""
        return self.recalled(view, self.begins(view, generator))

    @abstractmethod
    def begins(self, view: View, generator: torch.Generator) -> dict[str, Tensor]:
        """Return what an adversary remembers before the first step; this may take long, `recalled` does not."""

    @abstractmethod
    def recalled(self, view: View, memory: Mapping[str, Tensor]) -> Adversary:
        """Return the adversary that has this memory."""
