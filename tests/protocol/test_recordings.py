"""Recordings: what is written comes back, and files that are none, or damaged, are refused with a sentence."""

import json

import pytest
import torch
from safetensors.torch import save_file

from thornbed.protocol.recordings import (
    BadRecording,
    Facts,
    load_originals,
    load_update,
    originals_path,
    recordings_in,
    save_originals,
    save_update,
)

FACTS = {"model": "cnn(width=2)", "sample_shape": (1, 8, 8), "num_classes": 10, "num_samples": 3}
SENT = {"w": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(4)}
RECEIVED = {"w": torch.ones(2, 3), "steps": torch.tensor(5)}


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "there" / "one.safetensors"
    save_update(file, SENT, RECEIVED, **FACTS, learning_rate=0.1, mean=(0.5,), std=(0.25,), local_steps=2, batch_size=2)
    return file


def test_what_is_written_comes_back(path):
    read = load_update(path)
    for name, tensor in SENT.items():
        assert torch.equal(read.sent[name], tensor)
        assert torch.equal(read.received[name], RECEIVED[name])
    assert read.facts == Facts(
        **FACTS, learning_rate=0.1, mean=(0.5,), std=(0.25,), local_steps=2, batch_size=2, batch_norm="training"
    )
    assert load_originals(path, read.facts) is None


def test_steps_that_are_not_alike_come_back(path):
    save_update(path, SENT, RECEIVED, **FACTS, local_steps=2, batch_size=[1, 2])
    assert load_update(path).facts.batch_size == (1, 2)


def test_tensors_that_share_their_memory_are_two(tmp_path):
    tied = torch.ones(3)
    save_update(tmp_path / "tied.safetensors", {"a": tied, "b": tied}, {"a": tied, "b": tied[:]}, **FACTS)
    assert load_update(tmp_path / "tied.safetensors").sent.keys() == {"a", "b"}


def test_originals_lie_beside_their_recording_and_are_none(path):
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([1, 2, 1])
    save_originals(path, images, labels)
    assert originals_path(path).name == "one.originals.safetensors"
    assert recordings_in(path.parent) == [path]
    found = load_originals(path, load_update(path).facts)
    assert torch.equal(found[0], images)
    assert found[1].tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (torch.rand(2, 1, 8, 8), torch.tensor([1, 2]), r"its images are \(2, 1, 8, 8\), those of the update \(3, 1, 8"),
        (torch.rand(3, 1, 8, 8), torch.tensor([1, 2, 10]), r"damaged: labels lie in \[0, 10\)"),
        (torch.rand(3, 1, 8, 8), torch.tensor([0.0, 1, 2]), r"damaged: labels lie in \[0, 10\)"),
    ],
)
def test_originals_of_something_else_are_refused(path, images, labels, sentence):
    save_originals(path, images, labels)
    with pytest.raises(BadRecording, match=sentence):
        load_originals(path, load_update(path).facts)


@pytest.mark.parametrize(
    ("sent", "received", "facts", "sentence"),
    [
        ({}, {}, {}, "it holds no model that was sent"),
        (SENT, {"w": SENT["w"]}, {}, "steps was sent and did not come back"),
        ({"w": SENT["w"]}, SENT, {}, "steps was not sent and came back"),
        (SENT, {**SENT, "w": torch.ones(3, 2)}, {}, r"w was sent as \(2, 3\) and came back as \(3, 2\)"),
        (SENT, RECEIVED, {"num_samples": 0}, "num_samples: input should be greater than or equal to 1"),
        (SENT, RECEIVED, {"batch_size": [1, 0]}, "batch_size: input should be a whole number above 0, or several"),
        (SENT, RECEIVED, {"batch_size": 0}, "batch_size: input should be a whole number above 0, or several"),
        (SENT, RECEIVED, {"batch_size": []}, "batch_size: input should be a whole number above 0, or several"),
        (SENT, RECEIVED, {"learning_rate": float("nan")}, "learning_rate: input should be"),
        (SENT, RECEIVED, {"rounds": 3}, "rounds: extra inputs are not permitted"),
        (SENT, RECEIVED, {"sample_shape": (30,)}, "sample_shape.1: field required"),
    ],
)
def test_what_makes_no_recording_is_not_written(tmp_path, sent, received, facts, sentence):
    with pytest.raises(ValueError, match=f"a recording cannot be made: {sentence}"):
        save_update(tmp_path / "x.safetensors", sent, received, **{**FACTS, **facts})
    assert not list(tmp_path.iterdir())


def damaged(path, metadata=None, tensors=None):
    kept = {"sent/w": torch.ones(2), "received/w": torch.ones(2)} if tensors is None else tensors
    facts = json.dumps({**FACTS})
    save_file(kept, path, {"format": "thornbed-recording", "version": "1", "facts": facts, **(metadata or {})})


@pytest.mark.parametrize(
    ("metadata", "tensors", "sentence"),
    [
        ({"format": "other"}, None, "is no recording; thornbed.protocol.recordings.save_update makes one"),
        ({"version": "2"}, None, "is a recording of version 2; this Thornbed reads 1"),
        ({"facts": "{"}, None, "is damaged: its facts cannot be read"),
        ({"facts": "[" * 100_000}, None, "is damaged: its facts cannot be read"),
        ({"facts": "{}"}, None, "is damaged: model: field required"),
        ({}, {"sent/w": torch.ones(2)}, "is damaged: w was sent and did not come back"),
    ],
)
def test_damaged_files_are_refused(tmp_path, metadata, tensors, sentence):
    path = tmp_path / "x.safetensors"
    damaged(path, metadata, tensors)
    with pytest.raises(BadRecording, match=sentence):
        load_update(path)


def test_files_that_are_no_safetensors_are_refused(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BadRecording, match=r"one\.safetensors is no recording, or damaged"):
        load_update(path)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(BadRecording, match="is no recording, or damaged"):
        load_update(path)
    with pytest.raises(BadRecording, match="is not there"):
        load_update(tmp_path / "nowhere.safetensors")
