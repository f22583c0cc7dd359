"""Programs end with whoever started them, and so does everything that they started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from thornbed.flower_apps.engines.subprocess_guard import guarded

# Starts a child in a session of its own, says its number, and leaves: the child is an orphan.
ORPHAN = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True)
print(child.pid, flush=True)
time.sleep({seconds})
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def command(child, seconds):
    return [sys.executable, "-c", ORPHAN.format(child=child, seconds=seconds)]


def number(log):
    return int(until(lambda: log.read_text().split() if log.exists() else [])[0])


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
    return found


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # also one that goes while it is asked
        return True


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt its orphans")


@linux
@pytest.mark.parametrize("child", ["import time; time.sleep(600)", STUBBORN], ids=["willing", "stubborn"])
def test_an_orphan_in_a_session_of_its_own_ends_with_the_block(tmp_path, child):
    log = tmp_path / "log"
    with log.open("w") as stream, guarded(command(child, 0), env=os.environ, cwd=tmp_path, stdout=stream) as process:
        orphan = number(log)
        assert process.wait(120) == 0  # the program ended by itself; its orphan is ended after it
        until(lambda: gone(orphan))


@linux
def test_everything_ends_when_the_one_who_started_it_is_killed(tmp_path):
    code = (
        "import os, sys, pathlib, time; from thornbed.flower_apps.engines.subprocess_guard import guarded\n"
        f"log = open({str(tmp_path / 'log')!r}, 'w')\n"
        f"with guarded({command('import time; time.sleep(600)', 600)!r}, env=os.environ, "
        f"cwd=pathlib.Path({str(tmp_path)!r}), stdout=log): time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    orphan = number(tmp_path / "log")
    family = [orphan, *(member.pid for member in psutil.Process(parent.pid).children(recursive=True))]
    assert len(set(family)) >= 3
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: all(gone(pid) for pid in family))


@pytest.mark.parametrize(("end", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_that_of_the_program(tmp_path, end, code):
    words = [sys.executable, "-c", f"import os, sys; {end}"]
    with guarded(words, env=os.environ, cwd=tmp_path) as process:
        assert process.wait(120) == code
