"""The server's side of horizontal learning: one model, tested on the task's test samples, clean and attacked.

A rule may ask what a few trusted samples of the server's own make of the model of a round.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord
from torch import Tensor

from thornbed.clients.local_training import evaluate, one_thread, train
from thornbed.flower_apps.records.folder import OF_RUN, settings_digest
from thornbed.flower_apps.records.plots import write_pictures
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.schemes.scheme import known_malicious
from thornbed.protocol.randomness import generator
from thornbed.protocol.tensor_files import save_tensors
from thornbed.protocol.vector import to_arrays, to_tensors
from thornbed.strategies.fedavg import RootTraining


def root_training(run: HorizontalRun) -> RootTraining:
    """Return the training of a server that has a few samples of its own, as clients of these settings train.

    The samples are drawn once, uniformly and without replacement, among the training rows of all clients, which keep
    theirs: Cao, Fang, Liu, Gong, "FLTrust", NDSS 2021, Section VI-A, Case I. Algorithm 2 there gives the server as many
    local iterations as the clients: it passes over its few samples until it has seen as many as the average client
    does, since the length of its update becomes that of all.
    """

    settings, task = run.settings, run.task

    def train_on_root(arrays: ArrayRecord, server_round: int, num_samples: int) -> Tensor:
        samples, network = run.root_samples(num_samples), run.network
        network.load_state_dict(to_tensors(arrays))
        with one_thread():
            train(
                network,
                samples,
                optimizer=run.optimizer,
                batch_size=settings.batch_size,
                epochs=settings.local_epochs * len(task.train) / (settings.num_clients * num_samples),
                generator=generator(settings.seed, "root", server_round),
                device=run.device,
            )
        layout = run.layout(arrays)
        return layout.flatten(to_arrays(network.state_dict())).sub_(layout.flatten(arrays))

    return train_on_root


MODEL = "model.safetensors"


class HorizontalServer:
    """Tests the model on the task's test samples, clean and as the attack has them."""

    def __init__(self, run: HorizontalRun) -> None:
        self.run, self.settings = run, run.settings
        self.samples = run.task.samples("test")
        self.attack, self.attacked = run.attack.measured(self.samples) if run.attack else (None, None)
        self.strategy = run.new_strategy()
        self.strategy.root_training = root_training(run)
        self.strategy.statistics = run.statistics

    @property
    def malicious(self) -> frozenset[int]:
        """The malicious clients."""
        return known_malicious(self.settings, self.strategy.cohort)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The device and the size of the model."""
        size = sum(parameter.numel() for parameter in self.run.network.parameters())
        return {"device": str(self.run.device), "num_parameters": size}

    def layout(self) -> Mapping[str, Tensor]:
        """Return a model like the run's."""
        return self.run.network.state_dict()

    def initial(self) -> Mapping[str, Tensor]:
        """Return the model with its initial weights, or that of the file the run begins with."""
        return self.run.starting_model()

    def test(self, tensors: Mapping[str, Tensor]) -> dict[str, float | None]:
        """Return accuracy and loss on clean samples, and on attacked ones how often they are taken for the target."""
        network, device, least = self.run.network, self.run.device, self.run.defense.min_confidence
        network.load_state_dict(dict(tensors))
        loss, accuracy = evaluate(network, self.samples, device=device, min_confidence=least)
        success = None
        if self.attacked:
            success = evaluate(network, self.attacked, device=device, min_confidence=least)[1]
        return {"accuracy": accuracy, "loss": loss, "attack_success_rate": success}

    def keep(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write model.safetensors, curves.png and trigger.png."""
        save_tensors(folder / MODEL, tensors, {OF_RUN: settings_digest(self.run.settings)})
        write_pictures(folder, self.run.task, self.attack)
