"""All of horizontal learning that can be refused before a run starts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from thornbed.attacks import Knowledge
from thornbed.attacks.data import Divided
from thornbed.attacks.update import Sight, outgoing
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.run.client import channel_of
from thornbed.flower_apps.run.threat import needs
from thornbed.flower_apps.schemes.horizontal.roles import Attack, is_attacked
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun, refusal
from thornbed.flower_apps.schemes.horizontal.sight import MODEL
from thornbed.flower_apps.settings import BadSettings, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.protocol.randomness import generator


def check(run: HorizontalRun, data: bool) -> None:
    """Build everything once and refuse what cannot work, before anything starts.

    With `data` false (deployment: the data lie on other machines) only what needs none is checked.
    """
    settings, rule = run.settings, run.new_strategy().rule
    if (fault := refusal(rule, settings.clients_per_round)) is not None:
        raise BadSettings(fault)
    if (fault := refusal(rule, settings.min_replies)) is not None:
        raise BadSettings(
            f"--min-replies {settings.min_replies} is too few for --strategy {settings.strategy}: {fault}"
        )
    made = torch.randn(8, generator=generator(settings.seed, "check"))
    for perturbation in run.defense.perturbations:
        perturbation(made, generator(settings.seed, "check"))
    run.optimizer([nn.Parameter(torch.zeros(1))])
    attack = run.attack
    plugins.find("partition", plugins.parse(settings.partition).name)
    plugins.find("model", plugins.parse(settings.model).name)
    if attack is not None:
        check_updates(run, attack)
    if not data:
        return
    _check_data(run, attack)
    if attack is not None and run.goes_on and not run.deployed:
        _check_letters(run, attack)


def _check_data(run: HorizontalRun, attack: Attack | None) -> None:
    settings, task = run.settings, run.task
    _ = run.device
    rule = run.new_strategy().rule
    if (fault := refusal(rule, settings.clients_per_round, run.root_samples)) is not None:
        raise BadSettings(fault)
    for hardening in run.defense.hardenings:
        _check_modality(hardening, "hardens", run)
    if attack is not None and attack.of("group") and any(isinstance(part, Divided) for part in attack.data):
        raise BadSettings(f"--attack {settings.attack} both splits its work and sends one update; take one of the two")
    for part in attack.data if attack else []:
        _check_modality(part, "attacks", run)
        part.check(task.num_classes, task.sample_shape)
        if isinstance(part, Divided) and settings.malicious:
            part.check_members(len(settings.malicious))
        part.measure(task.samples("test", torch.arange(min(64, len(task.test)))))  # looks for features, words, files
    if empty := [client for client, rows in enumerate(run.partitions) if not len(rows)]:
        raise BadSettings(
            f"--partition {settings.partition} leaves client {empty[0]} without data ({len(empty)} of "
            f"{settings.num_clients} clients); take fewer clients or another partition"
        )
    try:
        network = run.network  # made outside: an inference tensor could not be trained
        with torch.inference_mode():
            network.eval()(task.samples("test", torch.arange(min(2, len(task.test)))).x)
    except (RuntimeError, MemoryError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSettings(f"--model {settings.model} cannot be made for --task {settings.task}: {reason}") from error
    if not run.goes_on:
        run.starting_model()


def check_updates(run: HorizontalRun, attack: Attack) -> None:
    """Try every part of an attack that acts on updates, on made ones, as a run will show them to it.

    A part that looks at its accomplices' rows and does not declare it would be alone in every run: it is refused.
    """

    def last_step() -> Tensor:
        if not run.deployed:  # there each node says where
            channel_of(run.settings, {}, 0)
        return torch.randn(8, generator=generator(0, "step"))

    for spec, folder, part in attack.parts:
        if folder not in ("attacks/update", "attacks/training"):
            continue
        declared = needs(spec.name)
        mine, others, honest = (torch.randn(3, 8, generator=generator(0, "check", name)) for name in "abc")
        sight = Sight(benign=lambda: torch.ones(8))
        if Knowledge.EARLIER_MODELS in declared:
            sight = replace(sight, last_step=last_step)
        if Knowledge.HONEST_UPDATES in declared:
            sight = replace(sight, honest=honest.clone)
        apply = outgoing if folder == "attacks/update" else _training
        if Knowledge.OTHER_ATTACKERS in declared:
            apply(part, mine, generator(0, "check"), sight)
            apply(part, mine[:1], generator(0, "check"), sight)  # the only attacker that was drawn
            if not run.deployed:
                channel_of(run.settings, {}, 0)
            continue
        alone = apply(part, mine[:1], generator(0, "check"), sight)
        if any(
            not torch.equal(alone, apply(part, torch.cat([mine[:1], rows]), generator(0, "check"), sight))
            for rows in (mine[1:], others)
        ):
            raise _undeclared(spec)


def _check_letters(run: HorizontalRun, attack: Attack) -> None:
    """Refuse a run that goes on where its attackers have lost the models that they saw: they would begin anew."""
    records, settings = Folder(run.output), run.settings
    done = records.rounds_done() or 0
    if Knowledge.EARLIER_MODELS not in attack.needs or done == settings.rounds:
        return
    lines = [line for line in records.lines() if line["round"] <= done and line.get("sampled_malicious")]
    channel = channel_of(settings, {}, 0)
    if any(is_attacked(settings, line["round"]) for line in lines) and channel.before_round(MODEL, done + 1) is None:
        raise BadSettings(
            f"--output {run.output} cannot be gone on with: the models that attackers saw are not in {channel.folder}; "
            "start anew with another --output"
        )


def _training(part: object, peers: Tensor, source: torch.Generator, sight: Sight) -> Tensor:
    sent: Tensor = part.outgoing(peers, source)  # type: ignore[attr-defined]  # of attacks.training.TrainingAttack
    return sent


def _undeclared(spec: Spec) -> BadSettings:
    return BadSettings(
        f"attack {spec.name} looks at rows of peers beside its own, and its NEEDS does not say so: with "
        "Knowledge.OTHER_ATTACKERS in NEEDS a run gives it what its accomplices would honestly send"
    )


def _check_modality(part: object, does: str, run: HorizontalRun) -> None:
    modalities: frozenset[str] = part.modalities  # type: ignore[attr-defined]  # of attacks.data and defenses.hardening
    if run.task.modality not in modalities:
        name, takes = type(part).__module__.rpartition(".")[2], ", ".join(sorted(modalities))
        raise BadSettings(f"{name} {does} {takes} samples; {run.settings.task} has {run.task.modality} samples")
