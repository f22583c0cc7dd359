"""All of horizontal learning that can be refused before a run starts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from thornbed.attacks.data import Divided
from thornbed.attacks.update import Sight, outgoing
from thornbed.flower_apps.inversion.inverting import attack_of
from thornbed.flower_apps.inversion.precheck import check_inversion
from thornbed.flower_apps.inversion.watching import check_recordings
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.run import build
from thornbed.flower_apps.run.roles import attack, channel_folder, defense
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, plugins
from thornbed.protocol.randomness import generator


def check(settings: Resolved, data: bool) -> None:
    """Build everything once and refuse what cannot work, before anything starts.

    With `data` false (deployment: the data lie on other machines) only what needs none is checked.
    """
    rule = build.strategy(settings).rule
    if (fault := build.refusal(rule, settings.clients_per_round)) is not None:
        raise BadSettings(fault)
    if (fault := build.refusal(rule, settings.min_replies)) is not None:
        raise BadSettings(
            f"--min-replies {settings.min_replies} is too few for --strategy {settings.strategy}: {fault}"
        )
    made = torch.randn(2, 8, generator=generator(settings.seed, "check"))
    defended = defense(settings.defense)
    for perturbation in defended.perturbations:
        perturbation(made[0], generator(settings.seed, "check"))
    if settings.curious != NONE:
        attack_of(settings.curious)
    build.optimizer(settings)([nn.Parameter(torch.zeros(1))])
    built = attack(settings.attack, settings.data_dir)
    plugins.find("partition", plugins.parse(settings.partition).name)
    plugins.find("model", plugins.parse(settings.model).name)
    if not data:
        return
    build.device(settings)
    task = build.load_task(settings.task, settings.data_dir)
    if (settings.curious != NONE or settings.record) and len(task.sample_shape) != 3:
        raise BadSettings(
            f"--curious and --record are for images: a sample of --task {settings.task} has shape {task.sample_shape}"
        )
    check_recordings(settings)
    if (fault := build.refusal(rule, settings.clients_per_round, partial(build.root_samples, settings))) is not None:
        raise BadSettings(fault)
    for hardening in defended.hardenings:
        if task.modality not in hardening.modalities:
            takes = ", ".join(sorted(hardening.modalities))
            raise BadSettings(
                f"{_called(hardening)} hardens {takes} samples; {settings.task} has {task.modality} samples"
            )
    if built is not None and built.of("group") and any(isinstance(part, Divided) for part in built.data):
        raise BadSettings(f"--attack {settings.attack} both splits its work and sends one update; take one of the two")
    for part in built.data if built else []:
        if task.modality not in part.modalities:
            takes = ", ".join(sorted(part.modalities))
            raise BadSettings(f"{_called(part)} attacks {takes} samples; {settings.task} has {task.modality} samples")
        part.check(task.num_classes, task.sample_shape)
        if isinstance(part, Divided) and settings.malicious:
            part.check_members(len(settings.malicious))
        part.measure(task.samples("test", torch.arange(min(64, len(task.test)))))  # looks for features, words, files
    if built is not None:

        def last_step() -> Tensor:
            if settings.engine != "deployment":  # there each node says where
                channel_folder(settings, {}, 0)
            return made[0]

        sight = Sight(benign=lambda: made[1], last_step=last_step)
        _ = [outgoing(part, made, generator(0, "check"), sight) for part in built.of("update")]
    if empty := [client for client, rows in enumerate(build.partitions(settings)) if not len(rows)]:
        raise BadSettings(
            f"--partition {settings.partition} leaves client {empty[0]} without data ({len(empty)} of "
            f"{settings.num_clients} clients); take fewer clients or another partition"
        )
    try:
        network = build.model(settings, task)
        with torch.inference_mode():
            network.eval()(task.samples("test", torch.arange(min(2, len(task.test)))).x)
    except (RuntimeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSettings(f"--model {settings.model} cannot be made for --task {settings.task}: {reason}") from error
    if not settings.resume or Folder(Path(settings.output).expanduser()).rounds_done() is None:
        build.starting_model(settings, network)
    if settings.curious != NONE and settings.engine != "deployment":  # there nobody knows what the clients hold
        check_inversion(settings, network)


def _called(plugin: object) -> str:
    """Return what a user calls a plug-in that is a class: the name of its file."""
    return type(plugin).__module__.rpartition(".")[2]
