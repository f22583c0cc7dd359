"""What attackers do together, in whole runs: one update of a group, what they saw, when and how many of them attack."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from thornbed.experiments.runs.launch import prepare
from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid, inline
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import BadSettings, settings_from
from thornbed.protocol.messages import train_message
from thornbed.protocol.vector import Layout, to_arrays


@pytest.fixture
def settings(tmp_path):
    def make(**values):
        small = {
            "num_clients": 6,
            "num_malicious": 3,
            "rounds": 1,
            "local_epochs": 0.2,
            "output": str(tmp_path / "run"),
        }
        return prepare(settings_from({**small, **values}))

    return make


def first_model(settings):
    return HorizontalRun(settings).new_model().state_dict()


def updates(settings, clients, server_round=1, model=None):
    """Return what clients answer to a model, by default the first."""
    from flwr.app import ConfigRecord

    arrays = to_arrays(first_model(settings) if model is None else model)
    grid = InlineGrid(app, settings.num_clients, settings.to_run_config())
    layout = Layout.of(arrays)
    messages = [train_message(arrays, ConfigRecord(), server_round, client + 2) for client in clients]
    replies = list(grid.send_and_receive(messages))
    assert not any(reply.has_error() for reply in replies), replies[0].error.reason
    return [layout.flatten(reply.content["arrays"]) - layout.flatten(arrays) for reply in replies]


def test_colluders_send_one_update_and_honest_clients_their_own(settings):
    sent = updates(settings(attack="pixel_trigger + collude"), range(6))
    assert torch.equal(sent[3], sent[4])
    assert torch.equal(sent[3], sent[5])
    assert not torch.equal(sent[0], sent[1])
    assert not torch.equal(sent[0], sent[3])
    alone = updates(settings(attack="pixel_trigger"), [3, 4])
    assert not torch.equal(alone[0], alone[1])


def test_another_round_another_share_of_what_they_hold_together(settings):
    made = settings(attack="collude")
    assert not torch.equal(*updates(made, [3], 1), *updates(made, [3], 2))


def test_a_mimic_sends_an_honest_update_but_for_its_largest_elements(settings):
    (honest,) = updates(settings(attack="none", num_malicious="auto"), [5])
    (poisoned,) = updates(settings(attack="pixel_trigger"), [5])
    (mimicked,) = updates(settings(attack="pixel_trigger + mimic(num_kept=10)"), [5])
    changed = mimicked != honest
    assert 0 < int(changed.sum()) <= 10
    assert torch.equal(mimicked[changed], poisoned[changed])
    assert poisoned[changed].abs().min() >= poisoned[~changed].abs().max()


def test_an_adaptive_attacker_finds_the_mask_in_the_model_it_is_sent(settings, tmp_path):
    made = settings(attack="pixel_trigger + adaptive", strategy="invariant", rounds=3)
    inline(made, lambda line: None)
    seen = sorted(path.name for path in (tmp_path / "run" / "attackers").iterdir())
    assert seen == [
        "model-round-2.safetensors",
        "model-round-3.safetensors",
    ]  # of the rounds, those that the next one is compared with


def test_an_adaptive_attacker_enlarges_what_passed_the_last_mask_and_nothing_else(settings):
    adaptive, plain = settings(attack="pixel_trigger + adaptive"), settings(attack="pixel_trigger")
    torch.testing.assert_close(*updates(adaptive, [5]), *updates(plain, [5]))  # nothing is known of a step yet
    passed = {
        name: torch.arange(value.numel()).view(value.shape) % 3 == 0 for name, value in first_model(plain).items()
    }
    moved = {name: torch.where(passed[name], value + 0.01, value) for name, value in first_model(plain).items()}
    (sent,), (own,) = (updates(attack, [5], 2, moved) for attack in (adaptive, plain))
    through = torch.cat([mask.flatten() for mask in passed.values()])
    torch.testing.assert_close(sent[~through], own[~through], rtol=0, atol=1e-6)
    assert own[through].norm() < 0.8 * own.norm()
    assert sent[through].norm() == pytest.approx(float(own.norm()), rel=1e-3)


def test_what_rules_and_attackers_remember_survives_a_pause(settings, tmp_path):
    """Six rounds at once and two after four: momentum and error of the rule, models that attackers saw."""
    words = {"attack": "pixel_trigger + adaptive", "strategy": "sparse_fed(top_k=0.3)"}
    inline(settings(**words, rounds=6, output=str(tmp_path / "whole")), lambda line: None)
    inline(settings(**words, rounds=4, output=str(tmp_path / "paused")), lambda line: None)
    inline(settings(**words, rounds=6, output=str(tmp_path / "paused"), resume=True), lambda line: None)
    whole, paused = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "paused"))
    assert whole == paused
    memory = load_file(tmp_path / "paused" / "checkpoint.safetensors")
    assert memory["memory/error"].any()


def test_a_constrained_attacker_stays_closer_and_sends_a_multiple(settings):
    (free,) = updates(settings(attack="pixel_trigger"), [5])
    (same,) = updates(settings(attack="pixel_trigger + constrain_and_scale(alpha=1.0, factor=1.0)"), [5])
    torch.testing.assert_close(same, free)
    (close,) = updates(settings(attack="pixel_trigger + constrain_and_scale(alpha=0.1, factor=1.0)"), [5])
    assert close.norm() < 0.7 * free.norm()
    (bounded,) = updates(settings(attack="pixel_trigger + constrain_and_scale(bound=0.5)"), [5])
    assert bounded.norm() == pytest.approx(0.5, abs=1e-4)  # the model is float32


def test_so_many_attackers_in_every_round(settings, tmp_path):
    made = settings(attack="sign_flip", clients_per_round=4, malicious_per_round=1, rounds=4)
    inline(made, lambda line: None)
    lines = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][1:]
    assert [len(line["sampled_malicious"]) for line in lines] == [1] * 4
    assert {len(line["sampled"]) for line in lines} == {4}
    assert len({tuple(line["sampled"]) for line in lines}) > 1


def test_in_the_other_rounds_attackers_are_honest(settings):
    honest, attacked = settings(attack="none", num_malicious="auto"), settings(attack="sign_flip", attack_share=0.5)
    for server_round, attacks in ((1, False), (2, True), (3, False), (4, True)):
        mine, theirs = updates(attacked, [5], server_round), updates(honest, [5], server_round)
        assert torch.equal(mine[0], theirs[0]) == (not attacks)


def test_attackers_that_lost_the_models_they_saw_do_not_begin_anew(settings, tmp_path):
    words = {"attack": "adaptive", "strategy": "median", "output": str(tmp_path / "run")}
    inline(settings(**words, rounds=2), lambda line: None)
    shutil.rmtree(tmp_path / "run" / "attackers")
    settings(**words, rounds=2, resume=True)  # nothing is left to do: it is shown
    with pytest.raises(BadSettings, match="cannot be gone on with: the models that attackers saw are not in"):
        settings(**words, rounds=3, resume=True)
    quiet = {**words, "attack_share": 0.4, "output": str(tmp_path / "quiet")}  # the third round is the first attacked
    inline(settings(**quiet, rounds=2), lambda line: None)
    assert settings(**quiet, rounds=3, resume=True).rounds == 3
