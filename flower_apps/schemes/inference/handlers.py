"""What a client of collaborative inference answers: its embeddings, or what an attack makes of them.

In one process, and in Flower's virtual client engine, attackers are one, and know what others send where their attack
needs it. On a machine of its own a client has the network that it kept of a SplitNN run, and attacks alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from flwr.app import Message
from torch import Tensor, nn

from thornbed.attacks import Knowledge
from thornbed.clients.inference import Coalition, Part, World
from thornbed.flower_apps.run.client import Client, attack_text, channel_of, is_malicious
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.inference.run import InferenceRun, coalition_of, embeddings_of
from thornbed.flower_apps.schemes.scheme import Handler
from thornbed.flower_apps.settings import BadSettings, plugins
from thornbed.protocol.actions import QUERY_EMBED
from thornbed.protocol.inference import EmbedRequest, embed_reply, read_embed_request
from thornbed.protocol.tensor_files import misfit
from thornbed.protocol.threads import one_thread
from thornbed.strategies.collaborative_inference import FIRST_ATTACKED
from thornbed.tasks import Split
from thornbed.tasks.split.kept_state import MODEL

FOLDER = "attacks/inference"
SENT = "sent"  # the letter in which attackers leave what all of them send in a round
ALONE = frozenset({Knowledge.OWN_DATA})
"""What a client on a machine of its own knows: neither what others send, nor the fusion centre, nor labels."""


def embed_rows(run: InferenceRun, client: Client, message: Message) -> Message:
    """Send a client's embeddings of the rows asked for, or what its attack makes of them."""
    request = read_embed_request(message)
    split: Split = "train" if request.split == "train" else "test"
    lies = request.server_round >= FIRST_ATTACKED and is_malicious(run.settings, client.number, client.node_config)
    if run.deployed:
        columns = run.columns(split, client.number)[request.rows]
        honest = embeddings_of(own_extractor(run, client), columns)
        return embed_reply(message, lie_of_one(run, client, honest) if lies else honest)
    if not lies:
        return embed_reply(message, run.embedded(split, request.rows, client.number))
    # Attackers are one: who is asked first finds what all of them send, and leaves it out of the server's sight.
    channel = channel_of(run.settings, client.node_config, client.run_id)
    letter = channel.once_in_round(SENT, request.server_round, lambda: _lies(run, split, request))
    return embed_reply(message, letter.get(str(client.number)))


def own_extractor(run: InferenceRun, client: Client) -> nn.Module:
    """Return the network that a client kept after the last round of a SplitNN run, in its folder `state`.

    Raises BadSettings where there is none, or one of another shape than the run's --model and embeddings have.
    """
    number, folder = client.number, client.state.folder
    if folder is None:
        raise BadSettings(
            'a client needs state="FOLDER" in --node-config, in which it kept its network of a run of split_nn'
        )
    try:
        kept = client.state.saved(max(client.state.saved_rounds(), default=0))
    except ValueError as error:
        raise BadSettings(f"client {number} kept a network in {folder} that cannot be read: {error}") from None
    if kept is None:
        raise BadSettings(f"client {number} kept no network of a run of split_nn in {folder}")
    tensors = {name.removeprefix(MODEL): tensor for name, tensor in kept.items() if name.startswith(MODEL)}
    network = run.bottom_model(number)
    if differing := misfit(tensors, network.state_dict()):
        raise BadSettings(
            f"client {number} kept a network of other --model, --partition or embedding_size: {differing} ({folder})"
        )
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def lie_of_one(run: InferenceRun, client: Client, honest: Tensor) -> Tensor | None:
    """Return what a malicious client on a machine of its own makes of its honest embeddings (n, c), None for silence.

    Raises ValueError where it cannot carry out the attack: the run's, or the one that its node names.
    """
    everybody = torch.full((len(honest), run.settings.num_clients, honest.shape[1]), torch.nan)
    everybody[:, client.number] = honest
    part = replace(_own_part(run, client), agents=(client.number,))
    with one_thread():
        return Coalition([part]).send(World(honest=everybody))[client.number]


def _own_part(run: InferenceRun, client: Client) -> Part:
    """Return what a malicious client does of an attack; raises BadSettings where it cannot do it alone."""
    text, folders = attack_text(run.settings, client.node_config), plugins.available("attack")
    attacks = plugins.parse_sum(text)
    for spec in attacks:
        if folders.get(spec.name, FOLDER) != FOLDER:
            raise BadSettings(f"attack {spec.name} in --node-config is none of collaborative inference")
    check_threat(attacks, ALONE)
    made = coalition_of(attacks, (client.number,))
    for part in () if made is None else made.parts:
        if client.number in part.agents:
            return part
    raise BadSettings(
        f"client {client.number} is malicious and has no part in the attack {text}: name one that it has a part in, in "
        "--node-config or in the run"
    )


def _lies(run: InferenceRun, split: Split, request: EmbedRequest) -> dict[str, Tensor]:
    """Return what each malicious client sends, by its number; nothing of those that are silent."""
    coalition, centre = run.coalition, run.centre
    assert coalition is not None  # somebody of it was asked
    honest = [run.embedded(split, request.rows, each) for each in range(run.settings.num_clients)]
    model = centre.load(request.model) if request.model else None
    world = World(
        honest=torch.stack(honest, dim=1),
        labels=run.labels(split, request.rows),
        network=None if model is None else lambda x, observed: centre.undefended(model, x, observed),
        defended=None if model is None else lambda x, observed: centre.defended(model, x, observed),
    )
    with one_thread():
        sent = coalition.send(world)
    return {str(each): block for each, block in sent.items() if block is not None}


HANDLERS: Mapping[str, Handler] = {QUERY_EMBED: embed_rows}
