"""What an attack is shown beside its own update, in whole runs: accomplices' rows and honest clients' updates.

A contract can feed an attack whatever it likes; these tests look at what runs feed it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord

from tests.conftest import read_lines
from thornbed.experiments.runs.launch import prepare
from thornbed.flower_apps.client_app import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import BadSettings, settings_from
from thornbed.protocol.messages import identify_message, read_identity, train_message
from thornbed.protocol.vector import Layout, to_arrays

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
SMALL = {"model": "mlp(hidden=(8,))", "num_clients": 6, "num_malicious": 3, "rounds": 1, "local_epochs": 0.2}
LOOKING = '''"""Keep what is shown, and send the own update.

Source: a test.
"""

from thornbed.attacks import Knowledge

NEEDS = frozenset({{Knowledge.OWN_DATA, Knowledge.SERVER_MODEL{needs}}})
shown = []


def looking(peers, generator, sight):
    shown.append((peers.clone(), {honest}))
    return peers[0]
'''
LEANING = '''"""Send the mean of all rows, without a word that they are needed.

Source: a test.
"""

from thornbed.attacks import Knowledge

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.SERVER_MODEL})


def leaning(peers, generator):
    return peers.mean(dim=0)
'''


def made(tmp_path, **values):
    return prepare(settings_from({**SMALL, "output": str(tmp_path / "run"), **values}))


def sent(settings, clients, server_round=1, node_config=None):
    """Return what clients answer to the first model, as updates, and the metrics of their replies."""
    arrays = to_arrays(HorizontalRun(settings).new_model().state_dict())
    layout, grid = Layout.of(arrays), InlineGrid(app, settings.num_clients, settings.to_run_config())
    for client, config in (node_config or {}).items():
        grid._contexts[client + 2].node_config |= config
    messages = [train_message(arrays, ConfigRecord(), server_round, client + 2) for client in clients]
    replies = list(grid.send_and_receive(messages))
    assert not any(reply.has_error() for reply in replies), replies[0].error.reason
    updates = [layout.flatten(reply.content["arrays"]) - layout.flatten(arrays) for reply in replies]
    return updates, [dict(reply.content["metrics"]) for reply in replies]


@pytest.fixture
def looking(plug_in):
    def look(needs="", honest="None"):
        text = LOOKING.format(needs="".join(f", Knowledge.{need}" for need in needs.split()), honest=honest)
        return plug_in("attacks/update", "looking", text).shown

    return look


@pytest.mark.parametrize("defense", ["none", "local_dp(clip_norm=0.05)"])
def test_rows_are_what_each_accomplice_of_the_round_would_honestly_have_sent(looking, tmp_path, defense):
    shown = looking("OTHER_ATTACKERS")
    attacked = made(tmp_path, attack="pixel_trigger + looking", clients_per_round=5, defense=defense)
    drawn = HorizontalRun(attacked).cohort().drawn(1)
    attackers = [client for client in drawn if client in attacked.malicious]
    assert 2 <= len(attackers) < len(drawn)
    shown.clear()
    _, metrics = sent(attacked, attackers)
    honest, _ = sent(made(tmp_path / "honest", num_malicious="auto", defense=defense), attackers)
    for place, (peers, _) in enumerate(shown):
        others = [update for each, update in enumerate(honest) if each != place]
        assert len(peers) == len(attackers)
        torch.testing.assert_close(peers[1:], torch.stack(others), rtol=0, atol=1e-6)
        assert not torch.allclose(peers[0], honest[place], atol=1e-6)  # its own is what its poisoned data gave
    assert [each["attack-rows"] for each in metrics] == [len(attackers)] * len(attackers)


def test_an_attack_that_declares_nothing_is_shown_its_own_update_alone(looking, tmp_path):
    shown = looking()
    attacked = made(tmp_path, attack="looking")
    shown.clear()
    _, metrics = sent(attacked, [3, 4])
    assert [len(peers) for peers, _ in shown] == [1, 1]
    assert not any("attack-rows" in each for each in metrics)


def test_an_attack_that_leans_on_rows_it_does_not_declare_is_refused_before_the_run(plug_in, tmp_path):
    plug_in("attacks/update", "leaning", LEANING)
    with pytest.raises(BadSettings, match=r"leaning looks at rows of peers .* with Knowledge.OTHER_ATTACKERS in NEEDS"):
        made(tmp_path, attack="leaning")


def test_an_omniscient_attack_sees_what_honest_clients_send(looking, tmp_path):
    shown = looking("HONEST_UPDATES", "sight.honest().clone()")
    attacked = made(tmp_path, attack="looking", defense="local_dp(clip_norm=0.05)")
    shown.clear()
    everybody, _ = sent(attacked, range(6))
    for _, honest in shown:
        torch.testing.assert_close(honest, torch.stack(everybody[:3]), rtol=0, atol=1e-6)


def test_an_attack_that_asks_for_honest_updates_undeclared_is_refused(looking, tmp_path):
    looking("", "sight.honest()")
    with pytest.raises(BadSettings, match=r"NEEDS takes Knowledge.HONEST_UPDATES"):
        made(tmp_path, attack="looking")


def test_an_attack_that_asks_for_earlier_models_undeclared_is_refused(looking, tmp_path):
    looking("", "sight.last_step()")
    with pytest.raises(BadSettings, match=r"NEEDS takes Knowledge.EARLIER_MODELS"):
        made(tmp_path, attack="looking")


def test_nobody_sees_honest_updates_on_separate_machines(looking, tmp_path):
    looking("HONEST_UPDATES", "sight.honest()")
    with pytest.raises(BadSettings, match="looking must know what honest clients send, which a malicious client does"):
        made(tmp_path, attack="looking", num_malicious="auto", engine="deployment", superlink="127.0.0.1:1")


def deployed(tmp_path, **values):
    words = {"num_malicious": "auto", "engine": "deployment", "superlink": "127.0.0.1:1", "channel_timeout": 0.2}
    return made(tmp_path, attack="looking", **words, **values)


def test_on_separate_machines_attackers_leave_their_updates_and_take_what_comes_in_time(looking, tmp_path):
    shown = looking("OTHER_ATTACKERS")
    settings = deployed(tmp_path)
    node = {"role": "malicious", "channel": str(tmp_path / "shared"), "accomplices": "3,4,5"}
    shown.clear()
    _, metrics = sent(settings, [3, 4], node_config={3: node, 4: node})
    (first, _), (second, _) = list(shown)
    honest, _ = sent(deployed(tmp_path / "honest"), [3, 4])
    assert len(first) == 1  # 4 and 5 had left nothing yet
    torch.testing.assert_close(second, torch.stack([honest[1], honest[0]]), rtol=0, atol=1e-6)  # 5 never does
    assert [each["attack-rows"] for each in metrics] == [1, 2]


def test_an_attacker_without_a_channel_or_accomplices_says_so_before_the_first_round(looking, tmp_path):
    looking("OTHER_ATTACKERS")
    settings = deployed(tmp_path)
    grid = InlineGrid(app, settings.num_clients, settings.to_run_config())
    grid._contexts[5].node_config |= {"role": "malicious"}
    grid._contexts[6].node_config |= {"role": "malicious", "channel": str(tmp_path / "shared")}
    asked = [identify_message(node) for node in (2, 5, 6)]
    honest, malicious, lonely = map(read_identity, grid.send_and_receive(asked))
    assert honest.problem == ""
    assert 'need channel="FOLDER" in --node-config' in malicious.problem
    assert 'needs accomplices="3,7" in --node-config' in lonely.problem


@pytest.mark.parametrize(
    ("attack", "problem"),
    [
        ("leaning", "attack leaning looks at rows of peers beside its own, and its NEEDS does not say so"),
        ("at2fl", "--attack at2fl does not go with --strategy fedavg"),
        ("sign_flip(factor=-1.0)", "sign_flip needs a finite factor > 0: factor = -1.0"),
        ("sign_flop", "there is no attack called sign_flop"),
        ("none", "this node is malicious and there is no attack"),
    ],
)
def test_an_attack_that_a_node_names_is_looked_at_as_closely_as_the_runs(plug_in, tmp_path, attack, problem):
    plug_in("attacks/update", "leaning", LEANING)
    settings = made(tmp_path, attack="gaussian", num_malicious="auto", engine="deployment", superlink="127.0.0.1:1")
    grid = InlineGrid(app, settings.num_clients, settings.to_run_config())
    grid._contexts[5].node_config |= {"role": "malicious", "attack": attack}
    grid._contexts[6].node_config |= {"role": "malicious"}
    named, able = map(read_identity, grid.send_and_receive([identify_message(5), identify_message(6)]))
    assert (able.role, able.problem) == ("poisoning", "")
    assert problem in named.problem


def a_little_is_enough():
    """Return the attack of the page that says how to write one."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if "def a_little_is_enough(" in block)


def test_the_attack_of_the_page_defeats_the_median_where_attackers_collude(thornbed, plug_in, tmp_path):
    plug_in("attacks/update", "a_little_is_enough", a_little_is_enough())
    words = ["--task", "digits", "--strategy", "median", "--num-clients", 10, "--rounds", 15]
    attack = ["--attack", "a_little_is_enough(deviations=4.0)", "--num-malicious", 4]
    accuracy = {}
    for name, more in (("clean", []), ("attacked", attack)):
        assert thornbed("run", *words, *more, "--output", tmp_path / name).code == 0
        accuracy[name] = read_lines(tmp_path / name)[-1]["accuracy"]
    assert accuracy["clean"] > 0.9
    assert accuracy["attacked"] < 0.5
    assert {tuple(line["attack"]["rows"]) for line in read_lines(tmp_path / "attacked")[1:]} == {(4.0,) * 4}
