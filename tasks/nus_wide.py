"""Photographs of Flickr by 634 numbers of the picture and 1000 tags, held by four agents; which of five it shows.

Source: T.-S. Chua, J. Tang, R. Hong, H. Li, Z. Luo and Y.-T. Zheng, "NUS-WIDE: A Real-World Web Image Database from
National University of Singapore", CIVR 2009; its low-level features (bag of words left out), tags and ground truth are
at https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html. The five classes, and four agents
with 360, 274, 500 and 500 features, are those of Liu, Xie, Koyejo and Li, "CoPur: Certifiably Robust Collaborative
Inference via Feature Purification", NeurIPS 2022, Section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from thornbed.tasks import Defaults, Samples, Split, Task, Tuned
from thornbed.tasks.blocks.contiguous import contiguous
from thornbed.tasks.sources import MissingData
from thornbed.tasks.sources.columns import statistics
from thornbed.tasks.sources.subset import take

# Few clients, because the classes are of very different sizes.
DEFAULTS = Defaults(model="mlp(hidden=(128,))", num_clients=20, clients_per_round=20)
# The attack of Liu et al., Section 5.1, on "grass". Adversarial training takes the attack's steps.
STEPS = {"steps": 50, "step_size": 0.1}
TUNED = Tuned(
    options={
        "targeted_pgd": {"target": 1, **STEPS}, "adversarial_training": STEPS, "block_adversarial_training": STEPS,
    }
)  # fmt: skip

CLASSES = ("buildings", "grass", "animal", "water", "person")
AGENTS = (360, 274, 500, 500)
# In the order in which they are published: color histogram, auto-correlogram, edge directions, wavelets, moments.
IMAGE_FEATURES = {"CH": 64, "CORR": 144, "EDH": 73, "WT": 128, "CM55": 225}
TAGS = 1000
# Where the archives put the files; or all of them lie in one folder.
FOLDERS = (
    "",
    "Low_Level_Features",
    "NUS_WID_Low_Level_Features/Low_Level_Features",
    "NUS_WID_Tags",
    "Groundtruth/TrainTestLabels",
    "TrainTestLabels",
)
CONCEPTS = (
    "airport", "animal", "beach", "bear", "birds", "boats", "book", "bridge", "buildings", "cars", "castle", "cat",
    "cityscape", "clouds", "computer", "coral", "cow", "dancing", "dog", "earthquake", "elk", "fire", "fish", "flags",
    "flowers", "food", "fox", "frost", "garden", "glacier", "grass", "harbor", "horses", "house", "lake", "leaf", "map",
    "military", "moon", "mountain", "nighttime", "ocean", "person", "plane", "plants", "police", "protest", "railroad",
    "rainbow", "reflection", "road", "rocks", "running", "sand", "sign", "sky", "snow", "soccer", "sports", "statue",
    "street", "sun", "sunset", "surf", "swimmers", "tattoo", "temple", "tiger", "tower", "town", "toy", "train", "tree",
    "valley", "vehicle", "water", "waterfall", "wedding", "whales", "window", "zebra",
)  # fmt: skip
ROWS = 4096  # of a file at a time


def nus_wide(
    data_dir: Path | None,
    *,
    classes: tuple[str, ...] = CLASSES,
    num_train: int | None = None,
    num_test: int | None = None,
) -> Task:
    """Return the task: samples of 1634 float32 features, the columns of four agents as `blocks`, and `classes`.

    A sample is a photograph of which exactly one of the classes holds, which are concepts of the ground truth; label k
    is the k-th class. Training and test photographs are those of the published split, in its order. `num_train` and
    `num_test` take that many, every class in its share, the first ones of each: the paper has 60000 for training, and
    1000 (targeted attacks) or 10000 (untargeted) for testing. `mean` and `std` are of the training samples alone, and
    `std` is 1 for a feature that is constant in them.

    The paper does not say in which order the image features are divided, nor what it does with photographs of several
    classes, nor which samples it takes. Here they are in the published order (CH, CORR, EDH, WT, CM55), so agents 0 and
    1 share the wavelet texture; photographs of several classes are left out, as is usual in vertical learning.

    Raises MissingData where `data_dir` lacks a file, ValueError for files that are malformed or do not fit together,
    classes that are no concepts, and fewer samples than asked for.
    """
    if unknown := [name for name in classes if name not in CONCEPTS]:
        raise ValueError(f"nus_wide has no concept {unknown[0]}: there are {', '.join(CONCEPTS)}")
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise ValueError(f"nus_wide needs two classes or more, all different: classes = {classes}")
    files = _files(data_dir, classes)
    train = _samples(files, "train", classes, num_train)
    present = torch.bincount(train.y, minlength=len(classes))
    if len(absent := present.eq(0).nonzero()):
        raise ValueError(f"nus_wide has no photograph to train on of {classes[int(absent[0])]} and no other class")
    mean, std = statistics(train.x.numpy())
    return Task(
        name="nus_wide",
        modality="table",
        num_classes=len(classes),
        train=train,
        test=_samples(files, "test", classes, num_test),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        class_names=classes,
        blocks=contiguous(tuple(train.x.shape[1:]), len(AGENTS), sizes=AGENTS),
    )


def _feature_files(split: Split) -> dict[str, int]:
    """Return the names of the files with the features of a split, and how many numbers a line of each has."""
    side = split.capitalize()
    images = {f"{side}_Normalized_{kind}.dat": width for kind, width in IMAGE_FEATURES.items()}
    return {**images, f"{side}_Tags1k.dat": TAGS}


def _label_file(concept: str, split: Split) -> str:
    return f"Labels_{concept}_{split.capitalize()}.txt"


def _files(data_dir: Path | None, classes: tuple[str, ...]) -> dict[str, Path]:
    """Return where each file lies, by its name; raises MissingData with those that lie nowhere."""
    splits: tuple[Split, ...] = ("train", "test")
    wanted = [name for split in splits for name in _feature_files(split)]
    wanted += [_label_file(concept, split) for concept in classes for split in splits]
    places = [] if data_dir is None else [data_dir / folder for folder in FOLDERS]
    found = {name: place / name for name in wanted for place in reversed(places) if (place / name).is_file()}
    if lacking := [name for name in wanted if name not in found]:
        which = ", ".join(lacking) if found else f"all {len(lacking)} files, such as {lacking[0]} and {lacking[-1]}"
        why = "no folder was named with --data-dir" if data_dir is None else f"{data_dir} lacks {which}"
        raise MissingData(
            f"nus_wide needs its data, but {why}: unpack NUS_WID_Low_Level_Features, NUS_WID_Tags and Groundtruth of "
            "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html into that folder"
        )
    return found


def _samples(files: dict[str, Path], split: Split, classes: tuple[str, ...], count: int | None) -> Samples:
    """Return the photographs of one class alone, all or `count`, with all their features."""
    paths = [files[_label_file(concept, split)] for concept in classes]
    answers = [_answers(path) for path in paths]
    for path, each in zip(paths, answers):
        _check_rows(path, len(each), paths[0], len(answers[0]))
    holds = np.column_stack(answers)
    alone = torch.from_numpy(np.flatnonzero(holds.sum(axis=1) == 1))
    if not len(alone):
        raise ValueError(f"{paths[0]} and its like: none of {len(holds)} photographs is of exactly one of the classes")
    labels = torch.from_numpy(holds.argmax(axis=1))[alone]
    # Chosen before any feature is read: of all photographs they would be a gigabyte.
    chosen = take(Samples(alone, labels), count, task="nus_wide", option=f"num_{split}")
    widths = _feature_files(split)
    x = np.empty((len(chosen), sum(widths.values())), dtype=np.float32)
    start = 0
    for name, width in widths.items():
        rows = _fill(x[:, start : start + width], files[name], chosen.x.numpy())
        _check_rows(files[name], rows, paths[0], len(holds))
        start += width
    return Samples(torch.from_numpy(x), chosen.y)


def _answers(path: Path) -> NDArray[np.int64]:
    """Return whether the concept of a file holds, 0 or 1, of every photograph (N,)."""
    values = np.concatenate([chunk[:, 0] for _, chunk in _chunks(path, 1)])
    if (wrong := (values != 0) & (values != 1)).any():
        line = int(wrong.argmax())
        raise ValueError(f"{path}, line {line + 1}: {values[line]:g}, expected 0 or 1")
    return values.astype(np.int64)


def _fill(x: NDArray[np.float32], path: Path, rows: NDArray[np.int64]) -> int:
    """Write the lines `rows` of a file, ascending from 0, into x (len(rows), width); return how many lines it has."""
    end = 0
    for start, chunk in _chunks(path, x.shape[1]):
        end = start + len(chunk)
        first, last = np.searchsorted(rows, (start, end))
        x[first:last] = chunk[rows[first:last] - start]
    return end


def _chunks(path: Path, width: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield runs of lines (n, width) with the number of the first, from 0; raises ValueError where they are not."""
    try:
        with pd.read_csv(path, sep=r"\s+", header=None, dtype=np.float32, chunksize=ROWS) as chunks:
            for chunk in chunks:
                values, start = chunk.to_numpy(dtype=np.float32), int(chunk.index[0])
                if values.shape[1] != width:
                    raise ValueError(f"a line has {values.shape[1]}")
                if not (finite := np.isfinite(values).all(axis=1)).all():
                    raise ValueError(f"line {start + int(finite.argmin()) + 1} has fewer, or one that is not finite")
                yield start, values
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as lines of {width} numbers: {error}") from error


def _check_rows(path: Path, rows: int, other: Path, expected: int) -> None:
    if rows != expected:
        raise ValueError(f"{path} has {rows} lines and {other} {expected}, expected one of each for a photograph")
