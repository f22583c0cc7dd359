"""Which tests a plain run has: all but those that are marked nightly."""

import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parent / "tasks" / "test_channels_last.py"


def collected(*flags):
    command = [sys.executable, "-m", "pytest", str(FILE), "--collect-only", *flags]
    done = subprocess.run(command, cwd=FILE.parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line}


def test_nightly_tests_are_left_out_unless_they_are_asked_for():
    plain, all_of_them = collected(), collected("--nightly")
    assert plain < all_of_them
    assert {name.partition("[")[0] for name in all_of_them - plain} == {
        "test_a_step_of_every_width_and_every_size_ends"
    }
