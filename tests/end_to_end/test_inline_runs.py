"""Whole runs on digits, in this process: records, reproducibility, resuming, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from flwr.app import ConfigRecord
from safetensors.torch import load_file

from tests.conftest import read_lines, started
from thornbed.flower_apps.records.folder import Folder

SMALL = ["--task", "digits", "--model", "mlp(hidden=(16,))", "--num-clients", "6", "--partition", "iid"]
TIMES = ("seconds", "seconds_training", "seconds_aggregation", "seconds_evaluation")


def without_times(lines):
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def test_a_run_leaves_its_records(thornbed, tmp_path):
    attack = "pixel_trigger(size=2)"
    typed = thornbed(
        "run", *SMALL, "--strategy", "invariant", "--attack", attack, "--rounds", 2, "--output", tmp_path / "run"
    )
    assert typed.code == 0, typed.err
    assert "Records:" in typed.out
    folder = tmp_path / "run"
    config, summary = (json.loads((folder / name).read_text()) for name in ("config.json", "summary.json"))
    assert config["settings"] == summary["settings"]
    assert config["settings"]["learning_rate"] > 0
    # Every machine chooses its own device, every engine how long it waits, as many attackers are in a round as are
    # drawn, and no server is curious.
    left = {key for key, value in config["settings"].items() if value == "auto"}
    assert left == {"device", "malicious_per_round", "curious_clients", "curious_every", "node_timeout"}
    assert config["versions"]["flwr"] == "1.41.0"
    assert config["command"].startswith("thornbed run --model 'mlp(hidden=(16,))'")
    assert set(summary["metrics"]) == {"accuracy", "loss", "attack_success_rate"}
    assert summary["malicious"] == [5]
    lines = read_lines(folder)
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert lines[-1]["accuracy"] == summary["metrics"]["accuracy"]
    assert all(0 <= line[name] <= 1 for line in lines for name in ("accuracy", "attack_success_rate"))
    assert lines[1]["sampled"] == [0, 1, 2, 3, 4, 5]
    assert lines[1]["sampled_malicious"] == [5]
    assert lines[1]["dropped"] == []
    assert 0 < lines[1]["defense"]["masked_share"] < 1  # regression 5: the defense acted
    assert lines[1]["seconds_training"] > 0
    assert load_file(folder / "model.safetensors").keys() == load_file(folder / "checkpoint.safetensors").keys()
    assert (folder / "curves.png").stat().st_size > 1000
    assert (folder / "trigger.png").stat().st_size > 1000


def test_one_seed_gives_one_result_to_the_byte(thornbed, tmp_path):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        typed = thornbed("run", *SMALL, "--seed", seed, "--rounds", 2, "--clients-per-round", 3, "--attack", "gaussian",
                         "--output", tmp_path / name)  # fmt: skip
        assert typed.code == 0, typed.err
    one, again, other = (tmp_path / name for name in ("one", "again", "other"))
    assert (one / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert without_times(read_lines(one)) == without_times(read_lines(again))
    assert [line.get("sampled") for line in read_lines(one)] != [line.get("sampled") for line in read_lines(other)]
    assert (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_a_killed_run_goes_on_to_the_same_bytes(thornbed, tmp_path):
    rounds = 12
    arguments = [*SMALL, "--rounds", rounds, "--strategy", "median", "--attack", "sign_flip", "--clients-per-round", 4]
    assert thornbed("run", *arguments, "--output", tmp_path / "whole").code == 0
    killed = tmp_path / "killed"
    command = ["-m", "thornbed.experiments.cli", "run", *arguments, "--output", killed]
    process = started(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (killed.is_dir() and (Folder(killed).rounds_done() or 0) >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (killed / "summary.json").exists()
    typed = thornbed("run", "--resume", "--output", killed)
    assert typed.code == 0, typed.err
    assert (killed / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert without_times(read_lines(killed)) == without_times(read_lines(tmp_path / "whole"))


def test_a_line_without_its_checkpoint_is_made_again(thornbed, tmp_path):
    """What a kill between the two writes leaves: the line of round 2 is there, its checkpoint is not."""
    assert thornbed("run", *SMALL, "--rounds", 3, "--output", tmp_path / "whole").code == 0
    assert thornbed("run", *SMALL, "--rounds", 1, "--output", tmp_path / "cut").code == 0
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "cut" / "metrics.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    typed = thornbed("run", "--resume", "--rounds", 3, "--output", tmp_path / "cut")
    assert typed.code == 0, typed.err
    assert without_times(read_lines(tmp_path / "cut")) == without_times(read_lines(tmp_path / "whole"))
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda sign: sign.name)
def test_what_was_done_is_kept_and_how_to_go_on_is_said(tmp_path, sign):
    output = tmp_path / "run"
    command = ["-m", "thornbed.experiments.cli", "run", *SMALL, "--rounds", 500, "--output", output]
    process = started(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (output.is_dir() and (Folder(output).rounds_done() or 0) >= 2):
        time.sleep(0.01)
    process.send_signal(sign)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"go on with: thornbed run --resume --output {output}" in error
    assert "Traceback" not in error
    assert len(read_lines(output)) >= 3


def test_a_finished_run_is_not_overwritten(thornbed, tmp_path):
    output = tmp_path / "run"
    assert thornbed("run", *SMALL, "--rounds", 1, "--output", output).code == 0
    before = (output / "summary.json").read_bytes()
    typed = thornbed("run", *SMALL, "--rounds", 1, "--output", output)
    assert typed.code == 2
    assert "holds a run already; add --resume" in typed.sentence
    typed = thornbed("run", "--resume", "--seed", 9, "--output", output)
    assert typed.code == 2
    assert "--seed is 9 and was 0" in typed.sentence
    assert thornbed("run", "--resume", "--output", output).code == 0
    assert (output / "summary.json").read_bytes() == before


@pytest.mark.parametrize("name", ["config.json", "checkpoint.safetensors", "metrics.jsonl"])
def test_damaged_records_are_named(thornbed, tmp_path, name):
    output = tmp_path / "run"
    assert thornbed("run", *SMALL, "--rounds", 2, "--output", output).code == 0
    (output / name).write_bytes(b"{\x00junk\n" * 3)
    typed = thornbed("run", "--resume", "--rounds", 3, "--output", output)
    assert typed.code == 2
    assert name in typed.sentence
    assert "damaged" in typed.sentence


def test_one_broken_client_stops_nobody(thornbed, tmp_path):
    """A client that sends infinities: dropped in every round, alone, with its reason in the records."""
    typed = thornbed(
        "run",
        *SMALL,
        "--rounds",
        2,
        "--attack",
        "scaling(factor=1e39)",
        "--num-malicious",
        1,
        "--output",
        tmp_path / "r",
    )
    assert typed.code == 0, typed.err
    assert "2 replies were dropped" in typed.out
    assert read_lines(tmp_path / "r")[1]["dropped"] == [{"client": 5, "reason": "values that are not finite"}]


def test_too_few_replies_stop_the_run_and_keep_the_checkpoint(thornbed, tmp_path):
    typed = thornbed(
        "run",
        *SMALL,
        "--rounds",
        2,
        "--attack",
        "scaling(factor=1e39)",
        "--num-malicious",
        4,
        "--output",
        tmp_path / "r",
    )
    assert typed.code == 1
    assert "round 1 has 2 usable replies and needs 3 (values that are not finite)" in typed.sentence
    assert Folder(tmp_path / "r").rounds_done() == 0


def test_a_model_that_diverged_is_recorded_as_it_is(thornbed, tmp_path):
    """Its loss is no number: null in strict JSON, a gap in the curve, words in the table."""
    typed = thornbed("run", *SMALL, "--rounds", 3, "--attack", "scaling(factor=1e37)", "--output", tmp_path / "r")
    assert typed.code in (0, 1), typed.err
    assert "Traceback" not in typed.err
    text = (tmp_path / "r" / "metrics.jsonl").read_text()
    for line in text.splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert any(line["loss"] is None for line in read_lines(tmp_path / "r"))


def test_fewer_rounds_than_are_done_are_refused(thornbed, tmp_path):
    assert thornbed("run", *SMALL, "--rounds", 2, "--output", tmp_path / "r").code == 0
    typed = thornbed("run", "--resume", "--rounds", 1, "--output", tmp_path / "r")
    assert typed.code == 2
    assert "--rounds 1 is fewer than the 2 that are done" in typed.sentence


def test_poisoned_data_stay_the_same_all_run_long(monkeypatch):
    """What a malicious client trains on is drawn once for it, not anew in every round."""
    from thornbed.flower_apps import client_app
    from thornbed.flower_apps.engines.inline import InlineGrid
    from thornbed.flower_apps.resolving import resolve
    from thornbed.flower_apps.schemes.horizontal import local_work
    from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
    from thornbed.flower_apps.settings import settings_from
    from thornbed.protocol.messages import train_message
    from thornbed.protocol.vector import to_arrays

    settings = resolve(settings_from({"num-clients": 4, "attack": "pixel_trigger(fraction=0.5)", "num-malicious": 2}))
    seen, threads = [], []

    def train(network, samples, **rest):
        seen.append((samples.x.clone(), samples.y.clone()))
        threads.append(torch.get_num_threads())
        return 0.0

    monkeypatch.setattr(local_work, "train", train)
    run = HorizontalRun(settings)
    grid = InlineGrid(client_app.app, 4, settings.to_run_config())
    arrays = to_arrays(run.new_model().state_dict())
    for server_round, node in ((1, 4), (2, 4), (1, 5), (1, 2)):
        [reply] = grid.send_and_receive([train_message(arrays, ConfigRecord(), server_round, node)])
        assert reply.has_content(), reply.error
    one, again, other, honest = seen
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    clean = [run.client_samples(client) for client in (2, 3, 0)]
    chosen = [(samples[1] != own.y).nonzero().flatten().tolist() for samples, own in zip((one, other, honest), clean)]
    assert chosen[0] != chosen[1]
    assert chosen[2] == []  # client 0 is honest
    assert set(threads) == {1}  # a client's work runs on one thread, here and in Flower's engines


def test_the_last_part_that_touches_data_measures_the_attack(thornbed, tmp_path):
    """Trigger, then flipped labels: what the attack ends in is measured, whichever is written last."""
    rates = {}
    for attack in ("label_flip + pixel_trigger(target=3)", "pixel_trigger(target=3) + label_flip", "label_flip"):
        output = tmp_path / attack
        words = ["--attack", attack, "--num-malicious", 0, "--rounds", 1, "--output", output]
        assert thornbed("run", *SMALL, *words).code == 0
        rates[attack] = [line["attack_success_rate"] for line in read_lines(output)]
    first, second, alone = rates.values()
    assert first != second
    assert second == alone


def test_what_a_defense_on_the_clients_did_is_recorded(thornbed, tmp_path):
    words = ["--defense", "local_dp(clip_norm=0.01)", "--attack", "sign_flip", "--rounds", 1]
    assert thornbed("run", *SMALL, *words, "--output", tmp_path / "r").code == 0
    line = read_lines(tmp_path / "r")[1]
    assert line["defense"]["clients_clipped_share"] == 1.0
    assert 0 < line["defense"]["clients_noise_share"] < 1
    assert line["defense_acted"] is True
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["defense_acted"] == 1


def test_a_defense_that_changes_nothing_is_told(thornbed, tmp_path):
    typed = thornbed("run", *SMALL, "--strategy", "trimmed_mean(alpha=0.0)", "--rounds", 1, "--output", tmp_path / "r")
    assert typed.code == 0, typed.err
    assert "Beware: trimmed_mean(alpha=0.0) changed nothing in any round" in " ".join(typed.out.split())
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["defense_acted"] == 0
    words = ["--defense", "local_dp(clip_norm=1000.0, noise_multiplier=0.0)", "--rounds", 1]
    typed = thornbed("run", *SMALL, *words, "--output", tmp_path / "client")
    assert "Beware: fedavg and local_dp(clip_norm=1000.0, noise_multiplier=0.0) changed nothing" in " ".join(
        typed.out.split()
    )
    assert thornbed("run", *SMALL, "--rounds", 1, "--output", tmp_path / "mean").code == 0
    assert json.loads((tmp_path / "mean" / "summary.json").read_text())["defense_acted"] is None


def test_what_a_defense_was_told_is_recorded(thornbed, tmp_path):
    for spec, told in (("krum(num_byzantine=1)", {"num_byzantine": 1}), ("krum", {})):
        output = tmp_path / spec
        assert thornbed("run", *SMALL, "--rounds", 1, "--strategy", spec, "--output", output).code == 0
        assert json.loads((output / "summary.json").read_text())["defense_was_told"] == told


def test_a_backdoor_works_on_the_mean_and_not_on_a_robust_rule(thornbed, tmp_path):
    """The point of it all: without a defense the trigger works, and the median keeps most of it out."""
    base = ["--task", "digits", "--num-clients", 10, "--partition", "iid", "--rounds", 15, "--model", "mlp",
            "--attack", "pixel_trigger(fraction=0.5) + scaling(factor=3.0)", "--num-malicious", 2]  # fmt: skip
    rates = {}
    for rule in ("fedavg", "median"):
        assert thornbed("run", *base, "--strategy", rule, "--output", tmp_path / rule).code == 0
        rates[rule] = json.loads((tmp_path / rule / "summary.json").read_text())["metrics"]
    assert rates["fedavg"]["attack_success_rate"] > 0.8
    assert rates["median"]["attack_success_rate"] < 0.4
    assert min(rate["accuracy"] for rate in rates.values()) > 0.75


def test_the_command_line_starts_without_torch():
    """Help and listings of a tool that takes seconds to start are not read."""
    code = "import sys, thornbed.experiments.cli; sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ}).returncode == 0


@pytest.mark.parametrize("flags", [SMALL, ("--task", "digit_nodes", "--strategy", "mocha")], ids=["fedavg", "mocha"])
def test_a_run_of_an_earlier_version_is_shown_and_reported_and_not_gone_on_with(thornbed, tmp_path, flags):
    """A folder of 0.1.0: no format in its config.json, and nothing that its clients kept."""
    output = tmp_path / "run"
    assert thornbed("run", *flags, "--rounds", 2, "--output", output).code == 0
    shutil.rmtree(output / "clients", ignore_errors=True)
    config = json.loads((output / "config.json").read_text())
    del config["format"], config["sha256"]
    config["versions"]["thornbed"] = "0.1.0"
    (output / "config.json").write_text(json.dumps(config))
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    said = thornbed("run", "--resume", "--rounds", 3, "--output", output)
    assert said.code == 2
    assert "is of thornbed 0.1.0, whose runs can be shown and reported and not gone on with" in said.sentence
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before
    for words in (("show", output), ("report", output), ("run", "--resume", "--output", output)):
        said = thornbed(*words)
        assert said.code == 0, said.err
