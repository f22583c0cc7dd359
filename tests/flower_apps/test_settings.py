"""Settings: one list of them for flags, run config and sweeps."""

import tomllib
from pathlib import Path

import pytest

from thornbed.flower_apps.resolving import check, check_address, resolve
from thornbed.flower_apps.settings import BadSettings, Settings, settings_from

ROOT = Path(__file__).resolve().parents[2]


def test_the_run_config_is_the_settings():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert declared == Settings().to_run_config()


def test_auto_can_be_said_aloud():
    assert settings_from(Settings().to_run_config()) == Settings()
    assert resolve(settings_from({"rounds": "auto"})).rounds > 0


def test_settings_survive_the_run_config():
    settings = resolve(settings_from({"learning-rate": 0.5, "attack": "sign_flip", "rounds": 3}))
    assert resolve(settings_from(settings.to_run_config())) == settings


def test_the_command_repeats_the_run():
    settings = settings_from({"strategy": "invariant(tau=0.2)", "rounds": 3, "seed": 5, "output": "x"})
    assert settings.command() == "thornbed run --strategy 'invariant(tau=0.2)' --rounds 3 --seed 5"


def test_every_flag_that_the_house_promises_is_there():
    promised = (
        "task model strategy attack defense engine num_clients num_malicious malicious_ids clients_per_round rounds "
        "local_epochs batch_size learning_rate partition seed device data_dir output resume superlink"
    )
    assert set(promised.split()) <= set(Settings.model_fields)


DEPLOYED = {"engine": "deployment", "superlink": "10.0.0.5:8000"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rounds": 0}, "--rounds 0 trains nothing and tests the model of --start-from; name one, or train"),
        ({"rounds": "three"}, "--rounds takes a whole number (at least 0), not 'three'"),
        ({"num-malicious": -1}, "--num-malicious takes a whole number (at least 0), not -1"),
        ({"rounds": 2.5}, "--rounds takes a whole number (at least 0), not 2.5"),
        ({"learning-rate": -1.0}, "--learning-rate takes a number (above 0), not -1.0"),
        ({"learning-rate": float("inf")}, "--learning-rate takes a finite number, not inf"),
        ({"seed": -1}, "--seed takes a whole number (at least 0), not -1"),
        ({"malicious-ids": "a"}, "--malicious-ids takes client numbers joined by commas, such as 3,7, not 'a'"),
        ({"resume": "yes"}, "--resume takes true or false, not 'yes'"),
        ({"foo": 1}, "there is no setting --foo"),
        ({"engine": "spark"}, "--engine takes inline, simulation, deployment, not 'spark'"),
        ({"engine": "deployment"}, "--engine deployment needs --superlink"),
        ({"superlink": "a:1"}, "--superlink is for --engine deployment, and --engine is inline"),
        ({"engine": "simulation", "root-certificates": "ca.crt"}, "--root-certificates is for --engine deployment"),
        ({**DEPLOYED, "superlink": "a:70000"}, "--superlink takes HOST:PORT"),
        ({**DEPLOYED, "attack": "sign_flip", "num-malicious": 1}, "--num-malicious is not for --engine deployment"),
        ({**DEPLOYED, "attack": "sign_flip", "malicious-ids": "1"}, "--malicious-ids is not for --engine deployment"),
        (
            {"seed": 2**63},
            "--seed takes a whole number (at least 0 and below 9223372036854775808), not 9223372036854775808",
        ),
        ({"rounds": 2**31}, "--rounds takes a whole number (at least 0 and below 2147483648), not 2147483648"),
        ({"clients-per-round": 30}, "--clients-per-round 30 is more than --num-clients 20"),
        ({"num-clients": 2, "min-replies": 3}, "--min-replies 3 is more than --clients-per-round 2"),
        ({"attack": "sign_flip", "num-malicious": 21}, "--num-malicious 21 is more than --num-clients 20"),
        ({"attack": "sign_flip", "malicious-ids": "3,20"}, "--malicious-ids names client 20; clients are 0 to 19"),
        (
            {"attack": "sign_flip", "malicious-ids": "3", "num-malicious": 2},
            "names 1 clients and --num-malicious says 2",
        ),
        ({"num-malicious": 2}, "there are malicious clients and no --attack"),
        ({"malicious-ids": "2"}, "there are malicious clients and no --attack"),
        ({"task": "imagenet"}, "there is no task called imagenet"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(values, sentence):
    with pytest.raises(ValueError) as refused:
        check_address(resolve(settings_from(values)))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"strategy": "krum(num_byzantine=2)", "num-clients": 6}, "krum needs n >= 2f + 3: n = 6, f = 2"),
        ({"attack": "pixel_trigger(size=9)"}, "size = 9"),
        ({"attack": "pixel_trigger(target=10)"}, "target = 10"),
        ({"attack": "edge_case"}, "southwest.npz"),
        ({"model": "resnet99"}, "there is no model called resnet99"),
        ({"model": "cnn(width=0)"}, "width"),
        ({"partition": "dirichlet(alpha=0.0)"}, "alpha"),
        ({"num-clients": 2000, "clients-per-round": 3, "partition": "iid"}, "1437"),
        ({"device": "cuda:77"}, "--device cuda:77 cannot be used here"),
        ({"device": "meta"}, "--device meta cannot be used here"),
        ({"model": "cnn(width=100000000)"}, "--model cnn(width=100000000) cannot be made for --task digits"),
        ({"strategy": "krum(num_byzantine=4)", "min-replies": 10}, "--min-replies 10 is too few for --strategy krum"),
        ({"device": "gpu"}, "--device gpu cannot be used here"),
        ({"optimizer": "sgd(momentum=2.0)"}, "momentum"),
        ({"task": "digits(num_train=5)"}, "5"),
        ({"task": "cifar10"}, "cifar10.npz"),
        ({"data-dir": "/no/such/folder"}, "--data-dir /no/such/folder is no folder"),
        ({"defense": "local_dp(clip_norm=-1.0)"}, "clip_norm"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(values, sentence):
    with pytest.raises((ValueError, OSError)) as refused:
        check(resolve(settings_from(values)))
    assert sentence in str(refused.value)


def test_an_attack_on_other_samples_is_refused(monkeypatch):
    from thornbed.attacks.data.pixel_trigger import PixelTrigger

    monkeypatch.setattr(PixelTrigger, "modalities", frozenset({"text"}))
    with pytest.raises(BadSettings, match="pixel_trigger attacks text samples; digits has image samples"):
        check(resolve(settings_from({"attack": "pixel_trigger"})))


def test_malicious_clients_are_the_last_or_the_named_ones():
    attacked = lambda **values: resolve(settings_from({"attack": "sign_flip", **values}))  # noqa: E731
    assert attacked().malicious == {16, 17, 18, 19}
    assert attacked(num_malicious=1).malicious == {19}
    assert attacked(malicious_ids="3, 1").malicious == {1, 3}
    assert attacked(num_malicious=0).malicious == set()


def test_the_minimum_of_replies_is_half_a_round_or_what_the_rule_needs():
    least = lambda **values: resolve(settings_from(values)).min_replies  # noqa: E731
    assert least() == 10
    assert least(strategy="krum") == 10
    assert least(strategy="krum(num_byzantine=4)") == 11  # n >= 2f + 3: one reply lost must not end the run
    assert least(strategy="krum(num_byzantine=4)", clients_per_round=11) == 11
    assert least(strategy="krum", clients_per_round=4) == 3


def test_one_thing_has_one_spelling():
    values = {"strategy": "krum( num_byzantine = 4 )", "attack": "sign_flip+pixel_trigger(  )"}
    settings = resolve(settings_from(values))
    assert settings.strategy == "krum(num_byzantine=4)"
    assert settings.attack == "sign_flip + pixel_trigger"


def test_in_deployment_nobody_is_malicious_by_the_settings():
    assert resolve(settings_from({**DEPLOYED, "attack": "sign_flip"})).malicious == set()


def test_flowers_own_command_needs_no_address():
    assert resolve(settings_from({"engine": "deployment"})).engine == "deployment"
