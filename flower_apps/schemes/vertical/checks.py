"""All of vertical learning that can be refused before a run starts."""

from __future__ import annotations

import networkx as nx
import torch
from torch import nn

from thornbed.attacks.vertical.coalition import poisoned_at_most
from thornbed.clients.collusion import DECISION, FEATURES
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.run.client import channel_of
from thornbed.flower_apps.run.feature_split import check_division
from thornbed.flower_apps.schemes.vertical.run import VerticalRun
from thornbed.flower_apps.settings import AUTO, BadSettings, plugins
from thornbed.protocol.randomness import generator


def check(run: VerticalRun, data: bool) -> None:
    """Build everything once and refuse what cannot work, before anything starts.

    With `data` false (deployment: the data lie on other machines) only what needs none is checked.
    """
    settings, _ = run.settings, run.strategy
    if settings.device not in (AUTO, "cpu"):
        raise BadSettings(f"--device {settings.device} is not for --strategy split_nn, which learns on the CPU")
    run.optimizer([nn.Parameter(torch.zeros(1))])
    check_division(settings)
    plugins.find("bottom", plugins.parse(settings.model).name)
    if run.attack is not None and not run.deployed and not settings.num_malicious:
        raise BadSettings(
            "--num-malicious 0 leaves the attack without an adversary; budget=0.0 is what poisons nothing"
        )
    if not data:
        return
    if run.task.modality == "text":
        raise BadSettings(f"--task {settings.task} has text samples, which --strategy split_nn does not divide")
    _check_networks(run)
    _check_guard(run)
    if not run.deployed:
        _check_attack(run)


def _check_networks(run: VerticalRun) -> None:
    try:
        for client, block in enumerate(run.blocks):
            with torch.no_grad():
                run.bottom_model(client)(torch.zeros(2, len(block)))
    except (RuntimeError, MemoryError) as error:
        settings, reason = run.settings, (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadSettings(f"--model {settings.model} cannot be made for --task {settings.task}: {reason}") from error


def _check_guard(run: VerticalRun) -> None:
    if run.guard is None:
        return
    clients = run.settings.num_clients
    made = torch.randn(4, clients, run.embedding_size, generator=generator(0, "check"))
    run.guard.admit(made, torch.ones(4, clients, dtype=torch.bool), generator(0, "check"), training=True)
    run.guard.release(made, generator(0, "check"))


def _check_attack(run: VerticalRun) -> None:
    attack, task = run.attack, run.task
    if attack is None:
        return
    adversaries = tuple(sorted(run.settings.malicious))
    attack.check(run.held(adversaries), task.sample_shape, task.num_classes)
    graph = run.graph(attack, adversaries)
    run.known(attack)
    if run.goes_on:
        _check_letters(run, graph)
    if attack.budget and not poisoned_at_most(attack.budget, num_rows := len(task.train)):
        raise BadSettings(
            f"{attack.name} poisons no row with budget = {attack.budget} of {num_rows} training rows; more than "
            f"{0.5 / num_rows:.2g} is one row, and budget=0.0 is what poisons nothing"
        )


def _check_letters(run: VerticalRun, graph: nx.Graph) -> None:
    """Refuse a run that goes on where adversaries have lost what they left for each other."""
    records, channel = Folder(run.output), channel_of(run.settings, {}, 0)
    done = records.rounds_done() or 0
    if done in (0, run.settings.rounds):
        return
    names = [f"{FEATURES}-{client}" for client in sorted(graph) if graph.degree(client)]
    if records.lines()[done].get("inferred_samples") is not None:
        names.append(DECISION)
    if lost := [name for name in names if channel.read(name) is None]:
        raise BadSettings(
            f"--output {run.output} cannot be gone on with: what adversaries left for each other is not in "
            f"{channel.folder} ({lost[0]}); start anew with another --output"
        )
