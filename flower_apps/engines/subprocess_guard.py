"""Programs that end with whoever started them: when it returns, is interrupted, or is killed with -9.

Flower's SuperLink, its simulation and ray's daemons each leave the session of their parent, so neither a signal to a
process group nor waiting for a child ends them all. `guarded` therefore starts this file as a script between the two:
it runs the program, adopts every orphan among its descendants (on Linux; elsewhere an orphan is out of reach), and ends
the whole family once the program ends or the pipe from the parent closes, which the kernel does for a dead parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

GRACE_SECONDS = 5.0
_PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def guarded(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: IO[str] | int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that ends, with all its descendants, when the block does or this process dies.

    Its exit code is that of the returned process; stderr goes where stdout goes. A Ctrl-C in the terminal does not
    reach it, so that it can be asked to stop first.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).resolve()), *command],
        stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.STDOUT, env=dict(env), cwd=cwd, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(3 * GRACE_SECONDS)


def _main(command: list[str]) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def watch_parent() -> None:
        os.read(0, 1)  # returns when the other end of the pipe is closed; nothing is ever written to it
        over.set()

    def watch_program() -> None:
        program.wait()
        over.set()

    for watch in (watch_parent, watch_program):
        threading.Thread(target=watch, daemon=True).start()
    over.wait()
    code = program.poll()
    _end_descendants()
    return 1 if code is None else code if code >= 0 else 128 - code


def _end_descendants() -> None:
    """Ask every descendant to end, then make it; again, as long as new ones appear (ray starts its workers anew)."""
    for patience in (GRACE_SECONDS, 1.0, 1.0, 1.0):
        family = psutil.Process().children(recursive=True)
        for member in family:
            with suppress(psutil.Error):
                if patience == GRACE_SECONDS:
                    member.terminate()
                else:
                    member.kill()
        psutil.wait_procs(family, timeout=patience)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
