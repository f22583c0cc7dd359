"""The pictures of a run: what is on them, pixel by pixel where that is exact, and that drawing leaves no traces."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from thornbed.attacks.data.label_flip import LabelFlip
from thornbed.attacks.data.pixel_trigger import PixelTrigger
from thornbed.flower_apps.records.curves import ACCURACY, ATTACK, LOSS, Drawn, _small, apart, panel
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.records.image_sheet import GAP, MARGIN, SIDE
from thornbed.flower_apps.records.plots import attacked_pairs, write_pictures
from thornbed.tasks import Samples, Task

COLORS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200), (90, 30, 0), (0, 90, 30)]


def task_of(
    x: torch.Tensor, y: list[int], names: tuple[str, ...] = (), modality: Literal["image", "table"] = "image"
) -> Task:
    samples = Samples(x, torch.tensor(y))
    return Task(
        name="made", modality=modality, num_classes=max(y) + 1, train=samples, test=samples, class_names=names
    )  # fmt: skip


def colored(size: int = 8) -> Task:
    """Return a task of one image per class, each of one colour."""
    x = torch.tensor(COLORS, dtype=torch.uint8)[:, :, None, None].expand(-1, 3, size, size).contiguous()
    return task_of(x, list(range(len(COLORS))))


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """An attack with `count` images of its own, whatever the test samples are."""

    count: int

    modalities: ClassVar[frozenset[str]] = frozenset({"image"})
    backdoor: ClassVar[bool] = True

    def check(self, num_classes: int, sample_shape: tuple[int, ...]) -> None: ...

    def poison(self, samples: Samples, generator: torch.Generator) -> Samples:
        return samples

    def measure(self, test: Samples) -> Samples | None:
        tone = torch.linspace(0, 1, self.count)[:, None, None, None]
        return Samples(tone.expand(-1, *test.x.shape[1:]).clone(), torch.full((self.count,), 5))


def line(number: int, **values: float | None) -> dict[str, float | None]:
    return {"round": number, "accuracy": 0.5, "loss": 1.0, "attack_success_rate": None, "seconds": 0.1, **values}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert "Software" not in image.info
        return np.asarray(image.convert("RGB"))


def count(path: Path, color: str) -> int:
    wanted = [int(color[index : index + 2], 16) for index in (1, 3, 5)]
    return int((pixels(path) == wanted).all(axis=-1).sum())


def draw(folder: Path, lines: list[dict[str, float | None]]) -> Path:
    folder.mkdir(exist_ok=True)
    for each in lines:
        Folder(folder).append(each)
    write_pictures(folder, colored(), None)
    return folder / "curves.png"


def test_the_attack_is_drawn_only_where_it_was_measured(tmp_path: Path) -> None:
    without = draw(tmp_path / "a", [line(0), line(1), line(2)])
    measured = draw(tmp_path / "b", [line(n, attack_success_rate=0.1 * n) for n in range(3)])
    assert count(without, ACCURACY) > 100
    assert count(without, LOSS) > 100
    assert count(without, ATTACK) == 0
    assert count(measured, ATTACK) > 100
    assert pixels(without).shape == pixels(measured).shape == (720, 1080, 3)
    assert measured.stat().st_size < 100_000


def test_one_round_and_gaps_are_visible(tmp_path: Path) -> None:
    assert count(draw(tmp_path / "one", [line(0)]), ACCURACY) > 20
    gaps = [line(0, accuracy=math.nan), line(1), line(2, accuracy=None), line(3, loss=math.inf)]
    assert count(draw(tmp_path / "gaps", gaps), ACCURACY) > 20
    nothing = [line(0, accuracy=None, loss=math.nan), line(1, accuracy=None, loss=None)]
    assert pixels(draw(tmp_path / "nothing", nothing)).shape == (720, 1080, 3)


def test_a_loss_that_diverges_is_drawn_on_a_logarithmic_scale() -> None:
    from matplotlib.figure import Figure

    for values, scale in ((2.0, 0.01), "linear"), ((2.0, 1e9), "log"), ((0.0, 1e9), "linear"), ((math.nan,), "linear"):
        axes = Figure().subplots()
        _small(axes, range(len(values)), np.array(values), Drawn("loss", "loss", LOSS), "Test loss")
        assert axes.get_yscale() == scale


def test_nothing_is_written_where_there_is_nothing_to_show(tmp_path: Path) -> None:
    write_pictures(tmp_path, colored(), None)
    assert list(tmp_path.iterdir()) == []
    table = task_of(torch.zeros(4, 3), [0, 1, 0, 1], modality="table")
    write_pictures(tmp_path, table, LabelFlip())
    everything_is_the_target = task_of(torch.zeros(2, 1, 4, 4), [0, 0])
    write_pictures(tmp_path, everything_is_the_target, PixelTrigger(target=0))
    assert list(tmp_path.iterdir()) == []


def test_pairs_stand_above_each_other_pixel_by_pixel(tmp_path: Path) -> None:
    task = colored(size=8)
    write_pictures(tmp_path, task, PixelTrigger(size=2, target=0))
    found = pixels(tmp_path / "trigger.png")
    assert found.shape[1] == 2 * MARGIN + 6 * SIDE + 5 * GAP
    for label, color in enumerate(COLORS):
        # Class 0 is the target, so it has no counterpart; six of the other seven are shown, with a quarter of the
        # side stamped white in the lower row.
        shown = 0 if label in (0, 7) else 2 * SIDE**2 - (SIDE // 4) ** 2
        assert int((found == color).all(axis=-1).sum()) == shown
    top = np.flatnonzero((found[:, MARGIN] == COLORS[1]).all(axis=-1))
    first, second = top[0], top[0] + SIDE + (top[SIDE] - top[SIDE - 1] - 1)
    attacked = found[second : second + SIDE, MARGIN : MARGIN + SIDE]
    expected = PixelTrigger(size=2, target=0).measure(task.samples("test", torch.tensor([1])))
    assert expected is not None
    image = (expected.x[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert np.array_equal(attacked, np.kron(image, np.ones((SIDE // 8, SIDE // 8, 1), dtype=np.uint8)))
    assert first > MARGIN


@pytest.mark.parametrize(("images", "shown"), [(9, 6), (4, 4), (1, 1)])
def test_an_attack_with_images_of_its_own_has_no_clean_row(tmp_path: Path, images: int, shown: int) -> None:
    task = colored()
    pairs = attacked_pairs(task, Foreign(count=images))
    assert [pair[:2] for pair in pairs] == [(None, None)] * shown
    assert all(pair[3] == 5 for pair in pairs)
    write_pictures(tmp_path, task, Foreign(count=images))
    height, width, _ = pixels(tmp_path / "trigger.png").shape
    assert width == 2 * MARGIN + shown * SIDE + (shown - 1) * GAP
    assert SIDE < height < 2 * SIDE + GAP


def test_the_pairs_are_of_many_classes_and_found_late_in_the_data() -> None:
    x = torch.arange(300, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 4, 4) / 300
    task = task_of(x, [0] * 280 + [1] * 10 + [2] * 10)
    assert [pair[1] for pair in attacked_pairs(task, PixelTrigger(size=1, target=0))] == [1, 2] * 3
    flipped = attacked_pairs(task, LabelFlip(source=2, target=0))
    assert len(flipped) == 6
    for clean, label, attacked, wanted in flipped:
        assert (label, wanted) == (2, 0)
        assert clean is not None
        assert torch.equal(clean, attacked)


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 5, 9), (3, 200, 150), (4, 2, 2)])
def test_images_of_any_shape_and_names_of_any_kind_are_drawn(tmp_path: Path, shape: tuple[int, ...]) -> None:
    names = ("household electrical devices", "$\\frac{1}$ & <b>_^")
    task = task_of(torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)), [0, 1, 0, 1], names)
    write_pictures(tmp_path, task, PixelTrigger(size=1, target=0))
    height, width, _ = pixels(tmp_path / "trigger.png").shape
    scale = max(1, round(SIDE / max(shape[1:])))
    assert width == 2 * MARGIN + 2 * max(SIDE, shape[2] * scale) + GAP
    assert height > 2 * shape[1] * scale


def test_drawing_is_deterministic_and_leaves_no_traces(tmp_path: Path) -> None:
    """In a process of its own, with a user's settings that would change every picture."""
    program = """
import sys
from pathlib import Path
import thornbed.flower_apps.records.plots, thornbed.experiments.report
assert "matplotlib" not in sys.modules and "jinja2.environment" not in sys.modules, "imported before it is needed"
import matplotlib
matplotlib.rcParams.update({"backend": "svg", "font.size": 30, "text.usetex": True, "figure.facecolor": "red"})
before = dict(matplotlib.rcParams)
from thornbed.attacks.data.pixel_trigger import PixelTrigger
from thornbed.tasks import Samples, Task
import torch
samples = Samples(torch.arange(128.0).reshape(2, 1, 8, 8) / 128, torch.tensor([1, 2]))
task = Task(name="made", modality="image", num_classes=3, train=samples, test=samples)
thornbed.flower_apps.records.plots.write_pictures(Path(sys.argv[1]), task, PixelTrigger())
assert dict(matplotlib.rcParams) == before
assert "matplotlib.pyplot" not in sys.modules
"""
    task = task_of(torch.arange(128.0).reshape(2, 1, 8, 8) / 128, [1, 2])
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        for number in range(3):
            Folder(folder).append(line(number, accuracy=number / 3, attack_success_rate=0.9))
    write_pictures(here, task, PixelTrigger())
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program, str(there)], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    for name in ("curves.png", "trigger.png"):
        assert (here / name).read_bytes() == (there / name).read_bytes()


def test_labels_are_moved_apart_and_keep_their_order() -> None:
    assert apart([], 0.1) == []
    assert apart([0.5], 0.1) == [0.5]
    assert apart([0.9, 0.1], 0.1) == [0.9, 0.1]
    assert apart([0.5, 0.5, 0.0], 0.1) == pytest.approx([0.5, 0.6, 0.0])
    assert apart([1.0, 0.99, 1.0], 0.1) == pytest.approx([0.9, 0.8, 1.0])
    chance = random.Random(0)
    for _ in range(200):
        heights = [chance.random() for _ in range(chance.randint(1, 10))]
        moved = apart(heights, 0.1)
        in_order = [moved[index] for index in sorted(range(len(heights)), key=heights.__getitem__)]
        assert all(high - low > 0.1 - 1e-9 for low, high in pairwise(in_order))
        assert -1e-9 <= min(moved) <= max(moved) <= 1 + 1e-9


def test_a_panel_leaves_out_unmeasured_runs_and_numbers_without_room() -> None:
    laid_out = panel("Rate", {1: [(0, 0.1), (30, 0.9)], 2: [(0, None)], 3: [(0, 0.2), (10, 0.4), (20, None)]})
    assert [(curve.run, curve.end, curve.label) for curve in laid_out.curves] == [
        (1, (30, 0.9), 0.9),
        (3, (10, 0.4), 0.4),
    ]
    assert (laid_out.end, laid_out.step) == (30, 5)
    assert panel("Rate", {}).curves == []
    crowded = panel("Rate", {run: [(0, 0.5), (7, 0.5)] for run in range(20)})
    assert {curve.label for curve in crowded.curves} == {None}
    for end, step in ((1, 1), (6, 1), (7, 2), (100, 20), (301, 100), (1e9, 200_000_000)):
        assert panel("Rate", {1: [(end, 0.5)]}).step == step
