"""Trusted data of the server's own: what a few samples that it collected itself make of the model of a round."""

from __future__ import annotations

from flwr.app import ArrayRecord
from torch import Tensor

from clients.local_training import one_thread, train
from flower_apps import build
from flower_apps.config import Resolved
from protocol.randomness import generator
from protocol.vector import Layout, to_arrays, to_tensors
from strategies.fedavg import RootTraining


def root_training(settings: Resolved) -> RootTraining:
    """Return the training of a server that has a few samples of its own, as clients of these settings train.

    The samples are drawn once, uniformly and without replacement, among the training rows of all clients, which keep
    theirs: Cao, Fang, Liu, Gong, "FLTrust", NDSS 2021, Section VI-A, Case I. Algorithm 2 there gives the server as many
    local iterations as the clients: it passes over its few samples until it has seen as many as the average client
    does, since the length of its update becomes that of all.
    """

    def train_on_root(arrays: ArrayRecord, server_round: int, num_samples: int) -> Tensor:
        samples = build.root_samples(settings, num_samples)
        task = build.load_task(settings.task, settings.data_dir)
        network = build.model(settings, task)
        network.load_state_dict(to_tensors(arrays))
        with one_thread():
            train(
                network,
                samples,
                optimizer=build.optimizer(settings),
                batch_size=settings.batch_size,
                epochs=settings.local_epochs * len(task.train) / (settings.num_clients * num_samples),
                generator=generator(settings.seed, "root", server_round),
                device=build.device(settings),
            )
        layout = Layout.of(arrays, build.statistics(network))
        return layout.flatten(to_arrays(network.state_dict())).sub_(layout.flatten(arrays))

    return train_on_root
