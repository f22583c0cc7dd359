"""The server's side of multitask learning: the models of all nodes, tested on the test points of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from thornbed.flower_apps.schemes.multitask.pictures import write_pictures
from thornbed.flower_apps.schemes.multitask.run import MultitaskRun
from thornbed.flower_apps.schemes.scheme import known_malicious
from thornbed.protocol.vector import to_tensors
from thornbed.protocol.whole_files import whole
from thornbed.strategies.mocha import OMEGA, W
from thornbed.tasks.mocha.objective import primal
from thornbed.tasks.mocha.solving import errors_by_node

MODEL = "model.npz"


class MultitaskServer:
    """The server's side: the models of all nodes, tested on the points of each; the testbed has them, no server would.

    `error` (or `rmse`) is the mean over all nodes, `target_error` that over the targets of the attack.
    """

    def __init__(self, run: MultitaskRun) -> None:
        self.run, self.settings, self.task = run, run.settings, run.task
        self.strategy = run.new_strategy()
        self.points = run.injection.into(self.task.train)

    @property
    def malicious(self) -> frozenset[int]:
        """The nodes that the attack puts points into; in deployment those that are known by now."""
        if self.run.deployed:
            return known_malicious(self.settings, self.strategy.cohort)
        return frozenset(self.run.injection.points)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Where the data are not those that the task is named after, what was left out of them, and the targets."""
        facts: dict[str, Any] = {"device": "cpu", "num_parameters": len(self.task.features) * len(self.task.nodes)}
        facts |= {"data": self.task.name, "left_out": dict(self.task.left_out)}
        if self.run.targets:
            facts |= {"targets": list(self.run.targets), "sources": sorted(self.malicious)}
            # What the attacker maximised, by iteration of its search.
            facts |= {"attack_losses": self.run.injection.losses.tolist()}
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
        aimed, unknown = list(self.run.targets), bool(self.malicious) and not self.run.injection.points
        above = primal(self.points, weights, coupling, self.task.loss)
        below = None if self.run.trimmings or unknown else self.strategy.dual(coupling.omega)
        return {
            name: float(by_node.mean()),
            f"target_{name}": float(by_node[aimed].mean()) if aimed else None,
            "primal_objective": above,
            "dual_objective": below,
            "duality_gap": None if below is None else above - below,
        }

    def keep(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write model.npz, with the names of nodes and features and the error of each node, and the pictures."""
        with whole(folder / MODEL) as part, part.open("wb") as stream:
            np.savez(
                stream,
                W=tensors[W].numpy(),
                Omega=tensors[OMEGA].numpy(),
                nodes=np.array(self.task.names),
                features=np.array(self.task.features),
                errors=errors_by_node(self.task.nodes, tensors[W].numpy(), self.task.loss),
            )
        write_pictures(folder, tensors[W].numpy(), self.task.names, self.task.loss)
