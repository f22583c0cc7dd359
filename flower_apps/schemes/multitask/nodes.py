"""The nodes of a multitask run: their points, those that an attack injects, and their part of a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message

from thornbed.attacks.multitask import Injection, NodesView
from thornbed.clients.channel import found_once
from thornbed.clients.local_training import one_thread
from thornbed.clients.multitask import node_work
from thornbed.defenses.reporting import listening
from thornbed.flower_apps.run import build
from thornbed.flower_apps.run.roles import accomplices, channel_folder, clients_in, says_malicious
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, Settings, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.protocol.multitask import node_reply, read_node_request
from thornbed.protocol.randomness import derived_seed, generator
from thornbed.protocol.vector import to_arrays, to_tensors
from thornbed.strategies.mocha import OMEGA, Mocha
from thornbed.tasks.multitask import Array, Multitask, Points

DUALS = "duals"  # in a node's state
ANEW = 10
"""Times its passes that a node makes which has lost its duals: new ones are to be as good as those in its weights."""
NOTHING = Injection({}, np.empty(0))


@lru_cache(maxsize=64)  # asked for with every message
def load_nodes(settings: Settings) -> Multitask:
    """Return the nodes of a task; which random split into training and test, the seed says unless the spec does."""
    spec = plugins.parse(settings.task)
    options = {option.name for option in plugins.describe("task", spec.name).options}
    if "split" in options:
        # Its own number of 32 bits, which is what NumPy's generator takes.
        spec = Spec(spec.name, {"split": derived_seed(settings.seed, "split") % 2**32, **spec.options})
    return _loaded(str(spec), settings.data_dir)


@lru_cache(maxsize=12)  # ten splits of one task, and some
def _loaded(spec: str, data_dir: str) -> Multitask:
    folder = Path(data_dir).expanduser() if data_dir else None
    if folder is not None and not folder.is_dir():
        raise BadSettings(f"--data-dir {data_dir} is no folder")
    task: Multitask = plugins.load("task", spec)(folder)
    return task


def strategy(settings: Resolved) -> Mocha:
    """Build the strategy, with the defenses of the server; raises ValueError for options out of range."""
    relations = tuple(plugins.load("defense", spec) for spec in defenses_in(settings, "defenses/relations"))
    make = plugins.load("strategy", settings.strategy)
    made: Mocha = make(build.cohort(settings), settings.min_replies, settings.seed, settings.local_epochs, relations)
    return made


def role(settings: Resolved, node: int, node_config: Mapping[str, Any]) -> str:
    """Return the role of a node: in deployment what it says of itself, elsewhere the attack chooses its sources."""
    return "malicious" if settings.engine == "deployment" and says_malicious(node_config) else "benign"


@lru_cache(maxsize=64)  # asked for with every message
def targets(settings: Resolved) -> tuple[int, ...]:
    """Return the nodes that the attack is aimed at: those that were named, or so many drawn by the seed.

    Nobody knows them in deployment but those who attack.
    """
    if settings.named_malicious:
        return settings.named_malicious
    order = torch.randperm(settings.num_clients, generator=generator(settings.seed, "targets")).tolist()
    return tuple(sorted(order[: settings.num_malicious]))


@dataclass(frozen=True)
class Aim:
    """What attackers have agreed on: their attack, its targets, and the nodes that they hold (None: any it likes)."""

    attack: str
    targets: tuple[int, ...]
    sources: tuple[int, ...] | None = None


def injection(settings: Resolved) -> Injection:
    """Return the points that the attack injects, found once: by this process, or by another one for all.

    The attackers are one: who finds the points leaves them in the folder that they share, out of the server's sight.
    In deployment there are none that the server knows.
    """
    if settings.attack == NONE or not targets(settings):
        return NOTHING
    folder = None if settings.engine == "inline" else channel_folder(settings, {}, 0)
    return _injection(settings, Aim(settings.attack, targets(settings)), folder)


def injected(settings: Resolved, node: int, node_config: Mapping[str, Any], run_id: int) -> Points | None:
    """Return the points that are injected into a node, None where there are none.

    In deployment a node says itself that it is malicious, and its `--node-config` names its `accomplices`, the
    `targets` (without them an attack is aimed at those it holds), the `channel` that they share, and maybe an `attack`.
    """
    if settings.engine != "deployment":
        return injection(settings).points.get(node)
    if not says_malicious(node_config):
        return None
    text = str(node_config.get("attack", settings.attack))
    if text == NONE:
        raise BadSettings("this node is malicious and there is no attack: name one in --node-config or in the run")
    sources = (node,) if "accomplices" not in node_config else accomplices(settings, node, node_config)
    aimed = sources
    if "targets" in node_config:
        aimed = clients_in(node_config, "targets", "the nodes whose models are to be wrong", settings)
    found = _injection(settings, Aim(text, aimed, sources), channel_folder(settings, node_config, run_id))
    if found.points and node not in found.points:
        raise BadSettings(
            f'node {node} is none of the attackers that share its channel; name all of them in accomplices="3,7"'
        )
    return found.points.get(node)


@lru_cache(maxsize=2)
def _injection(settings: Resolved, aim: Aim, folder: Path | None) -> Injection:
    if folder is None:
        return _found(settings, aim)

    def arrays() -> dict[str, np.ndarray]:
        found = _found(settings, aim)
        points = {f"x{node}": each.x for node, each in found.points.items()}
        points |= {f"y{node}": each.y for node, each in found.points.items()}
        return {"losses": found.losses, "best_iteration": np.array(found.best_iteration), **points}

    stored = found_once(folder / "injection.npz", arrays)
    nodes = sorted(int(name[1:]) for name in stored if name.startswith("x"))
    points = {node: Points(stored[f"x{node}"], stored[f"y{node}"]) for node in nodes}
    return Injection(points, stored["losses"], int(stored["best_iteration"]))


def _found(settings: Resolved, aim: Aim) -> Injection:
    task, made = load_nodes(settings), strategy(settings)
    omega = to_tensors(made.initial(len(task.features), len(task.nodes)))[OMEGA].numpy()
    view = NodesView(
        points=task.train,
        targets=aim.targets,
        sources=aim.sources,
        loss=task.loss,
        coupling=made.coupling(omega),
        intercept=task.intercept,
        floor=made.floor if made.learn_omega else None,
    )
    attack = plugins.load("attack", aim.attack)
    found: Injection = attack(view, generator(settings.seed, "injection"))
    return found


def answer(settings: Resolved, node: int, message: Message, context: Context) -> Message:
    """Do a node's part of a round: its own points and those injected into it, its duals from `context.state`."""
    request, task = read_node_request(message), load_nodes(settings)
    points = task.nodes[node].train
    if (more := injected(settings, node, context.node_config, context.run_id)) is not None:
        points = points.join(more)
    state = _State.of(context, len(request.weights))
    held = state.sums.get(request.held_round) if request.held is None else request.held
    if held is None:  # this node has lost its state, and asks for what is in its weights
        return node_reply(message, None, conjugate=0.0, loss=0.0, num_points=len(points), defense={})
    with one_thread(), listening() as figures:
        work = node_work(
            points,
            state.alpha,
            request.weights,
            request.curvature,
            task.loss,
            generator(settings.seed, "train", request.server_round, node),
            passes=request.passes * (ANEW if state.alpha is None and held.any() else 1),
            held=held,
            trimmings=[plugins.load("defense", spec) for spec in defenses_in(settings, "defenses/trimming")],
        )
    _State(work.alpha, {request.held_round: held, request.server_round: work.v}).keep(context)
    told = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
    return node_reply(message, work.v, conjugate=work.conjugate, loss=work.loss, num_points=len(points), defense=told)


@dataclass(frozen=True, eq=False)
class _State:
    """What a node keeps from round to round: its duals (n,), None at first, and by round the sums that may be held."""

    alpha: Array | None
    sums: Mapping[int, Array]

    @classmethod
    def of(cls, context: Context, num_features: int) -> _State:
        """Return what is in `context.state`; before the first round, sums of 0."""
        kept = context.state.array_records.get(DUALS)
        if kept is None:
            return cls(None, {0: np.zeros(num_features)})
        arrays = {name: tensor.numpy() for name, tensor in to_tensors(kept).items()}
        return cls(arrays.pop(DUALS), {int(name): array for name, array in arrays.items()})

    def keep(self, context: Context) -> None:
        """Put it into `context.state`."""
        arrays = {DUALS: self.alpha, **{str(number): array for number, array in self.sums.items()}}
        context.state[DUALS] = to_arrays(
            {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
        )


def defenses_in(settings: Resolved, folder: str) -> list[Spec]:
    """Return the defenses of a run that lie in a folder of defenses/, in the order they were written."""
    folders = plugins.available("defense")
    specs = [] if settings.defense == NONE else plugins.parse_sum(settings.defense)
    return [spec for spec in specs if folders.get(spec.name) == folder]
