"""Every attack of horizontal learning does in a whole run what it is there for; a new one needs a row in ROWS.

A row names a run and the run that it is compared with, by default the same one without an attacker. What changes
between the two has to be at least `least`, which is half of what seed 0 gave or less, so that another machine's
rounding does not decide. Seeds 1 to 3 were measured too, and all are above it; rows where they lie near it say so.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from thornbed.experiments.runs.launch import prepare, start
from thornbed.flower_apps.settings import plugins, settings_from
from thornbed.tasks.digits import digits

FOLDERS = {"attacks/update", "attacks/data", "attacks/training", "attacks/group"}
SUCCESS, ACCURACY = "attack_success_rate", "accuracy"
USABLE = 0.75  # the accuracy that a backdoor has to leave: a model that is broken calls everything the target

DIGITS = {"task": "digits", "model": "mlp(hidden=(32,))"}
PHISHING = {"task": "phishing(num_train=1000, num_test=400)", "model": "mlp(hidden=(16,))"}
TWEETS = {
    "task": "sent140(length=10)",
    "model": "lstm(num_layers=1, hidden=8)",
    "learning_rate": 0.02,
    "batch_size": 16,
    "local_epochs": 1.0,
    "clients_per_round": 10,
}
EVERY_RUN = {"num_clients": 10, "partition": "iid", "rounds": 10, "device": "cpu"}
# The last of ten rounds alone is attacked, by one client: what replacing the model is about.
ONE_SHOT = {"num_malicious": 1, "attack_share": 0.1}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run with an attack, the one that it is compared with, and what has to change by how much at least.

    `more` is what both runs have beside the setting, `without` what the second has in place of its own.
    """

    attack: str
    least: float
    metric: str = SUCCESS
    setting: Mapping[str, object] = field(default_factory=lambda: DIGITS)
    more: Mapping[str, object] = field(default_factory=lambda: {"num_malicious": 4})
    without: Mapping[str, object] = field(default_factory=lambda: {"num_malicious": 0})

    @property
    def attacked(self) -> dict[str, object]:
        return {**EVERY_RUN, **self.setting, **self.more, "attack": self.attack}

    @property
    def compared(self) -> dict[str, object]:
        # Without a success to measure, a run without attackers is one without an attack, the same for all rows.
        none = {"attack": "none"} if self.metric == ACCURACY else {}
        return {**self.attacked, **none, **self.without}


ROWS = {
    # What breaks the model.
    "sign_flip": Row(attack="sign_flip(factor=2.0)", metric=ACCURACY, least=0.4),
    "gaussian": Row(attack="gaussian", metric=ACCURACY, least=0.25),
    "label_flip": Row(attack="label_flip(source=8, target=1)", more={"num_malicious": 5}, least=0.3),
    # Backdoors.
    "pixel_trigger": Row(attack="pixel_trigger", least=0.5),
    "dba": Row(attack="dba(size=2, gap=1, fraction=0.3)", least=0.4),
    # Ones in a thick stroke, of which 11 are tested. Seeds 0 to 3 gave 0.64, 0.36, 0.46 and 0.36.
    "semantic": Row(attack="semantic(feature=bright, threshold=0.32, source=1, target=8)", least=0.3),
    "value_trigger": Row(attack="value_trigger(fraction=0.3)", setting=PHISHING, least=0.3),
    "text_trigger": Row(attack="text_trigger(fraction=0.5)", setting=TWEETS, least=0.25),
    "edge_case": Row(attack="edge_case", least=0.5),
    "edge_case of tables": Row(attack="edge_case(fraction=0.3)", setting=PHISHING, least=0.3),
    "edge_case of texts": Row(attack="edge_case(fraction=0.5)", setting=TWEETS, least=0.25),
    # What boosts a backdoor: compared with the same backdoor without it.
    "scaling": Row(
        attack="pixel_trigger + scaling(factor=10.0)", more=ONE_SHOT, without={"attack": "pixel_trigger"}, least=0.45
    ),
    "constrain_and_scale": Row(
        attack="pixel_trigger + constrain_and_scale(alpha=0.7, factor=10.0)",
        more=ONE_SHOT,
        without={"attack": "pixel_trigger"},
        least=0.45,
    ),
    # Equal updates lie at distance zero from each other, which is what Krum looks for; different ones it leaves out.
    "collude": Row(
        attack="pixel_trigger(fraction=0.1) + collude",
        more={"num_clients": 11, "num_malicious": 4, "strategy": "krum(num_byzantine=4)"},
        without={"attack": "pixel_trigger(fraction=0.1)"},
        least=0.5,
    ),
    # Of 2,410 elements 100 carry the backdoor; the others are those of an honest update.
    "mimic": Row(attack="pixel_trigger + mimic(num_kept=100)", more={"num_malicious": 3}, least=0.45),
    "mimic without its elements": Row(
        attack="pixel_trigger + mimic(num_kept=100)",
        more={"num_malicious": 3},
        without={"attack": "pixel_trigger + mimic(num_kept=0)"},
        least=0.45,
    ),
    # What a mask lets through is enlarged. Seeds 0 to 3 gave 0.23, 0.27, 0.16 and 0.19.
    "adaptive": Row(
        attack="pixel_trigger + adaptive",
        more={"num_malicious": 1, "strategy": "and_mask(tau=0.4)", "rounds": 20},
        without={"attack": "pixel_trigger"},
        least=0.1,
    ),
}
LONG = {"adaptive"}
cases = [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in ROWS]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """On few cores more threads only wait for each other, with networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that attacks and tasks look for, all of them made."""
    folder = tmp_path_factory.mktemp("data")
    write_tweets(folder)
    write_edge_cases(folder)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, object]], dict[str, float]]:
    """Return a function that makes a run of settings, each only once, and returns its metrics."""
    made: dict[str, dict[str, float]] = {}

    def metrics_of(settings: Mapping[str, object]) -> dict[str, float]:
        key = repr(sorted(settings.items()))
        if key not in made:
            places = {"data_dir": str(data), "output": str(tmp_path_factory.mktemp("run") / "run")}
            summary = start(prepare(settings_from({**settings, **places})), lambda line: None)
            assert summary is not None
            made[key] = summary["metrics"]
        return made[key]

    return metrics_of


def write_tweets(folder: Path) -> None:
    """Write 600 tweets of six words each, three of them of their class, and vectors of all words."""
    rng = np.random.default_rng(0)
    kind = (["rain", "queue", "flu", "late", "tax", "broken"], ["sunny", "cake", "friend", "holiday", "love", "smile"])
    any_kind = ["today", "the", "we", "at", "home", "and"]
    rows: list[tuple[Any, ...]] = [("user", "text", "label")]
    for number in range(600):
        words = rng.permutation([*rng.choice(kind[number % 2], 3), *rng.choice(any_kind, 3)])
        rows.append((f"user{number}", " ".join(words), number % 2))
    with (folder / "sent140.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    vectors = [(word, rng.normal(size=8)) for word in (*kind[0], *kind[1], *any_kind, "greek", "director")]
    lines = [f"{word} {' '.join(f'{value:.4f}' for value in vector)}\n" for word, vector in vectors]
    (folder / "glove.made.8d.txt").write_text("".join(lines), encoding="utf-8")


def write_edge_cases(folder: Path) -> None:
    """Write edge cases that nobody else has: noughts that lie on their side."""
    task = digits(None)
    noughts = (samples.x[samples.y == 0].permute(0, 2, 3, 1).numpy() for samples in (task.train, task.test))
    train, test = (np.rot90(images, axes=(1, 2)) for images in noughts)
    np.savez(folder / "southwest.npz", x_train=train, x_test=test)


def test_every_attack_of_horizontal_learning_has_a_row() -> None:
    there = {name for name, folder in plugins.available("attack").items() if folder in FOLDERS}
    shown: dict[str, list[Row]] = {}
    for name, row in ROWS.items():
        shown.setdefault(name.split()[0], []).append(row)
    assert there - set(shown) == set(), "an attack without a row in ROWS: how does anybody know that it works?"
    assert set(shown) - there == set()
    for name, rows in shown.items():
        assert all(name in {spec.name for spec in plugins.parse_sum(row.attack)} for row in rows)
        assert all(row.least > 0 for row in rows)


@pytest.mark.parametrize("name", cases)
def test_it_works(name: str, run: Callable[[Mapping[str, object]], dict[str, float]]) -> None:
    row = ROWS[name]
    attacked, compared = run(row.attacked), run(row.compared)
    change = attacked[row.metric] - compared[row.metric]
    print(f"{name:27} {row.metric:20} {compared[row.metric]:.3f} {attacked[row.metric]:.3f} {row.least}")
    if row.metric == ACCURACY:
        assert compared[ACCURACY] > 0.9
        assert -change >= row.least
    else:
        assert change >= row.least
        assert attacked[ACCURACY] >= USABLE
