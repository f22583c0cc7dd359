"""Whatever bytes a file holds, a reader returns samples or says one sentence; nothing else ends a command."""

from __future__ import annotations

import gzip
import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from thornbed.tasks.block_table import block_table
from thornbed.tasks.extrasensory import extrasensory
from thornbed.tasks.image_archive import image_archive
from thornbed.tasks.multitask.landmine import landmine
from thornbed.tasks.multitask.node_table import node_table
from thornbed.tasks.phishing_websites import COLUMNS, phishing_websites
from thornbed.tasks.sources.glove import read_vectors
from thornbed.tasks.sources.npz import read_npz
from thornbed.tasks.sources.tweets import read_tweets


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    save(stream := io.BytesIO())
    return stream.getvalue()


def _images(stream: io.BytesIO) -> None:
    x, y = np.zeros((4, 3, 3), np.uint8), np.arange(4)
    np.savez(stream, x_train=x, y_train=y, x_test=x, y_test=y)


TABLE = b"node,a,b,target\n1,2.5,,x\n2,NA,1e3,y\n1,3,4,x\n2,1,2,y\n"
WEBSITES = (",".join(COLUMNS) + "\n" + ",".join(["1"] * len(COLUMNS)) + "\n").encode()
USER = "me.features_labels.csv.gz"
# What is read, the name of its file, and what a good file looks like: mutations of it go deeper than any bytes.
READERS: dict[str, tuple[Callable[[Path], object], str, bytes]] = {
    "block_table": (lambda path: block_table(path.parent), "blocks.csv", TABLE),
    "block_table in UTF-16": (lambda path: block_table(path.parent, encoding="utf-16"), "blocks.csv", TABLE),
    "node_table": (lambda path: node_table(path.parent, positive="x"), "nodes.csv", TABLE),
    "node_table of numbers": (lambda path: node_table(path.parent, target="a", features=("b",)), "nodes.csv", TABLE),
    "phishing_websites": (lambda path: phishing_websites(path.parent), "phishing_websites.csv", WEBSITES),
    "extrasensory": (lambda path: extrasensory(path.parent, user="me"), USER, gzip.compress(TABLE)),
    "tweets": (read_tweets, "sent140.csv", b"user,text,label\nme,good day,1\nyou,bad day,0\n"),
    "vectors": (read_vectors, "glove.txt", b"good 0.1 0.2\nbad -0.1 3\n"),
    "vectors of an archive": (
        read_vectors,
        "glove.npz",
        _saved(lambda stream: np.savez(stream, words=np.array(["a", "b"]), vectors=np.zeros((2, 3), np.float32))),
    ),
    "npz": (lambda path: read_npz(path, image_shape=(1, 3, 3), num_classes=4), "a.npz", _saved(_images)),
    "image_archive": (lambda path: image_archive(path.parent), "images.npz", _saved(_images)),
}


def _mutated(good: bytes) -> st.SearchStrategy[bytes]:
    """Return any bytes, and the good ones cut, lengthened, or with a stretch replaced."""
    place = st.integers(0, len(good))
    stretch = st.tuples(place, st.integers(0, 8), st.binary(max_size=8))
    changed = stretch.map(lambda change: good[: change[0]] + change[2] + good[change[0] + change[1] :])
    signs = st.lists(st.sampled_from([bytes([sign]) for sign in b',;\n"#1-ex? \xff\0']))
    return st.one_of(st.binary(max_size=200), signs.map(b"".join), place.map(lambda end: good[:end]), changed)


def _read(name: str, content: bytes) -> None:
    read, file, _ = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_bytes(content)
        with suppress(ValueError):
            read(path)


QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_samples_or_a_sentence(name):
    @QUICK
    @given(content=_mutated(READERS[name][2]))
    def check(content: bytes) -> None:
        _read(name, content)

    check()


def test_a_damaged_matlab_file_is_a_sentence_also_where_scipys_reader_dies(tmp_path):
    good = _saved(lambda stream: savemat(stream, {"feature": np.zeros((1, 2)), "label": np.zeros((1, 2))}))
    of_no_type = good[:183] + b"\x9c\xb2" + good[185:]
    for content in (b"", b"\0" * 20, b"\1" * 20, good[:200], of_no_type):
        (tmp_path / "landmine.mat").write_bytes(content)
        with pytest.raises(ValueError, match=r"landmine\.mat cannot be read as a MATLAB file"):
            landmine(tmp_path)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_a_thousand_times(name):
    @settings(QUICK, max_examples=1000)
    @given(content=_mutated(READERS[name][2]))
    def check(content: bytes) -> None:
        _read(name, content)

    check()


@pytest.mark.parametrize("nightly", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_any_bytes_are_a_picture_or_a_sentence(nightly, tmp_path):
    good = _saved(lambda stream: Image.new("RGB", (5, 5), (1, 2, 3)).save(stream, "PNG"))
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "good.png").write_bytes(good)
    bad = tmp_path / "pets" / "dog" / "other.png"

    @settings(QUICK, max_examples=1000 if nightly else 40)
    @given(content=_mutated(good))
    def check(content: bytes) -> None:
        bad.write_bytes(content)
        with suppress(ValueError):
            image_archive(tmp_path, file="pets", test_share=0.4)

    check()
