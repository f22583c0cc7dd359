"""What an agent of collaborative inference answers: its embeddings, or what an attack makes of them.

In one process, and in Flower's virtual client engine, attackers are one, and know what others send where their attack
needs it. On a machine of its own an agent has the network that it kept of a SplitNN run, and attacks alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor, nn

from thornbed.attacks import Knowledge
from thornbed.clients.channel import found_once
from thornbed.clients.inference import Coalition, Part, World
from thornbed.flower_apps.run import build
from thornbed.flower_apps.run.kept_networks import kept_folder, kept_state, last_kept
from thornbed.flower_apps.run.roles import channel_folder, says_malicious
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.inference.agents import assigned, coalition, embedded, embeddings_of, extractor, part
from thornbed.flower_apps.schemes.inference.centre import centre
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, plugins
from thornbed.protocol.inference import EmbedRequest, embed_reply, read_embed_request
from thornbed.protocol.tensor_files import misfit
from thornbed.protocol.threads import one_thread
from thornbed.strategies.collaborative_inference import FIRST_ATTACKED
from thornbed.tasks import Split
from thornbed.tasks.split.kept_state import MODEL

FOLDER = "attacks/inference"
ALONE = frozenset({Knowledge.OWN_DATA})
"""What an agent on a machine of its own knows: neither what others send, nor the fusion centre, nor labels."""


def answer(settings: Resolved, agent: int, message: Message, node_config: Mapping[str, Any]) -> Message:
    """Send an agent's embeddings of the rows asked for, or what its attack makes of them."""
    request = read_embed_request(message)
    split: Split = "train" if request.split == "train" else "test"
    if settings.engine == "deployment":
        return embed_reply(message, _of_one(settings, agent, split, request, node_config))
    if request.server_round < FIRST_ATTACKED or agent not in settings.malicious:
        return embed_reply(message, embedded(settings, split, request.rows, agent))
    # Attackers are one: who is asked first finds what all of them send, and leaves it out of the server's sight.
    path = channel_folder(settings, {}, 0) / f"sent-{request.server_round}.npz"
    sent = found_once(path, lambda: _lies(settings, split, request)).get(str(agent))
    return embed_reply(message, None if sent is None else torch.from_numpy(sent))


def own_extractor(settings: Resolved, agent: int, node_config: Mapping[str, Any]) -> nn.Module:
    """Return the network that an agent kept after the last round of a SplitNN run, in its folder `state`.

    Raises BadSettings where there is none, or one of another shape than the run's --model and embeddings have.
    """
    folder = kept_folder(settings, node_config)
    if folder is None:
        raise BadSettings(
            'an agent needs state="FOLDER" in --node-config, in which it kept its network of a run of split_nn'
        )
    if (last := last_kept(folder, agent)) is None:
        raise BadSettings(f"agent {agent} kept no network of a run of split_nn in {folder}")
    state = kept_state(folder, agent, last) or {}
    tensors = {name.removeprefix(MODEL): tensor for name, tensor in state.items() if name.startswith(MODEL)}
    network = extractor(settings, agent)
    if differing := misfit(tensors, network.state_dict()):
        raise BadSettings(
            f"agent {agent} kept a network of other --model, --partition or embedding_size: {differing} ({folder})"
        )
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def _of_one(
    settings: Resolved, agent: int, split: Split, request: EmbedRequest, node_config: Mapping[str, Any]
) -> Tensor | None:
    """Return what an agent on a machine of its own sends, (n, c), None where that is nothing."""
    columns = part(settings, split, agent)[request.rows]
    honest = embeddings_of(own_extractor(settings, agent, node_config), columns)
    if request.server_round < FIRST_ATTACKED or not says_malicious(node_config):
        return honest
    everybody = torch.full((len(honest), settings.num_clients, honest.shape[1]), torch.nan)
    everybody[:, agent] = honest
    mine = _own_part(settings, agent, str(node_config.get("attack", settings.attack)))
    with one_thread():
        return Coalition([replace(mine, agents=(agent,))]).send(World(honest=everybody))[agent]


def _own_part(settings: Resolved, agent: int, text: str) -> Part:
    """Return what a malicious agent does of an attack; raises BadSettings where it cannot do it alone."""
    folders = plugins.available("attack")
    for spec in [] if text == NONE else plugins.parse_sum(text):
        if folders.get(spec.name, FOLDER) != FOLDER:
            raise BadSettings(f"attack {spec.name} in --node-config is none of collaborative inference")
    check_threat(settings.model_copy(update={"attack": text}), ALONE)
    made = assigned(text, (agent,))
    if made is None or agent not in made.agents:
        raise BadSettings(
            f"agent {agent} is malicious and has no part in the attack {text}; name one in --node-config or in the run"
        )
    return next(part for part in made.parts if agent in part.agents)


def _lies(settings: Resolved, split: Split, request: EmbedRequest) -> dict[str, np.ndarray]:
    made, fusing = coalition(settings), centre(settings)
    if made is None:
        return {}
    honest = [embedded(settings, split, request.rows, agent) for agent in range(settings.num_clients)]
    task = build.load_task(settings.task, settings.data_dir)
    model = fusing.load(request.model) if request.model else None
    labels = (task.train if split == "train" else task.test).y[request.rows]
    world = World(
        honest=torch.stack(honest, dim=1),
        labels=labels,
        network=None if model is None else lambda x, observed: fusing.undefended(model, x, observed),
        defended=None if model is None else lambda x, observed: fusing.defended(model, x, observed),
    )
    with one_thread():
        sent = made.send(world)
    return {str(agent): block.numpy() for agent, block in sent.items() if block is not None}
