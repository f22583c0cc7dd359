"""The tour: a backdoor, a defense, the same run in two engines, a curious server, poison in multitask learning, a
backdoor planted by clients of vertical learning together, and clients that lie to a fusion centre.

All of it on data that need no download.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from thornbed.experiments.runs import launch
from thornbed.flower_apps.metrics import METRICS
from thornbed.flower_apps.records.folder import Folder, alone
from thornbed.flower_apps.settings import AUTO, BadSettings, Resolved, RunFailed, settings_from

MARK = ".thornbed-tour"
BACKDOOR = "pixel_trigger(size=2)"
INVARIANT = "invariant(tau=0.2, alpha=0.25)"
COMMON: Mapping[str, Any] = {
    "task": "digits",
    "num_clients": 20,
    "partition": "dirichlet(alpha=0.5)",
    "rounds": 30,
}
MULTITASK: Mapping[str, Any] = {
    "task": "digit_nodes",
    "strategy": "mocha(lambda1=0.01, lambda2=0.01)",
    "partition": AUTO,
    "num_clients": 10,
    "num_malicious": 4,
    "rounds": 20,
}
INFERENCE: Mapping[str, Any] = {
    "strategy": "collaborative_inference",
    "attack": "feature_flip(amplification=10)",
    "partition": AUTO,
    "num_clients": 8,
    "num_malicious": AUTO,
    "malicious_ids": "3,7",
    "rounds": 3,
}
STOPS: Mapping[str, Mapping[str, Any]] = {
    "1-fedavg": {"attack": BACKDOOR, "num_malicious": 0},
    "2-fedavg-backdoor": {"attack": BACKDOOR, "num_malicious": 4},
    "3-invariant-backdoor": {"attack": BACKDOOR, "num_malicious": 4, "strategy": INVARIANT},
    "4-invariant-backdoor-simulation": {
        "attack": BACKDOOR,
        "num_malicious": 4,
        "strategy": INVARIANT,
        "engine": "simulation",
    },
    "5-curious-server": {
        "task": "photos",
        "model": "cnn(width=32)",
        "partition": "stratified",
        "num_clients": 15,
        "clients_per_round": 15,
        "rounds": 1,
        "batch_size": 1,
        "local_epochs": 0.01,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "curious": "inverting_gradients(steps=300, total_variation=0.03, start='zero', labels='idlg', snapshots=6)",
        "curious_clients": "0,1,2,3,4,5,6,7",
    },
    "6-multitask": {**MULTITASK, "attack": "random_direct(ratio=0.0)"},
    "7-multitask-poisoned": {
        **MULTITASK,
        "attack": "at2fl(mode='direct', iterations=30)",
    },
    "8-vertical-backdoor": {
        "strategy": "split_nn",
        "attack": "cooperative_backdoor(size=(4, 4), intensity=5.0, num_known=200, confidence=0.8, budget=0.05)",
        "partition": AUTO,
        "num_clients": 6,
        "num_malicious": 3,
        "rounds": 12,
        "batch_size": 64,
    },
    "9-liars": INFERENCE,
    "10-liars-copur": {**INFERENCE, "defense": "copur"},
}
WORDS = {
    "1-fedavg": "FedAvg, nobody attacks",
    "2-fedavg-backdoor": "FedAvg, 4 of 20 plant a backdoor",
    "3-invariant-backdoor": "invariant aggregation, same backdoor",
    "4-invariant-backdoor-simulation": "the same in Flower's own engine",
    "5-curious-server": "a curious server rebuilds photographs",
    "6-multitask": "a model for every digit, nobody attacks",
    "7-multitask-poisoned": "poison in four of these ten nodes",
    "8-vertical-backdoor": "half of six clients plant a trigger",
    "9-liars": "two of eight clients lie to a fusion centre",
    "10-liars-copur": "and CoPur purifies what they send",
}
ACCURACIES = ("accuracy", "clean_data_accuracy", "robust_accuracy")
OTHERS = ("attack_success_rate", "psnr", "target_error")
SAME = ("3-invariant-backdoor", "4-invariant-backdoor-simulation")


def take(output: Path, out: Console, err: Console) -> None:
    """Run every stop of the tour, show the table, and write report.html.

    What an earlier tour left there is replaced. Raises BadSettings where the folder holds something that is not a tour,
    RunFailed where the engines disagree.
    """
    output = output.expanduser().resolve()
    others = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if others and MARK not in others:
        raise BadSettings(f"--output {output} holds something that is not a tour; name another folder")
    with alone(output):
        (output / MARK).touch()
        for name in STOPS:  # of an earlier tour
            if (output / name).exists():
                shutil.rmtree(output / name)
        _take(output, out, err)


def _take(output: Path, out: Console, err: Console) -> None:
    settings = {
        name: launch.prepare(settings_from({**COMMON, **stop, "output": str(output / name)}))
        for name, stop in STOPS.items()
    }
    with launch.progress(err) as bar:
        tasks = {
            name: bar.add_task(WORDS[name], total=stop.rounds, figures="", start=False)
            for name, stop in settings.items()
        }
        for name, stop in settings.items():
            bar.start_task(tasks[name])
            with launch.interruptible(stop):
                launch.start(
                    stop,
                    lambda line, name=name: bar.update(
                        tasks[name], completed=line["round"], figures=launch.figures(line)
                    ),  # type: ignore[misc]
                )
    from thornbed.experiments.report import write_report

    write_report([output / name for name in STOPS], output / "report.html", "A tour of Thornbed")
    summaries = {name: Folder(output / name).summary() or {} for name in STOPS}
    out.print(_table(settings, summaries))
    inline, simulated = SAME
    if different := _differences(Folder(output / inline), Folder(output / simulated)):
        raise RunFailed(f"the two engines disagree in {different}; the tour's third and fourth row have to be equal")
    out.print("The third and fourth row are equal in every figure of every round: one program, two engines.")
    out.print(f"Report: {output / 'report.html'}", highlight=False, soft_wrap=True)


def _differences(inline: Folder, simulated: Folder) -> str:
    """Return the first figure in which two runs differ by more than 1e-6, as text; empty where there is none."""
    lines, others = inline.lines(), simulated.lines()
    if len(lines) != len(others):
        return f"the number of rounds ({len(lines)} and {len(others)} lines)"
    for one, other in zip(lines, others, strict=True):
        for name in ("accuracy", "loss", "attack_success_rate", "train_loss", "sampled"):
            left, right = one.get(name), other.get(name)
            same = abs(left - right) <= 1e-6 if isinstance(left, float) and isinstance(right, float) else left == right
            if not same:
                return f"{name} of round {one['round']} ({left} and {right})"
    return ""


def _table(settings: Mapping[str, Resolved], summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("run", title="Digits and photographs that need no download")
    shown = [METRICS[name] for name in (ACCURACIES[0], *OTHERS)]
    for words in (*(metric.words for metric in shown), "seconds"):
        table.add_column(words, justify="right")
    for name, summary in summaries.items():
        metrics = summary["metrics"]
        # What a model says without a trigger, and to queries of which liars sent a part.
        accuracy = next((metrics[each] for each in ACCURACIES if metrics.get(each) is not None), None)
        row = [metric.shown(value) for metric, value in zip(shown, (accuracy, *map(metrics.get, OTHERS)))]
        table.add_row(WORDS[name], *row, f"{summary['seconds']:.1f}")
    return table
