"""Reading ExtraSensory files: rows by time, statistics of training rows alone, agents' columns, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.made_sensors import COLUMNS, write
from thornbed.tasks.blocks import split
from thornbed.tasks.extrasensory import AGENTS, USER, extrasensory
from thornbed.tasks.sources import MissingData


def made(rows: int = 2420) -> pd.DataFrame:
    """Row r has 1000 c + r in column c, small numbers with few digits; every eleventh row has no label."""
    values = 1000 * np.arange(len(COLUMNS)) + np.arange(rows)[:, None]
    labels = {
        "timestamp": np.arange(rows),
        "label:SITTING": np.where(np.arange(rows) % 11 == 0, np.nan, np.arange(rows) % 3 == 0),
        "label:SLEEPING": np.where(np.arange(rows) < 2300, np.arange(rows) % 7 == 0, np.nan),
        "label_source": np.nan,
    }
    last = [name for name in reversed(COLUMNS) if name.startswith("discrete:")]  # the times of day before the others
    shuffled = [name for name in COLUMNS if name not in last] + last
    return pd.concat([pd.DataFrame(values, columns=COLUMNS)[shuffled], pd.DataFrame(labels)], axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the file of the paper's user and that of another, both as `made`."""
    place = tmp_path_factory.mktemp("sensors")
    shutil.copy(write(place, made()), place / "me.features_labels.csv.gz")
    return place


def test_rows_are_ordered_by_time_wherever_they_stand_in_the_file(tmp_path, folder):
    mixed = made().sample(frac=1, random_state=0)
    write(tmp_path, mixed)
    assert torch.equal(extrasensory(tmp_path).train.x, extrasensory(folder).train.x)
    assert torch.equal(extrasensory(tmp_path).test.y, extrasensory(folder).test.y)


def test_labelled_rows_are_split_by_time_and_belong_to_ten_agents(folder):
    task = extrasensory(folder)
    labelled = [row for row in range(2420) if row % 11]
    both = labelled[: 1721 + 465]
    first = task.train.join(task.test).x[:, 0]
    assert first.tolist() == [float(row) for row in both]
    assert task.train.join(task.test).y.tolist() == [int(row % 3 == 0) for row in both]
    assert len(task.train) == 1721
    assert task.class_names == ("not sitting", "sitting")
    parts = split(task.train.x - 1, task.blocks)
    names = [[COLUMNS[int(value) // 1000] for value in part[0].tolist()] for part in parts]
    assert [len(mine) for mine in names] == [26, 26, 31, 46, 9, 17, 28, 26, 8, 8]
    assert [mine[0] for mine in names] == [
        "raw_acc:0", "proc_gyro:0", "raw_magnet:0", "watch_acceleration:0", "watch_heading:0", "location:0",
        "audio_naive:0", "discrete:25", "lf_measurements:0", "discrete:time_of_day:7",
    ]  # fmt: skip
    assert names[6][-2:] == ["audio_properties:0", "audio_properties:1"]
    assert sorted(name for mine in names for name in mine) == sorted(COLUMNS)
    assert len(task.blocks) == len(AGENTS)


def test_statistics_are_of_the_training_rows_alone_and_missing_values_are_their_mean(tmp_path):
    table, labelled = made(), [row for row in range(2420) if row % 11]
    train, test = labelled[:1721], labelled[1721:2186]
    table.loc[train[3:9], "proc_gyro:0"] = np.nan
    table.loc[test, "proc_gyro:0"] = 1e6  # seen in no statistic
    table.loc[test[5], "proc_gyro:0"] = np.inf
    table.loc[train, "lf_measurements:0"] = np.nan
    table["raw_magnet:0"] = 0.1
    write(tmp_path, table)
    task = extrasensory(tmp_path)
    gyro = [26000.0 + row for row in train[:3] + train[9:]]
    assert task.mean[26] == pytest.approx(np.mean(gyro))
    assert task.std[26] == pytest.approx(np.std(gyro))
    assert task.train.x[3:9, 26].tolist() == pytest.approx([np.mean(gyro)] * 6)
    assert float(task.test.x[5, 26]) == pytest.approx(np.mean(gyro))
    assert float(task.test.x[6, 26]) == 1e6
    environment = task.blocks[8][0]
    assert (task.mean[environment], task.std[environment]) == (0.0, 1.0)
    assert float(task.train.x[:, environment].abs().max()) == 0
    assert (task.std[52], task.mean[52]) == (1.0, pytest.approx(0.1))  # constant
    other = [row for row in labelled if row not in train]
    table.loc[other, "raw_acc:0"] = -7.0
    write(tmp_path, table)
    assert extrasensory(tmp_path).mean == task.mean


def test_another_label_and_user_can_be_asked_for(folder):
    task = extrasensory(folder, user="me", label="SLEEPING")
    assert task.train.x[:, 0].tolist() == list(range(1721))
    assert task.train.y.tolist() == [int(row % 7 == 0) for row in range(1721)]
    with pytest.raises(MissingData, match=f"{folder} has no you"):
        extrasensory(folder, user="you")
    with pytest.raises(ValueError, match="has no column label:RUNNING; its 2 labels are SITTING, SLEEPING"):
        extrasensory(folder, user="me", label="RUNNING")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: table[:2300], "2090 rows that say whether SITTING holds, expected 1721 for training and 465"),
        (
            lambda table: table.drop(columns=["raw_magnet:0", "location:3", "audio_properties:1"]),
            "has 222 feature columns, expected 225 as in every published file: 30 of the magnetometer, which has 31 "
            r"\(raw_magnet:\); 16 of the location, which has 17 \(location: and location_quick_features:\); "
            "27 of the audio",
        ),
        (
            lambda table: table.drop(columns=[name for name in COLUMNS if name.startswith("watch_heading:")]),
            r"has 216 .* expected 225 .*: 0 of the watch compass, which has 9 \(watch_heading:\)$",
        ),
        (
            lambda table: table.assign(**{"raw_acc:26": 1}),
            r"has 226 feature columns, expected 225 .*: 27 of the phone accelerometer, which has 26",
        ),
        (lambda table: table.replace({"label:SITTING": {1.0: 2.0}}), r"label:SITTING is 2\.0 in some row"),
        (
            lambda table: table.assign(**{"label:SITTING": 1.0}),
            r"none of the 1721 rows to train on has label:SITTING 0$",
        ),
        (
            lambda table: table.assign(**{"label:SITTING": (np.arange(len(table)) > 1720) * 1.0}),  # to test on alone
            r"none of the 1721 rows to train on has label:SITTING 1$",
        ),
        (lambda table: table.drop(columns="timestamp"), "has no column timestamp"),
        (lambda table: table.assign(**{"raw_acc:0": "much"}), "(cannot be read|has no column label:SITTING)"),
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
    with pytest.raises(ValueError, match=r"cannot be read|has no column label:SITTING"):
        extrasensory(tmp_path)


# Flipped bytes unpack to what is no table, bytes of ones alone do not unpack.
@pytest.mark.parametrize("place", [0.25, 0.75])
@pytest.mark.parametrize("damage", [lambda byte: 255 - byte, lambda byte: 255])
def test_a_file_that_is_damaged_in_the_middle_is_refused(folder, tmp_path, place, damage):
    content = bytearray((folder / "me.features_labels.csv.gz").read_bytes())
    begin = int(place * len(content))
    content[begin : begin + 64] = bytes(map(damage, content[begin : begin + 64]))
    (tmp_path / "me.features_labels.csv.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"me\.features_labels\.csv\.gz (cannot be read|has no column label:SITTING)"):
        extrasensory(tmp_path, user="me")


def test_the_mean_of_normalised_training_rows_is_zero(folder):
    task = extrasensory(folder)
    scaled = (task.train.x.double() - torch.tensor(task.mean, dtype=torch.float64)) / torch.tensor(
        task.std, dtype=torch.float64
    )
    assert float(scaled.mean(dim=0).abs().max()) < 1e-6
    assert scaled.std(dim=0, correction=0).tolist() == pytest.approx([1.0] * 225, abs=1e-6)
