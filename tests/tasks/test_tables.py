"""Tables are read in one way: what is missing, what is a number, what is a label, and how a file is written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from thornbed.tasks.block_table import block_table
from thornbed.tasks.multitask.node_table import node_table
from thornbed.tasks.sources.npz import read_npz
from thornbed.tasks.sources.table import MISSING, labels, numbers, read_table
from thornbed.tasks.sources.unpacked import unpacked

PLAIN = "a,b,target\n1,2.5,x\n3,4.5,y\n5,6.5,x\n7,8.5,y\n"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def block(folder: Path, text: str, written: str = "utf-8", **options: object) -> tuple[list, tuple[str, ...]]:
    write(folder / "blocks.csv", text, written)
    task = block_table(folder, in_order=True, test_share=0.25, **options)  # type: ignore[arg-type]
    return torch.cat([task.train.x, task.test.x]).tolist(), task.class_names


def test_a_plain_table(tmp_path):
    assert block(tmp_path, PLAIN) == ([[1, 2.5], [3, 4.5], [5, 6.5], [7, 8.5]], ("x", "y"))


@pytest.mark.parametrize("word", [word for word in MISSING if word] + ["NA", "NULL", "NaN", "N/A", "None"])
def test_what_is_missing_is_so_in_features_labels_and_nodes(word, tmp_path):
    column = read_table(write(tmp_path / "a.csv", f"a,b\n1,x\n{word},x\n")).a
    assert np.isnan(numbers(tmp_path, column)[1])
    said = f"a.csv, line 3: a is '{word}', which counts as missing; so do an empty cell, ?, na, n/a, nan, null, none"
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        labels(tmp_path / "a.csv", column)
    with pytest.raises(ValueError, match=f"line 3: target is '{word.replace('?', '.')}', which counts as missing"):
        block(tmp_path, f"a,target\n1,x\n2,{word}\n3,y\n")
    write(tmp_path / "nodes.csv", f"node,a,target\nn,1,1\nn,2,0\nn,3,{word}\nn,4,1\n")
    with pytest.raises(ValueError, match="row 4: the target is nan"):
        node_table(tmp_path, positive="1")
    write(tmp_path / "nodes.csv", f"node,a,target\nn,1,1\n{word},2,0\n")
    with pytest.raises(ValueError, match="line 3: node is"):
        node_table(tmp_path)


@pytest.mark.parametrize("positive", ["1", "1.0", "1e0", "+1"])
def test_one_label_has_many_spellings(positive, tmp_path):
    rows = ["1", "1.0", " 1 ", "01", "0", "0.0", "-0", "2"]
    write(tmp_path / "nodes.csv", "node,a,target\n" + "".join(f"n,{row},{word}\n" for row, word in enumerate(rows)))
    (node,) = node_table(tmp_path, positive=positive, scaling="none", intercept=False, test_share=0.25).nodes
    by_feature = dict(
        zip(np.concatenate([node.train.x, node.test.x])[:, 0], np.concatenate([node.train.y, node.test.y]))
    )
    assert [by_feature[row] for row in range(8)] == [1, 1, 1, 1, -1, -1, -1, -1]


def test_large_whole_numbers_stay_apart_and_have_their_sign(tmp_path):
    large = [str(2**53), str(2**53 + 1), str(10**19), "-3"]
    _, names = block(tmp_path, "a,target\n" + "".join(f"{row},{word}\n" for row, word in enumerate(large * 2)))
    assert names == ("-3", str(2**53), str(2**53 + 1), str(10**19))


@pytest.mark.parametrize("word", ["0.5", "inf", "-Infinity", "1e99"])
def test_a_fraction_is_no_class(word, tmp_path):
    with pytest.raises(ValueError, match=f"line 3: target is {word}, expected a class, which is an integer or a word"):
        block(tmp_path, f"a,target\n1,1\n2,{word}\n3,2\n")


@pytest.mark.parametrize("word", ["1e300", "-1e39", "inf"])
@pytest.mark.parametrize("kind", ["block", "node"])
def test_a_number_that_float32_does_not_hold_is_refused(word, kind, tmp_path):
    write(tmp_path / "blocks.csv", f"a,target\n1,x\n{word},y\n3,x\n")
    write(tmp_path / "nodes.csv", f"node,a,target\nn,1,1\nn,{word},2\n")
    with pytest.raises(ValueError, match=rf"line 3: a is {word}, which is no float32"):
        {"block": block_table, "node": node_table}[kind](tmp_path)


def test_a_word_is_no_number_and_the_line_is_that_of_the_file(tmp_path):
    said = r"line 4: a is 'much', expected a number, or nothing: an empty cell, \?, na, n/a, nan, null, none"
    with pytest.raises(ValueError, match=said):
        block(tmp_path, "a,target\n1,x\n\nmuch,y\n3,x\n")
    with pytest.raises(ValueError, match="line 6: a is 'much'"):
        block(tmp_path, "sep=,\n# of May\na,target\n1,x\n\nmuch,y\n3,x\n")


def test_true_and_false_are_numbers_and_labels(tmp_path):
    rows = "a,target\nTrue,TRUE\nfalse,False\nFALSE,true\n1,false\n"
    assert block(tmp_path, rows) == ([[1], [0], [0], [1]], ("False", "True"))
    write(tmp_path / "nodes.csv", "node,a,target\nn,True,yes\nn,0,no\nn,1,no\nn,0,yes\n")
    assert node_table(tmp_path, positive="yes", scaling="none").nodes[0].train.x.max() == 1


WRITTEN: dict[str, tuple[Callable[[str], str], str, dict[str, str]]] = {
    "semicolons": (lambda text: text.replace(",", ";"), "utf-8", {}),
    "tabs": (lambda text: text.replace(",", "\t"), "utf-8", {}),
    "bars": (lambda text: text.replace(",", "|"), "utf-8", {}),
    "a sign of its own": (lambda text: text.replace(",", "~"), "utf-8", {"separator": "~"}),
    "decimal commas": (lambda text: text.replace(",", ";").replace(".", ","), "utf-8", {"decimal": ","}),
    "sep=": (lambda text: "sep=;\r\n" + text.replace(",", ";"), "utf-8", {}),
    "a remark": (lambda text: "# made in May, by hand\n" + text, "utf-8", {}),
    "a header that is a remark": (lambda text: "# by hand\n# " + text, "utf-8", {}),
    "a mark of UTF-8": (lambda text: text, "utf-8-sig", {}),
    "Latin-1": (lambda text: text.replace("x", "é"), "latin-1", {"encoding": "latin-1"}),
    "UTF-16": (lambda text: text, "utf-16", {"encoding": "utf-16"}),
    "lines of Windows": (lambda text: text.replace("\n", "\r\n"), "utf-8", {}),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_is_read_however_it_is_written(name, tmp_path):
    change, encoding, options = WRITTEN[name]
    x, names = block(tmp_path, change(PLAIN), encoding, **options)
    assert x == [[1, 2.5], [3, 4.5], [5, 6.5], [7, 8.5]]
    assert sorted(names) == (["y", "é"] if name == "Latin-1" else ["x", "y"])
    nodes = change("node,a,target\nn,1.5,2\nn,3,4\nn,5,6\nn,7,8\n")
    write(tmp_path / "nodes.csv", nodes, encoding)
    (node,) = node_table(tmp_path, scaling="none", **options).nodes  # type: ignore[arg-type]
    assert {1.5, 3, 5, 7} == set(np.concatenate([node.train.x, node.test.x])[:, 0])


@pytest.mark.parametrize(
    ("text", "encoding", "options", "sentence"),
    [
        (PLAIN.replace("x", "é"), "latin-1", {}, "is no text in utf-8 .* name its encoding='latin-1'"),
        (PLAIN, "utf-16", {}, "is no text in utf-8 .* name its encoding='utf-16'"),
        (PLAIN, "utf-8", {"encoding": "klingon"}, "there is no encoding 'klingon'; there are utf-8, latin-1, utf-16"),
        (
            PLAIN,
            "utf-8",
            {"separator": "::"},
            "separator is one sign, such as ';', or auto: separator = '::'",
        ),
        (PLAIN.replace(",", ";").replace(".", ","), "utf-8", {}, "line 2: b is '2,5', .*; decimal=',' reads a comma"),
        ("a,b,target\n1,2,x\n1,2,3,y\n", "utf-8", {}, "cannot be read as a table"),
        ("", "utf-8", {}, "cannot be read as a table"),
    ],
)
def test_a_table_that_is_written_otherwise_than_said_is_refused_with_what_would_be_right(
    text, encoding, options, sentence, tmp_path
):
    with pytest.raises(ValueError, match=sentence):
        block(tmp_path, text, encoding, **options)


def _zipped(content: bytes, *names: str) -> bytes:
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return packed.getvalue()


PACKED = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zip": lambda text: _zipped(text, "a")}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zip"])
def test_a_packed_file_is_known_by_its_content_and_not_by_its_name(kind, name, tmp_path):
    (tmp_path / name).write_bytes(PACKED[kind](PLAIN.encode()))
    assert read_table(tmp_path / name).target.tolist() == ["x", "y", "x", "y"]
    (tmp_path / name).write_bytes(PLAIN.encode())
    assert read_table(tmp_path / name).target.tolist() == ["x", "y", "x", "y"]


def test_what_does_not_unpack_is_refused(tmp_path):
    for content, why in (
        (gzip.compress(b"a" * 999)[:-9], "Compressed file ended"),
        (_zipped(b"a", "a", "b"), "the archive holds 2 files, expected one"),
        (b"PK\x03\x04" + b"\0" * 30, "not a zip file"),
        (b"BZh" + b"\0" * 30, "Invalid data"),
    ):
        (tmp_path / "packed").write_bytes(content)
        with pytest.raises(ValueError, match=f"packed cannot be read: .*{why}"):
            unpacked(tmp_path / "packed")
    with pytest.raises(ValueError, match="is no file"):
        unpacked(tmp_path)


def test_labels_of_an_archive_may_have_an_axis_of_one(tmp_path):
    images = np.zeros((3, 4, 4), np.uint8)
    y = np.array([[2], [0], [1]])
    np.savez(tmp_path / "a.npz", x_train=images, y_train=y, x_test=images, y_test=y.astype(np.uint8))
    train, test = read_npz(tmp_path / "a.npz", image_shape=(1, 4, 4), num_classes=3)
    assert train.y.tolist() == test.y.tolist() == [2, 0, 1]


def test_an_archive_that_lacks_an_array_names_those_that_are_there(tmp_path):
    np.savez(tmp_path / "a.npz", X_train=np.zeros(3), arr_0=np.zeros(3))
    with pytest.raises(ValueError, match=r"it has no array x_train: found \['X_train', 'arr_0'\]"):
        read_npz(tmp_path / "a.npz", image_shape=(1, 4, 4), num_classes=3)
