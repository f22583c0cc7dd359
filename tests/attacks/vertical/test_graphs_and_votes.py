"""Graphs of adversaries, their connectivity, breadth-first collection and votes, on graphs drawn by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import networkx as nx
import pytest
import torch

from thornbed.attacks.vertical.coalition import breadth_first, decided, known_rows, leader, shared, to_poison
from thornbed.attacks.vertical.graphs import adversary_graph, algebraic_connectivity


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def edges(graph: nx.Graph) -> set[tuple[int, int]]:
    return {(min(edge), max(edge)) for edge in graph.edges}


def test_the_named_graphs_join_whom_they_say() -> None:
    parties = (7, 2, 5, 3)  # in any order: they are taken ascending
    assert edges(adversary_graph(parties, "line", source())) == {(2, 3), (3, 5), (5, 7)}
    assert edges(adversary_graph(parties, "ring", source())) == {(2, 3), (3, 5), (5, 7), (2, 7)}
    assert edges(adversary_graph(parties, "star", source())) == {(2, 3), (2, 5), (2, 7)}
    assert len(adversary_graph(parties, "complete", source()).edges) == 6
    assert edges(adversary_graph((1, 4), "ring", source())) == {(1, 4)}
    assert list(adversary_graph((4,), "complete", source())) == [4]


def test_connectivity_is_that_of_the_textbook() -> None:
    five = range(5)
    expected = {
        "complete": 5.0,
        "star": 1.0,
        "line": 2 - 2 * math.cos(math.pi / 5),
        "ring": 2 - 2 * math.cos(2 * math.pi / 5),
    }
    for topology, value in expected.items():
        assert abs(algebraic_connectivity(adversary_graph(five, topology, source())) - value) < 1e-9
    assert algebraic_connectivity(nx.Graph([(0, 1), (2, 3)])) == 0
    assert algebraic_connectivity(adversary_graph((3,), "line", source())) == 0


def test_edges_are_added_to_a_line_until_the_degree_is_reached() -> None:
    found = []
    for degree in (1.6, 2.0, 2.4, 3.2, 4.0):
        graph = adversary_graph(range(5), "line", source(), average_degree=degree)
        assert {(0, 1), (1, 2), (2, 3), (3, 4)} <= edges(graph)
        assert abs(2 * len(graph.edges) / 5 - degree) < 1e-9
        found.append(algebraic_connectivity(graph))
    assert all(more > less - 1e-9 for less, more in pairwise(found))
    assert found[0] < found[2] < found[4]
    assert found[-1] == pytest.approx(5.0)
    one, two = (edges(adversary_graph(range(9), "line", source(seed), average_degree=4)) for seed in (0, 1))
    assert one != two


def test_random_graphs_are_connected_and_those_of_their_generator() -> None:
    graphs = [edges(adversary_graph(range(6), "erdos_renyi", source(seed), edge_probability=0.4)) for seed in range(20)]
    assert len({frozenset(each) for each in graphs}) > 10
    assert graphs[3] == edges(adversary_graph(range(6), "erdos_renyi", source(3), edge_probability=0.4))
    assert all(nx.is_connected(nx.Graph(list(each))) for each in graphs)


def test_a_graph_is_read_from_a_file(tmp_path) -> None:
    path = tmp_path / "edges.txt"
    path.write_text("# who talks to whom\n3 8\n\n8 5  # the hub\n")
    assert edges(adversary_graph((3, 5, 8), "file", source(), file=path)) == {(3, 8), (5, 8)}
    for text, sentence in (
        ("3 8\n", "is not connected: adversary 5 cannot be reached from 3 \\(2 parts\\)"),
        ("3 8\n8 5\n5 6", "line 3: party 6 is no adversary; they are \\[3, 5, 8\\]"),
        ("3 3", "line 1: adversary 3 is joined to itself"),
        ("3 8 5", "line 1: an edge is two party numbers, not '3 8 5'"),
        ("3 x", "an edge is two party numbers"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            adversary_graph((3, 5, 8), "file", source(), file=path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"edges.txt cannot be read: it is no text"):
        adversary_graph((3, 5, 8), "file", source(), file=path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"topology": "tree"}, "complete, line, ring, star, erdos_renyi, file: graph = tree"),
        ({"topology": "file"}, 'graph = "file" needs a graph_file, which has an edge a line'),
        ({"topology": "line", "file": Path("edges.txt")}, 'graph_file goes with graph = "file", .* graph = line'),
        ({"topology": "file", "file": Path("none.txt")}, "graph_file none.txt cannot be read: No such file"),
        ({"topology": "file", "file": Path("/")}, "graph_file / cannot be read: Is a directory"),
        ({"topology": "ring", "average_degree": 3}, 'from graph = "line": graph = ring'),
        ({"topology": "line", "average_degree": 1}, "has average degree 1.5, and at most 3 with .*average_degree = 1"),
        ({"topology": "line", "average_degree": 3.5}, "at most 3 with all edges: average_degree = 3.5"),
        ({"topology": "erdos_renyi", "edge_probability": 0}, "0 < edge_probability <= 1: edge_probability = 0"),
        ({"topology": "erdos_renyi", "edge_probability": 2.0}, "0 < edge_probability <= 1: edge_probability = 2.0"),
        (
            {"topology": "line", "edge_probability": 0.5},
            'edge_probability goes with graph = "erdos_renyi": graph = line',
        ),
        ({"topology": "erdos_renyi", "edge_probability": 1e-9}, "no connected graph of 4 adversaries in 100 draws"),
        ({"topology": "line", "parties": ()}, "at least one: there is none"),
    ],
)
def test_graphs_that_are_none_are_refused(options, sentence) -> None:
    given = {"parties": range(4), **options}
    with pytest.raises(ValueError, match=sentence):
        adversary_graph(given.pop("parties"), given.pop("topology"), source(), **given)


#    1 - 2 - 3       9 hangs on 4
#    |   |
#    5 - 4 - 9
HAND = nx.Graph([(1, 2), (2, 3), (1, 5), (5, 4), (2, 4), (4, 9)])


def test_the_leader_has_the_highest_degree_and_meets_the_others_breadth_first() -> None:
    assert leader(HAND) == 2  # as many as 4, and before it
    assert list(breadth_first(HAND, 2)) == [2, 1, 3, 4, 5, 9]
    assert list(breadth_first(HAND, 9)) == [9, 4, 2, 5, 1, 3]
    assert sorted(breadth_first(HAND, 2).edges) == [(1, 5), (2, 1), (2, 3), (2, 4), (4, 9)]
    with pytest.raises(ValueError, match="adversary 3 cannot be reached from 1"):
        breadth_first(nx.Graph([(1, 2), (3, 4)]), 1)


def test_features_go_one_hop_and_no_further() -> None:
    parts = {party: torch.full((2, 1), float(party)) for party in HAND}
    given = shared(parts, HAND)
    assert {party: list(others) for party, others in given.items()} == {
        1: [2, 5],
        2: [1, 3, 4],
        3: [2],
        4: [2, 5, 9],
        5: [1, 4],
        9: [4],
    }
    assert all(torch.equal(part, parts[other]) for others in given.values() for other, part in others.items())


def test_a_vote_is_counted_as_it_says() -> None:
    named = {0: [1, 2, 3], 1: [2, 3], 2: [3, 4, 2], 3: [3, 2], 4: [3, 9]}
    votes = {party: torch.tensor(rows) for party, rows in named.items()}
    graph = nx.star_graph(4)
    # 3 is named five times, 2 four times, all others once; ceil(5 / 2) = 3
    assert {tuple(rows.tolist()) for rows in decided(votes, graph, "printed").values()} == {(2, 3)}
    del_one = {**votes, 0: torch.tensor([1, 3])}
    assert decided(del_one, graph, "printed")[4].tolist() == [3]  # 2 is named three times
    assert decided(del_one, graph, "simple")[4].tolist() == [2, 3]
    alone = decided(votes, graph, "none")
    assert {party: rows.tolist() for party, rows in alone.items()} == {k: sorted(v) for k, v in named.items()}
    # two must agree, by either count; one has nobody to ask
    pair = {0: torch.tensor([1, 2]), 1: torch.tensor([2, 5])}
    assert decided(pair, nx.path_graph(2), "printed")[0].tolist() == [2]
    assert decided(pair, nx.path_graph(2), "simple")[0].tolist() == [2]
    assert decided({0: pair[0]}, nx.path_graph(1), "printed")[0].tolist() == [1, 2]
    with pytest.raises(ValueError, match="a vote needs all 5 adversaries: adversary 4 has not voted"):
        decided({party: votes[party] for party in range(4)}, graph, "printed")


def test_what_is_poisoned_keeps_to_the_budget_and_is_the_same_for_all_that_agree() -> None:
    agreed = torch.arange(100, 400, 2)
    found = to_poison({1: agreed, 4: agreed, 6: agreed[:3]}, 1000, 0.02, source())
    assert torch.equal(found[1], found[4])
    assert len(found[1]) == 20
    assert set(found[1].tolist()) <= set(agreed.tolist())
    assert found[1].tolist() == sorted(set(found[1].tolist()))
    assert found[6].tolist() == agreed[:3].tolist()
    nearly = to_poison({1: agreed, 4: agreed[1:]}, 1000, 0.02, source())
    assert len(set(nearly[1].tolist()) & set(nearly[4].tolist())) >= 19
    assert not torch.equal(found[1], to_poison({1: agreed}, 1000, 0.02, source(1))[1])
    assert len(to_poison({1: agreed}, 1000, 0.0, source())[1]) == 0


def test_the_known_labels_have_their_share_of_the_target_and_never_fewer_than_a_triplet_needs() -> None:
    labels = torch.arange(1000) % 10
    known = known_rows(labels, 3, 100, 0.16, source())
    assert known.tolist() == sorted(set(known.tolist()))
    assert int((labels[known] == 3).sum()) == 16
    few = known_rows(labels, 3, 3, 0.01, source())
    assert int((labels[few] == 3).sum()) == 2
    with pytest.raises(ValueError, match="two known labels of the target class and one of another: 2 known"):
        known_rows(labels, 3, 2, 0.5, source())
    with pytest.raises(ValueError, match="to know 180 labels of the target class: there are 100"):
        known_rows(labels, 3, 200, 0.9, source())
