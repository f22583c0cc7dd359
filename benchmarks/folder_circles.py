"""How do the folders of the house import each other, and is there a circle among them, at any depth?

    python benchmarks/folder_circles.py

A folder imports another where a file in the one imports a file in the other; a folder within a folder counts by itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parent.parent
NAME = "thornbed"
PACKAGES = ("attacks", "clients", "defenses", "experiments", "flower_apps", "protocol", "strategies", "tasks")


def folders(root: Path = ROOT) -> nx.DiGraph:
    """Return the folders as a graph: an edge from A to B lists in `by` the imports of B that stand in files of A."""
    graph: nx.DiGraph = nx.DiGraph()
    for path in sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")):
        here = path.parent.relative_to(root).as_posix()
        graph.add_node(here)
        for module in imported(path):
            there = folder_of(module, root)
            if there is not None and there != here:
                graph.add_edge(here, there)
                graph[here][there].setdefault("by", []).append(f"{path.relative_to(root)} imports {module}")
    return graph


def imported(path: Path) -> Iterator[str]:
    """Yield the modules, and the names in modules, that a file imports anywhere in its text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def folder_of(module: str, root: Path = ROOT) -> str | None:
    """Return the folder of the house in which a module, or a name of a module, lies; None where it is not of it."""
    name, *parts = module.split(".")
    if name != NAME or not parts or parts[0] not in PACKAGES:
        return None
    while not root.joinpath(*parts).is_dir():  # a file, or a name in one
        parts.pop()
    return "/".join(parts)


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """Return the sets of folders in which each imports each, directly or through others."""
    return sorted(sorted(each) for each in nx.strongly_connected_components(graph) if len(each) > 1)


def main() -> None:
    """Print the number of folders, imports and circles, and what makes each circle."""
    graph = folders()
    found = circles(graph)
    print(f"{graph.number_of_nodes()} folders, {graph.number_of_edges()} imports between folders, {len(found)} circles")
    for circle in found:
        print(f"\ncircle: {', '.join(circle)}")
        for one, other in sorted(graph.subgraph(circle).edges):
            print(f"  {one} -> {other}: {graph[one][other]['by'][0]} ({len(graph[one][other]['by'])} in all)")


if __name__ == "__main__":
    main()
