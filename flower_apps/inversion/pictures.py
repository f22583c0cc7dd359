"""Pictures of reconstructed images: originals above what an inversion made of them, and how it came about.

Drawn from what an inversion leaves in its folder, inversions.json and inversions.safetensors. Of many images some are
shown, as evenly of all inversions as can be, and the picture says of how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from thornbed.flower_apps.inversion.records import GRID, STEPS, TENSORS, Inversion, read_inversions
from thornbed.flower_apps.records.image_sheet import DPI, GAP, HEADING, LINE, MARGIN, SIDE, Sheet, scale_of, wrapped
from thornbed.flower_apps.records.plots import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Images in a row of the grid, fewer where they are large; rows of them as a rule; rows of the strip.
IN_A_ROW, ROWS, IN_THE_STRIP = 8, 2, 4
# Pixels for a row of images, and those that a heading always has.
PAGE, LEAST = IN_A_ROW * (SIDE + 24), 5 * (SIDE + GAP)
LARGEST_SIDE = 4096


def write_inversion_pictures(folder: Path) -> list[Path]:
    """Draw the inversions of a folder, and return the paths of the pictures.

    inversions.png has the reconstructions, below the originals where there are any; inversion_steps.png has snapshots
    of some of them. Either is left out where there is nothing to show, and then one of an earlier inversion is removed.
    Raises ValueError with one sentence where a file is damaged or they contradict each other, OSError where one is
    missing.
    """
    from matplotlib import style

    records, path = read_inversions(folder), folder / TENSORS
    try:
        with safe_open(path, framework="pt") as file:
            stored = [_Stored(file, place, each) for place, each in enumerate(records.inversions)]
            with_steps = [each for each in stored if each.snapshot_steps]
            groups, strips = _chosen(stored, _room(stored)), _chosen(with_steps, IN_THE_STRIP)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    total = sum(each.inversion.num_samples for each in stored)
    with style.context("default"):  # whatever the user's matplotlibrc says
        drawn = {
            GRID: _grid(groups, records.curious, total) if groups else None,
            STEPS: _strips(strips, records.curious) if strips else None,
        }
        for name, figure in drawn.items():
            if figure is None:
                (folder / name).unlink(missing_ok=True)
                continue
            save(figure, folder / name, DPI)
    return [folder / name for name, figure in drawn.items() if figure is not None]


@dataclass(frozen=True)
class _Shown:
    """What is drawn of one inversion: its first m images (m, C, H, W), their originals, snapshots (k, m, C, H, W)."""

    inversion: Inversion
    images: Tensor
    originals: Tensor | None
    snapshots: Tensor
    snapshot_steps: Sequence[int]

    def below(self, row: int) -> str:
        """Return the words under an image: its PSNR where there is one."""
        if self.originals is None or self.inversion.psnr is None:
            return ""
        value = self.inversion.psnr[row]
        return "no PSNR" if value is None else f"{value:.2f} dB"


class _Stored:
    """The tensors of one inversion in their file, of which only what is drawn is read."""

    def __init__(self, file: Any, place: int, inversion: Inversion) -> None:
        self.inversion, self._file = inversion, file
        present = set(file.keys())
        self._names = {
            name: f"{place}/{name}" for name in ("images", "originals", "snapshots") if f"{place}/{name}" in present
        }
        self.shape = self._shape("images")
        if len(self.shape) != 4 or self.shape[0] != inversion.num_samples or 0 in self.shape:
            raise ValueError(f"{place}/images has shape {self.shape}, for {inversion.num_samples} images (n, C, H, W)")
        if max(self.shape[2:]) > LARGEST_SIDE:
            raise ValueError(f"{place}/images has sides {self.shape[2:]}, and at most {LARGEST_SIDE} pixels are drawn")
        if "originals" in self._names and self._shape("originals") != self.shape:
            raise ValueError(f"{place}/originals has shape {self._shape('originals')}, the images {self.shape}")
        self.snapshot_steps: list[int] = []
        if "snapshots" in self._names:
            self.snapshot_steps = [int(step) for step in file.get_tensor(f"{place}/snapshot_steps").reshape(-1)]
            if self._shape("snapshots") != (len(self.snapshot_steps), *self.shape):
                raise ValueError(
                    f"{place}/snapshots has shape {self._shape('snapshots')}, for {len(self.snapshot_steps)} steps of "
                    f"{self.shape}"
                )

    def first(self, count: int) -> _Shown:
        """Read the first images of the inversion."""
        images, kept = self._read("images", slice(count)), range(len(self.snapshot_steps))
        return _Shown(
            self.inversion,
            images,
            self._read("originals", slice(count)) if "originals" in self._names else None,
            self._read("snapshots", slice(None), slice(count)) if kept else images[None, :0],
            self.snapshot_steps,
        )

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(self._names[name]).get_shape())

    def _read(self, name: str, *rows: slice) -> Tensor:
        # Pixels that are no numbers, of an inversion that diverged, are blank: white as the page.
        read: Tensor = self._file.get_slice(self._names[name])[rows]
        if not read.is_floating_point():
            raise ValueError(f"{self._names[name]} has values of type {read.dtype}; images lie in [0, 1]")
        return read.float().nan_to_num(nan=1.0)


def _room(stored: Sequence[_Stored]) -> int:
    """Return how many images the grid shows."""
    return ROWS * _in_a_row(_size([each.shape for each in stored])[1]) if stored else 0


def _in_a_row(wide: int) -> int:
    return min(max(PAGE // (wide + GAP), 2), IN_A_ROW)


def _chosen(stored: Sequence[_Stored], room: int) -> list[_Shown]:
    """Read `room` images or all there are: as many of each inversion as of any other, or one of some, evenly spread."""
    if len(stored) > room:
        picked = torch.linspace(0, len(stored) - 1, room).round().long().tolist()
        return [stored[place].first(1) for place in picked]
    counts, left = [0] * len(stored), room
    while left and (open_ := [i for i, each in enumerate(stored) if counts[i] < each.shape[0]]):
        for place in open_[:left]:
            counts[place] += 1
        left -= len(open_[:left])
    return [each.first(count) for each, count in zip(stored, counts)]


def _grid(groups: Sequence[_Shown], curious: str, total: int) -> Figure:
    """Draw the images group by group, as many groups beside each other as there is room for."""
    tall, wide, scale = _size([group.images.shape for group in groups])
    paired = any(group.originals is not None for group in groups)
    most = _in_a_row(wide)
    lines = _lines(groups, most)
    across = max(sum(len(rows) for _, rows in line) for line in lines)
    width = max(across * (wide + GAP) - GAP, LEAST) + 2 * MARGIN
    shown = sum(len(group.images) for group in groups)
    count = f"{shown} image{'s' * (shown > 1)}" if shown == total else f"{shown} of {total} images"
    said = f"Originals above reconstructions by {curious}" if paired else f"Reconstructions by {curious}, no originals"
    heading = wrapped(f"{said}: {count}", width - 2 * MARGIN, HEADING)
    sheet = Sheet()
    sheet.text(MARGIN, MARGIN, heading, HEADING)
    top = MARGIN + LINE * len(heading) + 8
    for line in lines:
        titles = [wrapped(group.inversion.name, len(rows) * (wide + GAP) - GAP) for group, rows in line]
        first = top + LINE * max(map(len, titles)) + 5
        second, left = first + (tall + GAP // 2 if paired else 0), MARGIN
        words = False
        for (group, rows), title in zip(line, titles):
            sheet.text(left, top, title)
            for row in rows:
                if group.originals is not None:
                    sheet.image(left, first, group.originals[row], scale)
                sheet.image(left, second, group.images[row], scale)
                sheet.text(left, second + tall + 4, [group.below(row)])
                words = words or bool(group.below(row))
                left += wide + GAP
        top = second + tall + (4 + LINE if words else 0) + GAP
    return sheet.figure(width, top - GAP + MARGIN)


def _lines(groups: Sequence[_Shown], most: int) -> list[list[tuple[_Shown, range]]]:
    """Break groups into lines of at most `most` images; a group that has room in no line of its own is cut."""
    lines: list[list[tuple[_Shown, range]]] = [[]]
    for group in groups:
        for start in range(0, len(group.images), most):
            rows = range(start, min(start + most, len(group.images)))
            if lines[-1] and sum(len(taken) for _, taken in lines[-1]) + len(rows) > most:
                lines.append([])
            lines[-1].append((group, rows))
    return lines


def _strips(groups: Sequence[_Shown], curious: str) -> Figure:
    """Draw a row for each image: its snapshots, and at the right end its original."""
    tall, wide, scale = _size([group.images.shape for group in groups])
    paired = any(group.originals is not None for group in groups)
    most = _in_a_row(wide) - paired
    columns = min(max(len(group.snapshot_steps) for group in groups), most)
    end = MARGIN + columns * (wide + GAP) + GAP // 2
    width = max(end + wide if paired else end - GAP - GAP // 2, LEAST + MARGIN) + MARGIN
    heading = wrapped(f"Reconstructions by {curious}, step by step", width - 2 * MARGIN, HEADING)
    sheet = Sheet()
    sheet.text(MARGIN, MARGIN, heading, HEADING)
    top = MARGIN + LINE * len(heading) + 8
    for group in groups:
        sheet.text(MARGIN, top, [group.inversion.name])
        top += LINE + 5
        kept = torch.linspace(0, len(group.snapshot_steps) - 1, min(len(group.snapshot_steps), most)).round().long()
        for column, snapshot in enumerate(kept.tolist()):
            sheet.text(MARGIN + column * (wide + GAP), top, [f"step {group.snapshot_steps[snapshot]:,}"])
        if group.originals is not None:
            sheet.text(end, top, ["original"])
        top += LINE + 5
        for row in range(len(group.images)):
            for column, snapshot in enumerate(kept.tolist()):
                sheet.image(MARGIN + column * (wide + GAP), top, group.snapshots[snapshot, row], scale)
            if group.originals is not None:
                sheet.image(end, top, group.originals[row], scale)
            top += tall + GAP // 2
        top += GAP // 2
    return sheet.figure(width, top - GAP + MARGIN)


def _size(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int, int]:
    """Return how many pixels of the sheet images (n, C, H, W) have, down and across, and how many each of theirs."""
    tall, wide = (max(shape[axis] for shape in shapes) for axis in (2, 3))
    scale = scale_of(tall, wide)
    return tall * scale, max(wide * scale, SIDE), scale
