"""What is said of a process that died while it trained: whom it was training, and how to go on.

A crash of native code, or the kernel when memory runs out, ends a process before it can say a word. So it notes whose
turn it is in a file of the run's folder, which outlives it, and this file, started as a script, waits at a pipe that
the kernel closes for a dead process, and speaks in its place.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NOTE = ".training"
LENGTH = 80  # bytes, so that every note covers the one before


def about(client: int, action: str, group: str) -> str:
    """Return what a client does with a message, as a note: `while it trained client 3 in round 2`."""
    doing = "trained" if action.startswith("train") else f"answered {action} as"
    server_round = group.partition(".")[0]
    return f"while it {doing} client {client}" + (f" in round {server_round}" if server_round.isdigit() else "")


class Note:
    """The note in a run's folder: what its process does at the moment."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / NOTE
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

    def write(self, text: str) -> None:
        """Put a text in place of the one before; the system keeps it when the process dies."""
        with suppress(OSError):  # a full disk stops a run where the run writes its records, and says so there
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, text.encode()[:LENGTH].ljust(LENGTH))

    def end(self) -> None:
        """Take the note away: its process did not die."""
        os.close(self._file)
        self._path.unlink(missing_ok=True)


def read_note(folder: Path) -> str:
    """Return the note that a dead process left in a run's folder; empty where there is none."""
    try:
        return (folder / NOTE).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


@contextmanager
def spoken_of(folder: Path, advice: str) -> Iterator[None]:
    """Have a process stand by while the block runs, and say on stderr what this one was doing if it dies there.

    advice : what follows then, after a colon.
    """
    # In a session of its own, so that neither Ctrl-C nor the end of the terminal is for it.
    standby = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(folder), advice], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    assert standby.stdin is not None
    try:
        yield
    finally:
        with suppress(OSError):
            standby.stdin.write(b".")
            standby.stdin.close()
        standby.wait()


def _main(folder: Path, advice: str) -> None:
    if os.read(0, 1):  # it lives
        return
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # the cursor, which its progress bar had hidden
    doing = read_note(folder) or "before it trained a client"
    print(f"thornbed: the process of the run in {folder} died {doing}: {advice}", file=sys.stderr)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
