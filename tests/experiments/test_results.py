"""Tables of runs: means and deviations by hand, and files that other programs read."""

import json
import math

import pandas as pd
import pytest
from rich.console import Console

from thornbed.experiments.sweeps.command import _rich
from thornbed.experiments.sweeps.plan import read_plan
from thornbed.experiments.sweeps.results import as_texts, beside_published, compared, runs_frame, write_tables
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.settings import settings_from


def run(path, accuracy, success=None, **values):
    folder, settings = Folder(path), resolve(settings_from({"rounds": 2, **values}))
    path.mkdir(parents=True)
    folder.write_config(settings, {})
    summary = dict.fromkeys(("malicious", "defense_acted", "defense_was_told", "replies_dropped"))
    metrics = {"accuracy": accuracy, "loss": 1.0, "attack_success_rate": success}
    folder.finish(
        settings,
        {**summary, "metrics": metrics, "rounds": 2, "seconds": 4.0, "replies_dropped": 0},
    )
    return folder


@pytest.fixture
def folders(tmp_path):
    made = [run(tmp_path / f"median{seed}", 0.5 + 0.1 * seed, seed=seed, strategy="median") for seed in range(3)]
    made.append(run(tmp_path / "attacked", 0.25, 0.125, attack="sign_flip"))
    unfinished = Folder(tmp_path / "unfinished")
    unfinished.path.mkdir()
    unfinished.write_config(resolve(settings_from({"rounds": 2})), {})
    return [*made, unfinished]


def test_runs_that_differ_in_their_seed_alone_are_one_row(folders):
    table = compared(runs_frame(folders))
    assert list(table["strategy"]) == ["median", "fedavg"]
    assert list(table["seeds"]) == [3, 1]
    assert table["accuracy"].tolist() == pytest.approx([0.6, 0.25])
    assert table["accuracy_std"][0] == pytest.approx(0.1)  # of the sample: sqrt((0.01 + 0 + 0.01) / 2)
    assert math.isnan(table["accuracy_std"][1])
    assert "num_malicious" in table  # what differs between rows is a column
    assert "num_clients" not in table


def test_a_copy_of_a_run_is_no_further_seed(folders):
    table = compared(runs_frame([*folders, *folders]))
    assert list(table["seeds"]) == [3, 1]
    assert table["accuracy_std"][0] == pytest.approx(0.1)


def test_small_settings_are_told_apart(tmp_path):
    made = [run(tmp_path / str(rate), 0.5, learning_rate=rate) for rate in (1e-4, 4e-4)]
    assert as_texts(compared(runs_frame(made)))["learning rate"].tolist() == ["0.0001", "0.0004"]


def test_texts_for_people(folders):
    texts = as_texts(compared(runs_frame(folders)))
    assert texts["accuracy"].tolist() == ["0.600 ± 0.100", "0.250"]
    assert texts["attack success rate"].tolist() == ["–", "0.125"]


def test_the_same_table_as_csv_json_and_latex(folders, tmp_path):
    table = compared(runs_frame(folders))
    comma, json_, tex = write_tables(table, tmp_path, "results")
    assert pd.read_csv(comma)["accuracy"].tolist() == table["accuracy"].tolist()
    rows = json.loads(json_.read_text())
    assert rows[0]["attack_success_rate"] is None
    assert rows[0]["accuracy"] == pytest.approx(0.6)
    assert r"sign\_flip" in tex.read_text()
    assert "0.600 ± 0.100" in tex.read_text()


@pytest.mark.parametrize("width", [80, 300])
def test_a_narrow_terminal_still_says_what_each_run_is(thornbed, tmp_path, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    sides = {"optimizer": "adam", "partition": "shards(per_client=3)", "model": "mlp(hidden=(16,))", "num-clients": 7}
    run(tmp_path / "one", 0.5, 0.25, strategy="invariant(tau=0.3, alpha=0.125)", attack="pixel_trigger", **sides)
    run(tmp_path / "two", 0.75)
    shown = thornbed("show", tmp_path).out
    for word in ("invariant(tau=0.3,", "alpha=0.125)", "pixel_trigger", "adam", "mlp(hidden=(16,))", "0.250", "0.750"):
        assert word in shown


def test_no_run_is_no_table(tmp_path):
    assert compared(runs_frame([])).empty


def test_a_papers_numbers_stand_beside_ours(folders, tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        'rounds = 2\nstrategy = ["median", "krum"]\nseed = [0, 1, 2]\n'
        '[[published]]\nwhere = {strategy = "median"}\nmetric = "accuracy"\nvalue = 0.7\nsource = "Table 1"\n'
        '[[published]]\nwhere = {strategy = "krum"}\nmetric = "accuracy"\nvalue = 0.7\n'
    )
    table = beside_published(read_plan(path), runs_frame(folders))
    assert table["ours"][0] == pytest.approx(0.6)
    assert table["difference"][0] == pytest.approx(-0.1)
    assert table["seeds"].tolist() == [3, 0]
    texts = as_texts(table)
    assert texts["ours"].tolist() == ["0.600 ± 0.100", "–"]
    assert texts["difference"].tolist() == ["-0.100", "–"]


def test_in_a_terminal_what_follows_from_the_task_leaves_room_for_the_names() -> None:
    rows = [
        {"task": task, "strategy": strategy, "attack": "sign_flip", "batch size": size, "alike": "x", "accuracy": "0.9"}
        for task, size in (("digits", "16"), ("phishing", "64"))
        for strategy in ("fedavg", "krum")
    ]
    columns = [column.header for column in _rich(pd.DataFrame(rows), "A table", Console(width=200)).columns]
    assert columns == ["task", "strategy", "attack", "alike", "accuracy"]
    rows[0]["batch size"] = "8"  # now it says something of its own
    assert "batch size" in [
        column.header for column in _rich(pd.DataFrame(rows), "A table", Console(width=200)).columns
    ]
