"""What a run leaves in its output folder: config.json, metrics.jsonl, summary.json, checkpoint and model.

A line of metrics.jsonl is written before the checkpoint of its round, and both are written whole or not at all, so a
run that is killed at any moment can go on from the last checkpoint and end with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from thornbed.flower_apps.metrics import named
from thornbed.flower_apps.records.provenance import versions
from thornbed.flower_apps.settings import BadSettings, Busy, Settings, settings_from
from thornbed.protocol.tensor_files import DIGEST, load_tensors, save_tensors
from thornbed.protocol.whole_files import append_text, write_text

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"
FORMAT = 2  # of what a run that goes on needs: raised where older runs could not go on as they were
MEMORY = "memory/"  # before a tensor of the checkpoint that the rule keeps; no parameter's name holds a slash
# What every summary holds beside the settings and versions.
SUMMARIZED = ("metrics", "rounds", "seconds", "malicious", "replies_dropped", "defense_acted", "defense_was_told")
# How long to wait for the folder: a run that was killed a moment ago takes its last processes with it.
LOCK_SECONDS = 5.0
# These say where and how a run is made, not what it computes: a run may go on with others. What a curious server reads
# is not among them: it would lie in two folders.
FREE = (
    "output",
    "resume",
    "origin",
    "logger",
    "rounds",
    "data_dir",
    "device",
    "superlink",
    "root_certificates",
    "node_timeout",
    "reply_timeout",
    "channel_timeout",
)
OF_RUN = "run"  # among the texts of a file of tensors: the digest of the settings that it comes from
WHEREABOUTS = tuple(name for name in FREE if name != "rounds")  # of these a result says nothing


class Folder:
    """The output folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[int]:
        """Make the folder ready for a run, keep others from writing into it, and yield how many rounds are done.

        Raises BadSettings where it holds another run, one that the settings do not ask to resume, or one that another
        process is writing.
        """
        if settings.resume and not (self.path / CONFIG).is_file():
            raise BadSettings(f"--output {self.path} holds no run to resume; there is no {CONFIG} in it")
        with alone(self.path):
            yield self._prepare(settings)

    def _prepare(self, settings: Settings) -> int:
        if not settings.resume:
            if (self.path / CONFIG).exists():
                raise BadSettings(
                    f"--output {self.path} holds a run already; add --resume to go on with it, or name another"
                )
            if there := [name for name in (METRICS, SUMMARY, CHECKPOINT, MODEL) if (self.path / name).exists()]:
                raise BadSettings(
                    f"--output {self.path} holds {there[0]} of a run without its {CONFIG}; name another folder"
                )
            return 0
        self._compare(settings)
        self.check()
        self._prove_checkpoint()
        self.check_format(int(settings.rounds))
        done, told = self.rounds_done(), [line["round"] for line in self.lines()]
        if done is None:
            if max(told, default=0) or (self.path / SUMMARY).exists():
                raise BadSettings(f"{self.path} holds no {CHECKPOINT} to go on from; name another --output")
            (self.path / METRICS).unlink(missing_ok=True)
            return 0
        if told[: done + 1] != list(range(done + 1)):
            raise BadSettings(f"{self.path / METRICS} is damaged: it lacks a round up to {done}; name another --output")
        rounds = int(settings.rounds)
        if done > rounds:
            raise BadSettings(f"--rounds {rounds} is fewer than the {done} that are done in {self.path}")
        if done < rounds:  # an earlier end is none any more: a summary says that a run is complete
            (self.path / SUMMARY).unlink(missing_ok=True)
        lines = [line for line in self.lines() if line["round"] <= done]
        write_text(self.path / METRICS, "".join(_json(line) + "\n" for line in lines))
        return done

    def check(self) -> None:
        """Raise BadSettings, which names the file, where the records of a run cannot be read."""
        self.settings()
        self.rounds_done()
        self.summary()
        if odd := [number for number, line in enumerate(self.lines(), 1) if not _is_round(line)]:
            raise BadSettings(f"{self.path / METRICS} is damaged: line {odd[0]} is no round; name another --output")

    def check_format(self, rounds: int) -> None:
        """Refuse a run of an earlier format of which rounds are left to make: it cannot go on as it was."""
        if (self.rounds_done() or 0) < rounds and self.fact("format") != FORMAT:
            made = (self.fact("versions") or {}).get("thornbed", "another version")
            raise BadSettings(
                f"{self.path} is of thornbed {made}, whose runs can be shown and reported and not gone on with: what "
                "clients keep and how a round goes has changed since; start anew with another --output"
            )

    def settings(self) -> Settings:
        """Return the resolved settings of the run that is here.

        Raises BadSettings where there is none, and where config.json is not as it was written.
        """
        try:
            content = json.loads((self.path / CONFIG).read_text(encoding="utf-8"))
            told = content.pop(DIGEST, None)
            # Thornbed 0.1.0 wrote no digest; such a folder can be shown.
            if told != _digest(content) and not (told is None and content.get("format") is None):
                raise ValueError(f"it is not as it was written: its {DIGEST} is another")
            return settings_from(content["settings"])
        except FileNotFoundError:
            raise BadSettings(f"{self.path} holds no run; there is no {CONFIG} in it") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise BadSettings(f"{self.path / CONFIG} is damaged ({error}); name another --output") from None

    def fact(self, name: str) -> Any:
        """Return what config.json says beside the settings of the run that is here; None where it does not."""
        return json.loads((self.path / CONFIG).read_text(encoding="utf-8")).get(name)

    def _compare(self, settings: Settings) -> None:
        before = self.settings()
        if "deployment" in {settings.engine, before.engine} and settings.engine != before.engine:
            raise BadSettings(
                f"--engine is {settings.engine} and was {before.engine} in {self.path}; in deployment the nodes say "
                "who is malicious, so such a run stays in its engine"
            )
        for name, value in settings.model_dump().items():
            if name not in (*FREE, "engine", "curious") and value != getattr(before, name):
                raise BadSettings(
                    f"--{name.replace('_', '-')} is {value!r} and was {getattr(before, name)!r} in {self.path}; a run "
                    "goes on with the settings it began with"
                )

    def write_config(self, settings: Settings, facts: Mapping[str, Any]) -> None:
        """Write everything that was resolved, the versions, and the command that repeats the run."""
        content = {
            "format": FORMAT,
            "settings": _kept(settings),
            "command": settings.command(),
            "argv": json.loads(settings.origin).get("argv") if settings.origin else None,
            "versions": versions(settings),
            **facts,
        }
        content[DIGEST] = _digest(content)
        write_text(self.path / CONFIG, _json(content, indent=2) + "\n")

    def append(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Append one round to metrics.jsonl, and return it as it stands there."""
        text = _json(line)
        append_text(self.path / METRICS, text + "\n")
        return dict(json.loads(text))

    def last_rounds(self) -> dict[int, int]:
        """Return by client the latest round that is done and of which the client's answer was taken."""
        done = self.rounds_done() or 0
        taken: dict[int, int] = {}
        for line in self.lines():
            lost = {drop["client"] for drop in line.get("dropped", ())}
            if line["round"] <= done:
                taken |= {client: line["round"] for client in line.get("sampled", ()) if client not in lost}
        return taken

    def lines(self) -> list[dict[str, Any]]:
        """Return the rounds of metrics.jsonl; a last line that was cut off by a kill is left out."""
        path = self.path / METRICS
        try:
            texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        except (ValueError, OSError) as error:
            raise BadSettings(f"{path} is damaged ({error}); name another --output") from None
        lines = []
        for number, text in enumerate(texts):
            try:
                lines.append(json.loads(text))
            except (ValueError, RecursionError) as error:
                if number < len(texts) - 1 or isinstance(error, RecursionError):
                    raise BadSettings(f"{path} is damaged in line {number + 1}; name another --output") from None
        return lines

    def checkpoint(
        self, settings: Settings, tensors: Mapping[str, Tensor], rounds_done: int, memory: Mapping[str, Tensor]
    ) -> None:
        """Replace the checkpoint by the model after `rounds_done` rounds and what the rule remembers of them."""
        kept = {MEMORY + name: tensor for name, tensor in memory.items()}
        texts = {"rounds_done": str(rounds_done), OF_RUN: settings_digest(settings)}
        save_tensors(self.path / CHECKPOINT, {**tensors, **kept}, texts)

    def _prove_checkpoint(self) -> None:
        """Refuse a checkpoint that is not as it was written, or that another run wrote."""
        if self.rounds_done() is not None and self.fact("format") == FORMAT:
            prove(self.path / CHECKPOINT, self.settings())

    def rounds_done(self) -> int | None:
        """Return how many rounds the checkpoint has behind it; None without a checkpoint."""
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as stored:
                done = int((stored.metadata() or {})["rounds_done"])
            if done < 0:
                raise ValueError(f"rounds_done is {done}")
            return done
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise BadSettings(f"{path} is damaged ({error}); name another --output") from None

    def load_checkpoint(self, model: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the model of the checkpoint and what the rule remembers.

        Raises BadSettings where the tensors are not those of a model like this.
        """
        content = prove(self.path / CHECKPOINT, self.settings())
        memory = {name.removeprefix(MEMORY): content.pop(name) for name in list(content) if name.startswith(MEMORY)}
        tensors = content
        kinds = [{name: (tensor.shape, tensor.dtype) for name, tensor in each.items()} for each in (tensors, model)]
        if kinds[0] != kinds[1]:
            raise BadSettings(f"{self.path / CHECKPOINT} holds another model than the run's; name another --output")
        return {name: tensors[name] for name in model}, memory

    def finish(self, settings: Settings, summary: Mapping[str, Any]) -> None:
        """Write summary.json, which says that the run is complete."""
        content = {"settings": _kept(settings), **summary, "versions": versions(settings)}
        write_text(self.path / SUMMARY, _json(content, indent=2) + "\n")

    def summary(self) -> dict[str, Any] | None:
        """Return summary.json, or None while the run is not complete."""
        path = self.path / SUMMARY
        if not path.exists():
            return None
        try:
            summary = dict(json.loads(path.read_text(encoding="utf-8")))
            numbers = [summary.get("seconds"), *dict(summary.get("metrics", {})).values()]
            if not {"settings", *SUMMARIZED} <= set(summary) or not named([summary["metrics"]]):
                raise ValueError("it is no summary of a run")
            if not all(value is None or isinstance(value, int | float) for value in numbers):
                raise ValueError("it is no summary of a run")
            settings_from(dict(summary["settings"]))
        except (ValueError, TypeError, RecursionError, OSError) as error:
            raise BadSettings(f"{path} is damaged ({error}); name another --output") from None
        return summary


def settings_digest(settings: Settings) -> str:
    """Return the SHA-256 of what settings compute; where and how a run is made is of no account."""
    free = {*FREE, "engine", "curious"}
    return _digest({name: value for name, value in settings.model_dump().items() if name not in free})


def prove(path: Path, settings: Settings) -> dict[str, Tensor]:
    """Return the tensors of a file that a run of these settings wrote; raises BadSettings for any other file."""
    try:
        tensors, texts = load_tensors(path, proven=True)
    except ValueError as error:
        raise BadSettings(f"{path} is damaged ({error}); name another folder") from None
    if texts.get(OF_RUN) != settings_digest(settings):
        raise BadSettings(f"{path} is of a run with other settings than the {CONFIG} beside it; name another folder")
    return tensors


@contextmanager
def alone(path: Path, name: str = ".lock") -> Iterator[None]:
    """Make a folder and keep every other process from writing into it; raises Busy where one does.

    A process that lets another one write (a simulation's server app) takes a lock of another name for both.

    The system ends the lock with the process that holds it, however that ends.
    """
    if path.exists() and not path.is_dir():
        raise BadSettings(f"--output {path} is a file; name a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / name)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise Busy(f"--output {path} is being written by another process; wait for it, or name another") from None
    except OSError as error:
        raise BadSettings(f"--output {path} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _is_round(line: object) -> bool:
    return (
        isinstance(line, dict)
        and isinstance(line.get("round"), int)
        and all(isinstance(value, int | float) for key, value in line.items() if key.startswith("seconds"))
        and "seconds" in line
        and bool(named([line]))
        and all(line[name] is None or isinstance(line[name], int | float) for name in named([line]))
        and isinstance(line.get("dropped", []), list)
    )


def _digest(content: Any) -> str:
    """Return the SHA-256 of what can be written as JSON, whatever its order."""
    as_read = json.loads(_json(content))  # whose keys are all texts, and sorted as such
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _json(content: Any, indent: int | None = None) -> str:
    """Return strict JSON, in which a number that is not finite (the loss of a diverged model) is null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [_finite(value) for value in content]
    return content


def _kept(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in settings.model_dump().items() if name != "origin"}
