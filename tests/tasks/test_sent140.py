"""Tweets by hand: what becomes a token, which id it has, who is tested on, and a sentence for everything wrong."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from thornbed.tasks import Task
from thornbed.tasks.sent140 import sent140
from thornbed.tasks.sources import MissingData
from thornbed.tasks.sources.glove import read_vectors
from thornbed.tasks.sources.tweets import Tweet, read_tweets, tokens

GLOVE = "the 1 2 3\nday 0.5 -1 0\n! 0 0 2\ndont 4 4 4\n"


def write(folder: Path, texts: list[str], name: str = "sent140.csv") -> Path:
    """Write tweets of users u0, u1, ... with labels 0, 1, 0, 1, ... and the vectors of GLOVE beside them."""
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("user", "text", "label"), *((f"u{row}", text, row % 2) for row, text in enumerate(texts))]
        )
    (folder / "glove.made.3d.txt").write_text(GLOVE, encoding="utf-8")
    return path


def in_order(task: Task) -> list[list[int]]:
    """Return the ids of all samples, training before test."""
    return task.train.join(task.test).x.tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good DAY!!", ["good", "day", "!", "!"]),
        ("@Some_One see http://t.co/aB?x=1 or www.x.org now", ["<user>", "see", "<url>", "or", "<url>", "now"]),
        ("I don’t, rock'n'roll 'quoted'", ["i", "don't", ",", "rock'n'roll", "'", "quoted", "'"]),
        ("R&amp;B &lt;3", ["r", "&", "b", "<", "3"]),
        ("#so_cool é٣", ["#", "so", "cool", "é٣"]),
        ("me@home.org", ["me", "<user>", ".", "org"]),
        (" \t\n__", []),
    ],
)
def test_tokens_by_hand(text, expected):
    assert list(tokens(text)) == expected


def test_ids_by_hand(tmp_path):
    texts = [
        "The day!",  # 2 3 4
        "the unheard-of day",  # the sign - has no vector: left out; two unknown words
        "Don't",  # looked up without its apostrophe
        "@you http://x.y ?",  # nothing is left: one unknown word
        "day day day day the",  # cut at its end
        "",
        "the",
    ]
    write(tmp_path, texts)
    task = sent140(tmp_path, length=4)
    assert task.vectors is not None
    assert task.vectors.tolist() == [[0, 0, 0], [1.375, 1.25, 2.25], [1, 2, 3], [0.5, -1, 0], [0, 0, 2], [4, 4, 4]]
    assert task.train.vocabulary == {"the": 2, "day": 3, "!": 4, "dont": 5}
    expected = [[2, 3, 4, 0], [2, 1, 1, 3], [5, 0, 0, 0], [1, 0, 0, 0], [3, 3, 3, 3], [1, 0, 0, 0], [2, 0, 0, 0]]
    assert sorted(in_order(task)) == sorted(expected)
    test = int(np.random.RandomState(0).permutation(7)[0])  # a tenth of seven users, rounded, is one
    assert task.test.x.tolist() == [expected[test]]
    assert task.train.x.tolist() == [row for number, row in enumerate(expected) if number != test]
    assert task.train.y.tolist() == [number % 2 for number in range(7) if number != test]


def test_addresses_and_mentions_are_tokens_where_the_vectors_have_them(tmp_path):
    write(tmp_path, ["@you http://x.y the"] * 10)
    (tmp_path / "glove.made.3d.txt").write_text(GLOVE + "<user> 1 1 1\n<url> 2 2 2\n", encoding="utf-8")
    assert in_order(sent140(tmp_path, length=4))[0] == [6, 7, 2, 0]


def test_no_user_is_in_both_parts_and_a_tenth_of_them_is_tested_on(tmp_path):
    (tmp_path / "glove.made.3d.txt").write_text("\n".join(f"w{user} {user} 1" for user in range(50)), encoding="utf-8")
    lines = ["user,text,label", *(f"{row % 50},w{row % 50},{row % 2}" for row in range(300))]
    (tmp_path / "sent140.csv").write_text("\n".join(lines), encoding="utf-8")
    task = sent140(tmp_path)
    train, test = (set(samples.x[:, 0].tolist()) for samples in (task.train, task.test))
    assert (len(train), len(test), len(train & test)) == (45, 5, 0)
    assert (len(task.train), len(task.test)) == (270, 30)
    names = sorted(map(str, range(50)))
    permuted = np.random.RandomState(0).permutation(50)[:5]
    assert test == {int(names[place]) + 2 for place in permuted}


def test_one_user_alone_cannot_be_tested_on(tmp_path):
    write(tmp_path, ["the"] * 4)
    with pytest.raises(ValueError, match="needs tweets of more users to test on a tenth of them: there are 4"):
        sent140(tmp_path)


def test_the_published_file_is_read_as_it_is_published(tmp_path):
    path = tmp_path / "training.1600000.processed.noemoticon.csv"
    path.write_bytes(
        b'"0","1","Mon Apr 06 2009","NO_QUERY","ann","so, ""sad"" caf\xe9"\n"4","2","Mon","NO_QUERY","bo","glad"\n'
    )
    assert read_tweets(path) == [Tweet("ann", 'so, "sad" café', 0), Tweet("bo", "glad", 1)]


def test_a_table_is_read_compressed_or_not_with_its_columns_in_any_order(tmp_path):
    text = 'label,user,text\n1,ann,"so, ""glad"" café"\n0,bo,sad\n'
    (tmp_path / "one.csv").write_text(text, encoding="utf-8")
    (tmp_path / "one.csv.gz").write_bytes(gzip.compress(text.encode()))
    expected = [Tweet("ann", 'so, "glad" café', 1), Tweet("bo", "sad", 0)]
    assert read_tweets(tmp_path / "one.csv") == read_tweets(tmp_path / "one.csv.gz") == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"user,text\na,b\n",
            r"begins with \['user', 'text'\], expected the header user,text,label or the six columns",
        ),
        (b"user,text,label\na,b,2\n", "row 2: label is '2', expected 0 or 1"),
        (b"user,text,label\na,b,1\na,b\n", "row 3: 2 values, expected 3: user, text, label"),
        (b'"2","1","d","q","ann","so"\n', "row 1: polarity is '2', expected 0 or 4"),
        (b"user,text,label\na,\xe9,1\n", "row 2: the text is no UTF-8"),
        (b"user,text,label\n", "has 0 tweets, expected at least 1"),
        (b"", "has 0 tweets, expected at least 1"),
        (b'user,text,label\n"' + b"a" * 200_000, "cannot be read as a table of comma-separated values"),
    ],
)
def test_malformed_tweets_are_refused_with_the_row(tmp_path, content, sentence):
    path = tmp_path / "sent140.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as refused:
        read_tweets(path)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize("damage", ["no archive", "cut in half"])
def test_a_damaged_archive_is_refused(tmp_path, damage):
    whole = gzip.compress(b"user,text,label\n" + b"a,b,1\n" * 99)
    (tmp_path / "sent140.csv.gz").write_bytes(
        b"user,text,label" if damage == "no archive" else whole[: len(whole) // 2]
    )
    with pytest.raises(ValueError, match=r"cannot be read|has 0 tweets"):
        read_tweets(tmp_path / "sent140.csv.gz")


def test_text_and_archive_hold_the_same_vectors(tmp_path):
    # Words that Python's own ideas of lines and spaces would tear apart, as some published ones.
    words = ["the", "\u0085", "\u00a0", ". . ."]
    numbers = np.array([[1.5, -2.0], [0.25, 1e-3], [3.0, 0.0], [7.0, 8.0]], dtype=np.float32)
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, numbers.tolist())]
    (tmp_path / "glove.txt").write_bytes("".join(lines).encode())
    np.savez(tmp_path / "glove.npz", words=np.array(words), vectors=numbers)
    for name in ("glove.txt", "glove.npz"):
        found, vectors = read_vectors(tmp_path / name)
        assert found == words
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, numbers)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has 0 words, expected at least 1"),
        ("400000 50\nthe 1 2\n", "line 1 has 1 numbers, expected at least 2"),
        ("the 1 2 3\nday 1 2\n", "line 2 has 2 numbers, expected 3"),
        ("the 1 2\nday 1 x\n", "cannot be read as lines of a word and its numbers"),
        ("the 1 2\nthe 3 4\n", "has 2 vectors for 1 words, expected one for each"),
        ("the 1 nan\nday 1 inf\n", "has 2 numbers that are not finite, expected none"),
        ("the 1 2\nday 0 0\n", "the vector of 'day' is zero"),
    ],
)
def test_malformed_vectors_are_refused(tmp_path, content, sentence):
    path = tmp_path / "glove.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=sentence) as refused:
        read_vectors(path)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"words": np.array(["a"])}, "cannot be read as an .npz archive of plain arrays"),
        ({"words": np.array(["a"], dtype=object), "vectors": np.ones((1, 2))}, "cannot be read as an .npz archive"),
        ({"words": np.array([1]), "vectors": np.ones((1, 2))}, r"words is int64 \(1,\), expected text \(V,\)"),
        ({"words": np.array(["a"]), "vectors": np.ones((2, 2))}, r"\(2, 2\), expected floating point \(1, D\)"),
        ({"words": np.array(["a"]), "vectors": np.ones((1, 2), int)}, "vectors is int64"),
    ],
)
def test_malformed_archives_of_vectors_are_refused(tmp_path, arrays, sentence):
    np.savez(tmp_path / "glove.npz", **arrays)
    with pytest.raises(ValueError, match=sentence):
        read_vectors(tmp_path / "glove.npz")


def test_files_can_be_named_and_must_be_where_there_are_several(tmp_path):
    write(tmp_path, ["the"] * 10)
    (tmp_path / "glove.other.txt").write_text("the 1 2\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"finds 2 files .*\(glove.made.3d.txt, glove.other.txt\): choose with vectors="
    ):
        sent140(tmp_path)
    assert sent140(tmp_path, vectors=Path("glove.other.txt")).input_shape == (30, 2)
    assert sent140(tmp_path, vectors=tmp_path / "glove.made.3d.txt").input_shape == (30, 3)
    write(tmp_path, ["day"] * 20, "sent140.csv2")
    chosen = {"tweets": Path("sent140.csv2"), "vectors": Path("glove.other.txt")}
    assert len(in_order(sent140(tmp_path, **chosen))) == 20


@pytest.mark.parametrize(("option", "file"), [("tweets", "sent140.csv"), ("vectors", "glove.made.3d.txt")])
def test_a_missing_file_is_named(tmp_path, option, file):
    write(tmp_path, ["the"] * 10)
    (tmp_path / file).unlink()
    with pytest.raises(MissingData, match=f"{tmp_path} has no "):
        sent140(tmp_path)
    with pytest.raises(MissingData, match=f"there is no file {tmp_path / 'mine'}"):
        sent140(tmp_path, **{option: Path("mine")})


def test_impossible_lengths_are_refused(tmp_path):
    write(tmp_path, ["the"] * 10)
    with pytest.raises(ValueError, match="sent140 needs length >= 1: length = 0"):
        sent140(tmp_path, length=0)


def test_a_model_learns_which_word_is_sad(tmp_path):
    from thornbed.clients.local_training import evaluate, train
    from thornbed.clients.optimizers.adam import adam
    from thornbed.tasks.models import embedded
    from thornbed.tasks.models.lstm import lstm

    write(tmp_path, ["the day" if row % 2 else "day the !" for row in range(100)])
    task = sent140(tmp_path, length=6)
    assert task.vectors is not None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = embedded(lstm(task.input_shape, 2, hidden=8), task.vectors)
    train(
        model, task.train, optimizer=lambda parameters: adam(parameters, 0.02),
        batch_size=16, epochs=10, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert evaluate(model, task.test)[1] == 1.0
