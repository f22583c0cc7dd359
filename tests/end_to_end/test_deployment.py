"""Flower on machines of its own: SuperNodes on loopback give the figures of inline, and roles come from the nodes."""

import json
import re
import socket
from contextlib import ExitStack, contextmanager

import pytest
from flwr.cli.utils import SUPERLINK_UNAVAILABLE_MESSAGE

from tests.conftest import assert_equal, read_lines
from thornbed.flower_apps.engines.flower_command import environment
from thornbed.flower_apps.engines.simulation import free_port, wait_until_healthy
from thornbed.flower_apps.engines.subprocess_guard import guarded
from thornbed.flower_apps.settings import RunFailed


@contextmanager
def deployed(tmp_path, *roles):
    """A SuperLink, and a SuperNode for each of what they say of their roles, on loopback, as the documentation says.

    They run in a folder of their own, `there`, as if on another machine.
    """
    port = free_port()
    there = tmp_path / "there"
    env, log = environment(tmp_path / "home"), tmp_path / "superlink.log"
    (tmp_path / "home").mkdir()
    there.mkdir()
    with ExitStack() as stack:
        start = lambda *words: stack.enter_context(guarded(words, env=env, cwd=there))  # noqa: E731
        server = start("flower-superlink", "--insecure", "--port", str(port), "--log-file", str(log))
        wait_until_healthy(server, port, log)
        for client, role in enumerate(roles):
            node = f"partition-id={client} num-partitions={len(roles)} {role}".strip()
            words = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--node-config", node]
            start(*words, "--port", str(free_port()))
        yield f"127.0.0.1:{port}"


@pytest.fixture
def superlink(tmp_path):
    """One with two SuperNodes, of which the last is malicious: every message to one starts Python and torch anew."""
    with deployed(tmp_path, "", 'role="malicious"') as address:
        yield address


@pytest.mark.slow
def test_parties_on_separate_processes_learn_conspire_and_answer_queries_as_inline(thornbed, tmp_path):
    """A message costs seconds, so a round is three large steps: they think in the first and agree by the third."""
    attack = "cooperative_backdoor(size=(3, 3), num_known=120, epochs=40, steps=10, confidence=0.1, budget=0.05)"
    words = ["run", "--task", "digits(num_train=300)", "--strategy", "split_nn(embedding_size=8, hidden=16)",
             "--model", "patch_cnn(width=4)", "--num-clients", "3", "--partition", "grid(rows=1)",
             "--batch-size", "100", "--rounds", "1", "--attack", attack]  # fmt: skip
    typed = thornbed(*words, "--num-malicious", 2, "--output", tmp_path / "inline")
    assert typed.code == 0, typed.err
    queries = ["run", *words[1:3], "--strategy", "collaborative_inference(embedding_size=8, bottleneck=3)",
               *words[5:11], "--attack", "feature_flip(amplification=2)", "--defense", "copur"]  # fmt: skip
    start = tmp_path / "inline" / "model.safetensors"
    typed = thornbed(*queries, "--malicious-ids", "1,2", "--start-from", start, "--output", tmp_path / "asked")
    assert typed.code == 0, typed.err
    kept = f'state="{tmp_path / "state"}"'
    malicious = f'{kept} role="malicious" accomplices="1,2" channel="{tmp_path / "channel"}"'
    with deployed(tmp_path, kept, malicious, malicious) as address:
        typed = thornbed(*words, "--engine", "deployment", "--superlink", address, "--output", "split")
        assert typed.code == 0, typed.err
        queried = thornbed(*queries, "--engine", "deployment", "--superlink", address, "--output", "queries")
    assert queried.code == 0, queried.err
    [_, here], [_, there] = read_lines(tmp_path / "inline"), read_lines(tmp_path / "there" / "split")
    assert (there["sampled"], there["dropped"]) == ([0, 1, 2], [])
    for name in ("train_loss", "clean_data_accuracy", "attack_success_rate", "replaced_rate", "gradient_perturbation"):
        assert there[name] == pytest.approx(here[name], abs=1e-6), name
    assert there["gradient_perturbation"] > 0  # so they had agreed, and poisoned
    assert json.loads((tmp_path / "there" / "split" / "summary.json").read_text())["malicious"] == [1, 2]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [
        f"client-{client}-round-1.safetensors" for client in range(3)
    ]
    # What they learned there they answer queries with, and who is malicious lies in the attacked round.
    *_, here = read_lines(tmp_path / "asked")
    *_, there = read_lines(tmp_path / "there" / "queries")
    assert there["sampled_malicious"] == [1, 2]
    for name in ("clean_accuracy", "robust_accuracy", "explained_variance"):
        assert there[name] == pytest.approx(here[name], abs=0.005), name
    assert there["robust_accuracy"] < there["clean_accuracy"]


def test_deployment_gives_the_figures_of_inline(thornbed, tmp_path, monkeypatch, superlink):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = ["run", "--task", "digits", "--model", "mlp(hidden=(16,))", "--num-clients", "2", "--rounds", "1",
             "--attack", "pixel_trigger(size=2)", "--partition", "iid"]  # fmt: skip
    assert thornbed(*words, "--num-malicious", 1, "--output", tmp_path / "inline").code == 0
    deployed = [*words, "--engine", "deployment", "--superlink", superlink, "--output", "records/first"]
    typed = thornbed(*deployed)
    assert typed.code == 0, typed.err
    records = tmp_path / "there" / "records" / "first"  # beside the SuperLink, not here
    assert_equal(tmp_path / "inline", records)
    summary = json.loads((records / "summary.json").read_text())
    # Who was malicious came from the node, not from the run's settings.
    assert summary["malicious"] == [1]
    # What was computed there is shown here.
    assert "1/1" in typed.err
    assert f"{summary['metrics']['accuracy']:.3f}" in typed.out
    assert "1 of 2" in typed.out
    assert f"records/first (on the machine of the SuperLink {superlink})" in typed.out
    [kept] = (tmp_path / "here").rglob("*.*")  # of the records nothing is here
    assert re.fullmatch(r"first-[-0-9]+\.flower\.log", kept.name)
    config = json.loads((records / "config.json").read_text())
    assert config["argv"] == ["thornbed", *deployed]  # not Flower's own command line, which holds its token
    assert config["versions"]["git"]

    typed = thornbed(*deployed)
    assert typed.code == 1
    assert "holds a run already; add --resume" in typed.sentence
    typed = thornbed(*deployed, "--resume", "--rounds", 2)
    assert typed.code == 0, typed.err
    assert [line["round"] for line in read_lines(records)] == [0, 1, 2]


def test_a_superlink_that_is_not_there_is_named(thornbed, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    typed = thornbed(
        "run", "--task", "digits", "--engine", "deployment", "--superlink", address, "--output", tmp_path / "r"
    )
    assert typed.code == 1
    assert address in typed.sentence
    assert "Traceback" not in typed.err


@pytest.mark.parametrize(
    ("named", "hint"),
    [((), "name theirs: --root-certificates"), (("--root-certificates", "ca.crt"), "none that")],
)
def test_certificates_that_do_not_fit_are_thought_of(thornbed, tmp_path, monkeypatch, named, hint):
    def unreachable(*given, **named):
        raise RunFailed(f"flwr run ended with code 1: {SUPERLINK_UNAVAILABLE_MESSAGE} (it.log)")

    monkeypatch.setattr("thornbed.flower_apps.engines.deployment.flwr_run", unreachable)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.crt").touch()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        typed = thornbed("run", "--engine", "deployment", "--superlink", address, "--output", "r", *named)
    assert typed.code == 1
    assert f"something listens at {address}: " in typed.sentence
    assert hint in typed.sentence


def test_a_deployment_from_a_folder_that_cannot_be_written_is_refused(thornbed, tmp_path, monkeypatch):
    (tmp_path / "runs").touch()  # a file where the folder of the log would be
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        typed = thornbed("run", "--task", "digits", "--engine", "deployment", "--superlink", address, "--output", "r")
    assert typed.code == 2
    assert f"Flower's log cannot be kept in {tmp_path / 'runs'}" in typed.sentence
    assert "Traceback" not in typed.err
