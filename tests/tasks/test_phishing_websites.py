"""Reading phishing_websites.csv: what its signs become, the fixed split, and a sentence for everything wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from thornbed.tasks.phishing_websites import COLUMNS, phishing_websites
from thornbed.tasks.sources import MissingData


def rows(count: int = 50) -> list[list[str]]:
    """Return rows that all differ: row number in base three, shifted to -1, 0, 1; every fifth site is phishing."""
    made = []
    for number in range(count):
        digits = [number // 3**place % 3 - 1 for place in range(30)]
        made.append([*map(str, digits), "-1" if number % 5 == 0 else "1"])
    return made


def write(folder: Path, values: list[list[str]], header: tuple[str, ...] = COLUMNS) -> Path:
    path = folder / "phishing_websites.csv"
    path.write_text("\n".join([",".join(header), *(",".join(row) for row in values)]) + "\n", encoding="utf-8")
    return path


def test_minus_one_is_phishing_and_phishing_is_label_one(tmp_path):
    write(tmp_path, rows())
    task = phishing_websites(tmp_path)
    for samples in (task.train, task.test):
        number = ((samples.x.double() + 1) * torch.tensor([3.0**place for place in range(30)])).sum(dim=1)
        assert torch.equal(samples.y == 1, number % 5 == 0)
    assert task.class_names[1] == "phishing"


def test_a_fifth_of_either_class_is_tested_on_and_the_choice_never_changes(tmp_path):
    write(tmp_path, rows())
    task = phishing_websites(tmp_path)
    assert (torch.bincount(task.train.y).tolist(), torch.bincount(task.test.y).tolist()) == ([32, 8], [8, 2])
    wanted, chosen = {0: 8, 1: 2}, []
    for row in np.random.RandomState(0).permutation(50):  # an independent reading of the description
        label = int(row % 5 == 0)
        if wanted[label]:
            wanted[label] -= 1
            chosen.append(int(row))
    expected = [[float(value) for value in rows()[row][:-1]] for row in sorted(chosen)]
    assert task.test.x.tolist() == expected


def changed(row: int, column: int, value: str) -> list[list[str]]:
    made = rows()
    made[row][column] = value
    return made


@pytest.mark.parametrize(
    ("values", "header", "sentence"),
    [
        (rows(), COLUMNS[:-1], "has 30 columns, expected 31 as published: missing or unknown Result"),
        (rows(), ("id", *COLUMNS), "has 32 columns, expected 31 as published: missing or unknown id"),
        (rows(), (COLUMNS[-1], *COLUMNS[:-1]), "has 31 columns, expected 31 as published: in another order or twice"),
        (changed(3, 1, "2"), COLUMNS, "line 5: URL_Length is '2', expected -1, 0 or 1"),
        (changed(3, 1, "0.5"), COLUMNS, "line 5: URL_Length is '0.5', expected -1, 0 or 1"),
        (changed(0, 30, "0"), COLUMNS, "line 2: Result is '0', expected -1 or 1"),
        (changed(7, 0, "1,1"), COLUMNS, "line 9: 32 values, expected 31"),
        (rows(4), COLUMNS, "has 4 rows, expected at least 5"),
    ],
)
def test_what_is_malformed_is_refused_with_the_line(tmp_path, values, header, sentence):
    path = write(tmp_path, values, header)
    with pytest.raises(ValueError) as refused:
        phishing_websites(tmp_path)
    assert str(refused.value).startswith(str(path))
    assert sentence in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x00", b'"' + b"a" * 200_000])
def test_what_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "phishing_websites.csv").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a table of comma-separated values"):
        phishing_websites(tmp_path)


def test_an_empty_folder_is_explained(tmp_path):
    with pytest.raises(MissingData, match=f"{tmp_path} has no phishing_websites.csv: put"):
        phishing_websites(tmp_path)
