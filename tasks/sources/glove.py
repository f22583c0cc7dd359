"""Reading word vectors: GloVe's published text files, and the same as a NumPy archive.

Source: J. Pennington, R. Socher and C. Manning, "GloVe: Global Vectors for Word Representation", EMNLP 2014; the files
are at https://nlp.stanford.edu/projects/glove/, one word a line with its numbers, separated by single spaces.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thornbed.tasks.sources.archive import read_archive

KEYS = ("words", "vectors")


def read_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    """Return V words, all different, and their vectors (V, D) float32, finite and none of them zero.

    A name that ends in .npz is an archive of `words` (V,) text and `vectors` (V, D) floating point; any other is text
    in UTF-8. Raises ValueError, with the file and where possible the line, for anything that does not fit.
    """
    words, vectors = _archive(path) if path.suffix == ".npz" else _text(path)
    if len(words) == 0:
        raise ValueError(f"{path} has 0 words, expected at least 1")
    if len(set(words)) != len(words):
        raise ValueError(f"{path} has {len(words)} vectors for {len(set(words))} words, expected one for each")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{path} has {int((~np.isfinite(vectors)).sum())} numbers that are not finite, expected none")
    if len(zero := np.flatnonzero(~vectors.any(axis=1))):
        raise ValueError(f"{path}: the vector of {words[zero[0]]!r} is zero, which stands for no word at all")
    return words, vectors


def _archive(path: Path) -> tuple[list[str], np.ndarray]:
    stored = read_archive(path, KEYS)
    words, vectors = (stored[key] for key in KEYS)
    if words.ndim != 1 or words.dtype.kind != "U":
        raise ValueError(f"{path}: words is {words.dtype} {words.shape}, expected text (V,)")
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or len(vectors) != len(words) or vectors.shape[1] == 0:
        found = f"{vectors.dtype} {vectors.shape}"
        raise ValueError(f"{path}: vectors is {found}, expected floating point ({len(words)}, D)")
    return words.tolist(), vectors.astype(np.float32)


def _text(path: Path) -> tuple[list[str], np.ndarray]:
    words: list[str] = []
    rows: list[np.ndarray] = []
    try:
        # Only "\n" ends a line: some of the words are characters that Python would split at.
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                word, *numbers = line.rstrip("\r\n").split(" ")
                if rows and len(numbers) > len(rows[0]):  # a few published words hold spaces
                    word = " ".join([word, *numbers[: -len(rows[0])]])
                    numbers = numbers[-len(rows[0]) :]
                if len(numbers) < 2 or (rows and len(numbers) != len(rows[0])):
                    expected = str(len(rows[0])) if rows else "at least 2"
                    raise ValueError(f"line {number} has {len(numbers)} numbers, expected {expected}")
                words.append(word)
                rows.append(np.array(numbers, dtype=np.float32))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as lines of a word and its numbers: {error}") from error
    return words, np.stack(rows) if rows else np.zeros((0, 2), np.float32)
