"""Horizontal learning: clients hold samples of their own, and train one model that the server tests."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attacks import Knowledge
from clients.local_training import evaluate
from flower_apps import build, plugins
from flower_apps.config import Resolved, Settings
from flower_apps.roles import attack as attack_of
from flower_apps.roles import defense, role
from flower_apps.schemes import Scheme, known_malicious
from flower_apps.schemes.horizontal_checks import check
from flower_apps.schemes.timing import seconds_of_steps
from flower_apps.trusted import root_training
from protocol.tensor_files import save_tensors
from tasks import Defaults

MODEL = "model.safetensors"


class Horizontal:
    """The server's side: one model, tested on the task's test samples, clean and as the attack has them."""

    def __init__(self, settings: Resolved) -> None:
        self.settings = settings
        self.task = build.load_task(settings.task, settings.data_dir)
        self.device = build.device(settings)
        self.network = build.model(settings, self.task)
        self.samples = self.task.samples("test")
        attack = attack_of(settings.attack, settings.data_dir)
        self.attack, self.attacked = attack.measured(self.samples) if attack else (None, None)
        self.min_confidence = defense(settings.defense).min_confidence
        self.strategy = build.strategy(settings, root_training(settings), build.statistics(self.network))

    @property
    def malicious(self) -> frozenset[int]:
        """The malicious clients."""
        return known_malicious(self.settings, self.strategy.cohort)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The device and the size of the model."""
        size = sum(parameter.numel() for parameter in self.network.parameters())
        return {"device": str(self.device), "num_parameters": size}

    def layout(self) -> Mapping[str, torch.Tensor]:
        """Return a model like the run's."""
        return self.network.state_dict()

    def initial(self) -> Mapping[str, torch.Tensor]:
        """Return the model with its initial weights, or that of the file the run begins with."""
        return build.starting_model(self.settings, self.network)

    def test(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, float | None]:
        """Return accuracy and loss on clean samples, and on attacked ones how often they are taken for the target."""
        self.network.load_state_dict(dict(tensors))
        least = self.min_confidence
        loss, accuracy = evaluate(self.network, self.samples, device=self.device, min_confidence=least)
        success = None
        if self.attacked:
            success = evaluate(self.network, self.attacked, device=self.device, min_confidence=least)[1]
        return {"accuracy": accuracy, "loss": loss, "attack_success_rate": success}

    def keep(self, folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write model.safetensors, curves.png and trigger.png."""
        from flower_apps.plots import write_pictures

        save_tensors(folder / MODEL, tensors)
        write_pictures(folder, self.task, self.attack)


def _defaults(settings: Settings) -> Defaults:
    function = plugins.find("task", plugins.parse(settings.task).name)
    defaults = importlib.import_module(function.__module__).DEFAULTS
    if not isinstance(defaults, Defaults):
        raise TypeError(f"{function.__module__} needs a constant DEFAULTS: Defaults")
    return defaults


# A client is sent the server's model; its attack's options tell of the defense and of data like the target's, and
# attackers tell each other what they hold. Nobody sees what honest clients send or hold, nothing relates one client to
# another, and there are no queries, no embeddings and no fusion centre.
GIVES = frozenset(
    {
        Knowledge.OWN_DATA,
        Knowledge.SERVER_MODEL,
        Knowledge.OTHER_ATTACKERS,
        Knowledge.DEFENSE,
        Knowledge.TARGET_DATA,
    }
)

SCHEME = Scheme(
    tasks=("tasks",),
    attacks=("attacks/data", "attacks/training", "attacks/group", "attacks/update"),
    defenses=("defenses/perturbation", "defenses/hardening"),
    gives=GIVES,
    defaults=_defaults,
    check=check,
    learn=Horizontal,
    seconds=seconds_of_steps,
    role=lambda settings, client, node_config: role(settings, client, node_config).name,
)
