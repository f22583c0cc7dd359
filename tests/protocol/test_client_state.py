"""Which rounds a client keeps, finds again and forgets, in memory and in a folder."""

from __future__ import annotations

import pytest
import torch
from flwr.app import Context, RecordDict

from thornbed.protocol.client_state import ClientState, LivingMemory, RecordMemory


def memory(kind):
    return LivingMemory() if kind == "living" else RecordMemory(Context(1, 2, {}, RecordDict(), {}))


@pytest.mark.parametrize("kind", ["living", "record"])
@pytest.mark.parametrize("with_folder", [False, True])
def test_the_latest_round_before_one_is_found_and_all_can_be_forgotten(tmp_path, kind, with_folder):
    state = ClientState(3, memory(kind), tmp_path / "kept" if with_folder else None)
    assert state.latest(9) == 0
    for server_round in (1, 2, 4):
        state.save(server_round, {"w": torch.full((2,), float(server_round))}, after=state.latest(server_round))
    assert [state.latest(before) for before in (1, 2, 3, 4, 5, 9)] == [0, 0, 2, 2, 4, 4]
    found = state.load(4)
    assert found is not None
    assert found["w"].tolist() == [4, 4]
    state.hold(torch.ones(1), lambda thing: {"thing": thing})
    state.forget()
    assert state.latest(9) == 0
    assert state.saved_rounds() == set()
    assert state.held(lambda tensors: tensors["thing"]) is not None  # that is of no round


def test_what_lies_in_the_folder_is_found_without_memory_and_is_each_clients_own(tmp_path):
    ClientState(1, LivingMemory(), tmp_path).save(5, {"w": torch.zeros(1)})
    ClientState(11, LivingMemory(), tmp_path).save(7, {"w": torch.zeros(1)})
    fresh = ClientState(1, LivingMemory(), tmp_path)
    assert (fresh.latest(9), fresh.latest(5)) == (5, 0)
    fresh.forget()
    assert ClientState(11, LivingMemory(), tmp_path).latest(9) == 7
