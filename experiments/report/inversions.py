"""What a report says of the images that were reconstructed in a run: two pictures, numbers, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thornbed.experiments.report.pictures import LARGEST_PICTURE, data, read_picture, size
from thornbed.flower_apps.inversion.records import GRID, INVERSIONS, STEPS, Inversion, StoredInversions, read_inversions
from thornbed.flower_apps.metrics import METRICS

MOST = 5  # warnings or failures that are told in full
LONGEST = 2000  # characters of a text of others


@dataclass(frozen=True)
class DrawnInversion:
    """A picture as the page holds it, and what it shows for whoever cannot see it."""

    source: str
    size: tuple[int, int]
    words: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The inversions of a folder; `problem` says why they cannot be told of."""

    problem: str = ""
    curious: str = ""
    caption: str = ""
    pictures: Sequence[DrawnInversion] = ()
    remarks: Sequence[str] = ()


def read_seen(folder: Path) -> Seen | None:
    """Read what inversions left in a folder; None where there were none."""
    path = folder / INVERSIONS
    if not path.exists():
        return None
    try:
        records = read_inversions(folder)
        pictures = {name: read_picture(folder / name) for name in (GRID, STEPS)}
    except (OSError, ValueError) as error:
        reason = str(error.strerror if isinstance(error, OSError) else error)
        reason = reason.removeprefix(f"{path} ").removeprefix("is damaged: ")
        return Seen(problem=f"{INVERSIONS} cannot be read: {_short(reason)}.")
    words = {
        GRID: f"Images reconstructed by {records.curious}, below the originals where these are known.",
        STEPS: f"How {records.curious} came to them: snapshots from the first step to the last.",
    }
    missing = [
        f"{name} is not shown: it is no PNG of at most {LARGEST_PICTURE:,} bytes."
        for name, png in pictures.items()
        if not png and (folder / name).exists()
    ]
    if records.inversions and not (folder / GRID).exists():
        missing.append(f"There is no {GRID}.")
    return Seen(
        curious=_short(records.curious),
        caption=_caption(records),
        pictures=[DrawnInversion(data(png), size(png), _short(words[name])) for name, png in pictures.items() if png],
        remarks=[*missing, *_few(records.warnings), *_few(_failures(records.inversions))],
    )


def _caption(records: StoredInversions) -> str:
    """Return who was looked at, how near the images come, and what it took."""
    total = sum(each.num_samples for each in records.inversions)
    parts = [f"{_several(total, 'image')} of {_several(len(records.inversions), 'update')} ({records.observed})"]
    means = {name: records.mean(name) for name in ("psnr", "ssim", "lpips")}
    said = [f"{METRICS[name].words} {METRICS[name].shown(mean)}" for name, mean in means.items() if mean is not None]
    if said:
        parts.append(f"mean {', '.join(said)}")
    if means["lpips"] is None and means["psnr"] is not None and records.lpips_missing:
        parts.append(records.lpips_missing)
    parts += [
        f"no score: {why}" for why in _few(dict.fromkeys(each.unscored for each in records.inversions if each.unscored))
    ]
    if records.seconds is not None:
        memory = "" if records.peak_memory_mib is None else f", at most {records.peak_memory_mib:,.0f} MiB"
        parts.append(f"{records.seconds:,.1f} s{memory}")
    return "; ".join(map(_short, parts))


def _failures(inversions: Sequence[Inversion]) -> list[str]:
    return [f"{each.name.capitalize()} ended early: {each.failure}" for each in inversions if each.failure is not None]


def _few(texts: Sequence[str] | dict[str, None]) -> list[str]:
    """Return the first texts, and how many more there are."""
    told = list(texts)
    return [_short(text) for text in told[:MOST]] + ([f"and {len(told) - MOST} more"] if len(told) > MOST else [])


def _several(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
