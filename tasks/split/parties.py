"""A whole SplitNN in one process, without an engine: parties that answer, and the loop that asks them.

It says what a step is for those that send it as messages, and lets an attack or a defense be tried in a few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records
from thornbed.tasks.split.top_work import TopStep, TopWork


class Party(Protocol):
    """Who is asked; an honest one is a `HonestParty`."""

    def step(self, gradient: Tensor | None, ids: Tensor | None) -> Tensor | None:
        """Return the embedding (b, d) of the samples (b,), having learned from the gradient of the one before.

        None is no answer. ids None: only learn.
        """


@dataclass
class HonestParty:
    """A party that does what it is asked."""

    records: Records
    work: PartyWork

    def step(self, gradient: Tensor | None, ids: Tensor | None) -> Tensor | None:
        """See `Party`."""
        return self.work.step(gradient, None if ids is None else self.records.take(ids))


@dataclass
class SplitTraining:
    """How a training went: the mean loss of each step, and how many answers of each party (K,) were missing."""

    losses: list[float] = field(default_factory=list)
    missed: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))


def train_parties(
    parties: Sequence[Party],
    top: TopWork,
    labels: Tensor,
    batches: Iterable[Tensor],
    generator: torch.Generator,
    *,
    min_parties: int = 1,
    after_step: Callable[[int, Tensor, Tensor, TopStep], None] | None = None,
) -> SplitTraining:
    """Train with one message per party and step, on batches of sample ids (b,); labels (N,) are by id, the server's.

    A party that does not answer is masked for that step, and counted; it gets no gradient for it. after_step(number,
    ids, embeddings (b, K, d), result) looks on. Raises ValueError where fewer than min_parties answer a step.
    """
    done = SplitTraining(missed=torch.zeros(len(parties), dtype=torch.int64))
    back: list[Tensor | None] = [None] * len(parties)
    for number, ids in enumerate(batches):
        answers = [party.step(gradient, ids) for party, gradient in zip(parties, back)]
        embeddings, present = gathered(answers)
        done.missed += ~present
        if int(present.sum()) < min_parties:
            raise ValueError(f"step {number} needs answers of {min_parties} parties: {int(present.sum())} answered")
        result = top.step(embeddings, present, labels[ids], generator)
        done.losses.append(result.loss)
        back = [result.gradients[:, party] if answered else None for party, answered in enumerate(present.tolist())]
        if after_step is not None:
            after_step(number, ids, embeddings, result)
    for party, gradient in zip(parties, back):
        party.step(gradient, None)
    return done


def gathered(answers: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Return embeddings (b, K, d), 0 where none came, and who answered, (K,) bool.

    Raises ValueError where nobody did, and where two answers have different shapes.
    """
    present = torch.tensor([answer is not None for answer in answers])
    some = [(party, answer) for party, answer in enumerate(answers) if answer is not None]
    if not some:
        raise ValueError(f"no party answered: K = {len(answers)}")
    for party, answer in some:
        if answer.shape != some[0][1].shape:
            raise ValueError(
                f"embeddings of a step have one shape: party {some[0][0]} sent {tuple(some[0][1].shape)}, "
                f"party {party} {tuple(answer.shape)}"
            )
    absent = torch.zeros_like(some[0][1])
    return torch.stack([absent if answer is None else answer for answer in answers], dim=1), present
