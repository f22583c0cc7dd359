"""How adversaries are connected, and how well: the graph along which they share features, votes and what they decided.

Paper: Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Sections II-B and
VI-C. The connectivity is the second smallest eigenvalue of the Laplacian (M. Fiedler, "Algebraic Connectivity of
Graphs", 1973).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import networkx as nx
import numpy as np
import torch

Topology = Literal["complete", "line", "ring", "star", "erdos_renyi", "file"]
DRAWS = 100


def adversary_graph(
    parties: Sequence[int],
    topology: Topology,
    generator: torch.Generator,
    *,
    average_degree: float | None = None,
    edge_probability: float | None = None,
    file: Path | None = None,
) -> nx.Graph:
    """Return a connected graph of the parties, ascending.

    topology: "line" joins each to the next; "ring" also the last to the first; "star" the first to all others;
    "erdos_renyi" every pair with `edge_probability`, 0.5 by default, drawn again, at most 100 times, until it is
    connected, so that it is a random graph among the connected ones; "file" reads one edge a line, two party
    numbers, from `file`, where # begins a comment. average_degree: random edges are added to a line until the mean
    degree is at least that.

    Raises ValueError for options that do not fit each other, a degree no graph of so many parties has, an edge to
    somebody else, and a graph that is not connected.
    """
    parties = sorted(parties)
    count = len(parties)
    if topology not in get_args(Topology):
        raise ValueError(f"adversaries are connected as {', '.join(get_args(Topology))}: graph = {topology}")
    if topology == "file" and file is None:
        raise ValueError('graph = "file" needs a graph_file, which has an edge a line, two party numbers')
    if topology != "file" and file is not None:
        raise ValueError(f'a graph_file goes with graph = "file", and with nothing else: graph = {topology}')
    if average_degree is not None and topology != "line":
        raise ValueError(f'an average degree is reached from graph = "line": graph = {topology}')
    if edge_probability is not None and topology != "erdos_renyi":
        raise ValueError(f'an edge_probability goes with graph = "erdos_renyi": graph = {topology}')
    probability = 0.5 if edge_probability is None else edge_probability
    if not 0 < probability <= 1:
        raise ValueError(f"adversaries need 0 < edge_probability <= 1: edge_probability = {probability}")
    graph: nx.Graph = nx.Graph()
    graph.add_nodes_from(parties)
    line = list(pairwise(parties))
    if topology == "complete":
        graph.add_edges_from((one, two) for one in parties for two in parties if one < two)
    elif topology == "star":
        graph.add_edges_from((parties[0], other) for other in parties[1:])
    elif topology == "file" and file is not None:
        graph.add_edges_from(_edges(file, parties))
    elif topology == "erdos_renyi":
        graph.add_edges_from(_drawn(parties, probability, generator))
    else:
        graph.add_edges_from(line)
        if topology == "ring" and count > 2:
            graph.add_edge(parties[-1], parties[0])
        if average_degree is not None:
            _densify(graph, average_degree, generator)
    check_connected(graph)
    return graph


def algebraic_connectivity(graph: nx.Graph) -> float:
    """Return the second smallest eigenvalue of the Laplacian, 0 for a graph that is not connected or has one node."""
    if len(graph) < 2:
        return 0.0
    return max(0.0, float(np.linalg.eigvalsh(nx.to_numpy_array(graph, weight=None) * -1.0 + _degrees(graph))[1]))


def check_connected(graph: nx.Graph) -> None:
    """Raise ValueError, with two adversaries that cannot reach each other, unless all can."""
    if len(graph) == 0:
        raise ValueError("a graph of adversaries needs at least one: there is none")
    parts = [sorted(part) for part in nx.connected_components(graph)]
    if len(parts) > 1:
        raise ValueError(
            f"the adversaries' graph is not connected: adversary {parts[1][0]} cannot be reached from {parts[0][0]} "
            f"({len(parts)} parts)"
        )


def _degrees(graph: nx.Graph) -> np.ndarray:
    return np.diag([float(degree) for _, degree in graph.degree()])


def _pairs(parties: Sequence[int]) -> list[tuple[int, int]]:
    return [(one, two) for place, one in enumerate(parties) for two in parties[place + 1 :]]


def _drawn(parties: Sequence[int], probability: float, generator: torch.Generator) -> list[tuple[int, int]]:
    pairs = _pairs(parties)
    for _ in range(DRAWS):
        kept = (torch.rand(len(pairs), generator=generator) < probability).tolist()
        edges = [pair for pair, keep in zip(pairs, kept) if keep]
        graph: nx.Graph = nx.Graph(edges)
        graph.add_nodes_from(parties)
        if nx.is_connected(graph):
            return edges
    raise ValueError(
        f"erdos_renyi found no connected graph of {len(parties)} adversaries in {DRAWS} draws: "
        f"edge_probability = {probability}"
    )


def _densify(graph: nx.Graph, degree: float, generator: torch.Generator) -> None:
    parties = sorted(graph)
    least, most = 2 * graph.number_of_edges() / len(graph), len(graph) - 1
    if not least <= degree <= most:
        raise ValueError(
            f"a line of {len(graph)} adversaries has average degree {least:g}, and at most {most} with all edges: "
            f"average_degree = {degree:g}"
        )
    free = [pair for pair in _pairs(parties) if not graph.has_edge(*pair)]
    for place in torch.randperm(len(free), generator=generator).tolist():
        if 2 * graph.number_of_edges() / len(graph) >= degree:
            break
        graph.add_edge(*free[place])


def _edges(file: Path, parties: Sequence[int]) -> list[tuple[int, int]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"graph_file {file} cannot be read: {reason}") from error
    edges = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            raise ValueError(f"{file}, line {number}: an edge is two party numbers, not {line.strip()!r}")
        one, two = int(words[0]), int(words[1])
        for party in (one, two):
            if party not in parties:
                raise ValueError(f"{file}, line {number}: party {party} is no adversary; they are {list(parties)}")
        if one == two:
            raise ValueError(f"{file}, line {number}: adversary {one} is joined to itself")
        edges.append((one, two))
    return edges
