"""Ctrl-C, SIGTERM and SIGHUP: each ends a command with one sentence, wherever it comes in."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn


class Interrupts:
    """Turns signals into KeyboardInterrupt, and remembers that one came.

    Attributes
    ----------
    seen : whether a signal came. Within an import a KeyboardInterrupt may come out as an ImportError, and in a callback
        of the garbage collector not at all; so what is raised does not tell.
    """

    def __init__(self) -> None:
        self.seen = False

    def listen(self) -> None:
        """Take the signals, but not those that are ignored: nohup has SIGHUP ignored, a script's & has SIGINT."""
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(sign) in (signal.SIG_DFL, signal.default_int_handler, leave_at_once):
                signal.signal(sign, self._interrupt)
        sys.unraisablehook = self._again

    def _interrupt(self, number: int, frame: FrameType | None) -> NoReturn:
        self.seen = True
        raise KeyboardInterrupt

    def _again(self, lost: Any) -> None:
        """Raise an interrupt once more that was raised where nothing catches, such as in a finaliser."""
        if lost.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(lost)
            return
        signal.signal(signal.SIGALRM, self._interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)


def leave_at_once(*_: object) -> NoReturn:
    """End the process, while nothing is begun that could be lost."""
    os.write(2, b"thornbed: interrupted\n")
    os._exit(130)
