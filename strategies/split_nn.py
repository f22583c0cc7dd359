"""Vertical learning of one network in parts: a bottom model at each client, the top model and the labels here.

Paper: I. Ceballos et al., "SplitNN-driven Vertical Partitioning", 2020; S. Lee, W. Fang, A. B. Das, S. Hosseinalipour,
D. J. Love, C. G. Brinton, "Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Section
II-A. With local_steps Q > 1: Y. Liu et al., "FedBCD", IEEE TSP 2022.

A round is a pass over the training samples, or the part of one that it is told. Each of its steps is one message to
every client; all but the last are exchanged while the round is configured, and the last one is Flower's own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from logging import INFO

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from thornbed.defenses.reporting import listening
from thornbed.protocol.messages import RefusedReply
from thornbed.protocol.randomness import derived_seed, generator
from thornbed.protocol.split import (
    EMBEDDINGS,
    PROBE,
    REPLACED,
    TRIGGERED,
    TRUE,
    EvaluationRequest,
    StepRequest,
    evaluation_message,
    read_embeddings,
    read_rows_reply,
    rows_message,
    step_message,
)
from thornbed.protocol.threads import one_thread
from thornbed.protocol.vector import to_arrays, to_tensors
from thornbed.strategies._cohort import Cohort
from thornbed.strategies._rounds import RoundAccount, RunStopped, checked
from thornbed.strategies._split_course import Course, Figures, measured
from thornbed.strategies._split_round import SplitRound
from thornbed.tasks.split.kept_state import MODEL, OPTIMIZER
from thornbed.tasks.split.order import batches
from thornbed.tasks.split.parties import gathered
from thornbed.tasks.split.top_model import two_layers
from thornbed.tasks.split.top_work import Guard, TopStep, TopWork

__all__ = ["Course", "SplitNN"]
ADVERSARIES = frozenset({TRIGGERED, REPLACED, TRUE})  # what they alone answer, all of it


class SplitNN(Strategy):
    """Sends every client the gradient of its last embedding (b, d) and the rows to embed next, one message a step.

    Parameters
    ----------
    cohort : who takes part: clients 0 to K - 1, all of them in every round.
    min_replies : the run stops with `RunStopped` where fewer clients answer a step.
    seed : the top model's first weights, the order of the rows and the guard's randomness follow from it.
    course : the labels, and how long a round is.
    guard : what the server does against its clients, see `defenses.vertical`.
    embedding_size : d, numbers that a client sends for each sample.
    hidden : units between the two layers of the top model.
    rectified : whether the top model begins with a ReLU, so that no gradient goes back for what is below 0.
    local_steps : steps on one batch, of the server and of every client, the other blocks held stale; 1 is exact.
    top_learning_rate : of Adam, with which the top model learns.

    Started with `initial()`. A client that does not answer a step, or whose answer is refused, has its block masked in
    it, and is counted in `account`; its embedding is forgotten. So it goes with every step of a round before which it
    did not say which samples it holds; before the next one it is asked again. `losses` are those of the steps of the
    latest round, and `figures` what was measured after it; `memory` is what the top model's optimiser remembers. Raises
    ValueError for options out of range.
    """

    scheme = "vertical"

    def __init__(
        self,
        cohort: Cohort,
        min_replies: int = 1,
        seed: int = 0,
        course: Course | None = None,
        guard: Guard | None = None,
        *,
        embedding_size: int = 64,
        hidden: int = 128,
        rectified: bool = True,
        local_steps: int = 1,
        top_learning_rate: float = 1e-3,
    ) -> None:
        if min_replies < 1:
            raise ValueError(f"min_replies is at least 1: it is {min_replies}")
        if not 0 < top_learning_rate < math.inf:
            raise ValueError(f"split_nn needs a finite top_learning_rate > 0: top_learning_rate = {top_learning_rate}")
        self.cohort, self.min_replies, self.seed = cohort, min_replies, seed
        self.course = Course() if course is None else course
        self.embedding_size, self.hidden, self.rectified = embedding_size, hidden, rectified
        self.local_steps = local_steps
        self.top = TopWork(
            self._network(),
            lambda parameters: torch.optim.Adam(parameters, lr=top_learning_rate),
            local_steps=local_steps,
            guard=guard,
        )
        self.memory: dict[str, Tensor] = {}
        self.account: RoundAccount | None = None
        self.losses: list[float] = []
        self.figures: dict[str, float | None] = {}
        self._aligned: set[int] = set()  # nodes that said which samples they hold
        self._met: set[int] = set()  # clients that answered a step
        self._resumed = False  # then nobody is new here: who answered before is not known
        self._round = SplitRound(0, ())

    def initial(self) -> ArrayRecord:
        """Return the top model with its first weights."""
        return to_arrays(self._network().state_dict())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make all steps of the round but the last, and return the messages of that one."""
        weights = {f"{MODEL}{name}": tensor for name, tensor in to_tensors(arrays).items()}
        self.top.restore({**weights, **self.memory})
        self._resumed |= server_round > 1 and self._round.server_round == 0
        self._round = SplitRound(server_round, self.cohort.draw(server_round, grid))
        self._align(config, grid)
        *others, last = batches(
            len(self.course.train.ids),
            self.course.batch_size,
            self.course.passes,
            generator(self.seed, "batches", server_round),
        )
        for rows in others:
            messages = self._step_messages(rows, config)
            self._learn(grid.send_and_receive(messages, timeout=self.course.timeout))
        return self._step_messages(last, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Learn from the last step, and return the top model."""
        self._learn(replies)
        state = self.top.state()
        if broken := [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]:
            raise RunStopped(
                f"round {server_round} has no model: {broken[0]} is not finite; a learning rate is too large"
            )
        self.memory = {name: tensor for name, tensor in state.items() if name.startswith(OPTIMIZER)}
        self.losses, self.account = self._round.losses, self._round.account()
        metrics = MetricRecord({"steps": len(self.losses), "missed": sum(self._round.missed.values())})
        return to_arrays(self.top.top.state_dict()), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the last gradients, and ask for the test samples' embeddings."""
        now, course = self._round, self.course
        now.attacked, now.probe = course.to_attack(self.seed, server_round), course.to_probe(self.seed, server_round)
        back, now.back = now.back, {}
        return [
            evaluation_message(
                EvaluationRequest(
                    server_round=server_round,
                    rows=course.test.ids,
                    attacked=course.test.ids[now.attacked],
                    probe=course.train.ids[now.probe],
                    gradient=back.get(client),
                ),
                config,
                node_id,
            )
            for client, node_id in now.nodes()
        ]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Measure the model on the embeddings that came; a client without a usable answer has its block masked."""
        now, course = self._round, self.course
        expected = {EMBEDDINGS: len(course.test.ids)}
        if course.target is not None:
            expected |= {TRIGGERED: len(now.attacked), REPLACED: len(now.attacked)}
            expected |= {PROBE: len(now.probe), TRUE: len(now.probe)}

        def read(reply: Message) -> dict[str, Tensor]:
            found = read_embeddings(reply, expected, self.embedding_size, optional=ADVERSARIES)
            lacking = ADVERSARIES - found.keys()
            if lacking and lacking != ADVERSARIES:
                raise RefusedReply(f"missing array {min(lacking)}")
            return found

        accepted, _ = now.answers(replies, read)
        self.account = now.account()
        self.figures = {}
        if not accepted:
            return None
        asked = Figures(attacked=now.attacked, probe=now.probe)
        with one_thread():
            self.figures = measured(
                self.top, course, asked, accepted, generator(self.seed, "guard", server_round, "test")
            )
        return MetricRecord({name: value for name, value in self.figures.items() if value is not None})

    def summary(self) -> None:
        """Log the sizes of the network and the minimum of replies."""
        log(
            INFO,
            "\t└──> SplitNN: %s clients, embeddings of %s, at least %s replies a step",
            self.course.num_parties,
            self.embedding_size,
            self.min_replies,
        )

    def _network(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(self.seed, "top"))
            sizes = self.course.num_parties, self.embedding_size, self.course.num_classes
            try:
                return two_layers(*sizes, hidden=self.hidden, rectified=self.rectified)
            except (RuntimeError, MemoryError, TypeError) as error:  # the last is of sizes that no tensor can have
                raise ValueError(
                    f"split_nn has no room for a top model of embedding_size = {self.embedding_size} and hidden = "
                    f"{self.hidden}; make them smaller"
                ) from error

    def _align(self, config: ConfigRecord, grid: Grid) -> None:
        """Ask clients that have not said yet which samples they hold; raises RunStopped where they are others.

        Whoever does not say it takes no part in this round, and is asked again in the next.
        """
        now = self._round
        new = [member for member in now.members if member.node_id is not None and member.node_id not in self._aligned]
        if not new:
            return
        messages = [
            rows_message(
                now.server_round, config, member.node_id, new=not self._resumed and member.client not in self._met
            )
            for member in new
            if member.node_id is not None
        ]
        replies = grid.send_and_receive(messages, timeout=self.course.timeout)
        held, silent = checked(new, replies, lambda reply, place: read_rows_reply(reply))
        now.unaligned = {client: f"it did not say which samples it holds: {why}" for client, why in silent.items()}
        self.course.check_held(held)
        self._aligned |= {member.node_id for member in new if member.client in held and member.node_id is not None}

    def _step_messages(self, rows: Tensor, config: ConfigRecord) -> list[Message]:
        now = self._round
        now.asks(rows)
        return [
            step_message(
                StepRequest(
                    server_round=now.server_round,
                    step=len(now.losses),
                    rows=self.course.train.ids[rows],
                    gradient=now.back.get(client),
                ),
                config,
                node_id,
            )
            for client, node_id in now.nodes()
        ]

    def _learn(self, replies: Iterable[Message]) -> None:
        now, rows, step = self._round, self._round.rows, len(self._round.losses)
        replies = list(replies)
        started = time.perf_counter()
        now.seconds_training += started - now.sent_at

        def read(reply: Message) -> Tensor:
            return read_embeddings(reply, {EMBEDDINGS: len(rows)}, self.embedding_size)[EMBEDDINGS]

        accepted, refused = now.answers(replies, read)
        if len(accepted) < self.min_replies:
            reasons = "; ".join(sorted(set(refused.values())))
            raise RunStopped(
                f"step {step + 1} of round {now.server_round} has {len(accepted)} usable replies and needs "
                f"{self.min_replies} ({reasons})"
            )
        self._met |= accepted.keys()
        embeddings, present = gathered([accepted.get(party) for party in range(self.course.num_parties)])
        source = generator(self.seed, "guard", now.server_round, step)
        with one_thread(), listening() as figures:
            done: TopStep = self.top.step(embeddings, present, self.course.train.x[rows], source)
        if not math.isfinite(done.loss):
            raise RunStopped(f"step {step + 1} of round {now.server_round} has no loss: it is not finite")
        now.back = {party: done.gradients[:, party] for party in accepted}
        now.learned(done, figures)
        now.seconds_aggregation += time.perf_counter() - started
