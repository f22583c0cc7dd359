"""Ctrl-C before the first round is one word and code 130, wherever it comes in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, signal, sys

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and self in sys.meta_path:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{sign})

sys.meta_path.insert(0, Press())
sys.argv = ["thornbed", *{words!r}]
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where this test runs with the signal ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from thornbed.experiments.start import main
main()
"""


def _pressed(module: str, *words: object, sign: str = "SIGINT", cwd: Path) -> subprocess.CompletedProcess[str]:
    code = CODE.format(module=module, words=list(map(str, words)), sign=sign)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, timeout=300)


RUN = ("run", "--rounds", "1", "--num-clients", "2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("typer", RUN),  # before the command line is there
        ("pydantic", RUN),
        ("numpy", RUN),  # an interrupt in its import comes out as an ImportError
        ("torch", RUN),
        ("flwr.app", RUN),
        ("sklearn.datasets", RUN),  # while data are loaded
        ("rich.progress", ("tour",)),
        ("torch", ("list",)),
        ("torch", ("reproduce", "mocha")),
    ],
)
def test_an_interrupt_before_the_first_round_is_one_word(module: str, words: tuple[str, ...], tmp_path: Path):
    done = _pressed(module, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("interrupted"), "Traceback" in done.stderr) == (130, 1, False), (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize("sign", ["SIGTERM", "SIGHUP"])
def test_so_is_a_signal_that_ends_a_terminal(sign: str, tmp_path: Path):
    done = _pressed("numpy", *RUN, sign=sign, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, "thornbed: interrupted\n")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_so(sign: signal.Signals):
    code = f"""
import os, signal
signal.signal({int(sign)}, signal.SIG_IGN)
from thornbed.experiments.interrupts import Interrupts
interrupts = Interrupts()
interrupts.listen()
os.kill(os.getpid(), {int(sign)})
print(interrupts.seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("False\n", 0)


def test_an_interrupt_that_nothing_catches_is_raised_once_more():
    code = """
import os, signal, time
from thornbed.experiments.interrupts import Interrupts

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts = Interrupts()
interrupts.listen()
try:
    thing = Finalised()
    del thing
    time.sleep(60)
except KeyboardInterrupt:
    print("caught", interrupts.seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("caught True\n", "")


def test_an_ascii_locale_speaks_utf8(tmp_path: Path):
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "thornbed.experiments.start", "show", "dürr　é"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=os.environ | ascii_locale, timeout=300)
    assert done.returncode == 2
    assert "dürr　é" in done.stderr.decode()
