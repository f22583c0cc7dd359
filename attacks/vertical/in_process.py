"""An attack on a whole SplitNN in one process, without an engine; a defense is any `tasks.split.top_work.Guard`.

Besides the figures of Lee et al. (2025) it measures their controls: how often samples without a trigger are taken for
the target, and how often those whose adversaries' blocks are replaced as in training, without a trigger.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from thornbed.attacks.vertical import Adversary, VerticalAttack, View
from thornbed.attacks.vertical.coalition import decided, known_rows, shared, to_poison
from thornbed.attacks.vertical.graphs import algebraic_connectivity
from thornbed.attacks.vertical.party import AttackingParty
from thornbed.tasks import Task
from thornbed.tasks.blocks import Blocks, block_shapes, split
from thornbed.tasks.bottoms import Bottom, bottom
from thornbed.tasks.bottoms.column_layers import column_layers
from thornbed.tasks.bottoms.patch_cnn import patch_cnn
from thornbed.tasks.metrics.vertical import gradient_perturbation, inferred_rightly, rows_to_attack, share_taken_for
from thornbed.tasks.split import MakeOptimizer
from thornbed.tasks.split.parties import HonestParty, Party, TopStep, train_parties
from thornbed.tasks.split.party_work import PartyWork
from thornbed.tasks.split.records import Records
from thornbed.tasks.split.top_model import two_layers
from thornbed.tasks.split.top_work import Guard, TopWork


def _adam(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the SplitNN is trained, and how many triggered samples measure the attack; `bottom` None is the task's."""

    bottom: Bottom | None = None
    embedding_size: int = 64
    hidden: int = 128
    epochs: int = 5
    batch_size: int = 256
    local_steps: int = 1
    optimizer: MakeOptimizer = _adam
    top_optimizer: MakeOptimizer = _adam
    attacked: int = 250


@dataclass
class Outcome:
    """What came of it.

    Attributes
    ----------
    rates : by name, in [0, 1]; NaN where nothing was inferred or there was no attack.
    inferred : rows that the leader named, beside those whose labels were known; poisoned : rows of the first adversary.
    connectivity : of the adversaries' graph. perturbations : one a step after the agreement.
    losses : one a step.
    """

    rates: dict[str, float]
    losses: list[float]
    inferred: int = 0
    poisoned: int = 0
    connectivity: float = float("nan")
    perturbations: list[float] = field(default_factory=list)

    @property
    def perturbation(self) -> float:
        """The mean over steps; 0 where nobody ever poisoned."""
        return statistics.fmean(self.perturbations) if self.perturbations else 0.0


@dataclass
class CoalitionInProcess:
    """The adversaries of a run, and what they have agreed on: by adversary, the rows it takes for the target's."""

    attack: VerticalAttack
    members: Mapping[int, Adversary]
    graph: object
    known: Tensor
    agreed: dict[int, Tensor] = field(default_factory=dict)

    def settle(self, num_rows: int, generator: torch.Generator) -> None:
        """Vote as soon as all know, once, and tell each what it poisons."""
        votes = {party: member.vote() for party, member in self.members.items()}
        named = {party: vote for party, vote in votes.items() if vote is not None}
        if self.agreed or len(named) < len(votes):
            return
        self.agreed = decided(named, self.graph, self.attack.vote)
        for party, rows in to_poison(self.agreed, num_rows, self.attack.budget, generator).items():
            self.members[party].agree(rows, generator)


def conspire(
    attack: VerticalAttack,
    parts: Mapping[int, Tensor],
    blocks: Blocks,
    sample_shape: tuple[int, ...],
    labels: Tensor,
    num_classes: int,
    generator: torch.Generator,
) -> CoalitionInProcess:
    """Return the coalition of the adversaries that hold these parts (N, c), having told each what it may know.

    labels (N,): of all rows, of which the few that the attack says are known. Raises ValueError where the attack does
    not fit the blocks or the task.
    """
    held = {party: blocks[party] for party in sorted(parts)}
    attack.check(held, sample_shape, num_classes)
    graph = attack.connected(tuple(held), generator)
    known = known_rows(labels, attack.target, attack.num_known, attack.known_target_share, generator)
    given = shared(parts, graph)
    members = {
        party: attack.adversary(
            View(
                party=party,
                x=parts[party],
                shared=given[party],
                blocks=held,
                sample_shape=sample_shape,
                known=known,
                labels=labels[known],
                target=attack.target,
                num_classes=num_classes,
            ),
            generator,
        )
        for party in held
    }
    return CoalitionInProcess(attack, members, graph, known)


def attack_in_process(
    task: Task,
    blocks: Blocks,
    adversaries: tuple[int, ...],
    attack: VerticalAttack | None,
    generator: torch.Generator,
    training: Training,
    guard: Guard | None = None,
) -> Outcome:
    """Train on the task's blocks, with these parties as adversaries, and measure; attack None: all are honest."""
    train, test = task.samples("train"), task.samples("test")
    parts = split(train.x, blocks)
    ids = torch.arange(len(train))
    works, top = _networks(task, blocks, training, guard, generator)
    coalition = None
    parties: list[Party] = []
    if attack is not None:
        held = {party: parts[party] for party in adversaries}
        coalition = conspire(attack, held, blocks, task.sample_shape, train.y, task.num_classes, generator)
        coalition.settle(len(train), generator)
    for number, (part, work) in enumerate(zip(parts, works)):
        records = Records(ids, part)
        member = None if coalition is None else coalition.members.get(number)
        party = HonestParty(records, work) if member is None else AttackingParty(records, work, member, generator)
        parties.append(party)
    perturbations: list[float] = []

    def after_step(number: int, rows: Tensor, embeddings: Tensor, result: TopStep) -> None:
        if coalition is None:
            return
        if coalition.agreed:
            honest = embeddings.clone()
            for party in coalition.members:
                honest[:, party] = works[party].embed(parts[party][rows])
            present = torch.ones(len(blocks), dtype=torch.bool)
            gradients = top.gradients((embeddings, honest), present, train.y[rows], generator)
            perturbations.append(gradient_perturbation(*gradients))
        coalition.settle(len(train), generator)

    batches = [
        rows
        for _ in range(training.epochs)
        for rows in torch.randperm(len(train), generator=generator).split(training.batch_size)
    ]
    done = train_parties(parties, top, train.y, batches, generator, after_step=after_step)
    rates = _rates(split(test.x, blocks), test.y, works, top, coalition, attack, generator, training)
    outcome = Outcome(rates, done.losses, perturbations=perturbations)
    if coalition is not None:
        outcome.connectivity = algebraic_connectivity(coalition.graph)
        first = min(coalition.members)
        if coalition.agreed:
            share, outcome.inferred = inferred_rightly(
                coalition.agreed[first], train.y, coalition.attack.target, coalition.known
            )
            outcome.rates["label_inference_accuracy"] = share
            outcome.poisoned = len(coalition.members[first].memory["rows"])
    return outcome


def _networks(
    task: Task, blocks: Blocks, training: Training, guard: Guard | None, generator: torch.Generator
) -> tuple[list[PartyWork], TopWork]:
    make = training.bottom or (patch_cnn if task.modality == "image" else column_layers)
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        networks: list[nn.Module] = [
            bottom(make, block, shape, training.embedding_size, mean=task.mean, std=task.std)
            for block, shape in zip(blocks, block_shapes(blocks, task.sample_shape))
        ]
        top = two_layers(len(blocks), training.embedding_size, task.num_classes, hidden=training.hidden)
    works = [PartyWork(network, training.optimizer, local_steps=training.local_steps) for network in networks]
    return works, TopWork(top, training.top_optimizer, local_steps=training.local_steps, guard=guard)


def _rates(
    parts: list[Tensor],
    labels: Tensor,
    works: list[PartyWork],
    top: TopWork,
    coalition: CoalitionInProcess | None,
    attack: VerticalAttack | None,
    generator: torch.Generator,
    training: Training,
) -> dict[str, float]:
    present = torch.ones(len(parts), dtype=torch.bool)
    clean = torch.stack([work.embed(part) for work, part in zip(works, parts)], dim=1)
    rates = {"clean_data_accuracy": share_taken_for(top.predict(clean, present, generator), labels)}
    if coalition is None or attack is None:
        return rates
    rows = rows_to_attack(labels, attack.target, training.attacked, generator)

    def logits(change: Callable[[Adversary, Tensor], Tensor], sends: bool) -> Tensor:
        """Return those of the rows, asked for among all clean queries, as a server meets them."""
        embeddings = clean[rows].clone()
        for party, member in coalition.members.items():
            own = works[party].embed(change(member, parts[party][rows]))
            embeddings[:, party] = member.triggers_embeddings(own) if sends else own
        return top.predict(torch.cat([clean, embeddings]), present, generator)[len(clean) :]

    changes: dict[str, tuple[Callable[[Adversary, Tensor], Tensor], bool]] = {
        "attack_success_rate": (lambda member, x: member.triggers(x, generator), True),
        "untriggered_rate": (lambda member, x: x, False),
        "replaced_rate": (lambda member, x: member.replaces(x, generator), False),
    }
    for name, (change, sends) in changes.items():
        rates[name] = share_taken_for(logits(change, sends), attack.target)
    return {**rates, "label_inference_accuracy": float("nan")}
