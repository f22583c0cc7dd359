"""Trusted data of the server's own: what a few samples that it collected itself make of the model of a round."""

from __future__ import annotations

from flwr.app import ArrayRecord
from torch import Tensor

from thornbed.clients.local_training import one_thread, train
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.protocol.randomness import generator
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
