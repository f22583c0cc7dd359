"""A table with column blocks: whose columns, which classes, which rows are tested on, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from thornbed.tasks.block_table import block_table
from thornbed.tasks.sources import MissingData

HEADER = "row,acc_x,gyro_x,acc_y,target,lat,part"
ROWS = (
    "0,1,10,0.5,walk,3,train",
    "1,2,20,,sit,3,train",
    "2,3,nan,1.5,walk,3,test",
    "3,4,40,2.5,run,3,Train",
    "4,5,50,,sit,3,train",
    "5,9,0,9,run,4,test",
)
AGENTS = ("gyro_", ("lat",), "acc_")


def write(folder: Path, *rows: str, header: str = HEADER, name: str = "blocks.csv") -> Path:
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_a_table_by_hand(tmp_path):
    task = block_table(write(tmp_path, *ROWS), agents=AGENTS, split_column="part")
    assert task.blocks == ((0,), (1,), (2, 3))
    assert task.class_names == ("run", "sit", "walk")
    assert task.train.y.tolist() == [2, 1, 0, 1]
    assert task.test.y.tolist() == [2, 0]
    # Statistics are of the rows 0, 1, 3 and 4 and of what is there: acc_y is 0.5 and 2.5.
    assert task.mean == (30.0, 3.0, 3.0, 1.5)
    assert task.std == pytest.approx((250**0.5, 1.0, 2.5**0.5, 1.0))
    assert task.train.x.tolist() == [[10, 3, 1, 0.5], [20, 3, 2, 1.5], [40, 3, 4, 2.5], [50, 3, 5, 1.5]]
    assert task.test.x.tolist() == [[30, 3, 3, 1.5], [0, 4, 9, 9]]


def test_without_agents_every_other_column_is_a_feature_and_belongs_to_nobody(tmp_path):
    task = block_table(write(tmp_path, *ROWS), split_column="part")
    assert task.blocks == ()
    assert task.train.x[0].tolist() == [0, 1, 10, 0.5, 3]


def test_classes_are_integers_ascending_or_words_sorted(tmp_path):
    rows = [f"{row},{label}" for row, label in enumerate(["10", "-1", "2.0", "10", "-1", "2"])]
    task = block_table(write(tmp_path, *rows, header="a,target"), in_order=True, test_share=0.5)
    assert task.class_names == ("-1", "2", "10")
    assert task.train.y.tolist() == [2, 0, 1]
    task = block_table(write(tmp_path, "0,10", "1,9 ", "2,b", "3,9", header="a, target"), in_order=True)
    assert task.class_names == ("10", "9", "b")
    assert task.test.y.tolist() == [1]


def test_rows_are_drawn_by_class_or_the_last_ones_and_stay_in_order(tmp_path):
    rows = [f"{row},{'yes' if row % 4 == 0 else 'no'}" for row in range(80)]
    folder = write(tmp_path, *rows, header="a,label", name="mine.csv")
    tasks = [block_table(folder, file="mine.csv", target="label", split=split) for split in (0, 0, 1)]
    tested = [task.test.x[:, 0].tolist() for task in tasks]
    assert tested[0] == tested[1] != tested[2]
    for task in tasks:
        assert torch.bincount(task.test.y).tolist() == [15, 5]
        assert task.test.x[:, 0].tolist() == sorted(task.test.x[:, 0].tolist())
        assert sorted(task.train.join(task.test).x[:, 0].tolist()) == list(range(80))
    last = block_table(folder, file="mine.csv", target="label", in_order=True, test_share=0.1)
    assert last.test.x[:, 0].tolist() == list(range(72, 80))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": "label"}, "has no column label: it has row, acc_x, gyro_x"),
        ({"split_column": "fold"}, "has no column fold: it has row"),
        ({"agents": ("acc_", "wifi_")}, "has no column of agent 1: none begins with 'wifi_'; it has row, acc_x"),
        ({"agents": ("acc_", ())}, "has no column of agent 1: none is named"),
        ({"agents": ("acc_", ("lat", "lon"))}, "has no column lon"),
        ({"agents": ("acc_", ("lat", "acc_y"))}, "column acc_y belongs to agents 0 and 1, expected only one"),
        ({"agents": ("acc_", ("lat", "target"))}, "other columns than target and split_column: an agent holds target"),
        ({"agents": ("acc_", "part")}, r"line 2: part is 'train', expected a number"),
        ({"split_column": "lat", "agents": AGENTS[::2]}, r"line 2: lat is '3', expected train or test"),
        ({"split_column": "target"}, "two columns: both are target"),
        ({"split_column": "part", "in_order": True}, "in_order or split_column, not both: split_column = part"),
        ({"test_share": 1.0}, "0 < test_share < 1 and .*: test_share = 1.0, split = 0"),
        ({"split": -1}, "split = -1"),
        ({"test_share": 0.01}, "0 of 6 rows to test on, expected some and not all"),
        ({"in_order": True, "test_share": 0.9}, "5 of 6 rows|none of the 1 rows to train on has target run"),
        ({"target": "gyro_x", "agents": ("acc_",)}, "line 4: gyro_x is 'nan', which counts as missing"),
        ({"target": "acc_y", "agents": ("gyro_",)}, "line 3: acc_y is missing"),
    ],
)
def test_options_that_do_not_fit_the_table_are_refused(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        block_table(write(tmp_path, *ROWS), **{"agents": AGENTS, **options})


@pytest.mark.parametrize(
    ("rows", "header", "sentence"),
    [
        (["1,a", "2,a", "3,a"], "x,target", "target is a in all 3 rows, expected two classes"),
        (["1,0.5", "2,1"], "x,target", r"line 2: target is 0\.5, expected a class, which is an integer or a word"),
        (["1,inf", "2,1"], "x,target", "line 2: target is inf, expected a class"),
        (["1,a", "inf,b"], "x,target", "line 3: x is inf, which is no float32"),
        (["1,a", "1e39,b"], "x,target", "line 3: x is 1e39, which is no float32"),
        (["1,a", "two,b"], "x,target", "line 3: x is 'two', expected a number"),
        (["1,a", "2,b,3"], "x,target", "cannot be read"),
        (["1,a", "2,b"], "x,x", "has two columns called x"),
        (["1,a", "2,b"], "x,", "has a column without a name"),
        (["1,a"], "x,target", "has 1 rows and 1 features, expected at least 2 and 1"),
        (["a", "b"], "target", "has 2 rows and 0 features"),
        (["1,a", "2,a", "3,b"], "x,target", "none of the 2 rows to train on has target b"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_the_line(tmp_path, rows, header, sentence):
    with pytest.raises(ValueError, match=sentence):
        block_table(write(tmp_path, *rows, header=header), in_order=True, test_share=0.34)


def test_what_is_not_there_or_no_table_is_refused(tmp_path):
    with pytest.raises(MissingData, match=r"block_table needs its data, but .* has no mine\.csv: put mine\.csv into"):
        block_table(tmp_path, file="mine.csv")
    (tmp_path / "blocks.csv").mkdir()
    with pytest.raises(ValueError, match="is no file"):
        block_table(tmp_path)
    for content in (b"", b"\xff\xfe\x00"):
        (tmp_path / "bytes.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot be read as a table|is no text in utf-8 .* encoding=.utf-16"):
            block_table(tmp_path, file="bytes.csv")


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.csv.xz", "a.csv.zip"])
def test_a_table_that_does_not_unpack_is_refused(tmp_path, name):
    rows = np.random.default_rng(0).integers(0, 9, size=(2000, 3))
    pd.DataFrame(rows, columns=["a", "b", "target"]).to_csv(tmp_path / name, index=False)
    assert len(block_table(tmp_path, file=name, agents=("a", "b")).train) == 1500
    content = bytearray((tmp_path / name).read_bytes())
    content[300:364] = b"\xff" * 64
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        block_table(tmp_path, file=name)
