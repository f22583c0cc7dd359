"""The server's side of vertical learning: the top model, tested on what clients send of the test samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from thornbed.attacks.vertical.graphs import algebraic_connectivity
from thornbed.clients.collusion import DECISION
from thornbed.flower_apps.run.client import channel_of
from thornbed.flower_apps.run.stored_extractors import EXTRACTOR, trained_on
from thornbed.flower_apps.schemes.scheme import known_malicious
from thornbed.flower_apps.schemes.vertical.pictures import write_pictures
from thornbed.flower_apps.schemes.vertical.run import VerticalRun
from thornbed.protocol.tensor_files import save_tensors
from thornbed.protocol.vector import to_tensors
from thornbed.tasks.metrics.vertical import inferred_rightly
from thornbed.tasks.split.kept_state import MODEL as BOTTOM

MODEL = "model.safetensors"


class VerticalServer:
    """Tests the whole model on the embeddings of each round.

    How well adversaries infer labels is read from the letters that they leave for each other; in deployment nobody
    knows.
    """

    def __init__(self, run: VerticalRun) -> None:
        self.run, self.settings = run, run.settings
        self.strategy = run.new_strategy()
        self.adversaries = tuple(sorted(run.settings.malicious))
        attack = run.attack if self.adversaries else None
        self.known = None if attack is None else run.known(attack)
        self.graph = None if attack is None else run.graph(attack, self.adversaries)

    @property
    def malicious(self) -> frozenset[int]:
        """The clients that attack; in deployment those that are known by now."""
        return known_malicious(self.settings, self.strategy.cohort)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The sizes of the networks, and how the adversaries are connected."""
        networks = [*(self.run.bottom_model(each) for each in range(self.settings.num_clients)), self._top]
        sizes = [sum(each.numel() for each in network.parameters()) for network in networks]
        facts: dict[str, Any] = {"device": "cpu", "num_parameters": sum(sizes), "num_parameters_top": sizes[-1]}
        if self.graph is not None:
            facts["adversary_edges"] = sorted(map(sorted, self.graph.edges))
        return facts

    def layout(self) -> Mapping[str, Tensor]:
        """Return a top model like the run's."""
        return self._top.state_dict()

    def initial(self) -> Mapping[str, Tensor]:
        """Return the top model with its first weights."""
        return to_tensors(self.strategy.initial())

    def test(self, tensors: Mapping[str, Tensor]) -> dict[str, float | None]:
        """Return what was measured on the embeddings of the round; nothing before the first, when none have come."""
        names = ["clean_data_accuracy", "loss"]
        if self.run.attack is not None:
            names += ["attack_success_rate", "untriggered_rate", "replaced_rate"]
            names += ["label_inference_accuracy", "inferred_samples", "gradient_perturbation", "connectivity"]
        found: dict[str, float | None] = {**dict.fromkeys(names), **self.strategy.figures}
        if self.graph is not None:
            found["connectivity"] = algebraic_connectivity(self.graph)
            found |= self._inferred()
        return found

    def keep(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write model.safetensors and the pictures.

        The file has the top model and, where they are on this machine, the networks of all clients under the names that
        `--strategy collaborative_inference --start-from` looks for.
        """
        said = trained_on(self.settings, len(self.run.task.train))
        save_tensors(folder / MODEL, {**tensors, **self._bottoms()}, said)
        write_pictures(folder, self.run)

    @property
    def _top(self) -> nn.Module:
        return self.strategy.top.top

    def _bottoms(self) -> dict[str, Tensor]:
        return {
            f"{EXTRACTOR}{client}.{name.removeprefix(BOTTOM)}": tensor
            for client in range(self.settings.num_clients)
            for name, tensor in self.run.kept(client).items()
            if name.startswith(BOTTOM)
        }

    def _inferred(self) -> dict[str, float | None]:
        """Return how many rows the first adversary took for the target's beside those it knew, and how rightly."""
        letter = channel_of(self.settings, {}, 0).read(DECISION)
        if letter is None or self.known is None or self.run.attack is None:
            return {}
        rows, labels = letter[f"agreed-{self.adversaries[0]}"], self.run.task.train.y
        share, count = inferred_rightly(rows, labels, self.run.attack.target, self.known)
        return {"label_inference_accuracy": share if count else None, "inferred_samples": float(count)}
