"""Which rounds a client keeps, finds again and forgets, in memory and in a folder."""

from __future__ import annotations

import pytest
import torch
from flwr.app import Context, RecordDict

from thornbed.protocol.client_state import ClientState, LivingMemory, LostState, RecordMemory


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


@pytest.mark.parametrize("kind", ["living", "record"])
def test_what_was_kept_comes_back_bit_for_bit_from_memory_and_from_the_folder(tmp_path, kind):
    kept = {
        "w": torch.tensor([0.1, -0.0, 1e-45]),
        "n": torch.tensor(7),
        "d": torch.tensor([1 / 3], dtype=torch.float64),
    }
    state = ClientState(3, memory(kind), tmp_path)
    assert state.load(0) is None
    state.save(1, kept)
    for each in (state, ClientState(3, LivingMemory(), tmp_path)):
        found = each.load(1)
        assert found is not None
        assert found.keys() == kept.keys()
        assert all(found[name].numpy().tobytes() == tensor.numpy().tobytes() for name, tensor in kept.items())
        found["w"].zero_()  # whoever loads may train it in place
        assert each.load(1)["w"][0] > 0


def test_after_a_round_the_one_before_that_the_server_took_is_kept_and_no_other(tmp_path):
    state = ClientState(3, LivingMemory(), tmp_path)
    for server_round, taken in ((1, 0), (2, 1), (3, 1), (4, 3)):
        state.save(server_round, {"w": torch.full((1,), float(server_round))}, after=taken)
        assert state.saved_rounds() == {server_round, taken} - {0}
    assert state.load(3)["w"].item() == 3


@pytest.mark.parametrize("after", [1, 2])
def test_what_is_missing_or_damaged_is_said_and_never_made_anew(tmp_path, after):
    with pytest.raises(LostState, match=rf"client 3 has lost what it kept after round {after} \(.*{tmp_path.name}\)"):
        ClientState(3, LivingMemory(), tmp_path).load(after)
    with pytest.raises(LostState, match=r'no folder is named for it: state="FOLDER" in --node-config'):
        ClientState(3, LivingMemory(), None).load(after)
    (tmp_path / f"client-3-round-{after}.safetensors").write_bytes(b"nothing")
    with pytest.raises(LostState, match=f"client 3 cannot read what it kept after round {after}"):
        ClientState(3, LivingMemory(), tmp_path).load(after)


def test_what_another_run_left_in_the_same_folder_is_none_of_this_run(tmp_path):
    def fresh(run):
        return ClientState(3, LivingMemory(), tmp_path, run)

    fresh("first").save(5, {"w": torch.ones(1)})
    assert fresh("first").load(5)["w"].item() == 1
    fresh("second").save(5, {"w": torch.zeros(1)})
    with pytest.raises(LostState, match=r"lost what it kept after round 5: .* is another run's"):
        fresh("first").load(5)
    assert fresh("second").load(5)["w"].item() == 0
    assert fresh("third").saved(5)["w"].item() == 0  # whoever asks for the latest, of whichever run
