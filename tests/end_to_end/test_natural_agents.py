"""Tasks whose features belong to agents by nature, from the command line: the numbers of agents come from the task."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.conftest import read_lines
from tests.made_sensors import COLUMNS, write

AGENTS = "block_table(file='home.csv', target='room', agents=('acc_', 'gyro_', ('light', 'noise')))"


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def sensors(tmp_path_factory):
    """The made file of a user: a tenth of the values is missing; all sensors know a little of whether he sits."""
    folder, rng = tmp_path_factory.mktemp("sensors"), np.random.default_rng(0)
    sitting = rng.random(2200) < 0.6
    values = np.rint(10 * rng.normal(size=(2200, len(COLUMNS)))).astype(np.int64) + 5 * sitting[:, None]
    table = pd.DataFrame(values, columns=COLUMNS).mask(rng.random(values.shape) < 0.1).astype("Int64")
    write(folder, table.assign(**{"timestamp": np.arange(2200), "label:SITTING": sitting.astype(np.int64)}))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with home.csv: 300 rows of six sensors' numbers in three rooms, some missing, and the time."""
    folder, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    room = rng.integers(0, 3, size=300)
    names = ["acc_x", "gyro_x", "acc_y", "light", "gyro_y", "noise"]
    table = pd.DataFrame(rng.normal(size=(300, 6)) + 3 * room[:, None] * np.array([1, -1, 1, 1, -1, 1]), columns=names)
    table = table.mask(rng.random((300, 6)) < 0.05)
    table = table.assign(time=[f"day {row}" for row in range(300)], room=np.array(["hall", "kitchen", "attic"])[room])
    table.to_csv(folder / "home.csv", index=False)
    return folder


@pytest.mark.slow
def test_ten_sensors_of_which_three_flip_and_what_is_certified(thornbed, sensors, tmp_path):
    found = {}
    for defense in ("none", "copur"):
        said = thornbed(
            "run", "--task", "extrasensory", "--strategy", "collaborative_inference", "--attack",
            "feature_flip(amplification=10)", "--malicious-ids", "7,8,9", "--defense", defense, "--local-epochs", "2",
            "--data-dir", sensors, "--output", tmp_path / defense,
        )  # fmt: skip
        assert said.code == 0, said.err
        found[defense] = summary(tmp_path / defense)["metrics"]
    assert found["none"]["clean_accuracy"] > 0.9
    assert found["none"]["robust_accuracy"] < 0.4
    assert found["copur"]["robust_accuracy"] > found["none"]["robust_accuracy"] + 0.4
    assert summary(tmp_path / "copur")["malicious"] == [7, 8, 9]
    config = json.loads((tmp_path / "copur" / "config.json").read_text())
    assert config["columns"] == [26, 26, 31, 46, 9, 17, 28, 26, 8, 8]
    assert (config["training_rows"], config["queries"]) == (1721, 465)
    said = thornbed("certify", tmp_path / "copur")
    assert said.code == 0, said.err
    certified = json.loads((tmp_path / "copur" / "certificate.json").read_text())
    assert [each["silent"] for each in certified["sets"]] == [[], *([agent] for agent in range(10))]
    nobody, *alone = (each["levels"][0] for each in certified["sets"])  # what a single liar is up against
    assert all(0 <= level["high"] - level["low"] < 0.02 for level in (nobody, *alone))
    assert max(level["high"] for level in alone) < nobody["low"]  # whoever is silent, it has more to say
    for each in certified["sets"]:
        assert each["tolerated"] == sum(level["low"] > 0.5 for level in each["levels"])


def test_agents_of_any_table_send_embeddings(thornbed, home, tmp_path):
    flags = ("run", "--task", AGENTS, "--strategy", "collaborative_inference(bottleneck=3)", "--data-dir", home)
    said = thornbed(*flags, "--attack", "feature_flip", "--output", tmp_path / "run", "--learning-rate", "0.01")
    assert said.code == 0, said.err
    assert summary(tmp_path / "run")["metrics"]["clean_accuracy"] > 0.8
    assert summary(tmp_path / "run")["malicious"] == [2]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["settings"]["partition"], config["columns"]) == ("natural", [2, 2, 2])


@pytest.mark.parametrize(("partition", "clients"), [("natural", 3), ("contiguous(sizes=(1, 5))", 2)])
def test_agents_of_any_table_learn_together(thornbed, home, tmp_path, partition, clients):
    said = thornbed(
        "run", "--task", AGENTS, "--strategy", "split_nn(embedding_size=8, hidden=16)", "--partition", partition,
        "--num-clients", clients, "--learning-rate", "0.01", "--batch-size", "32", "--rounds", "5", "--data-dir", home,
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert summary(tmp_path / "run")["metrics"]["clean_data_accuracy"] > 0.8
    assert len(read_lines(tmp_path / "run")) == 6


@pytest.mark.parametrize("strategy", ["collaborative_inference", "split_nn"])
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--num-clients", "4"), f"--num-clients is 4, and --task {AGENTS} has 3 agents"),
        (("--task", "block_table(file='home.csv', target='room')"), "--partition natural needs features that belong"),
        (("--task", "block_table(file='away.csv')"), "block_table needs its data, but"),
        (("--task", "block_table(agents='acc_')"), "block_table takes agents: tuple[str | tuple[str, ...], ...], not"),
        (("--task", "nus_wide"), "lacks all 22 files, such as Train_Normalized_CH.dat"),
        (("--task", AGENTS.replace("gyro_", "wifi_")), "home.csv has no column of agent 1: none begins with 'wifi_'"),
        (("--task", AGENTS.replace("'noise'", "'time'")), "line 2: time is 'day 0', expected a number"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_code_2(thornbed, home, tmp_path, strategy, flags, sentence):
    partition = () if "away" in flags[1] else ("--partition", "natural")
    said = thornbed(
        "run", "--task", AGENTS, "--strategy", strategy, "--data-dir", home, "--output", tmp_path, *partition, *flags
    )
    assert said.code == 2
    assert sentence in said.sentence
    assert len(said.err.strip().splitlines()) == 1
