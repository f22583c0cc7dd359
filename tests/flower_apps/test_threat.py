"""The threat model: declared by every attack, printed, recorded, and refused where the setting cannot give it."""

import sys

import pytest

from thornbed.attacks import Knowledge
from thornbed.flower_apps.resolving import check, resolve
from thornbed.flower_apps.run import threat
from thornbed.flower_apps.settings import BadSettings, plugins, settings_from


@pytest.mark.parametrize("name", plugins.available("attack"))
def test_every_attack_says_what_it_must_know(name):
    assert isinstance(threat.needs(name), frozenset)


def test_an_attack_that_says_nothing_is_refused(monkeypatch):
    monkeypatch.delattr(sys.modules[plugins.find("attack", "sign_flip").__module__], "NEEDS")
    with pytest.raises(BadSettings, match="attack sign_flip does not say what it must know; its module takes"):
        check(resolve(settings_from({"attack": "sign_flip"})))


def test_an_attack_that_needs_what_nobody_gives_is_refused(monkeypatch):
    module = sys.modules[plugins.find("attack", "sign_flip").__module__]
    monkeypatch.setattr(module, "NEEDS", frozenset({Knowledge.FUSION_MODEL, Knowledge.OWN_DATA}))
    with pytest.raises(BadSettings, match="attack sign_flip must know the fusion centre's model, which a malicious"):
        check(resolve(settings_from({"attack": "pixel_trigger + sign_flip"})))


def test_it_is_recorded_and_spoken():
    settings = resolve(settings_from({"attack": "pixel_trigger + scaling", "strategy": "krum(num_byzantine=4)"}))
    model = threat.threat_model(settings, 4)
    assert model == {
        "malicious": 4,
        "num_clients": 20,
        "needs": {"pixel_trigger": ["its own data"], "scaling": ["its own data", "the server's model"]},
        "curious": "none",
        "defense_was_told": {"num_byzantine": 4},
    }
    assert threat.spoken(model, "inline") == (
        "Threat model: 4 of 20 clients are malicious; pixel_trigger must know its own data; scaling must know its own "
        "data and the server's model; the defense is told num_byzantine = 4."
    )
    assert (
        threat.spoken(threat.threat_model(resolve(settings_from({})), 0), "inline") == "Threat model: nobody attacks."
    )
