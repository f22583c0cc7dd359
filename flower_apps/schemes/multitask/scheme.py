"""Federated multitask learning: every node has a linear model of its own, and is tested on its own test points."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thornbed.attacks import Knowledge
from thornbed.attacks.multitask import NodesView
from thornbed.flower_apps.schemes.multitask.nodes import defenses_in, injection, load_nodes, role, strategy, targets
from thornbed.flower_apps.schemes.scheme import HORIZONTAL_ONLY, Scheme, known_malicious
from thornbed.flower_apps.settings import AUTO, NONE, BadSettings, Resolved, Settings, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.protocol.randomness import generator
from thornbed.protocol.vector import to_tensors
from thornbed.strategies.mocha import OMEGA, Mocha, W
from thornbed.tasks import Defaults
from thornbed.tasks.mocha.baselines import errors_by_node
from thornbed.tasks.mocha.objective import Coupling, primal, unrelated
from thornbed.tasks.multitask import Array, Loss, Points

MODEL = "model.npz"
SEARCH = "iterations"  # the option of an attack that says how long it searches
SECONDS_A_MESSAGE = 1e-3  # there and back, inline
FAR = 0.1  # a duality gap that is more than this part of the objective is worth a word


class MultitaskServer:
    """The server's side: the models of all nodes, tested on the points of each; the testbed has them, no server would.

    `error` (or `rmse`) is the mean over all nodes, `target_error` that over the targets of the attack.
    """

    def __init__(self, settings: Resolved) -> None:
        self.settings = settings
        self.task = load_nodes(settings)
        self.strategy = strategy(settings)
        self.injection = injection(settings)
        self.points = self.injection.into(self.task.train)
        self.trimmed = bool(defenses_in(settings, "defenses/trimming"))

    @property
    def malicious(self) -> frozenset[int]:
        """The nodes that the attack puts points into; in deployment those that are known by now."""
        if self.settings.engine == "deployment":
            return known_malicious(self.settings, self.strategy.cohort)
        return frozenset(self.injection.points)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Where the data are not those that the task is named after, what was left out of them, and the targets."""
        facts: dict[str, Any] = {"device": "cpu", "num_parameters": len(self.task.features) * len(self.task.nodes)}
        facts |= {"data": self.task.name, "left_out": dict(self.task.left_out)}
        if targets(self.settings):
            facts |= {"targets": list(targets(self.settings)), "sources": sorted(self.malicious)}
            # What the attacker maximised, by iteration of its search.
            facts |= {"attack_losses": self.injection.losses.tolist()}
        return facts

    def layout(self) -> Mapping[str, Tensor]:
        """Return what a checkpoint holds."""
        return self.initial()

    def initial(self) -> Mapping[str, Tensor]:
        """Return weights of 0 and the relation matrix that the strategy begins with."""
        return to_tensors(self.strategy.initial(len(self.task.features), len(self.task.nodes)))

    def test(self, tensors: Mapping[str, Tensor]) -> dict[str, float | None]:
        """Return errors on test points, and the objective on training points, injected ones among them, with its gap.

        Where nodes trim their points each has an objective of its own in every round, and there is no gap, nor where
        a node of a deployment has points that nobody knows.
        """
        weights, coupling = tensors[W].numpy(), self.strategy.coupling(tensors[OMEGA].numpy())
        by_node = errors_by_node(self.task.nodes, weights, self.task.loss)
        name = "error" if self.task.loss == "hinge" else "rmse"
        aimed, unknown = list(targets(self.settings)), bool(self.malicious) and not self.injection.points
        above = primal(self.points, weights, coupling, self.task.loss)
        below = None if self.trimmed or unknown else self.strategy.dual(coupling.omega)
        return {
            name: float(by_node.mean()),
            f"target_{name}": float(by_node[aimed].mean()) if aimed else None,
            "primal_objective": above,
            "dual_objective": below,
            "duality_gap": None if below is None else above - below,
        }

    def keep(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write model.npz, with the names of nodes and features and the error of each node, and the pictures."""
        from thornbed.flower_apps.schemes.multitask.pictures import write_pictures

        part = folder / f"{MODEL}.part"
        with part.open("wb") as stream:
            np.savez(
                stream,
                W=tensors[W].numpy(),
                Omega=tensors[OMEGA].numpy(),
                nodes=np.array(self.task.names),
                features=np.array(self.task.features),
                errors=errors_by_node(self.task.nodes, tensors[W].numpy(), self.task.loss),
            )
        part.replace(folder / MODEL)
        write_pictures(folder, tensors[W].numpy(), self.task.names, self.task.loss)


def _defaults(settings: Settings) -> Defaults:
    """Return the settings of MOCHA: all nodes in every round, ten passes over their points; half of them targets."""
    num_nodes = _num_nodes(settings)
    return Defaults(
        model="linear",
        optimizer="none",
        learning_rate=1.0,
        batch_size=1,
        local_epochs=10.0,
        rounds=50,
        num_clients=num_nodes,
        clients_per_round=num_nodes,
        malicious_share=0.5,
        partition="natural",
    )


def _num_nodes(settings: Settings) -> int:
    """Return how many nodes a task has, from its data only where nothing else says it."""
    if settings.num_clients != AUTO:
        return int(settings.num_clients)
    spec = plugins.parse(settings.task)
    module = importlib.import_module(plugins.find("task", spec.name).__module__)
    if spec.options.get("pooled"):
        return 1
    known = None if spec.options.keys() & {"leave_out", "groups"} else getattr(module, "NUM_NODES", None)
    return len(load_nodes(settings).nodes) if known is None else int(known)


def _check(settings: Resolved, data: bool) -> None:
    loss: Loss = "hinge"
    made = strategy(settings)
    if data:
        task = load_nodes(settings)
        loss = task.loss
        if len(task.nodes) != settings.num_clients:
            raise BadSettings(
                f"--num-clients is {settings.num_clients}, and --task {settings.task} has {len(task.nodes)} nodes here"
            )
        if round(settings.local_epochs * max(map(len, task.train))) == 0:
            raise BadSettings(f"--local-epochs {settings.local_epochs:g} is less than a point of any node")
    for spec in defenses_in(settings, "defenses/trimming"):
        plugins.load("defense", spec)(*_made(1)[0], np.ones(2), loss)
    # Tries the defenses of the server, and whether the relation matrix goes with the lambdas.
    made.coupling(to_tensors(made.initial(2, settings.num_clients))[OMEGA].numpy())
    if made.learn_omega and made.learn_omega >= settings.rounds:
        raise BadSettings(
            f"mocha(learn_omega={made.learn_omega}) learns no relation matrix in --rounds {settings.rounds}; give it a "
            "smaller number, or more rounds"
        )
    _check_relations(settings, made)
    if settings.attack == NONE:
        return
    if len(attacks := plugins.parse_sum(settings.attack)) != 1:
        raise BadSettings(f"--attack takes one attack of multitask learning, not {len(attacks)} joined by +")
    if settings.engine != "deployment" and not settings.num_malicious:
        raise BadSettings(
            "--num-malicious 0 leaves the attack without a target; ratio=0.0 is what measures targets unattacked"
        )
    _rehearse(settings.attack, settings.num_clients, len(targets(settings)) or 1, loss)


def _check_relations(settings: Resolved, made: Mocha) -> None:
    """Refuse a defense that looks at weights where the relation matrix is held: it would never see any."""
    first = np.array([[1.0, 2.0, 4.0], [2.0, 1.0, 3.0], [4.0, 3.0, 1.0]])
    seen = (first, first * [1.0, 1.0, -1.0])
    for spec in [] if made.learn_omega else defenses_in(settings, "defenses/relations"):
        defend = plugins.load("defense", spec)
        one, other = (defend(weights, unrelated(3), (made.lambda1, made.lambda2)) for weights in seen)
        if not np.array_equal(one, other):
            raise BadSettings(
                f"--defense {spec.name} looks at the nodes' weights, so it needs a relation matrix that is learnt: "
                "give the strategy learn_omega, such as 'mocha(learn_omega=10)'"
            )


@lru_cache(maxsize=256)
def _rehearse(attack: str, num_nodes: int, num_targets: int, loss: Loss) -> None:
    """Try an attack on few made points, so that options out of range are refused before anything starts."""
    view = NodesView(
        points=tuple(Points(*each) for each in _made(num_nodes)),
        targets=tuple(range(num_targets)),
        loss=loss,
        coupling=Coupling(unrelated(num_nodes), 0.1, 0.1),
        intercept=False,
    )
    spec = plugins.parse(attack)
    taken = {option.name for option in plugins.describe("attack", spec.name).options}
    if SEARCH in taken and not spec.options.get(SEARCH, 1) < 1:  # fewer than one are for the attack to refuse
        spec = Spec(spec.name, {**spec.options, SEARCH: 1})
    plugins.load("attack", spec)(view, generator(0, "check"))


def _made(num_nodes: int) -> list[tuple[Array, Array]]:
    x = torch.randn(num_nodes, 4, 2, generator=generator(0, "check"), dtype=torch.float64).numpy()
    return [(each, np.array([1.0, -1.0, 1.0, -1.0])) for each in x]


def _seconds(settings: Resolved) -> float:
    """Return the time of messages inline, which is nearly all of it; the search of an attack is not counted."""
    return settings.rounds * settings.clients_per_round * SECONDS_A_MESSAGE


def _beware(metrics: Mapping[str, float | None], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where the models are far from those that the objective asks for."""
    gap, above = metrics.get("duality_gap"), metrics.get("primal_objective")
    if gap is None or above is None or gap <= FAR * above:
        return []
    return [
        f"the objective may be {gap / above:.0%} above its smallest value; more --rounds or --local-epochs bring it "
        "down, and so does a larger lambda2, or a safety that is larger where it was set"
    ]


# The attackers are sent their nodes' weights, and are taken to know all that the paper's attacker knows.
GIVES = frozenset(
    {
        Knowledge.OWN_DATA,
        Knowledge.OTHER_ATTACKERS,
        Knowledge.DEFENSE,
        Knowledge.TARGET_DATA,
        Knowledge.NODES_DATA,
        Knowledge.RELATIONS,
    }
)

SCHEME = Scheme(
    tasks=("tasks/multitask",),
    attacks=("attacks/multitask",),
    defenses=("defenses/trimming", "defenses/relations"),
    gives=GIVES,
    unused=HORIZONTAL_ONLY | {"model", "optimizer", "learning_rate", "batch_size", "partition", "start_from"},
    defaults=_defaults,
    check=_check,
    learn=MultitaskServer,
    seconds=_seconds,
    role=role,
    counted="nodes are targets",
    beware=_beware,
    attack_begins="the attack looks for its points",
)
