"""``beatd multi``: several workers in the background."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click

from beatd import config
from beatd.cli.multi_nodes import Node, Words, as_arguments, nodes, read_words
from beatd.cli.multi_processes import NodeRecord, NodeRecords, send_signal, start, wait_until
from beatd.cli.output import Duration, print_line, print_text
from beatd.cli.worker import worker
from beatd.exceptions import ConfigError

STOP = "10m"
"""How long ``stopwait`` and ``restart`` wait for running tasks by default."""
_KILLED_S = 10.0
_SIGNAL = re.compile(r"-(?:SIG)?([A-Z]+|[1-9]\d?)")


class Call(NamedTuple):
    """A call of one of the commands: the nodes, how each is to be started, and the signal that was named."""

    records: NodeRecords
    nodes: list[Node]
    words: Words
    signal: signal.Signals
    timeout: float

    @property
    def has_options(self) -> bool:
        """True if there are options on the command line."""
        return bool(self.words.options or self.words.for_some)

    def record_given(self, node: Node) -> NodeRecord:
        """Return the record of a node as the command line gives it."""
        options = self.words.options_of(node)
        options.pop("--hostname", None)
        folder = _folder()
        pidfile = options.pop("--pidfile", None) or str(folder / node.fill_in("%n.pid"))
        logfile = options.pop("--logfile", None) or str(folder / node.fill_in("%n%I.log"))
        here = str(Path.cwd())
        files = [str(Path(here, Path(file).expanduser())) for file in (pidfile, logfile)]
        files[0] = files[0].replace("%i", "0").replace("%I", "")
        return NodeRecord(node.name, as_arguments(options), here, *files)

    def record_to_start(self, node: Node) -> NodeRecord:
        """Return the record of the last start, unless there is none or the command line has options."""
        known = self.records.read(node.name)
        return self.record_given(node) if known is None or self.has_options else known

    def running(self, node: Node) -> int | None:
        """Return the process of a node, by the pid file of its last start or of the command line."""
        known = self.records.read(node.name)
        return (known.pid if known else None) or self.record_given(node).pid


@click.group("multi")
def multi() -> None:
    """Start and stop several workers in the background.

    \b
    beatd multi start 3 -A proj -c 2          celery1, celery2, celery3
    beatd multi start web mail -A proj -Q:mail letters -c:web 4
    beatd multi restart web mail              with the options of the start
    beatd multi stopwait 1-3

    NODES are names, a range (1-3), or a number of nodes (3). Options are those of "beatd worker"; "-c:1-3 10" sets one
    for these nodes only. In values, %n is the short name of the node, %N its full name, %h the host and %d the domain;
    in --logfile, %i is the number of the process and %I the same after a dash.
    """


def _command(name: str, summary: str) -> Callable[[Callable[[Call], Iterable[bool]]], click.Command]:
    """A subcommand that goes through nodes; it exits with the number of those that failed."""

    def decorate(action: Callable[[Call], Iterable[bool]]) -> click.Command:
        def run(words: tuple[str, ...], timeout: float) -> None:
            failed = sum(not well for well in action(_read(name, words, timeout)))
            if failed:
                raise click.exceptions.Exit(min(failed, 125))

        decorated: Any = run
        for decorator in (
            click.option(
                "--timeout",
                type=Duration(),
                default=STOP,
                show_default=True,
                help="Time to wait for the end of a node.",
            ),
            click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="NODES... [OPTIONS]"),
            multi.command(name, help=summary, context_settings={"ignore_unknown_options": True}),
        ):
            decorated = decorator(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


@_command("start", "Start nodes that are not running.")
def _start(call: Call) -> Iterable[bool]:
    return (_begin(call.record_given(node), call.records) for node in call.nodes)


@_command("restart", "Stop and start nodes again, with their last options or new ones.")
def _restart(call: Call) -> Iterable[bool]:
    for node in call.nodes:
        ended = _end(call, node, wait=call.timeout)
        yield ended and _begin(call.record_to_start(node), call.records)


@_command("stop", "Stop nodes after their running tasks; -QUIT: at once.")
def _stop(call: Call) -> Iterable[bool]:
    return (_end(call, node, wait=None) for node in call.nodes)


@_command("stopwait", "Stop nodes, and wait for their end.")
def _stopwait(call: Call) -> Iterable[bool]:
    for node in call.nodes:  # all get the signal before the first is waited for
        if (pid := call.running(node)) is not None:
            send_signal(pid, call.signal)
    return [_end(call, node, wait=call.timeout, is_signalled=True) for node in call.nodes]


@_command("kill", "Kill nodes; tasks with acks_late run again elsewhere.")
def _kill(call: Call) -> Iterable[bool]:
    return (_end(call._replace(signal=signal.SIGKILL), node, wait=_KILLED_S) for node in call.nodes)


@_command("show", "Print the command line of each node.")
def _show(call: Call) -> Iterable[bool]:
    for node in call.nodes:
        print_text(shlex.join(call.record_to_start(node).command))
        yield True


@_command("names", "Print the full names of nodes.")
def _names(call: Call) -> Iterable[bool]:
    for node in call.nodes:
        print_line(node.name)
        yield True


@_command("status", "Print which nodes run (default: all that were started).")
def _status(call: Call) -> Iterable[bool]:
    for node in call.nodes:
        pid = call.running(node)
        print_line(f"{node.name}: {'down' if pid is None else f'runs, pid {pid}'}")
        yield pid is not None


def _begin(one: NodeRecord, records: NodeRecords) -> bool:
    if (pid := one.pid) is not None:
        print_line(f"{one.node}: runs already, pid {pid}")
        return True
    before = records.read(one.node)
    try:
        records.write(one)  # first: should this process be killed now, the node can still be stopped
        print_line(f"{one.node}: started, pid {start(one)}")
    except ConfigError as error:
        for line in str(error).split("\n"):  # with the last lines of its log
            print_line(line, err=True)
        if one.pid is None:
            records.remove(one.node) if before is None else records.write(before)
        return False
    return True


def _end(call: Call, node: Node, *, wait: float | None, is_signalled: bool = False) -> bool:
    """Signal a node, and wait for its end; one that does not run is where it should be."""
    pid = call.running(node)
    if pid is None or not (is_signalled or send_signal(pid, call.signal)):
        print_line(f"{node.name}: does not run" if not is_signalled else f"{node.name}: stopped")
        return True
    if wait is None:
        print_line(f"{node.name}: {call.signal.name} to pid {pid}")
        return True
    if not wait_until(lambda: call.running(node) is None, wait):
        print_line(f"{node.name}: pid {pid} still runs after {wait:g} s", err=True)
        return False
    print_line(f"{node.name}: stopped")
    return True


def _read(command: str, words: tuple[str, ...], timeout: float) -> Call:
    """Raises click.UsageError."""
    number = signal.SIGTERM
    ends = command in {"stop", "stopwait", "restart"}
    left = []
    for word in words:
        named = _signal(word) if ends else None
        number = named or number
        if named is None:
            left.append(word)
    records = NodeRecords(_folder())
    parted = read_words(left, worker)
    if not parted.names and command in {"start", "show", "names", "kill"}:
        raise click.UsageError("name the nodes: a number, a range such as 1-3, or names")
    names = parted.names or tuple(records.nodes())
    host = dict(parted.options).pop("--hostname", None)
    return Call(records, nodes(names, host=host and host.rpartition("@")[2]), parted, number, timeout)


def _signal(word: str) -> signal.Signals | None:
    found = _SIGNAL.fullmatch(word)
    if found is None:
        return None
    try:
        return signal.Signals(int(found[1])) if found[1].isdigit() else signal.Signals[f"SIG{found[1]}"]
    except (ValueError, KeyError):
        return None


def _folder() -> Path:
    return config.environment().state_home / "beatd" / "multi"
