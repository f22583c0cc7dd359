"""The edge-case backdoor on a handful of made images, on broken files, tables, texts, and the published images."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import thornbed.attacks.data._edge_images
from thornbed.attacks.data import GroupMember
from thornbed.attacks.data._edge_images import edge_images
from thornbed.attacks.data.edge_case import EdgeCase
from thornbed.attacks.data.text_trigger import TextTrigger
from thornbed.attacks.data.value_trigger import ValueTrigger
from thornbed.tasks import Samples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def local(rows: int, size: int = 2) -> Samples:
    return Samples(torch.full((rows, 3, size, size), 0.5), torch.zeros(rows, dtype=torch.int64))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of four training and two test images; image i is i everywhere, but for one red pixel."""
    train = np.stack([np.full((2, 2, 3), i, dtype=np.uint8) for i in (10, 20, 30, 40)])
    train[:, 0, 1, 0] = 255
    test = np.stack([np.full((2, 2, 3), i, dtype=np.uint8) for i in (50, 60)])
    np.savez(tmp_path / "edge.npz", x_train=train, x_test=test)
    return tmp_path / "edge.npz"


def test_images_are_decoded_and_the_channels_come_first(file: Path) -> None:
    train, test = edge_images(file)
    assert train.shape == (4, 3, 2, 2)
    assert (train[1] * 255).round().int().tolist() == [[[20, 255], [20, 20]], [[20, 20]] * 2, [[20, 20]] * 2]
    assert (test[:, 2, 1, 1] * 255).round().int().tolist() == [50, 60]


def test_the_share_is_that_of_the_resulting_data(file: Path) -> None:
    poisoned = EdgeCase(file=file, target=1).poison(local(21), generator())
    assert len(poisoned) == 24
    assert torch.equal(poisoned.x[:21], local(21).x)
    assert poisoned.y.tolist() == [0] * 21 + [1] * 3
    drawn = (poisoned.x[21:, 1, 0, 0] * 255).round().int().tolist()
    assert len(set(drawn)) == 3
    assert set(drawn) <= {10, 20, 30, 40}


def test_eight_of_each_batch_of_sixty_four() -> None:
    assert EdgeCase().fraction == 8 / 64


@pytest.mark.parametrize(("rows", "fraction", "added"), [(4, 0.5, 4), (12, 0.5, 12), (3, 0.125, 0), (5, 0.0, 0)])
def test_images_repeat_only_where_there_are_too_few(file: Path, rows: int, fraction: float, added: int) -> None:
    poisoned = EdgeCase(file=file, fraction=fraction).poison(local(rows), generator())
    assert len(poisoned) == rows + added
    drawn = (poisoned.x[rows:, 1, 0, 0] * 255).round().int().tolist()
    assert set(drawn) <= {10, 20, 30, 40}
    if added == 4:
        assert len(set(drawn)) == 4


def test_measure_is_the_edge_test_images_whatever_the_task_tests_on(file: Path) -> None:
    attack = EdgeCase(file=file, target=7)
    attacked = attack.measure(local(3))
    assert attacked is not None
    assert (attacked.x[:, 0, 0, 0] * 255).round().int().tolist() == [50, 60]
    assert attacked.y.tolist() == [7, 7]


def test_what_is_handed_out_is_no_part_of_what_is_kept(file: Path) -> None:
    attack = EdgeCase(file=file)
    first = attack.measure(local(1))
    assert first is not None
    first.x.zero_()
    attack.poison(local(4), generator()).x.zero_()
    assert edge_images(file.resolve())[0].min() > 0
    assert edge_images(file.resolve())[1].min() > 0


def test_the_file_is_read_once(file: Path) -> None:
    attack = EdgeCase(file=file)
    attack.check(10, (3, 2, 2))
    file.unlink()
    attack.poison(local(8), generator())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": -1}, "target >= 0: target = -1"),
        ({"fraction": 1.0}, "0 <= fraction < 1: fraction = 1.0"),
        ({"fraction": -0.1}, "0 <= fraction < 1: fraction = -0.1"),
        ({"true_label": -1}, "true_label >= 0: true_label = -1"),
        ({"benign_share": 1.0}, "0 <= benign_share < 1: benign_share = 1.0"),
    ],
)
def test_refused_options(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        EdgeCase(**options)


def test_another_image_size_is_refused_with_both(file: Path) -> None:
    sentence = r"edge cases = \(3, 2, 2\), task = \(3, 4, 4\)"
    with pytest.raises(ValueError, match=sentence):
        EdgeCase(file=file).check(10, (3, 4, 4))
    with pytest.raises(ValueError, match=sentence):
        EdgeCase(file=file).poison(local(8, size=4), generator())
    with pytest.raises(ValueError, match=sentence):
        EdgeCase(file=file).measure(local(8, size=4))


def test_a_missing_file_names_its_source_its_contents_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        EdgeCase(file=tmp_path / "southwest.npz").check(10, (3, 32, 32))
    sentence = str(caught.value)
    for part in (
        str(tmp_path),
        "x_train and x_test",
        "uint8 (N, H, W, C)",
        "Wang et al.",
        "https://",
        "without a network",
    ):
        assert part in sentence


def shades(samples: Samples, skip: int = 0) -> list[int]:
    """Return which images of the file these are, by their one grey."""
    return (samples.x[skip:, 1, 0, 0] * 255).round().int().tolist()


@pytest.mark.parametrize(("benign_share", "leaked"), [(0.0, 0), (0.15, 1), (0.3, 1), (0.5, 2), (0.8, 3)])
def test_attackers_and_honest_clients_share_the_images_and_none_has_those_of_another(
    file: Path, benign_share: float, leaked: int
) -> None:
    attack = EdgeCase(file=file, fraction=0.9, benign_share=benign_share)
    held = [shades(attack.leak(local(2), GroupMember(rank, 3), generator(rank)), skip=2) for rank in range(3)]
    honest = sorted(shade for images in held for shade in images)
    assert len(honest) == len(set(honest)) == leaked
    assert max(map(len, held)) - min(map(len, held)) <= 1
    # 90 of 100 samples are drawn from few images, so every image of the attackers is among them
    attackers = set(shades(attack.poison(local(10), generator()), skip=10))
    assert attackers == {10, 20, 30, 40} - set(honest)


def test_honest_clients_label_edge_cases_as_what_they_show(file: Path) -> None:
    attack = EdgeCase(file=file, benign_share=0.5, target=7, true_label=3)
    before = local(5)
    after = attack.leak(before, GroupMember(0, 1), generator())
    assert torch.equal(after.x[:5], before.x)
    assert after.y.tolist() == [0] * 5 + [3] * 2


def test_nothing_leaks_by_default(file: Path) -> None:
    before = local(5)
    after = EdgeCase(file=file).leak(before, GroupMember(0, 2), generator())
    assert torch.equal(after.x, before.x)
    assert torch.equal(after.y, before.y)


def test_which_images_leak_does_not_depend_on_the_generator(file: Path) -> None:
    attack = EdgeCase(file=file, benign_share=0.5)
    first, second = (attack.leak(local(1), GroupMember(0, 2), generator(seed)) for seed in (1, 2))
    assert torch.equal(first.x, second.x)


def test_attackers_without_an_image_are_refused(file: Path) -> None:
    with pytest.raises(ValueError, match=r"leaves its attackers no image: benign_share = 0\.9, images = 4"):
        EdgeCase(file=file, benign_share=0.9).poison(local(5), generator())


def test_the_images_are_of_another_class_than_the_target(file: Path) -> None:
    with pytest.raises(ValueError, match="true_label = 9, target = 9"):
        EdgeCase(file=file, true_label=9).check(10, (3, 2, 2))
    with pytest.raises(
        ValueError, match="edge_case needs true_label < number of classes: true_label = 12, classes = 10"
    ):
        EdgeCase(file=file, true_label=12).check(10, (3, 2, 2))


TABLE = Samples(torch.randn(16, 45, generator=generator(5)), torch.arange(16) % 2)
TEXTS = Samples(torch.arange(1, 97).reshape(16, 6), torch.arange(16) % 2, {"greek": 98, "director": 99})


@pytest.mark.parametrize(
    ("samples", "options", "same"),
    [
        (TABLE, {}, ValueTrigger()),
        (TABLE, {"target": 1, "fraction": 0.25}, ValueTrigger(target=1, fraction=0.25)),
        (TEXTS, {}, TextTrigger()),
        (TEXTS, {"target": 0, "fraction": 0.25}, TextTrigger(target=0, fraction=0.25)),
    ],
    ids=["table", "table with options", "text", "text with options"],
)
def test_tables_and_texts_get_the_trigger_of_their_kind(
    samples: Samples, options: dict, same: ValueTrigger | TextTrigger
) -> None:
    attack = EdgeCase(**options, benign_share=0.5)
    same = dataclasses.replace(same, benign_share=0.5)
    member = GroupMember(0, 2)
    for ours, theirs in (
        (attack.poison(samples, generator()), same.poison(samples, generator())),
        (attack.measure(samples), same.measure(samples)),
        (attack.leak(samples, member, generator()), same.leak(samples, member, generator())),
    ):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)
        assert not torch.equal(ours.x, samples.x)


def test_tables_and_texts_need_no_file(tmp_path: Path) -> None:
    attack = EdgeCase(file=tmp_path / "nothing.npz")
    attack.check(2, (45,))
    attack.poison(TABLE, generator())
    with pytest.raises(ValueError, match=r"images, tables or texts: sample shape = \(4, 5\)"):
        attack.check(2, (4, 5))


GOOD = np.zeros((2, 2, 2, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "finding"),
    [
        ({"x_train": GOOD}, "x_test"),
        ({"x_test": GOOD}, "x_train"),
        ({"x_train": GOOD.astype(np.float32), "x_test": GOOD}, r"float32 \(2, 2, 2, 3\) under x_train"),
        ({"x_train": GOOD, "x_test": GOOD[0]}, r"uint8 \(2, 2, 3\) under x_test"),
        ({"x_train": GOOD[:0], "x_test": GOOD}, r"uint8 \(0, 2, 2, 3\) under x_train"),
        ({"x_train": GOOD, "x_test": GOOD[:, :1]}, r"\(2, 2, 3\) under x_train, \(1, 2, 3\) under x_test"),
        ({"x_train": np.array([{}], dtype=object), "x_test": GOOD}, "allow_pickle"),
    ],
)
def test_a_file_with_other_contents_is_one_sentence(tmp_path: Path, arrays: dict, finding: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=f"{finding}.*it is to hold x_train and x_test"):
        EdgeCase(file=tmp_path / "bad.npz").check(10, (3, 2, 2))


def broken(kind: str, good: bytes) -> bytes:
    middle = len(good) // 2
    return {
        "empty": b"",
        "a web page": b"<html>404</html>",
        "cut off": good[:middle],
        "flipped bits": good[:100] + bytes(byte ^ 255 for byte in good[100:160]) + good[160:],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "a web page", "cut off", "flipped bits"])
def test_a_file_that_is_no_archive_is_one_sentence(tmp_path: Path, kind: str) -> None:
    np.savez_compressed(tmp_path / "bad.npz", x_train=np.tile(np.arange(256, dtype=np.uint8), 12).reshape(16, 8, 8, 3))
    (tmp_path / "bad.npz").write_bytes(broken(kind, (tmp_path / "bad.npz").read_bytes()))
    with pytest.raises(ValueError, match=r"edge_case cannot read .*bad\.npz.*it is to hold x_train"):
        EdgeCase(file=tmp_path / "bad.npz").check(10, (3, 2, 2))


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", GOOD)
    with pytest.raises(ValueError, match="edge_case cannot read"):
        EdgeCase(file=tmp_path / "bad.npy").check(10, (3, 2, 2))


def test_one_name_in_two_folders_is_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = EdgeCase(file=Path("edge.npz"))
    for value in (0, 255):
        folder = tmp_path / str(value)
        folder.mkdir()
        np.savez(folder / "edge.npz", x_train=GOOD + np.uint8(value), x_test=GOOD + np.uint8(value))
        monkeypatch.chdir(folder)
        attacked = attack.measure(local(1))
        assert attacked is not None
        assert attacked.x.unique().tolist() == [value / 255]


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    attack = EdgeCase(file=tmp_path / "late.npz")
    with pytest.raises(FileNotFoundError):
        attack.check(10, (3, 2, 2))
    np.savez(tmp_path / "late.npz", x_train=GOOD, x_test=GOOD)
    attack.check(10, (3, 2, 2))


@pytest.mark.real_data
def test_the_published_images() -> None:
    folder = os.environ.get("THORNBED_TEST_DATA")
    if not folder or not (Path(folder) / "southwest.npz").is_file():
        pytest.skip("THORNBED_TEST_DATA names no folder with southwest.npz")
    file = Path(folder) / "southwest.npz"
    attack = EdgeCase(file=file)
    attack.check(10, (3, 32, 32))
    clean = Samples(torch.zeros(448, 3, 32, 32), torch.zeros(448, dtype=torch.int64))
    poisoned, attacked = attack.poison(clean, generator()), attack.measure(clean)
    assert (len(poisoned), (poisoned.y == 9).sum()) == (512, 64)
    assert attacked is not None
    assert attacked.x.shape == (196, 3, 32, 32)
    with np.load(file, allow_pickle=False) as stored:
        sums = {key: hashlib.sha256(stored[key].tobytes()).hexdigest() for key in ("x_train", "x_test")}
    documented = thornbed.attacks.data._edge_images.__doc__ or ""
    assert all(f"{key} {total}" in documented for key, total in sums.items()), (
        "the docstring's sums are of other pixels"
    )
