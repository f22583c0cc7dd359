"""Reading labelled tweets from a table of comma-separated values, and cutting a tweet into tokens.

Source: A. Go, R. Bhayani and L. Huang, "Twitter Sentiment Classification using Distant Supervision", Stanford, 2009,
for the published file; a table with a header `user,text,label` holds the same in a shorter form.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import NamedTuple

from thornbed.tasks.sources.unpacked import unpacked

HEADER = ("user", "text", "label")
PUBLISHED = ("polarity", "id", "date", "query", "user", "text")
"""The columns of the published file, which has no header; polarity is 0 (negative) or 4 (positive)."""

URL, USER = "<url>", "<user>"
# One of: an address, a mention, a word (inner apostrophes belong to it), any single sign. Spaces and _ only separate.
_TOKEN = re.compile(r"(?P<url>https?://\S+|www\.\S+)|(?P<user>@\w+)|(?P<word>[^\W_]+(?:'[^\W_]+)*)|[^\w\s]")


class Tweet(NamedTuple):
    """One tweet: who wrote it, what, and whether it is positive (1) or negative (0)."""

    user: str
    text: str
    label: int


def read_tweets(path: Path) -> list[Tweet]:
    """Return the tweets of a file, in its order; a packed file is known by its content.

    Read are a table with the header user, text, label (in any order, UTF-8, label 0 or 1) and the published file (no
    header, six columns, Latin-1, polarity 0 or 4). Raises ValueError, with the file and where possible the row, for
    anything else.
    """
    try:
        # Latin-1 decodes any bytes; the shorter form is encoded back below.
        rows = csv.reader(TextIOWrapper(BytesIO(unpacked(path)), encoding="latin-1", newline=""))
        tweets = list(_tweets(path, rows))
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as a table of comma-separated values: {error}") from error
    if not tweets:
        raise ValueError(f"{path} has 0 tweets, expected at least 1")
    return tweets


def _tweets(path: Path, rows: Iterable[Sequence[str]]) -> Iterator[Tweet]:
    labels: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if number == 1:
            published = sorted(row) != sorted(HEADER)
            columns = PUBLISHED if published else tuple(row)
            label, labels = ("polarity", {"0": 0, "4": 1}) if published else ("label", {"0": 0, "1": 1})
            if len(row) != len(columns):
                raise ValueError(
                    f"{path} begins with {row[:6]}, expected the header {','.join(HEADER)} or the six columns "
                    f"{', '.join(PUBLISHED)} of the published file"
                )
            if not published:
                continue
        if len(row) != len(columns):
            raise ValueError(f"{path}, row {number}: {len(row)} values, expected {len(columns)}: {', '.join(columns)}")
        values = dict(zip(columns, row))
        if values[label] not in labels:
            raise ValueError(f"{path}, row {number}: {label} is {values[label]!r}, expected {' or '.join(labels)}")
        text = values["text"]
        if not published:
            try:
                text = text.encode("latin-1").decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, row {number}: the text is no UTF-8: {error}") from error
        yield Tweet(values["user"], text, labels[values[label]])


def tokens(text: str) -> Iterator[str]:
    """Yield the tokens of a tweet in lower case: words, single signs, `<url>` for an address, `<user>` for a mention.

    HTML entities are read as what they stand for, a curly apostrophe as a straight one.
    """
    for match in _TOKEN.finditer(html.unescape(text).lower().replace("’", "'")):
        yield {"url": URL, "user": USER}.get(match.lastgroup or "", match.group())
