"""Collaborative inference from the command line: its numbers, its files, its attacks and defenses, what it refuses."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from thornbed.flower_apps.engines.inline import inline
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.inference import run
from thornbed.flower_apps.schemes.scheme import built
from thornbed.flower_apps.settings import settings_from
from thornbed.protocol.tensor_files import load_tensors, save_tensors

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
    assert certified["guaranteed"] is True
    told = answers(tmp_path / "copur")
    for name in ("clean", "attacked"):  # everybody sent something for every query
        assert told[f"tolerated_{name}"].tolist() == [nobody["tolerated"]] * 100
        missed = told[f"gap_{name}"] / nobody["steepness"]  # by how much each query's minimum was missed at most
        np.testing.assert_allclose(told[f"radius_{name}"], nobody["radius_95"] + missed)
        assert missed.max() < 1e-3 * nobody["radius_95"]
    np.testing.assert_array_equal(told["labels"], labels["labels"])
    assert nobody["queries"] == 200
    assert f"Of 100 queries under the attack 100 tolerate {nobody['tolerated']}." in said.out
    said = thornbed("certify", tmp_path / "none", "--silent", "5")
    assert "this run has --defense none" in said.out
    without = {name: array for name, array in told.items() if not name.startswith("gap")}  # of an earlier version
    np.savez(tmp_path / "copur" / "answers.npz", **without)
    said = thornbed("certify", tmp_path / "copur")
    assert said.code == 0, said.err
    assert "answers.npz does not say how near their minimum its answers are" in " ".join(said.out.split())
    for silent, sentence in (
        ("0,9", "--silent takes numbers of clients, 0 to 5, such as 6,9; not '0,9'"),
        ("99", "--silent takes numbers of clients, 0 to 5"),
        ("-1", "--silent takes numbers of clients, 0 to 5"),
        ("0,1,2,3,4,5", "--silent names all clients; somebody has to send something"),
    ):
        said = thornbed("certify", tmp_path / "copur", "--silent", silent)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert sentence in said.sentence
    (tmp_path / "copur" / "answers.npz").write_bytes(b"PK")
    said = thornbed("certify", tmp_path / "copur")
    assert (said.code, "answers.npz is damaged" in said.sentence) == (2, True)


def test_one_silent_and_one_that_knows_the_model(thornbed, tmp_path):
    attack = "missing(agents=(4,)) + targeted_pgd(agents=(5,), steps=5)"
    said = thornbed(*FLAGS, "--attack", attack, "--malicious-ids", "4,5", "--output", tmp_path / "run")
    assert said.code == 0, said.err
    assert "missing must know nothing" in said.out
    assert lines(tmp_path / "run")[3]["dropped"] == [{"client": 4, "reason": "it sent nothing"}]
    assert summary(tmp_path / "run")["replies_dropped"] == 1
    metrics = summary(tmp_path / "run")["metrics"]
    assert metrics["robust_accuracy"] < metrics["clean_accuracy"] - 0.2


class Stop(Exception):
    """What cuts a run off after a round."""


def forget():
    """Forget what this process knows of runs, as another process would not know it either."""
    run._trained.cache_clear()
    built.cache_clear()


def assert_same(one, other):
    """Check that two finished runs left the same: every round, every answer, and the bytes of the model."""
    for left, right in zip(lines(one), lines(other), strict=True):
        assert {name: value for name, value in left.items() if not name.startswith("seconds")} == {
            name: value for name, value in right.items() if not name.startswith("seconds")
        }
    ours, theirs = answers(one), answers(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.mark.parametrize("attack", ["missing(agents=(4,)) + targeted_pgd(agents=(5,), steps=3)", "feature_flip"])
def test_a_run_that_was_cut_off_after_any_round_ends_with_the_same_bytes(tmp_path, attack):
    def settings(name, **more):
        known = {
            "task": "digits(num_train=100, num_test=40)", "num_clients": 6, "local_epochs": 2.0, "rounds": 4,
            "strategy": "collaborative_inference(embedding_size=4, epochs=20)", "defense": "copur + oracle",
            "attack": attack, "malicious_ids": "4,5", "output": str(tmp_path / name), **more,
        }  # fmt: skip
        return resolve(settings_from(known))

    inline(settings("whole"), lambda line: None)
    for last in range(4):

        def stop(line, last=last):
            if line["round"] == last:
                raise Stop

        with pytest.raises(Stop):
            inline(settings(f"cut {last}"), stop)
        forget()
        inline(settings(f"cut {last}", resume=True), lambda line: None)
        assert_same(tmp_path / f"cut {last}", tmp_path / "whole")


def test_a_bottleneck_that_costs_clean_accuracy_is_told_and_a_chosen_one_is_certified(thornbed, tmp_path):
    for strategy, dear in (("collaborative_inference(bottleneck=1)", True), ("collaborative_inference", False)):
        folder = tmp_path / str(dear)
        said = thornbed(*FLAGS, "--strategy", strategy, "--defense", "copur", "--output", folder)
        assert said.code == 0, said.err
        cost = lines(folder)[1]["defense"]["manifold_cost"]
        words = f"the manifold (bottleneck=1) costs {round(100 * cost)} points of clean accuracy on the last fifth"
        assert (words in " ".join(said.out.split())) is dear
        assert (cost > 0.05) is dear
    assert "Not chosen on digits, as on other tasks: collaborative_inference: head_epochs=30." in said.out
    said = thornbed("certify", tmp_path / "False")
    assert said.code == 0, said.err


def test_flowers_own_engine_finds_the_same_and_so_does_a_run_that_goes_on(thornbed, tmp_path):
    flags = (*FLAGS, "--attack", "targeted_pgd(steps=3)", "--defense", "copur", "--seed", "1")
    for engine in ("inline", "simulation"):
        said = thornbed(*flags, "--engine", engine, "--output", tmp_path / engine)
        assert said.code == 0, said.err
    assert summary(tmp_path / "inline")["metrics"] == summary(tmp_path / "simulation")["metrics"]
    assert_same(tmp_path / "inline", tmp_path / "simulation")
    kept = tmp_path / "simulation" / "extractors.safetensors"
    before = kept.stat()
    for engine in ("inline", "simulation"):
        forget()
        again = thornbed("run", "--resume", "--output", tmp_path / engine, "--rounds", "4")
        assert again.code == 0, again.err
    assert_same(tmp_path / "inline", tmp_path / "simulation")
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    last = lines(tmp_path / "inline")[4]
    assert last["robust_accuracy"] == lines(tmp_path / "inline")[3]["robust_accuracy"]


def test_a_run_goes_on_with_the_extractors_that_it_began_with(thornbed, tmp_path):
    small = (*FLAGS, "--task", "digits(num_train=100, num_test=40)", "--local-epochs", "1", "--rounds", "2")
    for seed in ("0", "1"):
        assert thornbed(*small, "--seed", seed, "--output", tmp_path / seed).code == 0
    start = tmp_path / "start.safetensors"
    start.write_bytes((tmp_path / "0" / "model.safetensors").read_bytes())
    assert thornbed(*small, "--start-from", start, "--output", tmp_path / "run").code == 0
    start.write_bytes((tmp_path / "1" / "model.safetensors").read_bytes())
    said = thornbed("run", "--resume", "--rounds", "3", "--output", tmp_path / "run")
    assert said.code == 2
    assert f"--start-from {start} is another file than when the run in {tmp_path / 'run'} began" in said.sentence
    assert len(lines(tmp_path / "run")) == 3
    start.write_bytes((tmp_path / "0" / "model.safetensors").read_bytes())
    said = thornbed("run", "--resume", "--rounds", "3", "--output", tmp_path / "run")
    assert said.code == 0, said.err


def test_extractors_of_an_earlier_run_and_validation_rows(thornbed, tmp_path):
    assert thornbed(*FLAGS, "--output", tmp_path / "first").code == 0
    start = tmp_path / "first" / "model.safetensors"
    said = thornbed(*FLAGS, "--start-from", start, "--output", tmp_path / "again")
    assert said.code == 0, said.err
    np.testing.assert_array_equal(answers(tmp_path / "first")["clean"], answers(tmp_path / "again")["clean"])
    held_out = ("--strategy", "collaborative_inference(embedding_size=8, bottleneck=10, validation=0.25)")
    said = thornbed(*FLAGS, *held_out, "--output", tmp_path / "validation")
    assert said.code == 0, said.err
    other = ("--strategy", "collaborative_inference(embedding_size=9, bottleneck=10)")
    said = thornbed(*FLAGS, *other, "--start-from", start, "--output", tmp_path / "other")
    assert said.code == 2
    assert "does not fit --model column_layers" in said.sentence
    # extractors that have seen the rows that are held out would be asked for what they know
    leak = thornbed(*FLAGS, *held_out, "--start-from", start, "--output", tmp_path / "leak")
    assert leak.code == 2
    assert "extractors that were trained on the first 400 rows of --task digits" in leak.sentence
    assert "validation holds out those after the first 300" in leak.sentence
    kept = tmp_path / "validation" / "model.safetensors"
    said = thornbed(*FLAGS, *held_out, "--start-from", kept, "--output", tmp_path / "same")
    assert said.code == 0, said.err
    np.testing.assert_array_equal(answers(tmp_path / "validation")["clean"], answers(tmp_path / "same")["clean"])
    # what they have seen is handed on, whatever the run in between trains its head on
    handed = thornbed(*FLAGS, "--start-from", kept, "--output", tmp_path / "handed")
    assert handed.code == 0, handed.err
    handed_on, before = (load_tensors(path)[1] for path in (tmp_path / "handed" / "model.safetensors", kept))
    assert handed_on.keys() == before.keys()
    assert all(handed_on[name] == before[name] for name in before if name != "run")  # which is each one's own
    silent = tmp_path / "silent.safetensors"
    save_tensors(silent, load_tensors(kept)[0])
    said = thornbed(*FLAGS, *held_out, "--start-from", silent, "--output", tmp_path / "untold")
    assert said.code == 2
    assert "does not say which rows its extractors were trained on" in said.sentence
    # those of a finished SplitNN are such extractors, and have seen all rows
    words = ("run", *FLAGS[1:3], "--strategy", "split_nn(embedding_size=8)", "--model", "column_layers(hidden=())")
    split, rest = tmp_path / "split", ("--num-clients", "6", "--num-malicious", "0", "--learning-rate", "0.005")
    said = thornbed(*words, *rest, "--rounds", "12", "--batch-size", "32", "--output", split)
    assert said.code == 0, said.err
    said = thornbed(*FLAGS, "--start-from", split / "model.safetensors", "--output", tmp_path / "on split")
    assert said.code == 0, said.err
    taken, kept = (load_tensors(tmp_path / name / "model.safetensors") for name in ("on split", "split"))
    extractors = [name for name in kept[0] if name.startswith("extractor")]
    assert len(extractors) == 12
    assert all(torch.equal(kept[0][name], taken[0][name]) for name in extractors)
    assert summary(tmp_path / "on split")["metrics"]["clean_accuracy"] > 0.7
    leak = thornbed(*FLAGS, *held_out, "--start-from", split / "model.safetensors", "--output", tmp_path / "leak")
    assert "trained on the first 400 rows" in leak.sentence
    config = json.loads((tmp_path / "validation" / "config.json").read_text())
    assert (config["training_rows"], config["queries"]) == (300, 100)


def test_smoothing_on_top_of_copur_says_of_each_label_how_sure_it_is(thornbed, tmp_path):
    smoothed = "copur(solver='reweighted') + randomized_smoothing(sigma=0.5, trials=200)"
    said = thornbed(*FLAGS, *FLIP, "--defense", smoothed, "--output", tmp_path / "run")
    assert said.code == 0, said.err
    metrics = summary(tmp_path / "run")["metrics"]
    assert metrics["robust_accuracy"] > metrics["clean_accuracy"] - 0.2
    assert thornbed("certify", tmp_path / "run").code == 0
    told = answers(tmp_path / "run")
    for name in ("clean", "attacked"):
        expected = (told[name] >= 0) & (told[f"label_radius_{name}"] >= told[f"radius_{name}"])
        np.testing.assert_array_equal(told[f"label_certified_{name}"], expected)
        assert float(told[f"label_radius_{name}"].max()) > 0.5


def test_a_hidden_layer_makes_a_manifold_that_is_descended_on(thornbed, tmp_path):
    strategy = "collaborative_inference(embedding_size=8, bottleneck=10, hidden=(40,), epochs=60)"
    said = thornbed(*FLAGS, *FLIP, "--strategy", strategy, "--defense", "copur", "--output", tmp_path / "run")
    assert said.code == 0, said.err
    metrics = summary(tmp_path / "run")["metrics"]
    assert metrics["robust_accuracy"] > metrics["clean_accuracy"] - 0.2
    for line in lines(tmp_path / "run")[2:]:
        figures = line["defense"]
        for stage in ("stage1", "stage2"):
            assert figures[f"{stage}_to"] < figures[f"{stage}_from"]
    said = thornbed("certify", tmp_path / "run", "--silent", "5")
    assert "The decoder is not affine" in said.out
    refused = thornbed(
        *FLAGS, "--strategy", strategy, "--defense", "copur(solver='reweighted')", "--output", tmp_path / "not"
    )
    assert refused.code == 2
    assert "an Autoencoder whose decoder is one linear layer" in refused.sentence


def test_who_sends_what_is_not_finite_is_named_and_the_queries_are_answered(thornbed, tmp_path):
    attack = ("--attack", "targeted_pgd(steps=3, step_size=1e38)", "--malicious-ids", "3,5")
    said = thornbed(*FLAGS, *attack, "--defense", "copur", "--output", tmp_path / "run")
    assert said.code == 0, said.err
    counts = lines(tmp_path / "run")[3]["defense"]["rejected_by_agent"]
    assert [agent for agent, count in enumerate(counts) if count] == [3, 5]
    named = f"Beware: values that are not finite came from client 3 for {counts[3]}, client 5 for {counts[5]} queries"
    assert named in said.out
    assert (answers(tmp_path / "run")["attacked"] >= 0).all()
    # the liars' queries are certified for those that are left
    assert thornbed("certify", tmp_path / "run").code == 0
    certified = json.loads((tmp_path / "run" / "certificate.json").read_text())["sets"]
    gone = [each for each in certified if each["silent"] == [3, 5]]
    told = answers(tmp_path / "run")
    both = np.isnan(told["moved_attacked"])[:, [3, 5]].all(axis=1)
    assert gone[0]["queries"] == both.sum() > 0
    assert set(told["tolerated_attacked"][both].tolist()) == {gone[0]["tolerated"]}


def test_a_round_without_a_finite_block_is_left_out_of_the_picture(thornbed, tmp_path):
    attack = ("--attack", "targeted_pgd(steps=3, step_size=1e38)", "--malicious-ids", "0,1,2,3,4,5")
    said = thornbed(*FLAGS, *attack, "--defense", "copur", "--output", tmp_path / "run")
    assert said.code == 0, said.err
    assert np.isnan(answers(tmp_path / "run")["moved_attacked"]).mean() > 0.9
    assert (tmp_path / "run" / "moved.png").stat().st_size > 1000


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
        (("--defense", "copur + copur"), "--defense takes one purification, not 2: copur + copur"),
        (("--defense", "copur(steps=0)"), "copur needs 1 <= steps <= 100000: steps = 0"),
        (("--defense", "copur(tau='much')"), "tau"),
        (("--defense", "randomized_smoothing(trials=1000000000000)"), "needs 1 <= trials <= 10000000"),
        (("--defense", "adversarial_training(target=3)"), "needs targeted=True for a target: target = 3"),
        (("--strategy", "collaborative_inference(hidden=(100000000000,))"), "cannot be made: "),
        (("--defense", "copur(tua=1.0)"), "copur has no option tua; it takes"),
        (("--defense", "plain + randomized_smoothing"), "--defense takes one way to decide, not 2"),
        (("--strategy", "fedavg", "--defense", "copur"), "--defense copur does not go with --strategy fedavg"),
        (("--strategy", "fedavg", *FLIP), "--attack feature_flip does not go with --strategy fedavg"),
        (("--attack", "badvfl"), "--attack badvfl does not go with --strategy collaborative_inference"),
        (("--attack", "feature_flip", "--malicious-ids", "12"), "--malicious-ids names client 12; clients are 0 to 5"),
        (("--strategy", "collaborative_inference(bottleneck=0)"), "needs bottleneck >= 1: bottleneck = 0"),
        (("--strategy", "collaborative_inference(hidden=(0,))"), "every entry of hidden >= 1: hidden = (0,)"),
        (("--strategy", "collaborative_inference(validation=0.999)"), "validation leaves 0 rows for training"),
        (("--curious", "agic"), "--curious means nothing with --strategy collaborative_inference"),
        (("--clients-per-round", "3"), "--clients-per-round means nothing with --strategy collaborative_inference"),
        (("--attack", "missing", "--malicious-ids", "0,1,2,3,4,5"), "leaves 0 of 6 clients that send anything"),
        (
            (
                *("--attack", "missing", "--malicious-ids", "2,3,4,5", "--min-replies", "2"),
                *("--defense", "randomized_ablation"),
            ),
            "--attack missing leaves 2 of 6 clients that send anything, and --defense randomized_ablation answers no",
        ),
        (
            (
                *("--attack", "missing(agents=(2, 3)) + feature_flip(agents=(4,))", "--malicious-ids", "2,3,4"),
                *("--defense", "copur + randomized_ablation(keep=5)"),
            ),
            "leaves 4 of 6 clients that send anything, and --defense copur + randomized_ablation(keep=5) answers no",
        ),
        (("--attack", "missing", "--malicious-ids", "6"), "--malicious-ids names client 6; clients are 0 to 5"),
        (("--attack", "missing", "--num-malicious", "7"), "--num-malicious 7 is more than --num-clients 6"),
        (("--attack", "feature_flip(amplification=0.0)"), "feature_flip needs a finite amplification > 0"),
        (("--attack", "targeted_pgd(steps=0)"), "targeted_pgd needs steps >= 1: steps = 0"),
        (("--attack", "targeted_pgd(target=10)"), "targeted_pgd needs a target from 0 to 9: target = 10"),
        (
            ("--attack", "feature_flip(agents=(1.5,))"),
            "--attack takes numbers of clients, as in feature_flip(agents=(6, 9));",
        ),
        (("--attack", "missing + feature_flip", "--malicious-ids", "4,5"), "says which clients carry out each, as in"),
        (
            ("--attack", "missing(agents=(3,)) + feature_flip(agents=(5,))", "--malicious-ids", "4,5"),
            "--attack is carried out by clients 3,5, and the malicious ones are 4,5",
        ),
        (
            ("--attack", "missing(agents=(5,)) + feature_flip(agents=(5,))", "--malicious-ids", "4,5"),
            "client 5 is given 2 attacks; it can carry out one",
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
    for nowhere in (tmp_path, tmp_path / "nowhere"):
        said = thornbed("certify", nowhere)
        assert said.code == 2
        assert "holds no run" in said.sentence
    said = thornbed("run", "--task", "digits", "--rounds", "1", "--output", tmp_path / "fedavg")
    assert said.code == 0, said.err
    said = thornbed("certify", tmp_path / "fedavg")
    assert said.code == 2
    assert "certify is for collaborative_inference" in said.sentence


CURIOUS = '''"""Send {what}, without a word that it must be known.

Source: a test.
"""

from dataclasses import replace

from thornbed.attacks import Knowledge

NEEDS = frozenset({{Knowledge.OWN_DATA{needs}}})


def nosy(sent, agents, sight):
    embeddings = sent.embeddings.clone()
    embeddings[:, list(agents)] = {what}
    return replace(sent, embeddings=embeddings)
'''


def test_an_attack_that_looks_at_others_embeddings_undeclared_is_refused_before_the_run(thornbed, plug_in, tmp_path):
    what = "sent.embeddings.mean(dim=1, keepdim=True)"
    flags = ["run", "--task", "digits(num_train=300)", "--strategy", "collaborative_inference", "--num-clients", 4,
             "--local-epochs", 1, "--attack", "nosy", "--output"]  # fmt: skip
    plug_in("attacks/inference", "nosy", CURIOUS.format(what=what, needs=""))
    said = thornbed(*flags, tmp_path / "undeclared")
    assert said.code == 2
    assert "--attack nosy looks at what other clients send, and its NEEDS does not say so" in said.sentence
    sys.modules.pop("thornbed.attacks.inference.nosy")
    plug_in("attacks/inference", "nosy", CURIOUS.format(what=what, needs=", Knowledge.OTHER_EMBEDDINGS"))
    said = thornbed(*flags, tmp_path / "declared")
    assert said.code == 0, said.err
