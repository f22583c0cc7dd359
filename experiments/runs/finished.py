"""A finished run made anew from its folder: its final model, its data, and what its clients would send next.

Everything comes from the builders that the run itself used, and a client's update from the client app that answered in
the run, so what is looked at here is what was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from tempfile import TemporaryDirectory

import torch
from flwr.app import ArrayRecord, ConfigRecord
from torch import Tensor, nn

from thornbed.clients.local_training import evaluate
from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.horizontal.local_work import training_data
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import AUTO, Resolved, RunFailed, Settings
from thornbed.protocol.messages import RefusedReply, read_train_reply, train_message
from thornbed.protocol.vector import Layout, to_arrays, to_tensors
from thornbed.tasks import Samples


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One finished run of a sweep.

    Attributes
    ----------
    name : what tells it from the other runs but its seed, in a few words.
    settings : what it was run with.
    metrics : by their names in `flower_apps.metrics`, as its summary has them; None where not measured.
    folder : where its records lie; nothing is written there.
    """

    name: str
    settings: Resolved
    metrics: Mapping[str, float | None]
    folder: Folder

    @property
    def attackers(self) -> frozenset[int]:
        """The malicious clients; of a run without any, those that the task's own share would make malicious."""
        return self._attacked.malicious

    @cached_property
    def test(self) -> Samples:
        """The test samples."""
        return self._run.task.samples("test")

    @cached_property
    def backdoor(self) -> Samples:
        """The attacked test samples with the labels that the attacker wants: accuracy on them is the success rate.

        Raises RunFailed where the attack has no part that says on what it is measured.
        """
        built = self._run.attack
        measured = built.measured(self.test)[1] if built else None
        if measured is None:
            raise RunFailed(f"nothing measures --attack {self.settings.attack} on --task {self.settings.task}")
        return measured.decoded()

    def honest_data(self) -> Samples:
        """Return what all the honest clients of the run trained on, one after the other by their numbers, decoded."""
        run = self._run
        own = [
            training_data(run, run.role(client, {}), run.client_samples(client), client).decoded()
            for client in range(self.settings.num_clients)
            if client not in self.settings.malicious
        ]
        x, y = torch.cat([samples.x for samples in own]), torch.cat([samples.y for samples in own])
        return Samples(x, y, own[0].vocabulary)

    def update(self, client: int) -> Tensor:
        """Return the update (d,) float32 that a client would answer the final model with, in a round that is attacked.

        `attackers` send what the attack makes of theirs, also where nobody attacked in the run itself. d counts the
        parameters of the model. Raises RunFailed where the answer is none that a server would take.
        """
        with TemporaryDirectory() as channel:  # in which attackers may leave what they see
            settings = self._attacked.model_copy(update={"output": channel, "resume": False})
            grid = InlineGrid(app, settings.num_clients, settings.to_run_config())
            node = list(grid.get_node_ids())[client]
            message = train_message(self._arrays, ConfigRecord(), settings.rounds + 1, node)
            [reply] = grid.send_and_receive([message])
        sent = torch.empty_like(self._start)
        try:
            read_train_reply(reply, self._layout, self._start, sent)
        except RefusedReply as reason:
            raise RunFailed(f"client {client} of {self.folder.path} has no update to show: {reason}") from None
        return sent

    def loss(self, samples: Samples, step: Tensor | None = None) -> float:
        """Return the mean cross-entropy (nats) of the final model, moved by a step (d,), over the samples.

        The step moves the parameters; running statistics of batch norm stay where they are.
        """
        arrays = self._arrays if step is None else self._layout.unflatten(self._start + step, self._arrays)
        self._network.load_state_dict(to_tensors(arrays))
        return evaluate(self._network, samples, device=self._run.device)[0]

    @property
    def dimension(self) -> int:
        """The number d of the model's parameters."""
        return self._layout.dimension

    @cached_property
    def _attacked(self) -> Resolved:
        """The settings with an attack in every round."""
        if self.settings.malicious:
            return self.settings.model_copy(update={"attack_share": 1.0})
        own_share = {"num_malicious": AUTO, "malicious_per_round": AUTO, "attack_share": 1.0}
        return resolve(Settings(**{**self.settings.model_dump(), **own_share}))

    @cached_property
    def _run(self) -> HorizontalRun:
        return HorizontalRun(self.settings)

    @property
    def _network(self) -> nn.Module:
        return self._run.network

    @cached_property
    def _arrays(self) -> ArrayRecord:
        """The final model: the checkpoint of the last round."""
        tensors, _ = self.folder.load_checkpoint(self._network.state_dict())
        return to_arrays(tensors)

    @cached_property
    def _layout(self) -> Layout:
        return self._run.layout(self._arrays)

    @cached_property
    def _start(self) -> Tensor:
        return self._layout.flatten(self._arrays)
