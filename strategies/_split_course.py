"""What the server of vertical learning holds, and what it measures of the embeddings that come after a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from thornbed.protocol.randomness import generator
from thornbed.protocol.split import EMBEDDINGS, PROBE, REPLACED, TRIGGERED, TRUE, Held
from thornbed.strategies._rounds import RunStopped
from thornbed.tasks.metrics.vertical import gradient_perturbation, rows_to_attack, share_taken_for
from thornbed.tasks.split.records import Records
from thornbed.tasks.split.top_work import TopWork

PROBED = 32  # batches in which the perturbation is measured after a round: at 1% poisoned, eight are a matter of luck


def _nobody() -> Records:
    nothing = torch.zeros(0, dtype=torch.int64)
    return Records(nothing, nothing)


@dataclass(frozen=True, eq=False, kw_only=True)
class Course:
    """The samples by id with their labels, and how a round goes.

    Attributes
    ----------
    train, test : labels (N,) and (M,) int64 by the ids of the samples.
    num_parties, num_classes : K and C of the top model.
    batch_size : samples in a step.
    passes : over the training samples in a round, > 0, also less than one.
    timeout : seconds to wait for the answers of a step.
    target : the class that an attack wants its samples to be taken for; None where nobody attacks.
    num_attacked : test samples of other classes that measure the attack, drawn anew after every round.
    """

    train: Records = field(default_factory=_nobody)
    test: Records = field(default_factory=_nobody)
    num_parties: int = 1
    num_classes: int = 2
    batch_size: int = 256
    passes: float = 1.0
    timeout: float = 3600.0
    target: int | None = None
    num_attacked: int = 250

    def to_attack(self, seed: int, server_round: int) -> Tensor:
        """Return the rows (m,) of the test samples that measure the attack after a round."""
        if self.target is None:
            return torch.zeros(0, dtype=torch.int64)
        return rows_to_attack(self.test.x, self.target, self.num_attacked, generator(seed, "attacked", server_round))

    def to_probe(self, seed: int, server_round: int) -> Tensor:
        """Return the rows (p,) of the training samples that measure the perturbation, 32 batches at most."""
        if self.target is None:
            return torch.zeros(0, dtype=torch.int64)
        order = torch.randperm(len(self.train.ids), generator=generator(seed, "probe", server_round))
        return order[: PROBED * self.batch_size]

    def check_held(self, held: Mapping[int, Held]) -> None:
        """Raise RunStopped, with the first sample that differs, unless clients hold the samples of this server."""
        for client, theirs in held.items():
            for what, own, ids in (("training", self.train.ids, theirs.train), ("test", self.test.ids, theirs.test)):
                if lacking := sorted(set(own.tolist()) - set(ids.tolist())):
                    raise RunStopped(
                        f"client {client} holds other samples than the server: it lacks {what} sample {lacking[0]} "
                        f"({len(lacking)} such)"
                    )
                if len(ids) != len(own):
                    raise RunStopped(
                        f"client {client} holds other samples than the server: {len(ids)} {what} samples for {len(own)}"
                    )


@dataclass(frozen=True, eq=False)
class Figures:
    """Which rows were asked for after a round: test samples to attack (m,), and training samples to probe (p,)."""

    attacked: Tensor
    probe: Tensor


def measured(
    top: TopWork, course: Course, asked: Figures, answers: Mapping[int, Mapping[str, Tensor]], source: torch.Generator
) -> dict[str, float | None]:
    """Return the metrics of the top model on what came, by client; None of an attack that no adversary answered.

    Attacked samples are asked for among all clean ones, as a server meets them: a guard may look at its neighbours.
    """
    present = torch.tensor([party in answers for party in range(course.num_parties)])

    def stacked(part: Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
        """Return a part of the answers (n, d) of all clients, (n, K, d), 0 where there is no answer."""
        parts = {party: part(answer) for party, answer in answers.items()}
        absent = torch.zeros_like(next(iter(parts.values())))
        return torch.stack([parts.get(party, absent) for party in range(course.num_parties)], dim=1)

    clean = stacked(lambda answer: answer[EMBEDDINGS])
    logits = top.predict(clean, present, source)
    found: dict[str, float | None] = {
        "clean_data_accuracy": share_taken_for(logits, course.test.x),
        "loss": float(F.cross_entropy(logits, course.test.x)),
    }
    if course.target is None:
        return found
    rows, attacking = asked.attacked, any(TRUE in answer for answer in answers.values())
    sent = {
        "attack_success_rate": stacked(lambda answer: answer.get(TRIGGERED, answer[EMBEDDINGS][rows])),
        "untriggered_rate": clean[rows],
        "replaced_rate": stacked(lambda answer: answer.get(REPLACED, answer[EMBEDDINGS][rows])),
    }
    for name, embeddings in sent.items():
        taken = top.predict(torch.cat([clean, embeddings]), present, source)[len(clean) :]
        found[name] = share_taken_for(taken, course.target) if attacking else None
    probed, true = (stacked(lambda answer: answer[PROBE]), stacked(lambda answer: answer.get(TRUE, answer[PROBE])))
    labels = course.train.x[asked.probe]
    distances = [
        gradient_perturbation(*top.gradients(parts, present, y, source))
        for *parts, y in zip(*(each.split(course.batch_size) for each in (probed, true, labels)))
    ]
    found["gradient_perturbation"] = statistics.fmean(distances) if attacking else None
    return found
