"""Adversaries agree through letters: nobody waits, and who is faster changes nothing."""

from __future__ import annotations

import networkx as nx
import torch

from thornbed.attacks.vertical.cooperative_backdoor import CooperativeBackdoor
from thornbed.clients.channel import Channel
from thornbed.clients.collusion import Collusion
from thornbed.tasks.blocks.grid import grid

SHAPE = (1, 6, 8)
BLOCKS = {party: block for party, block in enumerate(grid(SHAPE, 4)) if party > 0}
ATTACK = CooperativeBackdoor(size=(3, 3), epochs=3, steps=3, latent=4, hidden=8, confidence=0.01, budget=0.1)


def sides(folder, blocks=BLOCKS) -> dict[int, Collusion]:
    """Adversaries on a line."""
    known = torch.arange(0, 60, 4)
    return {
        party: Collusion(
            attack=ATTACK,
            graph=nx.path_graph(list(blocks)),
            blocks=blocks,
            sample_shape=SHAPE,
            num_classes=3,
            known=known,
            labels=known % 3,
            client=party,
            channel=Channel(folder),
            seed=0,
        )
        for party in blocks
    }


def features(party: int, blocks=BLOCKS) -> torch.Tensor:
    x = torch.rand(60, 48, generator=torch.Generator().manual_seed(0))
    return x[:, list(blocks[party])]


def test_a_letter_is_read_in_later_steps_only(tmp_path) -> None:
    channel = Channel(tmp_path)
    assert channel.read("vote") is None
    channel.leave("vote", {"rows": torch.tensor([1, 2])}, (2, 5))
    assert channel.read("vote", (2, 5)) is None
    assert channel.read("vote", (1, 9)) is None
    for later in ((2, 6), (3, -1), None):
        found = channel.read("vote", later)
        assert found is not None
        assert found["rows"].tolist() == [1, 2]


def agreed(folder, order, blocks=BLOCKS) -> dict[int, list[int]]:
    """Return what each poisons, where they take their turns in this order, and when they knew."""
    colluding, members, rows, source = sides(folder, blocks), {}, {}, torch.Generator()
    for party in order:
        colluding[party].share(features(party, blocks), (1, -1))
    for party in order:
        view = colluding[party].view(features(party, blocks), (1, 0))
        assert view is not None
        members[party] = colluding[party].begins(view)
    for step in range(8):
        for party in order:
            if party not in rows and colluding[party].settle(members[party], (1, step), source):
                rows[party] = [step, *members[party].memory["rows"].tolist()]
    return rows


def test_they_agree_in_the_third_step_whoever_is_first(tmp_path) -> None:
    one, other = agreed(tmp_path / "one", [1, 2, 3]), agreed(tmp_path / "other", [3, 1, 2])
    assert one == other
    assert {tuple(rows) for rows in one.values()} == {tuple(one[1])}
    assert one[1][0] == 2
    assert 0 < len(one[1]) - 1 <= 6  # a tenth of the rows


def test_votes_and_the_decision_go_a_hop_a_step(tmp_path) -> None:
    # On the line 1 - 2 - 3 - 4 - 5 adversary 2 leads: what 5 says passes 4 and 3, and the decision goes back.
    blocks = {party: block for party, block in enumerate(grid((1, 6, 8), 6)) if party > 0}
    for folder, order in (("one", [1, 2, 3, 4, 5]), ("other", [5, 3, 1, 4, 2])):
        found = agreed(tmp_path / folder, order, blocks)
        assert {party: rows[0] for party, rows in found.items()} == {1: 4, 2: 4, 3: 4, 4: 5, 5: 6}
        assert len({tuple(rows[1:]) for rows in found.values()}) == 1
        assert len(found[1]) > 1
        # Whoever has lost its state in the next round finds the decision at once, whoever is first.
        again, source = sides(tmp_path / folder, blocks), torch.Generator()
        for party in order:
            view = again[party].view(features(party, blocks), (2, 0))
            assert view is not None
            assert again[party].settle(again[party].begins(view), (2, 0), source)


def test_features_go_one_hop_and_nobody_thinks_without_them(tmp_path) -> None:
    colluding = sides(tmp_path)
    colluding[1].share(features(1), (1, -1))
    assert colluding[2].view(features(2), (1, 0)) is None  # adversary 3 has left nothing yet
    for party in (2, 3):
        colluding[party].share(features(party), (1, -1))
    views = {party: colluding[party].view(features(party), (1, 0)) for party in BLOCKS}
    assert {party: sorted(view.shared) for party, view in views.items() if view} == {1: [2], 2: [1, 3], 3: [2]}
