"""What adversaries do together: know a few labels, share features, and agree which rows are the target's.

Paper: Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated Learning", 2025, Sections III-A and
IV-A. Features go one hop along their graph; votes and the decision along its breadth-first tree below the leader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import networkx as nx
import torch
from torch import Tensor

from thornbed.attacks.vertical import Vote
from thornbed.attacks.vertical.graphs import check_connected


def known_targets(count: int, target_share: float) -> int:
    """Return how many of `count` known rows are of the target class: round(target_share * count), but 2 to count - 1.

    Two make a triplet with one of another class.
    """
    return min(max(2, round(target_share * count)), count - 1)


def known_rows(labels: Tensor, target: int, count: int, target_share: float, generator: torch.Generator) -> Tensor:
    """Return `count` rows of all (N,) whose labels are known, ascending, round(target_share * count) of the target's.

    At least two are of the target class, and one is of another, whatever the shares round to. Raises ValueError where
    there are not that many.
    """
    if count < 3:
        raise ValueError(f"adversaries need two known labels of the target class and one of another: {count} known")
    wanted = known_targets(count, target_share)
    chosen = []
    for name, rows, number in (
        ("the target class", (labels == target).nonzero()[:, 0], wanted),
        ("other classes", (labels != target).nonzero()[:, 0], count - wanted),
    ):
        if len(rows) < number:
            raise ValueError(f"adversaries are to know {number} labels of {name}: there are {len(rows)}")
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:number]])
    return torch.cat(chosen).sort().values


def shared(parts: Mapping[int, Tensor], graph: nx.Graph) -> dict[int, dict[int, Tensor]]:
    """Return what each adversary is given: by adversary, the parts (N, c_j) of its one-hop neighbours, ascending."""
    return {party: {other: parts[other] for other in sorted(graph.neighbors(party))} for party in sorted(graph)}


def leader(graph: nx.Graph) -> int:
    """Return the adversary of the highest degree, the first of equal ones."""
    return min(graph, key=lambda party: (-graph.degree(party), party))


def breadth_first(graph: nx.Graph, start: int) -> nx.DiGraph:
    """Return the tree of a breadth-first search from `start`, lower numbers first, with edges away from it.

    Its nodes are in the order in which they are met. Raises ValueError for a graph that is not connected.
    """
    check_connected(graph)
    return nx.bfs_tree(graph, start, sort_neighbors=sorted)


def decided(votes: Mapping[int, Tensor], graph: nx.Graph, vote: Vote) -> dict[int, Tensor]:
    """Return by adversary the rows it takes for the target's after the vote, ascending; the same for all, but "none".

    votes: by adversary, the rows (v,) it named, each once. This is what the leader counts when it has collected them;
    how they come to it, and the result back, is the caller's. A single adversary has nobody to ask. Raises ValueError
    where a vote is missing, and for a graph that is not connected.
    """
    check_connected(graph)
    order = sorted(graph)
    if lacking := sorted(set(order) - votes.keys()):
        raise ValueError(f"a vote needs all {len(order)} adversaries: adversary {lacking[0]} has not voted")
    if vote == "none" or len(order) == 1:
        return {party: votes[party].sort().values for party in order}
    rows, counts = torch.cat([votes[party] for party in order]).unique(return_counts=True)
    passed = counts > (math.ceil(len(order) / 2) if vote == "printed" else len(order) / 2)
    return dict.fromkeys(order, rows[passed])


def poisoned_at_most(budget: float, num_rows: int) -> int:
    """Return how many of all training rows a budget, a share of them, lets an adversary poison."""
    return round(budget * num_rows)


def to_poison(
    agreed: Mapping[int, Tensor], num_rows: int, budget: float, generator: torch.Generator
) -> dict[int, Tensor]:
    """Return by adversary the rows it poisons: `poisoned_at_most` so many of those agreed on, ascending.

    All draw in one order, so that adversaries that agreed on the same rows poison the same ones, and those whose lists
    differ a little (without a vote) mostly the same; together these may poison more than the budget.
    """
    most, order = poisoned_at_most(budget, num_rows), torch.randperm(num_rows, generator=generator)
    return {party: rows[order[rows].argsort()[:most]].sort().values for party, rows in agreed.items()}
