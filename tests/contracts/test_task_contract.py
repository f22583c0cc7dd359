"""What every task keeps to; a new file of tasks is covered without a word here, unless it needs data.

A task that reads files gets small made ones from MADE below: add how to make them there.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import thornbed.clients.optimizers
import thornbed.tasks.models
import thornbed.tasks.partitions
from tests.made_sensors import sensors
from thornbed.tasks import Defaults, Task
from thornbed.tasks.blocks import check_blocks
from thornbed.tasks.models import embedded
from thornbed.tasks.nus_wide import CLASSES, IMAGE_FEATURES, TAGS
from thornbed.tasks.phishing_websites import COLUMNS
from thornbed.tasks.sources import MissingData

NAMES = sorted(module.name for module in pkgutil.iter_modules(thornbed.tasks.__path__) if not module.ispkg)


def images_npz(name: str, image_shape: tuple[int, ...], num_classes: int = 10) -> Callable[[Path], None]:
    """Make NAME.npz with 40 training and 20 test images."""

    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        arrays = {}
        for split, size in (("train", 40), ("test", 20)):
            arrays[f"x_{split}"] = rng.integers(0, 256, size=(size, *image_shape), dtype=np.uint8)
            arrays[f"y_{split}"] = np.arange(size) % num_classes
        np.savez(folder / f"{name}.npz", **arrays)

    return make


def websites(folder: Path) -> None:
    """Make phishing_websites.csv with 100 rows, every other one phishing."""
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.integers(-1, 2, size=(100, 30)), np.tile([-1, 1], 50)])
    lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in values)]
    (folder / "phishing_websites.csv").write_text("\n".join(lines) + "\n")


def tweets(folder: Path) -> None:
    """Make 200 tweets of as many users in sent140.csv, and vectors of four words."""
    words, rng = ["good", "bad", "day", "!"], np.random.default_rng(0)
    lines = ["user,text,label", *(f"u{row},{' '.join(rng.choice(words, 3))} {row},{row % 2}" for row in range(200))]
    (folder / "sent140.csv").write_text("\n".join(lines) + "\n")
    np.savez(folder / "glove.made.npz", words=np.array(words), vectors=rng.normal(size=(4, 5)).astype(np.float32))


def blocks(folder: Path) -> None:
    """Make blocks.csv: 60 rows of six columns, three classes."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(0, 9, size=(60, 6)), columns=list("abcdef"))
    table.assign(target=np.arange(60) % 3).to_csv(folder / "blocks.csv", index=False)


def photographs(folder: Path) -> None:
    """Make NUS-WIDE's files with 60 training and 40 test photographs, most of them of one of the five classes."""
    rng = np.random.default_rng(0)
    for side, size in (("Train", 60), ("Test", 40)):
        for kind, width in {**IMAGE_FEATURES, "Tags1k": TAGS}.items():
            name = f"{side}_{kind}.dat" if kind == "Tags1k" else f"{side}_Normalized_{kind}.dat"
            np.savetxt(folder / name, rng.integers(0, 2, size=(size, width)), fmt="%d")
        for number, concept in enumerate(CLASSES):
            np.savetxt(folder / f"Labels_{concept}_{side}.txt", np.arange(size) % 6 == number, fmt="%d")


MADE: dict[str, Callable[[Path], None]] = {
    "mnist": images_npz("mnist", (28, 28)),
    "fashion_mnist": images_npz("fashion_mnist", (28, 28)),
    "cifar10": images_npz("cifar10", (32, 32, 3)),
    "cifar100_coarse": images_npz("cifar100_coarse", (32, 32, 3), num_classes=20),
    "svhn": images_npz("svhn", (32, 32, 3)),
    "phishing_websites": websites,
    "sent140": tweets,
    "extrasensory": sensors,
    "block_table": blocks,
    "image_archive": images_npz("images", (20, 20)),
    "nus_wide": photographs,
}
# What the sentence about missing data names, for tasks that read no NAME.npz of images.
GET_IT_FROM: dict[str, tuple[str, ...]] = {
    "block_table": ("blocks.csv", "whose first line names a column target and the features"),
    "image_archive": ("images.npz", "x_train, y_train, x_test, y_test", "a folder with a folder for each class"),
    "nus_wide": ("NUS_WID_Low_Level_Features", "NUS_WID_Tags", "Groundtruth", "https://lms.comp.nus.edu.sg/"),
    "extrasensory": ("0BFC35E2-4817-4865-BFA7-764742302A2D.features_labels.csv.gz", "http://extrasensory.ucsd.edu"),
    "phishing_websites": ("phishing_websites.csv", "https://archive.ics.uci.edu/dataset/327/"),
    "sent140": ("sent140.csv", "user, text, label", "http://help.sentiment140.com", "glove.*.txt", "glove*.npz"),
}


def function(name: str) -> Callable[..., Task]:
    return getattr(importlib.import_module(f"thornbed.tasks.{name}"), name)


def defaults(name: str) -> Defaults:
    return importlib.import_module(f"thornbed.tasks.{name}").DEFAULTS


def options(name: str) -> set[str]:
    parameters = inspect.signature(function(name)).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path | None:
    """A folder with what the task of the test reads, or None for a task that reads nothing."""
    name = request.getfixturevalue("name")
    if name not in MADE:
        return None
    MADE[name](tmp_path)
    return tmp_path


def called(spec: str) -> tuple[str, dict[str, object]]:
    """Return the name and the options of a spec such as `dirichlet(alpha=0.5)`."""
    node = ast.parse(spec, mode="eval").body
    if isinstance(node, ast.Name):
        return node.id, {}
    assert isinstance(node, ast.Call)
    return ast.unparse(node.func), {str(kw.arg): ast.literal_eval(kw.value) for kw in node.keywords}


def test_the_folder_is_not_empty() -> None:
    images = {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100_coarse", "svhn"}
    assert images | {"phishing", "phishing_websites", "sent140", "extrasensory"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_is_a_sentence_and_the_source_is_named(name: str) -> None:
    first, blank, rest = (inspect.getdoc(importlib.import_module(f"thornbed.tasks.{name}")) or "").split("\n", 2)
    assert first.endswith(".")
    assert blank == ""
    assert rest.startswith(("Paper: ", "Source: "))


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_comes_first_and_options_are_keywords_with_types_and_defaults(name: str) -> None:
    first, *others = inspect.signature(function(name)).parameters.values()
    assert first.name == "data_dir"
    for option in others:
        assert option.kind is option.KEYWORD_ONLY
        assert option.default is not option.empty
        assert option.annotation is not option.empty


@pytest.mark.parametrize("name", NAMES)
def test_defaults_name_things_that_exist_and_numbers_that_fit(name: str) -> None:
    given = defaults(name)
    assert isinstance(given, Defaults)
    for spec, package in (
        (given.model, thornbed.tasks.models),
        (given.partition, thornbed.tasks.partitions),
        (given.optimizer, thornbed.clients.optimizers),
    ):
        plugin, chosen = called(spec)
        taken = inspect.signature(getattr(importlib.import_module(f"{package.__name__}.{plugin}"), plugin)).parameters
        assert set(chosen) <= set(taken)
    assert 1 <= given.clients_per_round <= given.num_clients
    assert given.rounds >= 1
    assert given.batch_size >= 1
    assert given.learning_rate > 0
    assert given.local_epochs > 0
    assert 0 <= given.malicious_share < 1


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_form_that_everybody_expects(name: str, folder: Path | None) -> None:
    task = function(name)(folder)
    assert isinstance(task, Task)
    assert task.name == name
    for samples in (task.train, task.test):
        assert len(samples) > 0
        assert samples.x.shape[1:] == task.sample_shape
        assert samples.x.is_contiguous()
        assert samples.y.dtype == torch.int64
        assert samples.y.shape == (len(samples),)
        assert 0 <= int(samples.y.min()) <= int(samples.y.max()) < task.num_classes
        decoded = samples.decoded().x
        assert decoded.dtype == (torch.int64 if task.modality == "text" else torch.float32)
        assert bool(decoded.isfinite().all())
    if task.modality == "image":
        assert task.train.x.dtype == torch.uint8
        assert len(task.sample_shape) == 3
    if task.modality == "table":
        assert len(task.sample_shape) == 1
    if task.modality != "text":
        assert task.vectors is None
        assert task.input_shape == task.sample_shape
    assert len(task.mean) == len(task.std)
    assert len(task.mean) in (0, task.sample_shape[0])
    assert all(deviation > 0 for deviation in task.std)
    assert len(task.class_names) in (0, task.num_classes)
    if task.blocks:
        check_blocks(task.blocks, task.sample_shape)
    # Who counts agents before the data are there counts these.
    assert len(task.blocks) == len(getattr(importlib.import_module(f"thornbed.tasks.{name}"), "AGENTS", ()))


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_ids_of_a_vocabulary_and_their_vectors_lie_beside(name: str, folder: Path | None) -> None:
    task = function(name)(folder)
    if task.modality != "text":
        pytest.skip(f"{name} has {task.modality} samples")
    vectors = task.vectors
    assert vectors is not None
    assert vectors.dtype == torch.float32
    assert bool(vectors.isfinite().all())
    # Padding alone is zero: models tell it by that.
    assert (vectors == 0).all(dim=1).nonzero().tolist() == [[0]]
    assert task.input_shape == (*task.sample_shape, vectors.shape[1])
    assert task.mean == ()
    for samples in (task.train, task.test, task.samples("test", torch.arange(3))):
        assert 0 <= int(samples.x.min()) <= int(samples.x.max()) < len(vectors)
        # Padding comes after the text, and every text has a token.
        assert bool((samples.x[:, 0] != 0).all())
        assert bool(((samples.x[:, :-1] != 0) | (samples.x[:, 1:] == 0)).all())
        assert samples.vocabulary is task.train.vocabulary
        assert samples.vocabulary is not None
        assert sorted(samples.vocabulary.values()) == list(range(2, len(vectors)))


@pytest.mark.parametrize("name", NAMES)
def test_loading_is_reproducible_and_leaves_global_randomness_alone(name: str, folder: Path | None) -> None:
    before = torch.get_rng_state(), repr(np.random.mtrand._rand._bit_generator.state), random.getstate()
    one, two = function(name)(folder), function(name)(folder)
    after = torch.get_rng_state(), repr(np.random.mtrand._rand._bit_generator.state), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    for split in ("train", "test"):
        assert torch.equal(getattr(one, split).x, getattr(two, split).x)
        assert torch.equal(getattr(one, split).y, getattr(two, split).y)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_fewer_samples_can_be_taken(name: str, split: str, folder: Path | None) -> None:
    if f"num_{split}" not in options(name):
        pytest.skip(f"{name} has no option num_{split}")
    whole = getattr(function(name)(folder), split)
    few = getattr(function(name)(folder, **{f"num_{split}": 15}), split)
    assert len(few) == 15
    classes = int(whole.y.max()) + 1
    shares = torch.bincount(few.y, minlength=classes) - torch.bincount(whole.y) * 15 / len(whole)
    assert float(shares.abs().max()) < 1
    # They are rows of the whole, in its order: each is found after the one before.
    position = -1
    for image, label in zip(few.x, few.y):
        equal = (whole.x == image).flatten(1).all(dim=1) & (whole.y == label)
        position = next(int(row) for row in equal.nonzero() if row > position)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("too", ["few", "many"])
def test_impossible_numbers_are_refused_with_both_numbers(name: str, split: str, too: str, folder: Path | None) -> None:
    if f"num_{split}" not in options(name):
        pytest.skip(f"{name} has no option num_{split}")
    available = len(getattr(function(name)(folder), split))
    wanted = 0 if too == "few" else available + 1
    with pytest.raises(ValueError, match=rf"{name} .*num_{split}.* {available},.* num_{split} = {wanted}$"):
        function(name)(folder, **{f"num_{split}": wanted})


@pytest.mark.parametrize("name", NAMES)
def test_the_default_model_and_partition_fit(name: str, folder: Path | None) -> None:
    task = function(name)(folder)
    plugin, chosen = called(defaults(name).model)
    network = getattr(importlib.import_module(f"thornbed.tasks.models.{plugin}"), plugin)
    with torch.random.fork_rng():
        built = network(task.input_shape, task.num_classes, **chosen).eval()
        if task.vectors is not None:
            built = embedded(built, task.vectors)
        logits = built(task.samples("test", torch.arange(4)).x)
    assert logits.shape == (4, task.num_classes)
    plugin, chosen = called(defaults(name).partition)
    divide = getattr(importlib.import_module(f"thornbed.tasks.partitions.{plugin}"), plugin)
    assert sum(map(len, divide(task.train.y, 3, 0, **chosen))) == len(task.train)


@pytest.mark.parametrize("name", sorted(MADE))
@pytest.mark.parametrize("where", ["nowhere", "no such folder"])
def test_missing_data_are_explained_in_one_sentence(name: str, where: str, tmp_path: Path) -> None:
    data_dir = None if where == "nowhere" else tmp_path / "absent"
    with pytest.raises(MissingData) as refused:
        function(name)(data_dir)
    sentence = str(refused.value)
    assert "\n" not in sentence
    for words in GET_IT_FROM.get(name, (f"{name}.npz", "x_train uint8 (N, ", "download=True")):
        assert words in sentence
    assert (data_dir is None and "--data-dir" in sentence) or str(data_dir) in sentence
    assert not (tmp_path / "absent").exists()
