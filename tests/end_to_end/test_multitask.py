"""Multitask learning from the command line: its numbers, its files, its attacks and defenses, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from thornbed.tasks.mocha.objective import Coupling, primal, unrelated
from thornbed.tasks.mocha.solving import solve

FLAGS = ("run", "--task", "digit_nodes(split=0)", "--strategy", "mocha(lambda1=0.01, lambda2=0.01)")
AT2FL = "at2fl(mode='direct', iterations=10, balls=1)"


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def model(folder):
    with np.load(folder / "model.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored}


def test_it_learns_to_a_small_gap_and_leaves_the_models_of_all_nodes(thornbed, tmp_path):
    from thornbed.tasks.multitask.digit_nodes import digit_nodes

    folder = tmp_path / "run"
    said = thornbed(*FLAGS, "--rounds", "60", "--output", folder)
    assert said.code == 0, said.err
    metrics, found, task = summary(folder)["metrics"], model(folder), digit_nodes(None, split=0)
    assert 0 <= metrics["duality_gap"] <= 1e-3 * metrics["primal_objective"]
    assert metrics["dual_objective"] == pytest.approx(metrics["primal_objective"] - metrics["duality_gap"], rel=1e-12)
    assert metrics["error"] < 0.06
    assert found["W"].shape == (len(task.features), 10)
    assert found["nodes"].tolist() == list(task.names)
    np.testing.assert_allclose(found["Omega"], unrelated(10))
    coupling = Coupling(found["Omega"], 0.01, 0.01)
    best = solve(task.train, coupling, "hinge", torch.Generator(), gap=1e-6)
    assert primal(task.train, found["W"], coupling, "hinge") == pytest.approx(best.primal, rel=2e-3)
    assert (folder / "relations.png").exists()
    assert (folder / "curves.png").exists()
    assert "duality gap" in said.out


def test_an_attack_hurts_its_targets_more_than_its_control_and_a_resumed_run_knows_it(thornbed, tmp_path):
    errors = {}
    for name, attack in (("found", AT2FL), ("twin", AT2FL[:-1] + ", twin=True)"), ("none", "random_direct(ratio=0.0)")):
        folder = tmp_path / name
        said = thornbed(*FLAGS, "--attack", attack, "--num-malicious", "4", "--rounds", "20", "--output", folder)
        assert said.code == 0, said.err
        errors[name] = summary(folder)["metrics"]["target_error"]
        config = json.loads((folder / "config.json").read_text())
        assert len(config["targets"]) == 4
        assert config["sources"] == summary(folder)["malicious"] == ([] if name == "none" else config["targets"])
    assert errors["found"] > errors["twin"] + 0.02
    assert errors["twin"] >= errors["none"] - 0.02
    again = thornbed("run", "--resume", "--output", tmp_path / "found", "--rounds", "80")
    assert again.code == 0, again.err
    told = lines(tmp_path / "found")
    assert [line["round"] for line in told] == list(range(81))
    whole = tmp_path / "whole"
    said = thornbed(*FLAGS, "--attack", AT2FL, "--num-malicious", "4", "--rounds", "80", "--output", whole)
    assert said.code == 0, said.err
    assert model(whole).keys() == model(tmp_path / "found").keys()
    assert all(np.array_equal(array, model(whole)[name]) for name, array in model(tmp_path / "found").items())
    assert told[80]["duality_gap"] < told[20]["duality_gap"]


def test_flowers_own_engine_finds_the_same(thornbed, tmp_path):
    flags = (*FLAGS, "--attack", AT2FL, "--rounds", "3", "--seed", "1")
    for engine in ("inline", "simulation"):
        said = thornbed(*flags, "--engine", engine, "--output", tmp_path / engine)
        assert said.code == 0, said.err
    one, other = model(tmp_path / "inline"), model(tmp_path / "simulation")
    np.testing.assert_array_equal(one["W"], other["W"])
    assert summary(tmp_path / "inline")["metrics"] == summary(tmp_path / "simulation")["metrics"]


def test_a_run_that_is_far_from_its_optimum_says_so(thornbed, tmp_path):
    near = thornbed(*FLAGS, "--rounds", "40", "--output", tmp_path / "near")
    far = thornbed(
        *FLAGS, "--strategy", "mocha(lambda1=1.0, safety=0.01)", "--rounds", "3", "--output", tmp_path / "far"
    )
    assert "Beware" not in near.out
    assert "Beware: the objective may be " in far.out


@pytest.mark.parametrize(
    "defense", ["loss_trimming(share=0.1)", "distance_trimming(share=0.1)", "bounded_influence(bound=0.05)"]
)
def test_defenses_run_and_say_what_they_did(thornbed, tmp_path, defense):
    folder = tmp_path / "run"
    said = thornbed(*FLAGS, "--defense", defense, "--rounds", "20", "--output", folder)
    assert said.code == 0, said.err
    told = lines(folder)
    assert told[20]["error"] < 0.1  # unattacked it costs a little, and nothing breaks
    if "trimming" in defense:
        assert told[2]["defense"]["clients_trimmed_share"] == pytest.approx(0.1, abs=0.01)
        assert told[2]["duality_gap"] is None
    else:
        assert told[2]["duality_gap"] > 0
        assert told[2]["defense"]["weakened_share"] > 0
        assert not np.allclose(model(folder)["Omega"], unrelated(10))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--task", "digits"), "--task digits does not go with --strategy mocha, which takes digit_nodes, har, "),
        (("--strategy", "fedavg"), "--task digit_nodes does not go with --strategy fedavg, which takes block_table, "),
        (("--attack", "pixel_trigger"), "--attack pixel_trigger does not go with --strategy mocha, which takes at2fl"),
        (("--defense", "flip"), "--defense flip does not go with --strategy mocha, which takes bounded_influence"),
        (("--model", "cnn"), "--model means nothing with --strategy mocha"),
        (("--curious", "agic"), "--curious means nothing with --strategy mocha"),
        (("--num-clients", "7"), "--num-clients is 7, and --task digit_nodes(split=0) has 10 nodes here"),
        (("--strategy", "mocha(lambda1=-1.0)"), "a coupling needs finite lambda1 and lambda2 >= 0: lambda1 = -1.0"),
        (("--attack", "at2fl(mode='sideways')"), "at2fl takes mode: "),
        (("--attack", "at2fl(step=-1.0)"), "at2fl needs a finite step > 0"),
        (("--attack", "at2fl + random_direct"), "--attack takes one attack of multitask learning, not 2 joined by +"),
        (
            ("--attack", "at2fl(mode='indirect')", "--num-malicious", "9"),
            "at2fl needs as many nodes beside the targets",
        ),
        (("--defense", "loss_trimming(share=1.0)"), "loss_trimming needs 0 <= share < 1: share = 1.0"),
        (("--task", "landmine"), "landmine needs its data"),
        (("--attack", "at2fl", "--num-malicious", "0"), "--num-malicious 0 leaves the attack without a target"),
        (("--attack", "at2fl", "--malicious-ids", "1,1"), "--malicious-ids takes every client number once"),
        (("--local-epochs", "0.001"), "--local-epochs 0.001 is less than a point of any node"),
        (
            ("--defense", "rank_relations"),
            "rank_relations looks at the nodes' weights, so it needs a relation matrix",
        ),
        (("--task", "digit_nodes(groups=('01', '1'))"), "digit_nodes needs each digit in one of two groups or more"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_code_2(thornbed, tmp_path, flags, sentence):
    said = thornbed(*FLAGS, "--output", tmp_path / "run", *flags)
    assert said.code == 2
    assert sentence in said.sentence
    assert "Traceback" not in said.err
    assert len(said.err.strip().splitlines()) == 1
