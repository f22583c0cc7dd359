"""What a file becomes, which nodes are refused with their rows, and that the others go on unharmed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from thornbed.tasks.multitask import Multitask, Node, Points, Preparation, RawNode, prepared, validation_part
from thornbed.tasks.multitask.digit_nodes import digit_nodes
from thornbed.tasks.multitask.har import har
from thornbed.tasks.multitask.landmine import landmine
from thornbed.tasks.multitask.node_table import node_table


def write(folder: Path, *rows: str, header: str = "node,target,a,b") -> Path:
    (folder / "nodes.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


GOOD = ("x,1,0.5,2", "x,2,1.5,3", "x,3,2.5,1", "x,4,0,0")


def test_a_table_by_hand(tmp_path):
    write(tmp_path, "x,1,0,5", "y,7,4,5", "x,2,2,6", "y,8,6,9", "x,3,4,7", "x,4,6,8")
    task = node_table(tmp_path, scaling="none", test_share=0.5)
    assert (task.names, task.features, task.loss) == (("x", "y"), ("a", "b", "intercept"), "squared")
    rows = sorted([*task.nodes[0].train.x.tolist(), *task.nodes[0].test.x.tolist()])
    assert rows == [[0, 5, 1], [2, 6, 1], [4, 7, 1], [6, 8, 1]]
    assert (len(task.nodes[0].test), len(task.nodes[1].test)) == (2, 1)
    only_b = node_table(tmp_path, scaling="none", features=("b",), intercept=False)
    assert only_b.features == ("b",)
    assert only_b.nodes[1].train.x.shape == (1, 1)


def test_a_positive_text_makes_a_classification(tmp_path):
    write(tmp_path, *(f"x,{word},{row},1" for row, word in enumerate(["yes", "no", "maybe", "yes", "no"])))
    (node,) = node_table(tmp_path, positive="yes", scaling="none").nodes
    both = node.train.join(node.test)
    assert {(row[0], label) for row, label in zip(both.x, both.y)} == {(0, 1), (1, -1), (2, -1), (3, 1), (4, -1)}


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (("z,1,,2", "z,2,1,1"), "node z, row 6: a is nan, and has to be a finite number"),
        (("z,1,0,2", "z,nan,1,1"), "node z, row 7: the target is nan"),
        (("z,1,0,2",), r"node z \(row 6\) has 1 points, and needs at least 2"),
        (("z,1,5,2", "z,2,5,2", "z,3,5,2"), r"node z \(rows 6 to 8\) has the same features in all its 3 points"),
    ],
)
def test_a_node_with_a_fault_is_named_and_the_others_go_on_without_it(tmp_path, bad, sentence):
    write(tmp_path, *GOOD, *bad)
    with pytest.raises(ValueError, match=sentence) as refused:
        node_table(tmp_path)
    assert str(refused.value).startswith(str(tmp_path / "nodes.csv"))
    assert "leave_out=True goes on without them" in str(refused.value)
    left = node_table(tmp_path, leave_out=True)
    alone = node_table(write(tmp_path, *GOOD))
    assert list(left.left_out) == ["z"]
    assert np.array_equal(left.nodes[0].train.x, alone.nodes[0].train.x)
    assert np.array_equal(left.nodes[0].test.y, alone.nodes[0].test.y)
    with pytest.raises(ValueError, match="none of its 1 nodes can be used; node z"):
        node_table(write(tmp_path, *bad), leave_out=True)


def test_a_node_with_one_class_is_named(tmp_path):
    rows = [f"x,{row % 2},{row},1" for row in range(4)] + [f"z,1,{row},1" for row in range(3)]
    with pytest.raises(ValueError, match=r"node z \(rows 6 to 8\) has one class only, 1, and needs both"):
        node_table(write(tmp_path, *rows), positive="1")
    with pytest.raises(ValueError, match=r"node x \(rows 2 to 3\) has 2 points, and needs at least 3"):
        node_table(write(tmp_path, *rows[:2]), positive="1")


@pytest.mark.parametrize(
    ("header", "row", "sentence"),
    [
        ("node,target,a,b", "x,1,two,3", "line 2: a is 'two', expected a number"),
        ("node,target,a,b", "x,high,2,3", "line 2: target is 'high', expected a number"),
        ("node,target,a,b", " ,1,2,3", "line 2: node is missing"),
        ("node,aim,a,b", "x,1,2,3", "has no column target: it has node, aim, a, b"),
        ("node,target,a,a", "x,1,2,3", "has two columns called a"),
        ("node,target,a,b", "x,1,2,3,4", "Expected 4 fields in line 2, saw 5"),
        ("node,target", "x,1", "has 1 rows and 0 features"),
        ("node,target,a,", "x,1,2,3", "has a column without a name"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_line(tmp_path, header, row, sentence):
    with pytest.raises(ValueError, match=sentence):
        node_table(write(tmp_path, row, header=header))


def test_blanks_of_a_table_are_no_words_and_lines_are_counted_all_the_same(tmp_path):
    plain = node_table(write(tmp_path, *GOOD))
    spaced = node_table(write(tmp_path, GOOD[0], "", *GOOD[1:], "", header="node, target, a ,b"))
    assert spaced.features == plain.features
    assert np.array_equal(spaced.nodes[0].train.x, plain.nodes[0].train.x)
    with pytest.raises(ValueError, match="line 4: a is 'two'"):
        node_table(write(tmp_path, GOOD[0], "", "x,1,two,3"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"positive": "yes"}, "no target is 'yes'; there are '1', '2', '3', '4'"),
        ({"target": "node"}, "one for the node and one for the target: both are node"),
        ({"features": ("a", "target")}, "features are other columns, each once: target is the node or the target"),
        ({"features": ("a", "a")}, "features are other columns, each once: a is there twice"),
        ({"file": "."}, "is no file"),
    ],
)
def test_columns_that_are_not_there_are_refused(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        node_table(write(tmp_path, *GOOD), **options)


def test_validation_needs_points_for_three_parts(tmp_path):
    rows = ("x,1,0,5", "x,2,2,6", "y,7,4,5", "y,8,6,9", "y,9,1,1")
    assert len(node_table(write(tmp_path, *rows)).nodes) == 2
    with pytest.raises(ValueError, match=r"node x \(rows 2 to 3\) has 2 points, and needs at least 3"):
        node_table(tmp_path, validation=True)


def test_digits_come_in_groups(tmp_path):
    task = digit_nodes(None, groups=("01234", "56789"))
    assert task.names == ("01234", "56789")
    assert sum(len(node.train) + len(node.test) for node in task.nodes) == 1797
    assert all(0.4 < (node.train.y == 1).mean() < 0.6 for node in task.nodes)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x00", b'a,b\n"' + b"x" * 100])
def test_what_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "nodes.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"nodes\.csv cannot be read|has no column node|is no text in utf-8"):
        node_table(tmp_path)


def test_every_class_is_in_training_and_has_its_share_of_the_test(tmp_path):
    raw = [RawNode("x", np.arange(44.0)[:, None], np.where(np.arange(44) < 4, 1.0, -1.0), np.arange(44))]
    task = prepared("made", "nothing", "hinge", raw, ["a"], Preparation(test_share=0.25))
    assert ((task.test[0].y == 1).sum(), (task.test[0].y == -1).sum()) == (1, 10)
    rare = [RawNode("x", np.arange(4.0)[:, None], np.array([1.0, -1, -1, -1]), np.arange(4))]
    for split in range(10):
        task = prepared("made", "nothing", "hinge", rare, ["a"], Preparation(split=split, test_share=0.9))
        assert sorted(task.train[0].y) == [-1, 1]
        assert task.test[0].y.tolist() == [-1, -1]


def test_a_feature_that_never_moves_is_left_out_and_said(tmp_path):
    task = node_table(write(tmp_path, "x,1,3,2", "x,2,3,4", "x,3,3,5", "y,4,3,5", "y,1,3,6"))
    assert task.features == ("b", "intercept")
    assert task.left_out == {"a": "feature a is 3 in all training rows of all nodes, and says nothing"}


def test_a_validation_part_is_made_of_training_rows_alone():
    task = digit_nodes(None)
    part = validation_part(task, share=0.5)
    for whole, node in zip(task.nodes, part.nodes):
        assert np.array_equal(
            np.sort(np.concatenate([node.train.x, node.test.x]), axis=0), np.sort(whole.train.x, axis=0)
        )
        assert len(node.test) == pytest.approx(len(whole.train) / 2, abs=2)


def test_no_image_of_a_digit_is_in_two_nodes():
    task = digit_nodes(None, scaling="none", intercept=False)
    sizes = [len(node.train) + len(node.test) for node in task.nodes]
    assert sum(sizes) == 1797
    assert max(sizes) - min(sizes) < 12
    for node in task.nodes:
        assert 0.45 < np.mean(node.train.y == 1) < 0.55


def published(folder: Path) -> Path:
    """Write the table of activities as it is published, with two people and three features."""
    base = folder / "UCI HAR Dataset"
    base.mkdir()
    (base / "activity_labels.txt").write_text("1 WALKING\n4 SITTING\n")
    (base / "features.txt").write_text("1 a\n2 a\n3 b\n")
    for part, subject in (("train", 1), ("test", 2)):
        (base / part).mkdir()
        lines = [f" {row:.4e}  {subject:.1f} {-row * row} " for row in range(6)]
        (base / part / f"X_{part}.txt").write_text("\n".join(lines) + "\n")
        (base / part / f"y_{part}.txt").write_text("\n".join("4" if row % 3 == 0 else "1" for row in range(6)) + "\n")
        (base / part / f"subject_{part}.txt").write_text(f"{subject}\n" * 6)
    return base


def test_the_published_table_of_activities_is_read_and_comes_first(tmp_path):
    base = published(tmp_path)
    (tmp_path / "uci_har_561_rebuilt.npz").write_bytes(b"never read")
    task = har(tmp_path, scaling="none")
    assert (task.name, task.names, task.features) == ("har", ("1", "2"), ("1_a", "2_a", "3_b", "intercept"))
    for node, subject in zip(task.nodes, (1, 2)):
        both = node.train.join(node.test)
        assert sorted(zip(both.x[:, 0], both.y)) == [(0, 1), (1, -1), (2, -1), (3, 1), (4, -1), (5, -1)]
        assert (both.x[:, 1] == subject).all()
    (base / "test" / "subject_test.txt").write_text("2\n")
    with pytest.raises(ValueError, match=r"features \(12, 3\), 12 activities, 7 subjects, 3 names"):
        har(tmp_path)
    (base / "test" / "X_test.txt").unlink()
    with pytest.raises(ValueError, match=r"X_test\.txt cannot be read as columns of numbers"):
        har(tmp_path)


def test_rebuilt_features_are_called_so(tmp_path):
    arrays = {
        "x": np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32),
        "y": np.arange(12) % 3,
        "subject": np.arange(12) % 2,
        "feature_names": np.array(["a", "b"]),
    }
    np.savez(tmp_path / "uci_har_561_rebuilt.npz", **arrays, activities=np.array(["A", "SITTING", "B"]))
    task = har(tmp_path, scaling="none", intercept=False)
    assert task.name == "har_rebuilt"
    both = task.nodes[1].train.join(task.nodes[1].test)
    np.testing.assert_array_equal(np.sort(both.x[both.y == 1, 0]), np.sort(arrays["x"][[1, 7], 0]))
    np.savez(tmp_path / "uci_har_561_rebuilt.npz", **arrays, activities=np.array(["A", "B", "C"]))
    with pytest.raises(ValueError, match="and SITTING is not among them"):
        har(tmp_path)


def damaged(path: Path) -> Path:
    """Write bytes of ones alone, which do not unpack, over 32 of the file's, after its first header."""
    content = bytearray(path.read_bytes())
    content[200:232] = b"\xff" * 32
    path.write_bytes(content)
    return path.parent


def test_files_that_do_not_unpack_are_refused(tmp_path):
    drawn = np.random.default_rng(0).normal(size=(99, 9))
    np.savez_compressed(tmp_path / "uci_har_561_rebuilt.npz", x=drawn)
    with pytest.raises(ValueError, match=r"rebuilt\.npz cannot be read as an \.npz archive"):
        har(damaged(tmp_path / "uci_har_561_rebuilt.npz"))
    scipy.io.savemat(tmp_path / "landmine.mat", {"feature": drawn, "label": drawn[:, 0]}, do_compression=True)
    with pytest.raises(ValueError, match=r"landmine\.mat cannot be read as a MATLAB file"):
        landmine(damaged(tmp_path / "landmine.mat"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nodes": ()}, "made has 0 nodes"),
        ({"features": ("a",)}, "node x has 2 features, expected 1"),
        ({"intercept": True}, "node x has an intercept column that is not 1"),
        ({"loss": "hinge"}, "node x has labels other than -1 and 1"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(change, sentence):
    points = Points(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 0.0]))
    kept = {"name": "made", "loss": "squared", "nodes": (Node("x", points, points),), "features": ("a", "b")}
    with pytest.raises(ValueError, match=sentence):
        Multitask(**{**kept, "intercept": False, **change})
