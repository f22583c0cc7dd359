"""What a run's folder tells a report, whatever lies in it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from thornbed.defenses.reporting import did_something
from thornbed.experiments.report.inversions import Seen, read_seen
from thornbed.experiments.report.pictures import read_picture
from thornbed.flower_apps.metrics import named
from thornbed.flower_apps.records.folder import CONFIG, METRICS, SUMMARY, Folder
from thornbed.flower_apps.records.plots import TRIGGER
from thornbed.flower_apps.schemes.multitask.pictures import RELATIONS

LAST_ROUNDS = 5
# Six colours (in the style sheet) and six dashes: 36 runs before a pair of them repeats.
NUM_COLORS, DASHES = 6, ("none", "7 4", "2 3", "10 3 2 3", "16 5", "5 2 1 2 1 2")


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """Something with curves: a number, counted from 1, and a colour and dashes that follow from it."""

    number: int

    @property
    def color(self) -> int:
        """Return which colour of the style sheet its curves have."""
        return (self.number - 1) % NUM_COLORS

    @property
    def dash(self) -> str:
        """Return the dashes of its curves, as SVG writes them."""
        return DASHES[(self.number - 1 + (self.number - 1) // NUM_COLORS) % len(DASHES)]


@dataclass(frozen=True, kw_only=True)
class ReportedRun(Numbered):
    """What a folder tells about a run; values may be of any JSON type, since nobody vouches for the files."""

    name: str
    problem: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[Mapping[str, Any]] = ()
    summary: Mapping[str, Any] | None = None
    picture: bytes = b""
    relations: bytes = b""
    seen: Seen | None = None
    """What was reconstructed of its clients' images; None where nobody tried."""

    @property
    def state(self) -> str:
        """Return finished, unfinished, or damaged: the folder cannot be read, and `problem` says why."""
        return "damaged" if self.problem else "unfinished" if self.summary is None else "finished"

    @cached_property
    def settings(self) -> dict[str, str]:
        """Return the settings that have a value, as text."""
        values = _mapping(self.config.get("settings"))
        return {str(name): _text(value) for name, value in values.items() if value not in ("", None)}

    @property
    def facts(self) -> dict[str, str]:
        """Return versions, and whatever else config.json says in one word."""
        plain = {name: value for name, value in self.config.items() if isinstance(value, str | int | float)}
        known = {**plain, **_mapping(self.config.get("versions"))}
        return {name: _text(value) for name, value in known.items() if name != "command" and value != ""}

    @property
    def command(self) -> str:
        """Return the command that repeats the run; empty where it was not recorded."""
        return _text(self.config.get("command", ""))

    @property
    def last(self) -> Mapping[str, Any]:
        """Return the last round's line; empty before the first."""
        return self.lines[-1] if self.lines else {}

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Return the metrics of the finished run, or of the last round while it is not; None: not measured."""
        source = self.last if self.summary is None else _mapping(self.summary.get("metrics"))
        return {name: _number(source[name]) for name in named([source])}

    def points(self, metric: str) -> list[tuple[float, float | None]]:
        """Return a rate by round, (round, rate), held to [0, 1]; None where it was not measured."""
        read = ((_number(line.get("round")), _number(line.get(metric))) for line in self.lines)
        return [(x, None if y is None else min(max(y, 0.0), 1.0)) for x, y in read if x is not None and x >= 0]

    @property
    def malicious(self) -> str:
        """Return how many clients are malicious, `k of n`."""
        named = (self.summary or {}).get("malicious")
        count = str(len(named)) if isinstance(named, list) else self.settings.get("num_malicious", "?")
        return f"{count} of {self.settings.get('num_clients', '?')}"

    @property
    def rounds(self) -> str:
        """Return the rounds done, and of how many where the run is not finished."""
        done = _number(self.last.get("round") if self.summary is None else self.summary.get("rounds"))
        text = "0" if done is None else f"{done:.0f}"
        return text if self.summary is not None else f"{text} of {self.settings.get('rounds', '?')}"

    @property
    def seconds(self) -> float | None:
        """Return the seconds that the run took, all its rounds so far where it is not finished."""
        if self.summary is not None:
            return _number(self.summary.get("seconds"))
        return _number(sum(_number(line.get("seconds")) or 0.0 for line in self.lines)) if self.lines else None

    @property
    def dropped(self) -> int:
        """Return how many replies were dropped in all rounds."""
        return sum(len(_list(line.get("dropped"))) for line in self.lines)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Return why replies were dropped, the five most frequent reasons with their counts."""
        drops = (drop for line in self.lines for drop in _list(line.get("dropped")))
        return Counter(_text(_mapping(drop).get("reason", "no reason given")) for drop in drops).most_common(5)

    @property
    def never_acted(self) -> bool:
        """Return whether there is a defense, and it changed nothing in any round by what it says itself."""
        figures = [(_mapping(line.get("defense")), _used(line)) for line in self.lines]
        # What clients do to their own updates and what the server does are two defenses.
        for ours in (True, False):
            said = [
                did_something({name: each for name, each in of.items() if name.startswith("clients_") == ours}, used)
                for of, used in figures
            ]
            if False in said and True not in said:
                return True
        return False

    def cut(self) -> list[tuple[float, float | None]]:
        """Return by round which share the defense cut away, in [0, 1]; None where it does not say."""
        read = ((_number(line.get("round")), _cut(line)) for line in self.lines)
        return [(x, y) for x, y in read if x is not None and x >= 0]

    @property
    def threat(self) -> str:
        """Return the threat model in words; empty where it was not recorded."""
        needs = _mapping(_mapping(self.config.get("threat_model")).get("needs"))
        parts = (f"{name} must know {' and '.join(map(_text, _list(what)))}" for name, what in needs.items())
        return "; ".join(parts)

    @property
    def defense(self) -> str:
        """Return in a few words what the defense did in the last round, and what it was told beforehand."""
        told = _mapping((self.summary or {}).get("defense_was_told"))
        parts = [
            acted(self.last, but=set(told)),
            *(f"was told {name} = {_text(value)}" for name, value in told.items()),
        ]
        return "; ".join(part for part in parts if part)

    @property
    def table(self) -> tuple[list[str], list[tuple[list[float | None], int, str]]]:
        """Return the last rounds: names of the columns, and a row of numbers, dropped replies and defense for each."""
        lines = self.lines[-LAST_ROUNDS:]
        # The parts of a round's time are in the records; here they would push the results out of sight.
        names = [name for name in dict.fromkeys(name for line in lines for name in line) if name[:8] != "seconds_"]
        names = [name for name in names if not any(isinstance(line.get(name), str | list | dict) for line in lines)]
        rows = [
            ([_number(line.get(name)) for name in names], len(_list(line.get("dropped"))), acted(line))
            for line in lines
        ]
        return [name.replace("_", " ") for name in names], rows


def acted(line: Mapping[str, Any], but: Iterable[str] = ()) -> str:
    """Return in a few words the figures that a defense reported for a round, leaving out those named."""
    figures = {name: value for name, value in _mapping(line.get("defense")).items() if name not in but}
    parts = [_figure(name, value, line) for name, value in figures.items()]
    text = "; ".join(part for part in parts if part)
    return text if len(text) <= 160 else text[:159] + "…"


def _figure(name: str, value: Any, line: Mapping[str, Any]) -> str:
    if name == "selected" and isinstance(value, list):
        return _selected(value, line)
    label, number = name.replace("_", " "), _number(value)
    if number is not None:
        return f"{label} {100 * number:.1f} %" if name.endswith("_share") else f"{label} {number:.4g}"
    numbers = [each for each in map(_number, _list(value)) if each is not None]
    if numbers:
        return f"{label} {min(numbers):.3g} to {max(numbers):.3g}"
    return f"{label} {_text(value)}" if isinstance(value, str) else ""


def _used(line: Mapping[str, Any]) -> int:
    return len(_list(line.get("sampled"))) - len(_list(line.get("dropped")))


def _cut(line: Mapping[str, Any]) -> float | None:
    """Return the share that a defense cut away in a round: of coordinates, of values, or of updates."""
    figures, used = _mapping(line.get("defense")), _used(line)
    # What clients do to their own updates cuts nothing away, nor does what is added, or moved on to a manifold.
    other = ("clients_", "noise_", "moved_")
    names = [name for name in figures if name.endswith("_share") and not name.startswith(other)]
    shares = [_number(figures[name]) for name in names]
    if isinstance(selected := figures.get("selected"), list) and used > 0:
        shares.append(1 - len(selected) / used)
    if (tail := _number(figures.get("trimmed_per_tail"))) is not None and used > 0:
        shares.append(2 * tail / used)
    known = [min(max(share, 0.0), 1.0) for share in shares if share is not None]
    return max(known) if known else None


def _selected(rows: list[Any], line: Mapping[str, Any]) -> str:
    """Say how many updates were kept, and how many of malicious clients; rows count the replies that were usable."""
    gone = {_text(_mapping(drop).get("client")) for drop in _list(line.get("dropped"))}
    usable = [client for client in map(_text, _list(line.get("sampled"))) if client not in gone]
    malicious = set(map(_text, _list(line.get("sampled_malicious")))) & set(usable)
    kept = {usable[row] for row in rows if isinstance(row, int) and 0 <= row < len(usable)}
    text = f"kept {len(rows)} of {len(usable)} updates" if usable else f"kept {len(rows)} updates"
    return f"{text}, {len(kept & malicious)} of {len(malicious)} malicious ones" if malicious else text


def read_run(number: int, name: str, path: Path) -> ReportedRun:
    """Read a run's folder; one that is missing or damaged gives a run with a sentence in `problem`."""
    file = CONFIG
    try:
        if not path.is_dir():
            return ReportedRun(number=number, name=name, problem="There is no such folder.")
        if not (path / CONFIG).exists():
            return ReportedRun(
                number=number, name=name, problem=f"There is no {CONFIG} in this folder, so it holds no run."
            )
        config = _object(path / CONFIG)
        file = METRICS
        lines: list[Any] = Folder(path).lines()
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("a line holds no object")
        file = SUMMARY
        summary = _object(path / SUMMARY) if (path / SUMMARY).exists() else None
        file = TRIGGER
        picture = read_picture(path / TRIGGER)
        file = RELATIONS
        relations = read_picture(path / RELATIONS)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error.strerror if isinstance(error, OSError) else error)
        # What Folder says of a damaged line ends in advice for whoever starts a run.
        reason = reason.removeprefix(f"{path / file} is ").partition(";")[0]
        return ReportedRun(number=number, name=name, problem=f"{file} cannot be read: {reason}.")
    seen = read_seen(path)
    return ReportedRun(
        number=number,
        name=name,
        config=config,
        lines=lines,
        summary=summary,
        picture=picture,
        relations=relations,
        seen=seen,
    )


def _object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    return content


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 2000 else text[:1999] + "…"
