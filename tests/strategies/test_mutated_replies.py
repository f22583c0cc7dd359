"""Whatever one client changes in one reply, a strategy goes on without it, or with a reply as good as another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.protocol.test_mutated_replies import MODEL, change
from tests.strategies.test_collaborative_inference import AGENTS, DIM, centre, table
from tests.strategies.test_mocha import NODES, Nodes, mocha
from tests.strategies.test_split_nn import PARTIES, Parties, split_nn
from thornbed.defenses.aggregation.trimmed_mean import trimmed_mean
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.protocol.actions import EVALUATE, IDENTIFY, QUERY_EMBED, QUERY_ROWS
from thornbed.protocol.inference import embed_reply, read_embed_request
from thornbed.protocol.messages import Identity, evaluate_reply, identify_reply, train_reply
from thornbed.protocol.vector import LARGEST, Layout, to_arrays, to_tensors
from thornbed.strategies import CollaborativeInference, Curious, FedAvg, NumberedClients, RunStopped
from thornbed.strategies._cohort import CannotBegin
from thornbed.strategies.collaborative_inference import Queries

CLIENTS = 5
HOW = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


class Meddled(InlineGrid):
    """A grid on which client 1 changes one thing in its reply number `turn` of one kind of message."""

    def __init__(self, inner: InlineGrid, draw: Callable[..., Any], kind: str, turn: int = 0) -> None:
        self.__dict__ |= inner.__dict__
        self.draw, self.kind, self.turn, self.seen, self.changed = draw, kind, turn, 0, False

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        replies = list(super().send_and_receive(messages, timeout=timeout))
        for reply in replies:
            if reply.metadata.src_node_id != 3 or reply.metadata.message_type != self.kind or reply.has_error():
                continue
            self.seen += 1
            if self.seen == self.turn + 1:
                content = RecordDict(dict(reply.content.items()))
                try:
                    change(self.draw, content)
                except (TypeError, ValueError):
                    continue  # Flower's own records do not hold it
                reply.content, self.changed = content, True
        return replies


def clients() -> InlineGrid:
    """Return clients who train a model, and test it."""
    app = ClientApp()

    @app.query(IDENTIFY.removeprefix("query."))
    def identify(message: Message, context: Context) -> Message:
        return identify_reply(message, Identity(int(context.node_config["partition-id"]), "benign"))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        tensors = to_tensors(message.content["arrays"])
        moved = {name: tensor + number if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        return train_reply(message, to_arrays(moved), 9, 0.5, {"masked": 0.1}, {"boost": 2.0})

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return evaluate_reply(message, 0.5, 0.7, 9)

    return InlineGrid(app, CLIENTS, {})


def finite(values: Iterable[Any]) -> bool:
    """Tell whether all numbers of a record or an account are finite, also those in lists."""
    numbers = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return all(math.isfinite(number) for number in numbers if not isinstance(number, str | bool | None))


def whole(arrays: ArrayRecord | None, like: ArrayRecord) -> bool:
    """Tell whether arrays are those of a model like another, and finite."""
    layout = Layout.of(like)
    return arrays is not None and layout.mismatch(arrays) is None and layout.not_finite(arrays) is None


def accounted(account: Any, clients: Iterable[int]) -> bool:
    """Tell whether nobody but client 1 is dropped, with a reason, and every figure is finite."""
    reasons = [drop["reason"] for drop in account.dropped]
    return (
        account.sampled == list(clients)
        and {drop["client"] for drop in account.dropped} <= {1}
        and all(isinstance(reason, str) and reason.strip() for reason in reasons)
        and finite([*account.defense.values(), *account.attack.values(), account.train_loss or 0.0])
    )


def horizontal(grid: Callable[..., Grid], curious: bool = False) -> None:
    """Train in two rounds and evaluate after each."""
    seen: list[Any] = []
    inner = FedAvg(
        NumberedClients(CLIENTS, CLIENTS),
        CLIENTS - 1,
        rule=partial(trimmed_mean, alpha=0.2),
        fraction_evaluate=1.0,
        min_evaluate_nodes=CLIENTS,
    )
    strategy: Any = Curious(inner, seen.append) if curious else inner
    arrays, made = to_arrays(MODEL), grid(clients())
    for server_round in (1, 2):
        asked = list(strategy.configure_train(server_round, arrays, ConfigRecord(), made))
        arrays, metrics = strategy.aggregate_train(server_round, made.send_and_receive(asked))
        assert whole(arrays, to_arrays(MODEL))
        assert accounted(inner.account, range(CLIENTS))
        assert finite(metrics.values())
        asked = list(strategy.configure_evaluate(server_round, arrays, ConfigRecord(), made))
        found = strategy.aggregate_evaluate(server_round, made.send_and_receive(asked))
        assert {name: round(value, 6) for name, value in found.items()} == {"loss": 0.5, "accuracy": 0.7}
    for sighting in seen:
        assert sighting.received.keys() == MODEL.keys()
        assert sighting.num_examples is None or isinstance(sighting.num_examples, float)


def evaluations(grid: Callable[..., Grid]) -> None:
    """Evaluate twice, and leave what is as good as another to the mean."""
    strategy, made = FedAvg(fraction_evaluate=1.0), grid(clients())
    for server_round in (1, 2):
        asked = list(strategy.configure_evaluate(server_round, to_arrays(MODEL), ConfigRecord(), made))
        found = strategy.aggregate_evaluate(server_round, made.send_and_receive(asked))
        assert list(found) == ["loss", "accuracy"]
        assert all(abs(value) <= LARGEST for value in found.values())


def identities(grid: Callable[..., Grid]) -> None:
    """Draw among clients of whom one may be away; or refuse to begin, in a sentence."""
    cohort = NumberedClients(CLIENTS, CLIENTS, min_clients=CLIENTS - 1, wait_seconds=0)
    try:
        members = cohort.draw(1, grid(clients()))
    except CannotBegin as refusal:
        assert "two nodes say they hold client" in str(refusal) or "cannot attack" in str(refusal)  # noqa: PT017
        return
    assert [member.client for member in members] == list(range(CLIENTS))
    assert [member.client for member in members if member.node_id is None] in ([], [1])
    assert all(role.isprintable() and role for role in cohort.roles.values())


def multitask(grid: Callable[..., Grid]) -> None:
    """Make three rounds of MOCHA."""
    strategy, made = mocha(), grid(Nodes("squared").grid())
    arrays = like = strategy.initial(3, NODES)
    for server_round in (1, 2, 3):
        asked = list(strategy.configure_train(server_round, arrays, ConfigRecord(), made))
        arrays, metrics = strategy.aggregate_train(server_round, made.send_and_receive(asked))
        assert whole(arrays, like)
        assert accounted(strategy.account, range(NODES))
        assert finite(metrics.values())
        assert all(bool(tensor.isfinite().all()) for tensor in strategy.memory.values())
        assert math.isfinite(strategy.dual(to_tensors(arrays)["Omega"].numpy()))


def vertical(grid: Callable[..., Grid]) -> None:
    """Make two rounds of SplitNN, and evaluate after each."""
    strategy, made = split_nn(), grid(Parties().grid())
    arrays = like = strategy.initial()
    for server_round in (1, 2):
        try:
            asked = list(strategy.configure_train(server_round, arrays, ConfigRecord(), made))
            arrays, _ = strategy.aggregate_train(server_round, made.send_and_receive(asked))
        except RunStopped as stopped:  # of numbers as large as float32 has them, and of other samples
            assert "is not finite" in str(stopped) or "samples" in str(stopped)  # noqa: PT017
            return
        assert whole(arrays, like)
        assert accounted(strategy.account, range(PARTIES))
        asked = list(strategy.configure_evaluate(server_round, arrays, ConfigRecord(), made))
        strategy.aggregate_evaluate(server_round, made.send_and_receive(asked))
        assert accounted(strategy.account, range(PARTIES))


@lru_cache
def fusion_model() -> ArrayRecord:
    """Return what a fusion centre has learned of clean embeddings."""
    strategy, made = inference(), agents()
    asked = list(strategy.configure_train(1, strategy.initial(), ConfigRecord(), made))
    learned, _ = strategy.aggregate_train(1, made.send_and_receive(asked))
    assert learned is not None
    return learned


def agents() -> InlineGrid:
    """Return agents who send their embeddings."""
    app = ClientApp()

    @app.query(IDENTIFY.removeprefix("query."))
    def identify(message: Message, context: Context) -> Message:
        return identify_reply(message, Identity(int(context.node_config["partition-id"]), "benign"))

    @app.query(QUERY_EMBED.removeprefix("query."))
    def embed(message: Message, context: Context) -> Message:
        agent, request = int(context.node_config["partition-id"]), read_embed_request(message)
        offset = 0 if request.split == "train" else 80
        return embed_reply(message, table()[0][offset + request.rows, agent])

    return InlineGrid(app, AGENTS, {})


def inference() -> CollaborativeInference:
    asked = Queries(train=torch.arange(80), queries=torch.arange(10), split="test", public=False)
    cohort = NumberedClients(AGENTS, AGENTS)
    return CollaborativeInference(cohort, 1, 7, centre(), asked, embedding_size=DIM, bottleneck=2)


def answers(grid: Callable[..., Grid]) -> None:
    """Answer ten queries before and under an attack."""
    model = fusion_model()
    strategy, made = inference(), grid(agents())
    for server_round in (2, 3):
        asked = list(strategy.configure_train(server_round, model, ConfigRecord(), made))
        arrays, _ = strategy.aggregate_train(server_round, made.send_and_receive(asked))
        assert whole(arrays, model)
        assert accounted(strategy.account, range(AGENTS))
        labels = strategy.memory["clean" if server_round == 2 else "attacked"]
        assert labels.shape == (10,)
        assert set(labels.tolist()) <= {-1, 0, 1}


CASES: dict[str, tuple[Callable[[Callable[..., Grid]], None], str, int]] = {
    "horizontal": (horizontal, "train", 2),
    "curious": (partial(horizontal, curious=True), "train", 2),
    "evaluation": (evaluations, EVALUATE, 2),
    "identity": (identities, IDENTIFY, 1),
    "multitask": (multitask, "train.mocha", 3),
    "rows": (vertical, QUERY_ROWS, 1),
    "steps": (vertical, "train.split", 10),
    "evaluation of steps": (vertical, "evaluate.split", 2),
    "inference": (answers, QUERY_EMBED, 2),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [40, pytest.param(1200, marks=pytest.mark.nightly)])
def test_a_strategy_goes_on_whatever_a_client_changes_in_a_reply(name: str, count: int):
    play, kind, turns = CASES[name]
    changed = []

    @settings(HOW, max_examples=count)
    @given(data=st.data(), turn=st.integers(0, turns - 1))
    def check(data: Any, turn: int) -> None:
        made: list[Meddled] = []

        def grid(inner: InlineGrid) -> Meddled:
            made.append(Meddled(inner, data.draw, kind, turn))
            return made[-1]

        play(grid)
        changed.append(made[0].changed)

    check()
    assert sum(changed) > len(changed) / 2  # that it was tried at all
