"""Defenses on the client from the command line: hardening, rejection, and parts joined by +."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import read_lines
from thornbed.attacks.update import Sight
from thornbed.clients.benign import Benign
from thornbed.flower_apps.resolving import check, resolve
from thornbed.flower_apps.run import run as runs
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import BadSettings, settings_from
from thornbed.tasks import Samples

SIGHT = Sight(benign=lambda: torch.zeros(2), last_step=lambda: None)
SMALL = ["--task", "digits", "--model", "mlp(hidden=(16,))", "--num-clients", "6", "--partition", "iid", "--rounds", 2]
ATTACK = ["--attack", "pixel_trigger(size=2)"]


def resolved(**values):
    return resolve(settings_from(values))


def role_of(settings, client, node_config):
    return HorizontalRun(settings).role(client, node_config)


def defense(text):
    return HorizontalRun(resolved(defense=text)).defense


def test_a_run_with_flip_hardens_the_honest_clients_and_says_so(thornbed, tmp_path):
    typed = thornbed("run", *SMALL, *ATTACK, "--defense", "flip", "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    lines = read_lines(tmp_path / "run")
    assert [line.get("dropped") for line in lines] == [None, [], []]
    figures = lines[2]["defense"]
    assert figures["clients_hardened_share"] == pytest.approx(0.5, abs=0.01)
    assert 1 <= figures["clients_triggers"] <= 3
    assert 0 < figures["clients_mask_size"] < 64
    assert lines[2]["defense_acted"] is True


def test_the_same_seed_gives_the_same_hardened_model_and_no_defense_another(thornbed, tmp_path):
    for name, spec in (("one", "flip"), ("again", "flip"), ("none", "none")):
        assert thornbed("run", *SMALL, *ATTACK, "--defense", spec, "--output", tmp_path / name).code == 0
    one, again, none = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "again", "none"))
    assert one == again
    assert one != none


def test_rejection_counts_for_accuracy_and_for_the_attack(thornbed, tmp_path):
    for name, least in (("all", 1.0), ("none", 0.0)):
        spec = f"flip(fraction=0.0, min_confidence={least})"
        typed = thornbed("run", *SMALL, *ATTACK, "--defense", spec, "--output", tmp_path / name)
        assert typed.code == 0, typed.err
    rejected, kept = read_lines(tmp_path / "all")[-1], read_lines(tmp_path / "none")[-1]
    assert (rejected["accuracy"], rejected["attack_success_rate"]) == (0.0, 0.0)
    assert kept["accuracy"] > 0.2
    assert kept["attack_success_rate"] > 0
    assert rejected["loss"] == kept["loss"]
    assert kept["defense"]["clients_hardened_share"] == 0
    assert kept["defense_acted"] is False


def test_parts_of_a_defense_are_joined(thornbed, tmp_path):
    spec = "flip + local_dp(clip_norm=0.5, noise_multiplier=0.0)"
    typed = thornbed("run", *SMALL, "--defense", spec, "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    figures = read_lines(tmp_path / "run")[-1]["defense"]
    assert figures["clients_clipped_share"] == 1.0
    assert figures["clients_hardened_share"] > 0.4


def test_every_part_becomes_one_of_the_role_of_an_honest_client():
    role = role_of(resolved(defense="local_dp(clip_norm=1.0, noise_multiplier=0.0) + flip(num_pairs=2)"), 0, {})
    assert isinstance(role, Benign)
    assert role.edits_update
    assert [part.num_pairs for part in role.hardenings] == [2]
    sent = role.outgoing(torch.tensor([3.0, 4.0]), torch.zeros(1, 2), torch.Generator(), SIGHT)
    assert sent.tolist() == pytest.approx([0.6, 0.8])
    assert not role_of(resolved(defense="flip"), 0, {}).edits_update
    clips = "local_dp(clip_norm=1.0, noise_multiplier=0.0) + local_dp(clip_norm=0.5, noise_multiplier=0.0)"
    sent = role_of(resolved(defense=clips), 0, {}).outgoing(sent, sent[None], torch.Generator(), SIGHT)
    assert sent.tolist() == pytest.approx([0.3, 0.4])


def test_the_largest_confidence_of_the_parts_counts():
    assert defense("none").min_confidence == 0
    assert defense("local_dp").min_confidence == 0
    assert defense("flip(min_confidence=0.2) + local_dp + flip(min_confidence=0.7)").min_confidence == 0.7


def test_a_malicious_client_hardens_nothing():
    settings = resolved(defense="flip", attack="pixel_trigger", num_clients=5, num_malicious=1)
    samples = Samples(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
    assert role_of(settings, 4, {}).prepare(torch.nn.Identity(), samples, torch.Generator()) is samples


def test_text_is_refused_before_a_run_starts(monkeypatch):
    task = replace(runs.load_task("digits", ""), modality="text")
    monkeypatch.setattr(runs, "load_task", lambda *_: task)
    with pytest.raises(BadSettings, match="flip hardens image, table samples; digits has text samples"):
        check(resolved(defense="local_dp + flip"))


def test_every_part_is_checked_before_a_run_starts(thornbed, tmp_path):
    for spec, said in (
        ("flip + local_dp(clip_norm=-1.0)", "clip_norm > 0: clip_norm = -1.0"),
        ("local_dp + flip(fraction=2.0)", "0 <= fraction <= 1: fraction = 2.0"),
        ("local_dp + flop", "there is no defense called flop; did you mean flip"),
    ):
        typed = thornbed("run", *SMALL, "--defense", spec, "--output", tmp_path / "run")
        assert typed.code != 0
        assert said in typed.sentence
        assert not (tmp_path / "run").exists()
