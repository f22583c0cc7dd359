"""Tweets that are positive or negative in tone, as sequences of word vectors.

Paper: A. Go, R. Bhayani and L. Huang, "Twitter Sentiment Classification using Distant Supervision", Stanford, 2009, the
data, called Sentiment140; S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, as a federated task. The
defaults are those of X. Wang et al., "Invariant Aggregator for Defending against Federated Backdoor Attacks", AISTATS
2024, Table 3. Differences: LEAF's clients are users of Twitter, here a partition knows labels only, so
that the default is Dirichlet; only the split knows users, and the test set is of users nobody trained on. Which GloVe
vectors are read is the user's choice (the paper's are of GloVe-6B), and so is how many tokens are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from thornbed.tasks import Defaults, Samples, Task, Tuned
from thornbed.tasks.sources import MissingData
from thornbed.tasks.sources.glove import read_vectors
from thornbed.tasks.sources.subset import take
from thornbed.tasks.sources.tweets import URL, USER, Tweet, read_tweets, tokens

DEFAULTS = Defaults(
    model="lstm",
    optimizer="adam",
    learning_rate=0.0001,
    batch_size=64,
    local_epochs=0.1,
    rounds=300,
    num_clients=100,
    clients_per_round=15,
    malicious_share=0.1,
    partition="dirichlet(alpha=0.5)",
)
# Wang et al., Table 3; the threshold is where normal updates have a sign consistency of tau.
TUNED = Tuned(
    options={"invariant": {"tau": 0.6}, "and_mask": {"tau": 0.6}, "mean_variance_ratio": {"threshold": 0.708}}
)

PADDING, UNKNOWN = 0, 1
TEST_SHARE = 0.1
TWEETS = ("sent140.csv", "sent140.csv.gz", "sentiment140_subset.csv.gz", "training.1600000.processed.noemoticon.csv")
VECTORS = ("glove*.npz", "glove*.txt")


def sent140(
    data_dir: Path | None,
    *,
    tweets: Path | None = None,
    vectors: Path | None = None,
    length: int = 30,
    num_train: int | None = None,
    num_test: int | None = None,
) -> Task:
    """Return the task: samples of `length` int64 token ids, label 1 positive and 0 negative, and the tokens' vectors.

    `tweets` is a file of `tasks.sources.tweets`, `vectors` one of `tasks.sources.glove`, both relative to `data_dir`;
    None: the one file there with a name of TWEETS, or of VECTORS. Id 0 is padding after the tweet's end, its vector
    zero; id 1 an unknown word, its vector the mean of all (zero would be padding); the words of the vectors' file
    follow in its order. A word with an apostrophe that has no vector is looked up without it; signs, addresses and
    mentions without one are left out; a tweet of which nothing is left is one unknown word; a long one is cut at its
    end. The users, sorted, are permuted by NumPy's RandomState(0), and the first tenth of them write the test set; both
    parts keep the order of the file. `num_train` and `num_test` take that many samples, every class in its share, the
    first ones of each.

    Raises MissingData where a file is not there, ValueError where there are several to choose from, a file is
    malformed, `length` < 1 or there are fewer samples than asked for.
    """
    if length < 1:
        raise ValueError(f"sent140 needs length >= 1: length = {length}")
    written = read_tweets(_file(data_dir, "tweets", tweets, TWEETS))
    words, known = read_vectors(_file(data_dir, "vectors", vectors, VECTORS))
    vocabulary = {word: number for number, word in enumerate(words, start=UNKNOWN + 1)}
    table = np.concatenate([np.zeros((1, known.shape[1]), np.float32), known.mean(axis=0, keepdims=True), known])
    samples = Samples(
        torch.from_numpy(_ids(written, vocabulary, length)), torch.tensor([t.label for t in written]), vocabulary
    )
    in_test = torch.from_numpy(_of_test_users([tweet.user for tweet in written]))
    return Task(
        name="sent140",
        modality="text",
        num_classes=2,
        train=take(samples.select(~in_test), num_train, task="sent140", option="num_train"),
        test=take(samples.select(in_test), num_test, task="sent140", option="num_test"),
        class_names=("negative", "positive"),
        vectors=torch.from_numpy(table),
    )


def _ids(written: Sequence[Tweet], vocabulary: Mapping[str, int], length: int) -> np.ndarray:
    """Return the token ids (N, length) int64."""
    ids = np.full((len(written), length), PADDING, dtype=np.int64)
    for row, tweet in zip(ids, written):
        found = [number for token in tokens(tweet.text) if (number := _id(token, vocabulary)) is not None]
        cut = found[:length] or [UNKNOWN]
        row[: len(cut)] = cut
    return ids


def _id(token: str, vocabulary: Mapping[str, int]) -> int | None:
    """Return the id of a token, None where it is left out."""
    if token in vocabulary:
        return vocabulary[token]
    if token in (URL, USER) or not token[0].isalnum():
        return None
    return vocabulary.get(token.replace("'", ""), UNKNOWN)


def _of_test_users(users: Sequence[str]) -> np.ndarray:
    """Return which rows are of the users of the test set, (N,) bool; ValueError where there are too few users."""
    names, user_of_row = np.unique(users, return_inverse=True)
    count = round(TEST_SHARE * len(names))
    if not 0 < count < len(names):
        raise ValueError(f"sent140 needs tweets of more users to test on a tenth of them: there are {len(names)}")
    in_test = np.zeros(len(names), dtype=np.bool_)
    in_test[np.random.RandomState(0).permutation(len(names))[:count]] = True
    return in_test[user_of_row]


def _file(data_dir: Path | None, option: str, named: Path | None, patterns: Sequence[str]) -> Path:
    """Return the file an option names, or the only one in the folder that fits a pattern."""
    if named is not None and (path := (data_dir or Path()) / named).is_file():
        return path
    if data_dir is None:
        raise _missing("no folder was named with --data-dir")
    if named is not None:
        raise _missing(f"there is no file {data_dir / named}")
    found = sorted({path for pattern in patterns for path in data_dir.glob(pattern)})
    if not found:
        raise _missing(f"{data_dir} has no {' or '.join(patterns)}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"sent140 finds {len(found)} files in {data_dir} ({names}): choose with {option}=...")
    return found[0]


def _missing(why: str) -> MissingData:
    return MissingData(
        f"sent140 needs tweets and word vectors, but {why}: put sent140.csv or sent140.csv.gz (columns user, text, "
        "label 0 or 1) or training.1600000.processed.noemoticon.csv of http://help.sentiment140.com/for-students "
        "into that folder, and glove.*.txt of https://nlp.stanford.edu/projects/glove/ or glove*.npz (words, vectors)"
    )
