"""What a horizontal client answers: the model that it trained, as its role wants it, and what it thinks of a model."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import Message

from thornbed.clients.local_training import evaluate, one_thread
from thornbed.defenses.reporting import listening
from thornbed.flower_apps.run.client import Client
from thornbed.flower_apps.schemes.horizontal.local_work import own_samples, trained, who_is
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.schemes.horizontal.sight import Eyes
from thornbed.flower_apps.schemes.scheme import Handler
from thornbed.protocol.actions import EVALUATE, TRAIN
from thornbed.protocol.messages import evaluate_reply, read_request, train_reply
from thornbed.protocol.randomness import generator
from thornbed.protocol.vector import to_tensors


def train_model(run: HorizontalRun, client: Client, message: Message) -> Message:
    """Train the model that came, as the role wants it, and send the result back."""
    arrays, server_round = read_request(message)
    role = run.role(client.number, client.node_config, server_round)
    who = who_is(role, client.number)
    attack: dict[str, float] = {}
    with one_thread(), listening() as figures:
        own = own_samples(run, client.number, role, server_round, client.node_config)
        done = trained(run, role, own, who, server_round, arrays)
        sent = done.arrays
        if role.edits_update:
            layout = run.layout(arrays)
            start = layout.flatten(arrays)
            update = layout.flatten(sent).sub_(start)
            eyes = Eyes(run, client, role, own, who, server_round, arrays, layout, start)
            peers = eyes.peers(update)
            if role.sees_accomplices:
                attack["rows"] = len(peers)
            source = generator(run.settings.seed, "outgoing", server_round, who)
            sent = layout.unflatten(start + role.outgoing(update, peers, source, eyes.sight()), sent)
    told = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
    return train_reply(message, sent, done.num_samples, done.loss, told, attack)


def evaluate_model(run: HorizontalRun, client: Client, message: Message) -> Message:
    """Test the model that came on the client's own training rows, for strategies that ask clients to."""
    arrays, _ = read_request(message)
    with one_thread():
        run.network.load_state_dict(to_tensors(arrays))
        samples = run.client_samples(client.number)
        loss, accuracy = evaluate(run.network, samples, device=run.device)
    return evaluate_reply(message, loss, accuracy, len(samples))


HANDLERS: Mapping[str, Handler] = {TRAIN: train_model, EVALUATE: evaluate_model}
