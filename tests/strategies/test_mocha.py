"""MOCHA over a grid: it finds the optimum, whoever drops out, forgets, is late or sends nonsense."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from thornbed.clients.multitask import node_work
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.protocol.actions import IDENTIFY, TRAIN_MOCHA
from thornbed.protocol.messages import Identity, identify_reply
from thornbed.protocol.multitask import lost_reply, node_reply, read_node_request
from thornbed.protocol.vector import to_tensors
from thornbed.strategies import Mocha, NumberedClients, RunStopped
from thornbed.strategies.mocha import OMEGA, W
from thornbed.tasks.mocha.objective import primal
from thornbed.tasks.mocha.solving import solve
from thornbed.tasks.multitask import Loss, Points

NODES = 4


def points_of(loss: Loss) -> list[Points]:
    rng = np.random.default_rng(0)
    found = []
    for node in range(NODES):
        x = rng.normal(size=(12 + node, 3))
        z = x @ (np.ones(3) + 0.3 * rng.normal(size=3)) + 0.1 * rng.normal(size=len(x))
        found.append(Points(x, np.sign(z) if loss == "hinge" else z))
    return found


class Nodes:
    """Nodes that do their work, and whatever else a test makes of their replies."""

    def __init__(self, loss: Loss, spoil: Callable[[int, int, Message], Message] = lambda node, turn, reply: reply):
        self.points, self.loss, self.spoil = points_of(loss), loss, spoil
        self.kept: dict[int, dict[int, tuple[np.ndarray | None, np.ndarray]]] = {}
        for node in range(NODES):
            self.forget(node)
        self.passes: list[float] = []
        self.ignorant = 0
        self.sizes: set[tuple[int, int]] = set()

    def forget(self, node: int) -> None:
        """Restart a node, which has then what it begins with."""
        self.kept[node] = {0: (None, np.zeros(3))}

    def grid(self) -> InlineGrid:
        app = ClientApp()

        @app.query(IDENTIFY.removeprefix("query."))
        def identify(message: Message, context: Context) -> Message:
            return identify_reply(message, Identity(int(context.node_config["partition-id"]), "benign"))

        @app.train(TRAIN_MOCHA.removeprefix("train."))
        def improve(message: Message, context: Context) -> Message:
            node, request = int(context.node_config["partition-id"]), read_node_request(message)
            self.passes.append(request.passes)
            if request.held is None and request.held_round not in self.kept[node]:
                self.ignorant += 1
                return lost_reply(message, f"client {node} has lost its duals")
            alpha, held = self.kept[node][request.held_round] if request.held is None else (None, request.held)
            anew = request.held is not None
            work = node_work(
                self.points[node],
                alpha,
                request.weights,
                request.curvature,
                self.loss,
                torch.Generator().manual_seed(request.server_round * NODES + node),
                passes=request.passes * (10 if anew else 1),
                held=held,
            )
            self.kept[node] = {request.held_round: (alpha, held), request.server_round: (work.alpha, work.v)}
            self.sizes.add((len(request.weights), len(work.v)))
            reply = node_reply(
                message,
                work.v,
                conjugate=work.conjugate,
                loss=work.loss,
                num_points=len(self.points[node]),
                defense={},
                anew=anew,
            )
            return self.spoil(node, request.server_round, reply)

        return InlineGrid(app, NODES, {})


def run(nodes: Nodes, strategy: Mocha, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (d, m) and the relation matrix (m, m) after so many rounds."""
    result = strategy.start(nodes.grid(), strategy.initial(3, NODES), num_rounds=rounds)
    tensors = to_tensors(result.arrays)
    return tensors[W].numpy(), tensors[OMEGA].numpy()


def mocha(per_round: int = NODES, min_replies: int = 1, **options) -> Mocha:
    cohort = NumberedClients(NODES, per_round)
    return Mocha(cohort, min_replies, 0, 5.0, **{"lambda1": 0.1, "lambda2": 0.05, **options})


@pytest.mark.parametrize("loss", ["hinge", "squared"])
@pytest.mark.parametrize("per_round", [NODES, NODES // 2])
def test_it_ends_at_the_optimum_also_where_half_of_the_nodes_sit_out(loss, per_round):
    nodes, strategy = Nodes(loss), mocha(per_round)
    weights, omega = run(nodes, strategy, 400)
    coupling = strategy.coupling(omega)
    best = solve(nodes.points, coupling, loss, torch.Generator(), gap=1e-9)
    reached = primal(nodes.points, weights, coupling, loss)
    assert reached == pytest.approx(best.primal, rel=1e-5)
    assert -1e-12 <= reached - strategy.dual(omega) <= 1e-5 * reached
    assert nodes.sizes == {(3, 3)}  # d numbers each way


def test_lambda1_of_0_leaves_every_node_alone():
    nodes, strategy = Nodes("squared"), mocha(lambda1=0.0)
    weights, _ = run(nodes, strategy, 100)
    for node, each in enumerate(nodes.points):
        alone = np.linalg.solve(each.x.T @ each.x / len(each) + 0.05 * np.eye(3), each.x.T @ each.y / len(each))
        np.testing.assert_allclose(weights[:, node], alone, rtol=1e-5)


class Watched(Mocha):
    """Keeps the dual after every round."""

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.course = [*getattr(self, "course", []), self.dual(to_tensors(arrays)[OMEGA].numpy())]
        return arrays, metrics


def hard(**options) -> Watched:
    """Nodes that are tightly coupled and hardly regularised, where a step that is taken twice goes far astray."""
    return Watched(NumberedClients(NODES, NODES), 1, 0, 20.0, **{"lambda1": 0.01, "lambda2": 0.001, **options})


@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_the_dual_never_falls_though_replies_are_lost_and_nodes_forget(loss):
    nodes = Nodes(loss)

    def spoil(node: int, turn: int, reply: Message) -> Message:
        if node == 1 and turn in (5, 6, 30):  # a node that is restarted
            nodes.forget(1)
        if (node + turn) % 3 == 0:
            raise RuntimeError("lost on its way")
        return reply

    nodes.spoil = spoil
    strategy = hard()
    weights, omega = run(nodes, strategy, 400)
    falls = [later - earlier for earlier, later in zip(strategy.course, strategy.course[1:]) if later < earlier - 1e-9]
    assert len(falls) <= 3  # a node that begins anew may lose a little of its own part
    assert min(falls, default=0.0) > -0.2 * abs(strategy.course[-1])
    best = solve(nodes.points, strategy.coupling(omega), loss, torch.Generator(), gap=1e-10)
    assert primal(nodes.points, weights, strategy.coupling(omega), loss) == pytest.approx(best.primal, rel=1e-3)


def test_a_node_that_lost_its_duals_is_told_whenever_it_is_drawn_again():
    nodes, asked = Nodes("squared"), []

    def spoil(node: int, turn: int, reply: Message) -> Message:
        if node == 1 and not asked and turn > 20:  # a node that is restarted
            nodes.forget(1)
            asked.append(turn)
        return reply

    nodes.spoil = spoil
    strategy = mocha(per_round=2)  # with one the round would have no answer
    weights, omega = run(nodes, strategy, 300)
    assert asked
    best = solve(nodes.points, strategy.coupling(omega), "squared", torch.Generator(), gap=1e-10)
    assert primal(nodes.points, weights, strategy.coupling(omega), "squared") == pytest.approx(best.primal, rel=1e-3)
    assert nodes.ignorant == 1


def test_the_last_rounds_have_one_objective_where_relations_are_learnt():
    nodes, strategy = Nodes("squared"), mocha(learn_omega=20)
    weights, omega = run(nodes, strategy, 200)
    reached = primal(nodes.points, weights, strategy.coupling(omega), "squared")
    assert reached - strategy.dual(omega) <= 1e-3 * reached


def of(arrays: dict[str, np.ndarray], metrics: dict[str, float]) -> RecordDict:
    from thornbed.protocol.vector import to_arrays

    content = {"arrays": to_arrays({name: torch.from_numpy(value) for name, value in arrays.items()})}
    return RecordDict({**content, "metrics": MetricRecord(metrics)})


GOOD = {"num-examples": 5, "train-loss": 1.0, "conjugate": 0.0}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (of({"sum": np.zeros(2)}, GOOD), r"a sum of shape \(2,\) instead of \(3,\)"),
        (of({"sum": np.array([0.0, np.nan, 0.0])}, GOOD), "values that are not finite"),
        (of({"sum": np.array([0.0, 1e300, 0.0])}, GOOD), "values beyond 3.40282e"),
        (of({"sum": np.zeros(3)}, {**GOOD, "conjugate": -1e300}), "no finite number conjugate"),
        (of({"sum": np.zeros(3)}, {**GOOD, "train-loss": 10**400}), "no finite number train-loss"),
        (of({"sum": np.zeros(3, np.float32)}, GOOD), "float32 with 1 axes instead of float64"),
        (of({"weights": np.zeros(3)}, GOOD), "arrays weights instead of sum"),
        (of({"sum": np.zeros(3)}, {"num-examples": 5, "train-loss": 1.0}), "no finite number conjugate"),
        (of({"sum": np.zeros(3)}, {**GOOD, "num-examples": -5}), "num-examples is -5"),
        (of({"sum": np.zeros(3)}, {**GOOD, "num-examples": 2**54}), "num-examples is 18014398509481984"),
        (RecordDict({"arrays": ArrayRecord({})}), "0 metric records instead of one"),
    ],
)
def test_a_broken_reply_is_left_out_alone_and_the_node_stays_as_it_was(content, reason):
    def spoil(node: int, turn: int, reply: Message) -> Message:
        return _with(reply, content) if node == 2 else reply

    def _with(reply: Message, content: RecordDict) -> Message:
        reply.content = content
        return reply

    strategy = mocha()
    run(Nodes("squared", spoil), strategy, 2)
    assert [drop["client"] for drop in strategy.account.dropped] == [2]
    assert re.search(reason, str(strategy.account.dropped[0]["reason"]))
    assert not strategy.memory["v"][:, 2].any()
    assert strategy.memory["v"][:, 1].any()


def test_too_few_replies_stop_the_run():
    def fail(node: int, turn: int, reply: Message) -> Message:
        raise RuntimeError("away")

    with pytest.raises(RunStopped, match="round 1 has 0 usable replies and needs 2 "):
        run(Nodes("squared", fail), mocha(min_replies=2), 3)


def test_stragglers_do_a_part_of_their_passes():
    nodes = Nodes("squared")
    run(nodes, mocha(stragglers=0.5), 50)
    late = [passes for passes in nodes.passes if passes < 5]
    assert 60 < len(late) < 140
    assert {passes for passes in nodes.passes if passes not in late} == {5}
    assert 0 <= min(late) < 0.5
    assert 4.5 < max(late) < 5
    assert 2 < sum(late) / len(late) < 3


def test_relations_are_learnt_and_defenses_have_the_last_word():
    seen = []

    def watching(weights: np.ndarray, omega: np.ndarray, lambdas: tuple[float, float]) -> np.ndarray:
        seen.append(weights.any())
        return omega * 2

    strategy = Mocha(NumberedClients(NODES, NODES), 1, 0, 5.0, (watching,), lambda1=0.1, lambda2=0.05, learn_omega=2)
    _, omega = run(Nodes("squared"), strategy, 5)
    assert seen == [False, True, True]  # at the start, before round 3 and before round 5
    assert np.linalg.eigvalsh(omega / 2)[0] >= 1 - 1e-9  # Sigma has trace 1, so its inverse has no eigenvalue below


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lambda1": -1.0}, "finite lambda1 and lambda2 >= 0"),
        ({"lambda2": 0.0}, "lambda2 > 0, as it begins with I"),
        ({"lambda1": 0.0, "learn_omega": 2}, "for lambda1 > 0: lambda1 = 0.0 leaves every node alone"),
        ({"floor": 0.5}, "a relation matrix that is learnt, learn_omega=10: floor = 0.5"),
        ({"learn_omega": -1}, "learn_omega = -1"),
        ({"stragglers": 1.5}, "stragglers = 1.5"),
        ({"floor": 0.0}, "floor = 0.0"),
        ({"safety": 0.0}, "finite safety > 0: safety = 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        mocha(**options)
