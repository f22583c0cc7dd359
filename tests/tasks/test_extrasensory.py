"""Reading ExtraSensory files: rows by time, statistics of training rows alone, agents' columns, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tasks.blocks import split
from tasks.extrasensory import AGENTS, USER, extrasensory
from tasks.sources import MissingData

COLUMNS = [
    "raw_acc:a", "proc_gyro:a", "raw_magnet:a", "watch_acceleration:a", "watch_heading:a", "location:a",
    "location_quick_features:a", "audio_naive:a", "audio_properties:a", "discrete:wifi", "discrete:time_of_day:am",
    "discrete:battery", "lf_measurements:a",
]  # fmt: skip


def made(rows: int = 2420) -> pd.DataFrame:
    """Row r has 1000 c + r in column c; every eleventh row has no label."""
    table = pd.DataFrame({name: 1000.0 * c + np.arange(rows) for c, name in enumerate(COLUMNS)})
    table.insert(0, "timestamp", np.arange(rows))
    table["label:SITTING"] = np.where(np.arange(rows) % 11 == 0, np.nan, np.arange(rows) % 3 == 0)
    table["label:SLEEPING"] = np.where(np.arange(rows) < 2300, 1.0, np.nan)
    table["label_source"] = np.nan
    return table


def write(folder: Path, table: pd.DataFrame, user: str = USER) -> Path:
    path = folder / f"{user}.features_labels.csv.gz"
    table.to_csv(path, index=False)
    return path


def test_labelled_rows_are_split_by_time_and_belong_to_ten_agents(tmp_path):
    write(tmp_path, made())
    task = extrasensory(tmp_path)
    labelled = [row for row in range(2420) if row % 11]
    both = labelled[: 1721 + 465]
    first = task.train.join(task.test).x[:, 0]
    assert first.tolist() == [float(row) for row in both]
    assert task.train.join(task.test).y.tolist() == [int(row % 3 == 0) for row in both]
    assert len(task.train) == 1721
    assert task.class_names == ("not sitting", "sitting")
    columns = [
        [COLUMNS[int(value) // 1000] for value in part[0].tolist()] for part in split(task.train.x - 1, task.blocks)
    ]
    assert columns == [
        ["raw_acc:a"], ["proc_gyro:a"], ["raw_magnet:a"], ["watch_acceleration:a"], ["watch_heading:a"],
        ["location:a", "location_quick_features:a"], ["audio_naive:a", "audio_properties:a"],
        ["discrete:wifi", "discrete:battery"], ["lf_measurements:a"], ["discrete:time_of_day:am"],
    ]  # fmt: skip
    assert len(task.blocks) == len(AGENTS)


def test_statistics_are_of_the_training_rows_alone_and_missing_values_are_their_mean(tmp_path):
    table, labelled = made(), [row for row in range(2420) if row % 11]
    train, test = labelled[:1721], labelled[1721:2186]
    table.loc[train[3:9], "proc_gyro:a"] = np.nan
    table.loc[test, "proc_gyro:a"] = 1e6  # seen in no statistic
    table.loc[test[5], "proc_gyro:a"] = np.inf
    table.loc[train, "lf_measurements:a"] = np.nan
    table["raw_magnet:a"] = 0.1
    write(tmp_path, table)
    task = extrasensory(tmp_path)
    gyro = [1000.0 + row for row in train[:3] + train[9:]]
    assert task.mean[1] == pytest.approx(np.mean(gyro))
    assert task.std[1] == pytest.approx(np.std(gyro))
    assert task.train.x[3:9, 1].tolist() == pytest.approx([np.mean(gyro)] * 6)
    assert float(task.test.x[5, 1]) == pytest.approx(np.mean(gyro))
    assert float(task.test.x[6, 1]) == 1e6
    environment = task.blocks[8][0]
    assert (task.mean[environment], task.std[environment]) == (0.0, 1.0)
    assert float(task.train.x[:, environment].abs().max()) == 0
    assert (task.std[2], task.mean[2]) == (1.0, pytest.approx(0.1))  # constant
    other = [row for row in labelled if row not in train]
    table.loc[other, "raw_acc:a"] = -7.0
    write(tmp_path, table)
    assert extrasensory(tmp_path).mean == task.mean


def test_another_label_and_user_can_be_asked_for(tmp_path):
    write(tmp_path, made(), user="me")
    task = extrasensory(tmp_path, user="me", label="SLEEPING")
    assert task.train.x[:, 0].tolist() == list(range(1721))
    assert set(task.train.y.tolist()) == {1}
    with pytest.raises(MissingData, match=f"{tmp_path} has no {USER}"):
        extrasensory(tmp_path)
    with pytest.raises(ValueError, match="has no column label:RUNNING; its 2 labels are SITTING, SLEEPING"):
        extrasensory(tmp_path, user="me", label="RUNNING")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: table[:2300], "2090 rows that say whether SITTING holds, expected 1721 for training and 465"),
        (
            lambda table: table.drop(columns="raw_magnet:a"),
            "no column of the magnetometer: none begins with raw",
        ),
        (lambda table: table.replace({"label:SITTING": {1.0: 2.0}}), r"label:SITTING is 2\.0 in some row"),
        (lambda table: table.assign(**{"raw_acc:a": "much"}), "cannot be read as a gzipped table of numbers"),
    ],
)
def test_what_is_malformed_is_refused_with_the_file(tmp_path, change, sentence):
    path = write(tmp_path, change(made()))
    with pytest.raises(ValueError, match=sentence) as refused:
        extrasensory(tmp_path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"timestamp,raw_acc:a\n1,2\n", b"\x1f\x8b\x08\x00broken"])
def test_what_is_no_gzipped_table_is_refused(tmp_path, content):
    (tmp_path / f"{USER}.features_labels.csv.gz").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a gzipped table of numbers"):
        extrasensory(tmp_path)


def test_the_mean_of_normalised_training_rows_is_zero(tmp_path):
    write(tmp_path, made())
    task = extrasensory(tmp_path)
    scaled = (task.train.x.double() - torch.tensor(task.mean).double()) / torch.tensor(task.std).double()
    assert float(scaled.mean(dim=0).abs().max()) < 1e-6
    assert scaled.std(dim=0, correction=0).tolist() == pytest.approx([1.0] * 13, abs=1e-6)
