"""Processes that run the cells of a sweep: each imports everything once, keeps data sets loaded, and may die alone.

A worker is told settings and answers with the rounds as they come, then with how the run ended. What breaks a cell, a
refusal, a stopped federation, a bug, the end of the process itself, breaks that cell only. When the sweep is killed its
workers end with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from thornbed.flower_apps.engines import last_words

Kind = Literal["round", "done", "broken"]


@dataclass(frozen=True)
class Report:
    """What a worker says: `round` with a line of metrics.jsonl, `done`, or `broken` with a sentence."""

    kind: Kind
    line: Mapping[str, Any] | None = None
    sentence: str = ""


class Worker:
    """One process, started at once; `connection` is ready to be read whenever it has something to say."""

    def __init__(self, threads: int, log: Path) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, threads, str(log)), daemon=False)
        self._process.start()
        self._busy, self._output = False, log.parent
        theirs.close()

    def start(self, settings: Mapping[str, Any]) -> None:
        """Let it run these settings, resolved and with their output folder."""
        self._busy, self._output = True, Path(settings["output"])
        with suppress(OSError):  # it has died; `hear` tells
            self.connection.send(dict(settings))

    def hear(self) -> Report:
        """Return what it says next; a worker that died says that its cell is broken."""
        try:
            report: Report = self.connection.recv()
            self._busy = report.kind == "round"
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"code {code}"
            doing = last_words.read_note(self._output) or "before it trained a client"
            why = f"its process ended with {how} {doing}; too little memory is a usual cause"
            return Report("broken", sentence=why)
        return report

    @property
    def alive(self) -> bool:
        """Whether it can take another cell."""
        return self._process.is_alive()

    def end(self) -> None:
        """End it, whatever it is doing; what its run has checkpointed stays."""
        self.connection.close()
        if not self._busy:  # it leaves by itself, and tidily
            self._process.join(10)
        self._process.terminate()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(connection: Connection, threads: int, log: str) -> None:
    with suppress(KeyboardInterrupt):
        _run_cells(connection, threads, log)


def _run_cells(connection: Connection, threads: int, log: str) -> None:
    # Warnings of a run are kept in the log; in the terminal they would tear the progress bars.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep, which ends its workers itself
    signal.signal(signal.SIGTERM, _interrupted)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    from thornbed.experiments.runs import launch
    from thornbed.flower_apps.settings import BadSettings, Resolved, RunFailed

    hold_threads(threads)
    while True:
        try:
            settings = Resolved(**connection.recv())
        except (EOFError, OSError):
            return
        try:
            launch.start(launch.prepare(settings), lambda line: connection.send(Report("round", line)))
            report = Report("done")
        except (BadSettings, RunFailed) as error:
            report = Report("broken", sentence=str(error))
        except Exception as error:  # a bug in a plug-in ends its cell, and its place is told
            place = traceback.extract_tb(error.__traceback__)[-1]
            words = " ".join(f"{type(error).__name__}: {error}".split())
            report = Report("broken", sentence=f"{words} ({Path(place.filename).name}, line {place.lineno})")
        connection.send(report)


def hold_threads(threads: int) -> None:
    """Let torch, NumPy and SciPy use so many threads in this process.

    Two workers that each take a thread of BLAS per core need ten times as long to factor a matrix as with one each.
    """
    import scipy.linalg  # noqa: F401  it has a BLAS of its own, which can be held once it is loaded
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt  # so that a simulation ends what it started


def _leave_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)
