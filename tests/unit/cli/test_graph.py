"""Graphs in Graphviz's language: names of users cannot break out of their quotes."""

from beatd.cli.graph import Edge, Node, dot


def test_names_are_quoted_and_nodes_are_drawn_once() -> None:
    text = dot([Node("a", 'a "b"\n\\'), Node("a", 'a "b"\n\\')], [Edge("a", "a", "q"), Edge("a", "a", "q")])
    assert text.splitlines() == [
        "digraph beatd {",
        "  rankdir=LR;",
        '  "a" [label="a \\"b\\"\\\\n\\\\", shape=box];',
        '  "a" -> "a" [label="q"];',
        "}",
    ]
