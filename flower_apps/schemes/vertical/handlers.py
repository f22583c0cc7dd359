"""What a client of vertical learning answers: which samples it holds, its part of a step, embeddings of tests."""

from __future__ import annotations

from collections.abc import Mapping
from logging import WARNING

from flwr.app import Message
from flwr.common.logger import log
from torch import Tensor

from thornbed.clients.vfl import EmbeddingClient, EvaluationRows
from thornbed.flower_apps.run.client import Client
from thornbed.flower_apps.schemes.scheme import Handler
from thornbed.flower_apps.schemes.vertical.run import VerticalRun
from thornbed.protocol.actions import EVALUATE_SPLIT, QUERY_ROWS, TRAIN_SPLIT
from thornbed.protocol.client_state import LostState
from thornbed.protocol.randomness import generator
from thornbed.protocol.split import (
    EMBEDDINGS,
    Held,
    embeddings_reply,
    read_evaluation,
    read_rows_request,
    read_step,
    rows_reply,
)
from thornbed.protocol.threads import one_thread


def tell_rows(run: VerticalRun, client: Client, message: Message) -> Message:
    """Say which samples the client holds; an adversary leaves its features for its neighbours meanwhile."""
    server_round, new = read_rows_request(message)
    with one_thread():
        own, _ = _as_it_was(run, client, server_round, new=new)
        own.greet((server_round, -1))
        client.state.hold(own, _state)
    return rows_reply(message, Held(own.train.ids, own.test.ids))


def train_step(run: VerticalRun, client: Client, message: Message) -> Message:
    """Do the client's part of a step."""
    request = read_step(message)
    moment = request.server_round, request.step
    with one_thread():
        own, went_on = _as_it_was(run, client, request.server_round)
        source = generator(run.settings.seed, "party", *moment, client.number)
        # A client that has lost what it embedded last cannot learn from its gradient.
        embeddings = own.step(request.gradient if went_on else None, request.rows, moment, source)
        client.state.hold(own, _state)
    return embeddings_reply(message, {EMBEDDINGS: embeddings})


def evaluate_round(run: VerticalRun, client: Client, message: Message) -> Message:
    """Learn from the last gradient of a round, embed test samples, and keep all that a run needs that goes on."""
    request = read_evaluation(message)
    asked = EvaluationRows(request.rows, request.attacked, request.probe)
    with one_thread():
        own, went_on = _as_it_was(run, client, request.server_round)
        source = generator(run.settings.seed, "party", request.server_round, "evaluation", client.number)
        found = own.evaluate(request.gradient if went_on else None, asked, source)
        client.state.hold(own, _state)
    state = client.state
    # The server's checkpoint may be of the round before: what the client kept then stays beside this.
    state.save(request.server_round, own.state(), after=state.latest(request.server_round))
    return embeddings_reply(message, found)


HANDLERS: Mapping[str, Handler] = {
    QUERY_ROWS: tell_rows,
    TRAIN_SPLIT: train_step,
    EVALUATE_SPLIT: evaluate_round,
}


def _as_it_was(
    run: VerticalRun, client: Client, server_round: int, *, new: bool = False
) -> tuple[EmbeddingClient, bool]:
    """Return the client as it was after its last message, and whether that is so.

    It is not where the client is new, or has lost its memory: then it goes on from what it kept after the round before,
    or after an earlier one where no message told it that a round was over. One that the server calls `new` has kept
    nothing in this run, whatever lies in its folder. Raises LostState where there is nothing to go on from.
    """

    def restored(tensors: Mapping[str, Tensor]) -> EmbeddingClient:
        own = run.embedding_client(client)
        own.restore(tensors, (server_round, 0))
        return own

    if (held := client.state.held(restored)) is not None:
        return held, True
    if new:
        client.state.forget()
        return run.embedding_client(client), False
    kept = client.state.latest(server_round) or server_round - 1
    if (tensors := client.state.load(kept)) is None:
        raise LostState(f"client {client.number} has lost its network in its first round")
    if kept < server_round - 1:
        log(
            WARNING,
            "Client %s goes on from round %s, the last one after which it kept its network",
            client.number,
            kept,
        )
    return restored(tensors), False


def _state(own: EmbeddingClient) -> Mapping[str, Tensor]:
    return own.state()  # of an adversary its own, with what it remembers
