"""The command's first steps, before all that is slow to import: UTF-8 everywhere, and a Ctrl-C that ends quietly."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from thornbed.experiments.interrupts import leave_at_once


def main() -> NoReturn:
    """Run the command line; see `thornbed.experiments.cli.main`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave_at_once)
    _speak_utf8()
    from thornbed.experiments.cli import main as command

    command()


def _speak_utf8() -> None:
    """Begin anew in UTF-8 mode where the locale is ASCII: it has no letter for é in a path, a record or a table."""
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
