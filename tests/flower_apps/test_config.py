"""Settings: one list of them for flags, run config and sweeps."""

import tomllib
from pathlib import Path

import pytest

from flower_apps import build
from flower_apps.config import BadSettings, Settings, settings_from

ROOT = Path(__file__).resolve().parents[2]


def test_the_run_config_is_the_settings():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert declared == Settings().to_run_config()


def test_auto_can_be_said_aloud():
    assert settings_from(Settings().to_run_config()) == Settings()
    assert build.resolve(settings_from({"rounds": "auto"})).rounds > 0


def test_settings_survive_the_run_config():
    settings = build.resolve(settings_from({"learning-rate": 0.5, "attack": "sign_flip", "rounds": 3}))
    assert build.resolve(settings_from(settings.to_run_config())) == settings


def test_the_command_repeats_the_run():
    settings = settings_from({"strategy": "invariant(tau=0.2)", "rounds": 3, "seed": 5, "output": "x"})
    assert settings.command() == "thornbed run --strategy 'invariant(tau=0.2)' --rounds 3 --seed 5"


def test_every_flag_that_the_house_promises_is_there():
    promised = (
        "task model strategy attack defense engine num_clients num_malicious malicious_ids clients_per_round rounds "
        "local_epochs batch_size learning_rate partition seed device data_dir output resume superlink"
    )
    assert set(promised.split()) <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rounds": 0}, "--rounds takes a whole number (at least 1), not 0"),
        ({"rounds": "three"}, "--rounds takes a whole number (at least 1), not 'three'"),
        ({"num-malicious": -1}, "--num-malicious takes a whole number (at least 0), not -1"),
        ({"rounds": 2.5}, "--rounds takes a whole number (at least 1), not 2.5"),
        ({"learning-rate": -1.0}, "--learning-rate takes a number (above 0), not -1.0"),
        ({"learning-rate": float("inf")}, "--learning-rate takes a finite number, not inf"),
        ({"seed": -1}, "--seed takes a whole number (at least 0), not -1"),
        ({"malicious-ids": "a"}, "--malicious-ids takes client numbers joined by commas, such as 3,7, not 'a'"),
        ({"resume": "yes"}, "--resume takes true or false, not 'yes'"),
        ({"foo": 1}, "there is no setting --foo"),
        ({"engine": "spark"}, "--engine takes inline, simulation, deployment, not 'spark'"),
        ({"engine": "deployment"}, "--engine deployment needs --superlink"),
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
        build.resolve(settings_from(values))
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
        build.check(build.resolve(settings_from(values)))
    assert sentence in str(refused.value)


def test_an_attack_on_other_samples_is_refused(monkeypatch):
    from attacks.data.pixel_trigger import PixelTrigger

    monkeypatch.setattr(PixelTrigger, "modalities", frozenset({"text"}))
    with pytest.raises(BadSettings, match="PixelTrigger attacks text samples; digits has image samples"):
        build.check(build.resolve(settings_from({"attack": "pixel_trigger"})))


def test_malicious_clients_are_the_last_or_the_named_ones():
    resolve = lambda **values: build.resolve(settings_from({"attack": "sign_flip", **values}))  # noqa: E731
    assert resolve().malicious == {16, 17, 18, 19}
    assert resolve(num_malicious=1).malicious == {19}
    assert resolve(malicious_ids="3, 1").malicious == {1, 3}
    assert resolve(num_malicious=0).malicious == set()
