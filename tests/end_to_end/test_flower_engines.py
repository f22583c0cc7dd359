"""Flower's own engines: the same figures as inline, and from `flwr run`."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import assert_equal, read_lines, started
from thornbed.flower_apps.engines.flower_command import environment
from thornbed.flower_apps.engines.simulation import superlink_for_simulation
from thornbed.flower_apps.records.folder import Folder

ROOT = Path(__file__).resolve().parents[2]
RUN = [
    "run", "--task", "digits", "--model", "cnn(width=8)", "--num-clients", "6", "--clients-per-round", "4",
    "--rounds", "3", "--seed", "11", "--strategy", "invariant(tau=0.2)", "--partition", "dirichlet(alpha=1.0)",
    "--attack", "pixel_trigger(size=2) + gaussian(std=0.01)", "--num-malicious", "2",
]  # fmt: skip


def test_simulation_gives_the_figures_of_inline(thornbed, tmp_path):
    curious = ["--curious", "dlg_adam(steps=2, labels='counts', local_steps='one_batch')"]
    for engine in ("inline", "simulation"):
        typed = thornbed(*RUN, *curious, "--engine", engine, "--output", tmp_path / engine)
        assert typed.code == 0, typed.err
    seen = [
        json.loads((tmp_path / e / "summary.json").read_text())["metrics"]["psnr"] for e in ("inline", "simulation")
    ]
    assert seen[0] == pytest.approx(seen[1], abs=1e-3)
    assert seen[0] > 5
    assert_equal(tmp_path / "inline", tmp_path / "simulation")
    assert (tmp_path / "simulation" / "flower.log").exists()
    assert "3/3" in typed.err  # the rounds were shown
    assert json.loads((tmp_path / "simulation" / "config.json").read_text())["argv"][:2] == ["thornbed", "run"]
    revision = [
        json.loads((tmp_path / e / "config.json").read_text())["versions"]["git"] for e in ("inline", "simulation")
    ]
    assert revision[0] == revision[1]


def test_a_simulation_that_stops_says_why(thornbed, tmp_path):
    # All clients send infinities: refused by the server app, in another process, and told here in one sentence.
    attack = ["--attack", "scaling(factor=1e39)", "--num-clients", 3, "--num-malicious", 3, "--partition", "iid"]
    typed = thornbed("run", *attack, "--rounds", 2, "--engine", "simulation", "--output", tmp_path / "run")
    assert typed.code == 1
    assert "round 1 has 0 usable replies and needs 2 (values that are not finite)" in typed.sentence
    assert "Traceback" not in typed.err


def test_flwr_run_does_the_same_with_the_flags_as_keys(thornbed, tmp_path):
    """Flower's own command line, as the README shows it: every flag is a run-config key."""
    flags = {"model": "mlp(hidden=(16,))", "num-clients": 4, "rounds": 2, "strategy": "median", "partition": "iid"}
    words = [word for key, value in flags.items() for word in (f"--{key}", value)]
    assert thornbed("run", *words, "--output", tmp_path / "inline").code == 0
    with superlink_for_simulation() as (home, _):
        keys = {**flags, "output": str(tmp_path / "flwr")}
        command = ["flwr", "run", str(ROOT), "thornbed", "--stream", "--federation-config", "num-supernodes=4"]
        command += ["--run-config", " ".join(f"{key}={json.dumps(value)}" for key, value in keys.items())]
        done = subprocess.run(command, env=environment(home), cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_equal(tmp_path / "inline", tmp_path / "flwr")
    config = json.loads((tmp_path / "flwr" / "config.json").read_text())
    assert config["settings"]["engine"] == "simulation"
    assert len(config["flower_bundle"]) == 64  # which code ran, where no checkout is
    assert config["argv"] is None  # and not Flower's own, which holds a token


def family_of(words):
    """Return the processes whose command line or environment names the words."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and words in " ".join(
                [*process.cmdline(), *process.environ().values()]
            ):
                found.append(process)
    return found


@pytest.mark.parametrize("signs", [[signal.SIGKILL], [signal.SIGINT] * 4], ids=["-9", "^C^C^C"])
def test_a_simulation_that_is_ended_leaves_no_process_and_goes_on(thornbed, tmp_path, signs):
    output = tmp_path / "run"
    words = [*RUN[:-4], "--rounds", "40", "--model", "mlp(hidden=(16,))", "--output", str(output)]
    mark = f"THORNBED_TEST={output}"
    command = ["-m", "thornbed.experiments.cli", *words, "--engine", "simulation"]
    env = {**os.environ, "THORNBED_TEST": mark}
    process = started(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
    while process.poll() is None and not (output.is_dir() and (Folder(output).rounds_done() or 0) >= 2):
        time.sleep(0.05)
    assert len(family_of(mark)) > 5, "SuperLink, server app, simulation, ray"
    for sign in signs:
        process.send_signal(sign)
        time.sleep(0.05)
    _, error = process.communicate(timeout=120)
    assert process.returncode == (-9 if signal.SIGKILL in signs else 130)
    assert "Traceback" not in error
    deadline = time.monotonic() + 60
    while family_of(mark) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not family_of(mark)
    done = Folder(output).rounds_done()
    assert 2 <= done < 40
    # What it left goes on, in another engine even, to the end that an unbroken run has.
    assert thornbed("run", "--resume", "--output", output, "--engine", "inline", "--rounds", done + 2).code == 0
    assert thornbed(*words[:-2], "--rounds", done + 2, "--output", tmp_path / "whole").code == 0
    assert_equal(tmp_path / "whole", output)


def test_two_simulations_do_not_share_a_folder(tmp_path):
    """The second is refused at once, and the first ends as if it were alone."""
    words = [*RUN[:-4], "--model", "mlp(hidden=(16,))", "--engine", "simulation", "--output", str(tmp_path / "run")]
    command = [sys.executable, "-m", "thornbed.experiments.cli", *words]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not (tmp_path / "run" / ".simulation.lock").exists():
        time.sleep(0.05)
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "is being written by another process" in second.stderr
    _, error = first.communicate(timeout=900)
    assert first.returncode == 0, error
    assert len(read_lines(tmp_path / "run")) == 4
