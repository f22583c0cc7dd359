"""Collaborative inference from the command line: its numbers, its files, its attacks and defenses, what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

FLAGS = (
    "run", "--task", "digits(num_train=400, num_test=100)", "--strategy",
    "collaborative_inference(embedding_size=8, bottleneck=10)", "--num-clients", "6", "--local-epochs", "12",
    "--learning-rate", "0.005",
)  # fmt: skip
FLIP = ("--attack", "feature_flip(amplification=10)", "--malicious-ids", "5")


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def answers(folder):
    with np.load(folder / "answers.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored}


def test_copur_withstands_a_flip_that_the_unsecured_does_not_and_certify_says_what_it_tolerates(thornbed, tmp_path):
    found = {}
    for defense in ("none", "copur", "oracle"):
        folder = tmp_path / defense
        said = thornbed(*FLAGS, *FLIP, "--defense", defense, "--output", folder)
        assert said.code == 0, said.err
        found[defense] = summary(folder)["metrics"]
        labels = answers(folder)
        right = float((labels["attacked"] == labels["labels"]).mean())
        assert found[defense]["robust_accuracy"] == pytest.approx(right)
    assert found["none"]["clean_accuracy"] > 0.7
    assert found["copur"]["robust_accuracy"] > found["none"]["robust_accuracy"] + 0.2
    assert found["oracle"]["robust_accuracy"] == found["oracle"]["clean_accuracy"]
    assert (tmp_path / "copur" / "moved.png").exists()
    assert not (tmp_path / "none" / "moved.png").exists()
    assert summary(tmp_path / "oracle")["defense_was_told"] == {"honest": True}
    assert summary(tmp_path / "copur")["malicious"] == [5]
    assert [line["clean_accuracy"] is None for line in lines(tmp_path / "copur")] == [True, True, False, False]
    said = thornbed("certify", tmp_path / "copur")
    assert said.code == 0, said.err
    certified = json.loads((tmp_path / "copur" / "certificate.json").read_text())
    assert certified["affine"] is True
    assert [each["silent"] for each in certified["sets"]] == [[], *([agent] for agent in range(6))]
    nobody, *alone = certified["sets"]
    assert nobody["determined"]
    assert all(each["tolerated"] <= nobody["tolerated"] for each in alone)  # whoever is silent helps nobody
    levels = nobody["levels"]
    assert all(0 <= level["low"] <= level["high"] <= 1 for level in levels)
    assert [level["liars"] for level in levels] == list(range(1, len(levels) + 1))
    low = levels[nobody["tolerated"] - 1]["low"] if nobody["tolerated"] else 1.0
    assert low > 0.5 >= levels[nobody["tolerated"]]["low"]
    radius = 2 * certified["deltas"]["delta_95"] / ((2 * low - 1) * nobody["gain"])
    assert nobody["radius_95"] == pytest.approx(radius, rel=1e-6)
    assert "on the manifold" in " ".join(said.out.split())
    assert thornbed("certify", tmp_path / "copur", "--silent", "0,9").sentence.startswith("thornbed: --silent takes")


def test_one_silent_and_one_that_knows_the_model(thornbed, tmp_path):
    attack = "missing(agents=(4,)) + targeted_pgd(agents=(5,), steps=5)"
    said = thornbed(*FLAGS, "--attack", attack, "--malicious-ids", "4,5", "--output", tmp_path / "run")
    assert said.code == 0, said.err
    assert "missing must know nothing" in said.out
    assert lines(tmp_path / "run")[3]["dropped"] == [{"client": 4, "reason": "it sent nothing"}]
    assert summary(tmp_path / "run")["replies_dropped"] == 1
    metrics = summary(tmp_path / "run")["metrics"]
    assert metrics["robust_accuracy"] < metrics["clean_accuracy"] - 0.2


def test_flowers_own_engine_finds_the_same_and_so_does_a_run_that_goes_on(thornbed, tmp_path):
    flags = (*FLAGS, "--attack", "targeted_pgd(steps=3)", "--defense", "copur", "--seed", "1", "--node-timeout", "300")
    for engine in ("inline", "simulation"):
        said = thornbed(*flags, "--engine", engine, "--output", tmp_path / engine)
        assert said.code == 0, said.err
    assert summary(tmp_path / "inline")["metrics"] == summary(tmp_path / "simulation")["metrics"]
    one, other = answers(tmp_path / "inline"), answers(tmp_path / "simulation")
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
    again = thornbed("run", "--resume", "--output", tmp_path / "inline", "--rounds", "4")
    assert again.code == 0, again.err
    last = lines(tmp_path / "inline")[4]
    assert last["robust_accuracy"] == lines(tmp_path / "inline")[3]["robust_accuracy"]


def test_extractors_of_an_earlier_run_and_validation_rows(thornbed, tmp_path):
    assert thornbed(*FLAGS, "--output", tmp_path / "first").code == 0
    start = tmp_path / "first" / "model.safetensors"
    said = thornbed(*FLAGS, "--start-from", start, "--output", tmp_path / "again")
    assert said.code == 0, said.err
    np.testing.assert_array_equal(answers(tmp_path / "first")["clean"], answers(tmp_path / "again")["clean"])
    held_out = ("--strategy", "collaborative_inference(embedding_size=8, bottleneck=10, validation=0.25)")
    said = thornbed(*FLAGS, *held_out, "--output", tmp_path / "validation")
    assert said.code == 0, said.err
    config = json.loads((tmp_path / "validation" / "config.json").read_text())
    assert (config["training_rows"], config["queries"]) == (300, 100)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--task", "digit_nodes"), "--task digit_nodes does not go with --strategy collaborative_inference"),
        (
            ("--attack", "pixel_trigger"),
            "which takes adaptive_pgd, feature_flip, missing, targeted_pgd, untargeted_pgd",
        ),
        (("--defense", "flip"), "--defense flip does not go with --strategy collaborative_inference"),
        (("--defense", "copur + unsecured"), "--defense takes one purification, not 2: copur + unsecured"),
        (("--defense", "copur(tau=-1.0)"), "copur needs a finite tau > 0: tau = -1.0"),
        (
            ("--defense", "randomized_ablation(keep=7)"),
            "randomized_ablation needs keep <= agents: keep = 7, agents = 6",
        ),
        (("--curious", "agic"), "--curious means nothing with --strategy collaborative_inference"),
        (("--clients-per-round", "3"), "--clients-per-round means nothing with --strategy collaborative_inference"),
        (("--attack", "missing", "--malicious-ids", "0,1,2,3,4,5"), "--attack leaves 0 of 6 agents that send anything"),
        (("--attack", "missing", "--malicious-ids", "6"), "--malicious-ids names client 6; clients are 0 to 5"),
        (("--attack", "missing", "--num-malicious", "7"), "--num-malicious 7 is more than --num-clients 6"),
        (("--attack", "feature_flip(amplification=0.0)"), "feature_flip needs a finite amplification > 0"),
        (("--attack", "targeted_pgd(steps=0)"), "targeted_pgd needs steps >= 1: steps = 0"),
        (("--attack", "targeted_pgd(target=10)"), "targeted_pgd needs a target from 0 to 9: target = 10"),
        (("--attack", "missing + feature_flip", "--malicious-ids", "4,5"), "says which agents carry out each, as in"),
        (
            ("--attack", "missing(agents=(3,)) + feature_flip(agents=(5,))", "--malicious-ids", "4,5"),
            "--attack is carried out by agents 3,5, and the malicious ones are 4,5",
        ),
        (
            ("--attack", "missing(agents=(5,)) + feature_flip(agents=(5,))", "--malicious-ids", "4,5"),
            "agent 5 is given 2 attacks; it can carry out one",
        ),
        ((*FLIP, "--rounds", "2"), "--rounds 2 is too few: the first is for training, the second for queries, and the"),
        (("--strategy", "collaborative_inference(bottleneck=500)"), "1 <= bottleneck <= M * d = 192: bottleneck = 500"),
        (("--strategy", "collaborative_inference(embedding_size=0)"), "needs embedding_size >= 1: embedding_size = 0"),
        (("--partition", "natural"), "--partition natural needs features that belong to agents by nature"),
        (("--partition", "grid(rows=4)"), "grid needs rows that divide num_agents"),
        (("--model", "cnn"), "there is no bottom model called cnn"),
        (
            ("--start-from", "nowhere.safetensors"),
            "nowhere.safetensors is not there; name the model.safetensors of a run",
        ),
        (("--task", "extrasensory", "--num-clients", "10"), "extrasensory needs its data"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_code_2(thornbed, tmp_path, flags, sentence):
    said = thornbed(*FLAGS, "--output", tmp_path / "run", *flags)
    assert said.code == 2
    assert sentence in said.sentence
    assert "Traceback" not in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_certify_takes_a_run_of_its_own_kind(thornbed, tmp_path):
    assert "holds no run" in thornbed("certify", tmp_path).sentence
    said = thornbed("run", "--task", "digits", "--rounds", "1", "--output", tmp_path / "fedavg")
    assert said.code == 0, said.err
    said = thornbed("certify", tmp_path / "fedavg")
    assert said.code == 2
    assert "certify is for collaborative_inference" in said.sentence
