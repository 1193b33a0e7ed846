"""``beatd graph`` and ``beatd list bindings``: workers, queues and entries, as Graphviz draws them and as a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import click

from beatd import sources
from beatd.app.app import App
from beatd.app.conf_urls import first_url
from beatd.app.routing import Queues
from beatd.cli.app_client import client_app, place_options
from beatd.cli.output import Duration, print_json, print_line, print_table, print_text
from beatd.client.workers import worker_facts
from beatd.redaction import printable
from beatd.urls import shown

_PROCESSES_SHOWN = 8
"""Processes of a worker that are drawn one by one."""
_BOOTSTEPS = (
    ("broker", "consumer"), ("consumer", "strategy"), ("strategy", "admission"), ("admission", "pool"),
    ("pool", "settlement"), ("settlement", "results"), ("settlement", "broker"), ("strategy", "dead letters"),
    ("strategy", "parking"), ("parking", "broker"), ("broker", "remote control"), ("remote control", "pool"),
)  # fmt: skip
"""Parts of the bundled worker, in the order in which a message passes them."""
_BROKER, _RESULTS = "cylinder", "folder"


class Node(NamedTuple):
    """A node of a graph: its id, its label, and Graphviz's name of its shape."""

    id: str
    label: str
    shape: str = "box"


class Edge(NamedTuple):
    """An edge between two nodes, by id."""

    start: str
    end: str
    label: str = ""


def dot(nodes: Iterable[Node], edges: Iterable[Edge]) -> str:
    """Return a directed graph in Graphviz's language; each node and edge once."""
    lines = [f"  {_quoted(one.id)} [label={_quoted(one.label)}, shape={one.shape}];" for one in dict.fromkeys(nodes)]
    for one in dict.fromkeys(edges):
        label = f" [label={_quoted(one.label)}]" if one.label else ""
        lines.append(f"  {_quoted(one.start)} -> {_quoted(one.end)}{label};")
    return "\n".join(["digraph beatd {", "  rankdir=LR;", *lines, "}"])


def _quoted(text: str) -> str:
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def graph() -> None:
    """Draw workers, the schedule, or the worker's parts: Graphviz's language on standard output.

    beatd graph workers | dot -Tsvg > workers.svg
    """


@graph.command("workers", short_help="Draw the workers that answer.")
@place_options
@click.option("--timeout", "-t", type=Duration(), default="1s", show_default=True, help="Time to wait for an answer.")
def workers(
    *, app_name: str | None, config_file: str | None, broker: str | None, result_backend: str | None, timeout: float
) -> None:
    """Draw the workers that answer: broker, queues, processes or threads, result backend."""
    app = client_app(app_name, broker, config_file, result_backend)
    found = _workers(app, timeout)
    results = first_url(app.conf.result_backend)
    nodes = [Node("broker", f"broker {shown(first_url(app.conf.broker_url))}", _BROKER)]
    if results:
        nodes.append(Node("results", f"results {shown(results) if '://' in results else results}", _RESULTS))
    edges: list[Edge] = []
    for each in found:
        nodes.append(Node(each["name"], f"{each['name']} ({each['pool'] or '?'})", "box3d"))
        edges.append(Edge("broker", each["name"], ", ".join(each["queues"])))
        edges += [Edge(each["name"], "results")] if results else []
        nodes += _processes(each)
        edges += [Edge(each["name"], node.id) for node in _processes(each)]
    print_text(dot(nodes, edges))


def _processes(worker: Mapping[str, Any]) -> list[Node]:
    """Return the processes or threads of a worker's pool; many are one node."""
    name, count, pool = worker["name"], int(worker["concurrency"] or 0), worker["pool"]
    if pool == "prefork" and 0 < len(worker["pids"]) <= _PROCESSES_SHOWN:
        return [Node(f"{name} {pid}", f"process {pid}", "ellipse") for pid in worker["pids"]]
    what = _KINDS.get(pool, "thread")
    if 0 < count <= _PROCESSES_SHOWN:
        return [Node(f"{name} {what} {number}", f"{what} {number}", "ellipse") for number in range(1, count + 1)]
    return [Node(f"{name} {what}", f"{count} × {what}", "ellipse")] if count else []


_KINDS = {"prefork": "process", "solo": "process", "asyncio": "coroutine", "gevent": "greenlet", "eventlet": "greenlet"}
"""By pool: what runs its tasks."""


def _workers(app: App, timeout: float) -> list[dict[str, Any]]:
    stats, queues = _ask(app, "stats", timeout), _ask(app, "active_queues", timeout)
    return [
        worker_facts(name, stats.get(name), None, queues.get(name)) | {"pids": _pids(stats.get(name))}
        for name in sorted({*stats, *queues})
    ]


def _pids(stats: Any) -> list[int]:
    pool = stats.get("pool") if isinstance(stats, Mapping) else None
    pids = pool.get("processes") if isinstance(pool, Mapping) else None
    return [pid for pid in pids if isinstance(pid, int)] if isinstance(pids, list) else []


def _ask(app: App, question: str, timeout: float) -> dict[str, Any]:
    answers = app.control.broadcast(question, reply=True, timeout=timeout)
    return {name: answer for each in answers or () for name, answer in each.items()}


@graph.command("schedule", short_help="Draw entries, tasks and queues.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", "app_name", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
def schedule(*, config_file: str | None, app_name: str | None) -> None:
    """Draw the entries of file and app: each with its schedule, task and queue."""
    app_name = app_name or os.environ.get("BEATD_APP")
    found = sources.load(sources.find(config_file, app_name).path, app=app_name)
    nodes, edges = [], []
    for entry in found.entries:
        queue = entry.options.queue or found.settings.broker.default_queue
        nodes += [
            Node(f"entry {entry.name}", f"{entry.name}: {entry.schedule.notation}"),
            Node(f"task {entry.task}", entry.task, "ellipse"),
            Node(f"queue {queue}", f"queue {queue}", _BROKER),
        ]
        edges += [Edge(f"entry {entry.name}", f"task {entry.task}"), Edge(f"task {entry.task}", f"queue {queue}")]
    print_text(dot(nodes, edges))


@graph.command("bootsteps", short_help="Draw the parts of the worker.")
def bootsteps() -> None:
    """Draw the parts of the bundled worker, in the order in which a message passes them."""
    nodes = [Node(name, name) for edge in _BOOTSTEPS for name in edge]
    print_text(dot(nodes, (Edge(*each) for each in _BOOTSTEPS)))


def print_bindings(config_file: str | None, app_name: str | None, *, as_json: bool) -> None:
    """Print the queues that workers consume and that the app declares, with exchange and routing key."""
    app = client_app(app_name, os.environ.get("BEATD_BROKER_URL"), config_file)
    rows = sorted({*_consumed(_ask(app, "active_queues", 1.0).values()), *_declared(app)})
    if as_json:
        print_json([dict(zip(("queue", "exchange", "routing_key"), row, strict=True)) for row in rows])
    elif rows:
        print_table(["queue", "exchange", "routing key"], rows)
    else:
        print_line("no worker answers, and the app declares no queue")


def _consumed(answers: Iterable[Any]) -> Iterator[tuple[str, str, str]]:
    for queues in answers:
        for each in queues if isinstance(queues, list) else ():
            name = str(each.get("name"))
            exchange = each.get("exchange") or {}
            yield name, str(exchange.get("name") or ""), str(each.get("routing_key") or name)


def _declared(app: App) -> Iterator[tuple[str, str, str]]:
    declared = Queues(app.conf)
    for name in declared.names:
        bound = declared.binding_of(name)
        yield name, bound.exchange, bound.key
