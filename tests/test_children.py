"""Children of tests: they hear signals however the tests were started."""

import signal
import subprocess

import pytest

from tests.conftest import started

SAY = "import signal; print([signal.getsignal(s) is signal.SIG_IGN for s in (signal.SIGINT, signal.SIGHUP)])"


@pytest.fixture
def _background():
    """Ignore what a process under nohup and behind an & ignores."""
    before = {sign: signal.signal(sign, signal.SIG_IGN) for sign in (signal.SIGINT, signal.SIGHUP)}
    yield
    for sign, handler in before.items():
        signal.signal(sign, handler)


@pytest.mark.usefixtures("_background")
def test_a_child_hears_what_its_parent_ignores():
    child = started("-c", SAY, stdout=subprocess.PIPE, text=True)
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    assert said.strip() == "[False, False]"
