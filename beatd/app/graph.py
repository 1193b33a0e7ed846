"""Graph: a task's descendants, for ``AsyncResult.graph``. Source: ``celery/utils/graph.py`` as of Celery 5."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator
from graphlib import TopologicalSorter
from typing import Any, TextIO


class DependencyGraph:
    """A directed acyclic graph: each node with the nodes that it depends on, which here are its children."""

    def __init__(self) -> None:
        self.adjacent: dict[Any, list[Any]] = {}

    def add_arc(self, node: Any) -> None:
        """Add a node."""
        self.adjacent.setdefault(node, [])

    def add_edge(self, start: Any, end: Any) -> None:
        """Add an edge between two nodes of the graph."""
        self.adjacent[start].append(end)

    def topsort(self) -> list[Any]:
        """Return the nodes so that each comes after those that it depends on; raises ValueError for a cycle."""
        return list(TopologicalSorter(self.adjacent).static_order())

    def valency_of(self, node: Any) -> int:
        """Return the number of a node's edges and of those behind them."""
        edges = self.adjacent.get(node, [])
        return len(edges) + sum(map(self.valency_of, edges))

    def edges(self) -> list[Any]:
        """Return the nodes that depend on others."""
        return [node for node, others in self.adjacent.items() if others]

    def items(self) -> ItemsView[Any, list[Any]]:
        """Return pairs of a node and those that it depends on."""
        return self.adjacent.items()

    def to_dot(self, fh: TextIO) -> None:
        """Write the graph in Graphviz's language."""
        lines = [f'    "{node}"' for node in self.adjacent]
        lines += [f'    "{node}" -> "{other}"' for node, others in self.items() for other in others]
        fh.write("\n".join(["digraph dependencies {", *lines, "}", ""]))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __contains__(self, node: Any) -> bool:
        return node in self.adjacent

    def __len__(self) -> int:
        return len(self.adjacent)

    def __repr__(self) -> str:
        return "\n".join(
            f"{node}({self.valency_of(node)})" + "".join(f"\n    {other}({self.valency_of(other)})" for other in others)
            for node, others in self.items()
        )
