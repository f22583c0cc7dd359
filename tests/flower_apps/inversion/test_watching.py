"""What a curious server keeps of a reply: nothing of one whose claim cannot be, and no originals that contradict it."""

import logging

import pytest
import torch

from thornbed.attacks.inversion import Observation
from thornbed.clients.local_training import taken
from thornbed.flower_apps.inversion.watching import observed_facts, watched
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import settings_from
from thornbed.protocol.recordings import load_originals, load_update, recordings_in
from thornbed.strategies import NumberedClients, Sighting

FLAGS = {"task": "digits(num_train=40)", "model": "cnn(width=2)", "num_clients": 4, "partition": "stratified"}


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Return a function that keeps the reply of client 0 in round 1, which claims so many samples."""
    monkeypatch.setattr(NumberedClients, "client_of", lambda cohort, node: 0)
    settings = resolve(settings_from({**FLAGS, "record": str(tmp_path), "batch_size": 5}))
    curious = watched(None, HorizontalRun(settings), NumberedClients.__new__(NumberedClients))
    tensors = {"w": torch.zeros(1)}

    def claiming(num_examples):
        curious.observer(Sighting(server_round=1, node_id=7, sent=tensors, received=tensors, num_examples=num_examples))
        return recordings_in(tmp_path)

    return claiming


@pytest.mark.parametrize("claim", [None, 0.0, -1.0, float("nan"), 70_000.0, 1e9, float("inf")])
def test_an_update_whose_claim_cannot_be_is_not_kept_and_ends_nothing(claim, keep, caplog):
    with caplog.at_level(logging.WARNING):
        assert keep(claim) == []
    assert f"The update of client 0 is not kept: it claims {claim} samples" in caplog.text


def test_originals_are_kept_where_they_are_as_many_as_the_client_claims(keep, caplog):
    [path] = keep(10)
    assert load_originals(path, load_update(path).facts) is not None
    path.with_name(path.name.replace(".safetensors", ".originals.safetensors")).unlink()
    with caplog.at_level(logging.WARNING):
        [path] = keep(15)
    assert load_originals(path, load_update(path).facts) is None
    assert "it trained on 10 samples, and by what it claims on 15" in caplog.text


@pytest.mark.parametrize(
    ("num_examples", "local_epochs", "server_round", "recorded"),
    [
        (12, 1.0, 1, 4),
        (11, 1.0, 1, 4),  # 4, 4, 3
        (13, 1.0, 1, (4, 4, 5)),  # nobody trains on a single sample
        (13, 0.6, 1, 4),  # 4, 4
        (13, 0.1, 1, None),
        (10, 2.0, 1, 4),
        (13, 2.0, 1, (4, 4, 5)),
        (10, 0.6, 2, (2, 4)),  # the round before took 4, 4
        (10, 1.2, 2, (4, 2, 4)),  # that one took 4, 4, 2, 4; this one goes on with 4, 2, 4, 4
        (3, 2.0, 1, 3),
    ],
)
def test_the_sizes_of_local_steps_are_those_that_were_taken(num_examples, local_epochs, server_round, recorded):
    course = {"batch_size": 4, "local_epochs": local_epochs, "continue_epochs": True}
    facts = observed_facts(HorizontalRun(resolve(settings_from({**FLAGS, **course}))), num_examples, server_round, 0)
    assert facts.batch_size == recorded
    seen = Observation(
        model=torch.nn.Identity(),
        gradient={},
        sample_shape=(1, 8, 8),
        num_classes=10,
        **facts.model_dump(include={"num_samples", "local_steps", "batch_size"}),
    )
    rows = {"batch_size": 4, "epochs": local_epochs, "skipped": (server_round - 1) * facts.local_steps}
    steps = taken(num_examples, generator=torch.Generator(), **rows)
    assert [len(batch) for batch in seen.batches] == [len(batch) for batch in steps]


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "local_epochs", "rounds"),
    [
        (10, 4, 0.4, [(8, 1), (6, 1), (6, 2), (8, 3)]),  # steps of 4, 4, 2: two a round
        (15, 1, 0.1, [(2, 1)] * 8 + [(2, 2)]),  # a tenth of 15 steps is two
        (6, 2, 2.0, [(6, 1), (6, 2)]),
    ],
)
def test_a_round_that_goes_on_is_read_with_its_own_samples(num_examples, batch_size, local_epochs, rounds):
    course = {"batch_size": batch_size, "local_epochs": local_epochs, "continue_epochs": True}
    run = HorizontalRun(resolve(settings_from({**FLAGS, **course})))
    facts = [observed_facts(run, num_examples, number, 0) for number in range(1, len(rounds) + 1)]
    assert [(each.num_samples, each.epoch) for each in facts] == rounds
