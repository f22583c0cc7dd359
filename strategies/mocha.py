"""Federated multitask learning: a linear model for every node, and how the nodes are related.

Paper: V. Smith, C.-K. Chiang, M. Sanjabi and A. Talwalkar, "Federated Multi-Task Learning", NeurIPS 2017, Algorithm 1
(MOCHA); the mathematics is in `tasks/mocha`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from logging import INFO, WARNING

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from numpy.typing import NDArray
from torch import Tensor

from thornbed.defenses.reporting import Figure, listening
from thornbed.protocol.multitask import LostDuals, NodeReply, NodeRequest, node_message, read_node_reply
from thornbed.protocol.randomness import generator
from thornbed.protocol.vector import to_arrays, to_tensors
from thornbed.strategies._cohort import Cohort
from thornbed.strategies._rounds import RoundAccount, RunStopped, SentRound, ServerTested, mean_finite, of_clients
from thornbed.tasks.mocha.algorithm import MochaServer, learnt_omega
from thornbed.tasks.mocha.objective import Coupling, unrelated

Array = NDArray[np.float64]
Relations = Callable[[Array, Array, tuple[float, float]], Array]
"""A defense of `defenses.relations`: weights (d, m), omega (m, m) and the lambdas to the relation matrix to use."""
W, OMEGA = "W", "Omega"
FIGURE = "figure/"  # in the memory, before the name of what a defense on the server last reported
FLOOR = 0.1


class Mocha(ServerTested):
    """Sends each node its own weights (d,) and one number, and gets back the sum of its duals (d,).

    Parameters
    ----------
    cohort : who takes part in a round: clients 0 to m - 1 are the nodes, so they have to say who they are.
    min_replies : the run stops with `RunStopped` where fewer replies of a round are usable.
    seed : stragglers follow from it and the round.
    passes : over its points that a node makes in a round; infinitely many solve its local problem (squared loss).
    relations : defenses that have the last word on every relation matrix, in their order.
    lambda1, lambda2 : of the objective, see `tasks.mocha.objective`; lambda1=0.0 leaves every node alone.
    learn_omega : the relation matrix is learnt after every so many rounds; 0 holds it at I - (1/m) 1 1^T.
    floor : of the learnt one's eigenvalues, see `tasks.mocha.algorithm.learnt_omega`.
    safety : sigma' in place of the smallest that is safe.
    stragglers : share of the nodes of a round that have time for part of their passes only, uniform in [0, 1).

    Started with `initial(num_features, num_nodes)`. A node that sits out a round, or whose reply is lost or refused,
    stays as it was, and nobody waits for it. The reply of a node that has lost its duals is counted as refused; it is
    told once what is in its weights, and `began_anew` in the account is where it has made new duals. `memory` holds the
    sums (d, m) and the mean conjugate (m,) of the same duals, from which `dual` of the present model follows, the round
    (m,) that each sum is from, and the figures of the relation matrix. Raises ValueError for options out of range.
    """

    scheme = "multitask"

    def __init__(
        self,
        cohort: Cohort,
        min_replies: int = 1,
        seed: int = 0,
        passes: float = 1.0,
        relations: tuple[Relations, ...] = (),
        *,
        lambda1: float = 0.001,
        lambda2: float = 0.001,
        learn_omega: int = 0,
        floor: float = FLOOR,
        safety: float | None = None,
        stragglers: float = 0.0,
    ) -> None:
        if min_replies < 1:
            raise ValueError(f"min_replies is at least 1: it is {min_replies}")
        Coupling(np.eye(1), lambda1, lambda2)  # says what is wrong with them
        if learn_omega < 0 or not 0 < floor <= 1 or not 0 <= stragglers <= 1:
            raise ValueError(
                "mocha needs learn_omega >= 0, 0 < floor <= 1 and 0 <= stragglers <= 1: "
                f"learn_omega = {learn_omega}, floor = {floor}, stragglers = {stragglers}"
            )
        if lambda2 == 0:
            raise ValueError(
                f"mocha needs lambda2 > 0, as it begins with I - (1/m) 1 1^T, which is singular: {lambda2 = }"
            )
        if learn_omega and lambda1 == 0:
            raise ValueError("mocha learns a relation matrix for lambda1 > 0: lambda1 = 0.0 leaves every node alone")
        if floor != FLOOR and not learn_omega:
            raise ValueError(f"mocha has a floor for a relation matrix that is learnt, learn_omega=10: floor = {floor}")
        if safety is not None and not 0 < safety < math.inf:
            raise ValueError(f"mocha needs a finite safety > 0: safety = {safety}")
        self.cohort, self.min_replies, self.seed, self.passes, self.relations = (
            cohort,
            min_replies,
            seed,
            passes,
            relations,
        )
        self.lambda1, self.lambda2 = lambda1, lambda2
        self.learn_omega, self.floor, self.safety, self.stragglers = learn_omega, floor, safety, stragglers
        self.memory: dict[str, Tensor] = {}
        self.account: RoundAccount | None = None
        self._server = MochaServer(np.zeros((1, 1)), Coupling(np.eye(1), 0.0, 1.0))
        self._sent = SentRound.now(0, ())
        self._lost: set[int] = set()
        self._figures: dict[str, Figure] = {}

    def initial(self, num_features: int, num_nodes: int) -> ArrayRecord:
        """Return where a run begins: weights of 0, W (d, m), and the relation matrix, Omega (m, m)."""
        weights = np.zeros((num_features, num_nodes))
        with listening() as figures:
            omega = self._related(weights, unrelated(num_nodes))
        self._figures = figures
        return _arrays(weights, omega)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the members of this round their weights."""
        tensors = to_tensors(arrays)
        weights, omega = tensors[W].numpy(), tensors[OMEGA].numpy()
        nodes = weights.shape[1]
        if "v" in self.memory:
            self._figures = _figures_in(self.memory)  # also of a run that goes on
        else:
            zeros = torch.zeros(nodes, dtype=torch.float64)
            self.memory = {"v": torch.from_numpy(weights * 0), "conjugates": zeros, "rounds": zeros.to(torch.int64)}
        v, rounds = self.memory["v"].numpy(), self.memory["rounds"].tolist()
        with listening() as figures:
            # Before a round and not after it: the last rounds are those of one objective.
            if self.learn_omega and server_round > 1 and (server_round - 1) % self.learn_omega == 0 and weights.any():
                omega = self._learnt(weights, server_round)
        self._figures = {**self._figures, **figures}
        self._server = MochaServer(v, self.coupling(omega), self.safety)
        members = self.cohort.draw(server_round, grid)
        self._sent = SentRound.now(server_round, members)
        curvatures, columns = self._server.curvatures, self._server.weights
        return [
            node_message(
                NodeRequest(
                    weights=np.ascontiguousarray(columns[:, member.client]),
                    curvature=float(curvatures[member.client]),
                    passes=self._passes(server_round, member.client),
                    held_round=rounds[member.client],
                    server_round=server_round,
                    held=np.ascontiguousarray(v[:, member.client]) if member.client in self._lost else None,
                ),
                config,
                member.node_id,
            )
            for member in members
            if member.node_id is not None
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check the replies, take in their sums, and return the weights of all nodes and how these are related."""
        nodes_without: set[int] = set()  # duals, by node id

        def read(reply: Message, place: int) -> NodeReply:
            try:
                return read_node_reply(reply, len(self._server.v))
            except LostDuals:
                nodes_without.add(reply.metadata.src_node_id)
                raise

        accepted, account = self._sent.gather(replies, read, at_least=self.min_replies)
        self.account = account
        started = time.perf_counter()
        # A node that has lost its duals is told whenever it is drawn again, which may be many rounds later.
        anew = [node for node, reply in accepted.items() if reply.anew and node in self._lost]
        lost = {member.client for member in self._sent.members if member.node_id in nodes_without}
        self._lost = (self._lost - accepted.keys()) | lost
        server = self._server.receive({node: reply.v for node, reply in accepted.items()})
        conjugates, rounds = self.memory["conjugates"].clone(), self.memory["rounds"].clone()
        for node, reply in accepted.items():
            conjugates[node], rounds[node] = reply.conjugate, server_round
        sums = torch.from_numpy(server.v)
        self.memory = {"v": sums, "conjugates": conjugates, "rounds": rounds, **_as_tensors(self._figures)}
        account.defense = {**self._figures, **of_clients(reply.metrics for reply in accepted.values())}
        if anew:
            account.defense["began_anew"] = anew
            log(WARNING, "Clients %s began anew in round %s: they had lost their duals", anew, server_round)
        account.train_loss = mean_finite(reply.loss for reply in accepted.values())
        account.seconds_aggregation = time.perf_counter() - started
        metrics = MetricRecord({"replies": len(accepted), "dropped": len(account.dropped)})
        return _arrays(server.weights, server.coupling.omega), metrics

    def coupling(self, omega: Array) -> Coupling:
        """Return the coupling of a relation matrix (m, m) in this strategy's objective."""
        return Coupling(omega, self.lambda1, self.lambda2)

    def dual(self, omega: Array) -> float:
        """Return D at the duals whose sums the server has: no weights have an objective below it."""
        if "v" not in self.memory:
            return 0.0
        return MochaServer(self.memory["v"].numpy(), self.coupling(omega)).dual(self.memory["conjugates"].tolist())

    def summary(self) -> None:
        """Log the objective and the minimum of replies."""
        log(INFO, "\t└──> MOCHA: lambda1 %s, lambda2 %s", self.lambda1, self.lambda2)

    def _related(self, weights: Array, omega: Array) -> Array:
        for defend in self.relations:
            omega = defend(weights, omega, (self.lambda1, self.lambda2))
        return omega

    def _learnt(self, weights: Array, server_round: int) -> Array:
        try:
            return self._related(weights, learnt_omega(weights, floor=self.floor))
        except (ValueError, np.linalg.LinAlgError) as error:
            raise RunStopped(f"round {server_round} has no relation matrix: {error}") from error

    def _passes(self, server_round: int, node: int) -> float:
        late = torch.rand(2, generator=generator(self.seed, "straggler", server_round, node))
        return self.passes * float(late[1]) if float(late[0]) < self.stragglers else self.passes


def _arrays(weights: Array, omega: Array) -> ArrayRecord:
    return to_arrays({W: torch.from_numpy(np.ascontiguousarray(weights)), OMEGA: torch.from_numpy(omega)})


def _as_tensors(figures: Mapping[str, Figure]) -> dict[str, Tensor]:
    return {FIGURE + name: torch.from_numpy(np.array(value)) for name, value in figures.items()}


def _figures_in(memory: Mapping[str, Tensor]) -> dict[str, Figure]:
    return {name.removeprefix(FIGURE): value.tolist() for name, value in memory.items() if name.startswith(FIGURE)}
