"""The output folder: who may write into it, what is damaged, and JSON that every reader reads."""

import json
import math

import pytest
import torch

from thornbed.flower_apps.records.folder import SUMMARIZED, Folder, alone
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.settings import BadSettings, settings_from

GOOD = {"accuracy": 0.1, "loss": 2.3}
LINE = {"round": 0, "accuracy": 0.1, "loss": 2.3, "attack_success_rate": None, "seconds": 0.5}


def settings(**values):
    return resolve(settings_from({"rounds": 3, **values}))


@pytest.fixture
def folder(tmp_path):
    """A run with two of three rounds done."""
    made = Folder(tmp_path / "run")
    with made.opened(settings()):
        made.write_config(settings(), {})
        for number in range(3):
            made.append({**LINE, "round": number})
        made.checkpoint(settings(), {"w": torch.zeros(2)}, 2, {})
    return made


def test_two_do_not_write_into_one_folder(tmp_path, monkeypatch, folder):
    monkeypatch.setattr("thornbed.flower_apps.records.folder.LOCK_SECONDS", 0.1)
    with (
        folder.opened(settings(resume=True)) as done,
        pytest.raises(BadSettings, match="run is being written by another process"),
        folder.opened(settings(resume=True)),
    ):
        pass
    assert done == 2
    with folder.opened(settings(resume=True)) as done:  # and the first one left it open to the next
        assert done == 2


def test_a_run_that_goes_on_has_to_go_on(folder):
    with (
        pytest.raises(BadSettings, match="--rounds 1 is fewer than the 2 that are done"),
        folder.opened(settings(resume=True, rounds=1)),
    ):
        pass
    assert len(folder.lines()) == 3


def test_a_run_among_real_machines_stays_there(folder):
    there = settings(resume=True, engine="deployment", superlink="10.0.0.5:8000")
    with pytest.raises(BadSettings, match="--engine is deployment and was inline"), folder.opened(there):
        pass


def test_another_spelling_is_the_same_run(tmp_path):
    made = Folder(tmp_path / "run")
    with made.opened(settings(strategy="krum(num_byzantine=1)")):
        made.write_config(settings(strategy="krum(num_byzantine=1)"), {})
    with made.opened(settings(strategy="krum( num_byzantine = 1 )", resume=True)) as done:
        assert done == 0


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json", "checkpoint.safetensors", "model.safetensors"])
def test_records_without_their_config_are_not_mixed_with(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with (
        pytest.raises(BadSettings, match=f"holds {name} of a run without its config.json"),
        Folder(tmp_path).opened(settings()),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", b"\xff\xfe\n"),
        ("metrics.jsonl", b"[]\n"),
        ("metrics.jsonl", b'{"round": "two"}\n'),
        ("metrics.jsonl", b'{"round": 1}\n'),
        ("metrics.jsonl", json.dumps({**LINE, "seconds": "long"}).encode()),
        ("metrics.jsonl", b"[" * 100_000),
        ("config.json", b"\xff"),
        ("config.json", b"[]"),
        ("config.json", b'{"settings": 3}'),
        ("config.json", b'{"settings": {"rounds": "many"}}'),
        ("summary.json", b""),
        ("summary.json", b"3"),
        ("summary.json", b"{}"),
        ("summary.json", json.dumps({**dict.fromkeys(SUMMARIZED, 1), "metrics": GOOD, "settings": "none"}).encode()),
        ("summary.json", b'{"settings": {}, "metrics": {}, "seconds": 1}'),
        ("metrics.jsonl", json.dumps({**LINE, "accuracy": "high"}).encode()),
        ("checkpoint.safetensors", b""),
    ],
)
def test_what_is_damaged_is_named_in_one_sentence(folder, name, content):
    (folder.path / name).write_bytes(content)
    complete = settings(resume=True, rounds=2)  # with more rounds to go the summary would be made anew
    with pytest.raises(BadSettings, match=f"{name} is damaged") as refused, folder.opened(complete):
        folder.summary()
    assert "\n" not in str(refused.value)


def test_a_run_without_its_checkpoint_is_not_begun_anew(folder):
    (folder.path / "checkpoint.safetensors").unlink()
    with (
        pytest.raises(BadSettings, match=r"holds no checkpoint.safetensors to go on from"),
        folder.opened(settings(resume=True)),
    ):
        pass
    assert len(folder.lines()) == 3


def test_a_missing_round_is_damage(folder):
    lines = (folder.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    for left in ([lines[0], lines[2]], []):
        (folder.path / "metrics.jsonl").write_text("".join(left))
        with (
            pytest.raises(BadSettings, match=r"metrics.jsonl is damaged: it lacks a round up to 2"),
            folder.opened(settings(resume=True)),
        ):
            pass


def test_a_checkpoint_that_is_none_is_refused(folder):
    folder.checkpoint(settings(), {"w": torch.zeros(2)}, -2, {})
    with pytest.raises(BadSettings, match=r"checkpoint\.safetensors is damaged"):
        folder.rounds_done()
    folder.checkpoint(settings(), {"w": torch.zeros(2)}, 2, {"seen": torch.ones(3)})
    model, memory = folder.load_checkpoint({"w": torch.ones(2)})
    assert model["w"].tolist() == [0, 0]
    assert memory["seen"].tolist() == [1, 1, 1]
    for other in ({"w": torch.zeros(3)}, {"v": torch.zeros(2)}, {"w": torch.zeros(2).double()}):
        with pytest.raises(BadSettings, match="holds another model"):
            folder.load_checkpoint(other)
    (folder.path / "checkpoint.safetensors").unlink()
    (folder.path / "checkpoint.safetensors").mkdir()
    with pytest.raises(BadSettings, match=r"checkpoint\.safetensors is damaged"):
        folder.rounds_done()


def test_a_config_that_is_a_folder_is_no_run(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(BadSettings, match="damaged"):
        Folder(tmp_path).settings()


def test_numbers_that_are_not_finite_are_null(tmp_path):
    folder = Folder(tmp_path)
    odd = {**LINE, "loss": math.nan, "defense": {"scores": [1.0, math.inf]}}
    assert folder.append(odd)["loss"] is None
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))["defense"] == {"scores": [1.0, None]}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadSettings, match=f"--output {path}"), alone(path):
            pass
