"""``beatd migrate``: messages from one broker to another, as ``celery migrate`` moves them, or a project of Celery."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import NamedTuple

import click

from beatd.app.routing import Queues
from beatd.broker import is_redis, no_arguments, redis_url
from beatd.broker.migration import Destination, KombuSource, Source, Taken, taken_from_envelope
from beatd.cli.app_client import client_app
from beatd.cli.errors import name_places
from beatd.cli.global_options import is_quiet
from beatd.cli.migrate_celery import migrate_celery
from beatd.cli.output import Duration, confirm, plural, print_line, print_table, split_names
from beatd.clock import SystemClock, monotonic, sleep
from beatd.exceptions import WrongUrl
from beatd.store.keys import Keys
from beatd.url_keyprefix import own_prefix
from beatd.urls import check_broker, shown
from beatd.worker.consumers.redis import RedisConsumer

_NAME = "migrate@"
_BATCH = 50
_LOOK_S = 0.05
_AWAITED_AT_MOST_S = 20.0
"""Time for the messages of an interrupted migration to return to their queues; its heartbeat lasts 9 seconds."""


class Migrations(click.Group):
    """The group of ``beatd migrate``. ``beatd migrate URL URL`` is ``beatd migrate messages URL URL``."""

    def with_subcommand(self, words: list[str]) -> list[str]:
        """Put ``messages`` before words that have a URL and no command."""
        is_short = any("://" in word for word in words) and words[0] not in self.commands
        return ["messages", *words] if is_short else words

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self.with_subcommand(args))


@click.group("migrate", cls=Migrations, context_settings={"help_option_names": ["-h", "--help"]})
def migrate() -> None:
    """Move to another broker, or from Celery.

    "beatd migrate SOURCE DESTINATION" is the same as "beatd migrate messages SOURCE DESTINATION".
    """


migrate.add_command(migrate_celery)


@migrate.command("messages", short_help="Move waiting messages to another broker.")
@click.argument("source", metavar="SOURCE_URL")
@click.argument("destination", metavar="DESTINATION_URL")
@click.option(
    "--queues", "-q", "-Q", metavar="A,B:C", help="Queues; B:C moves B to C. Default: those of the app, or celery."
)
@click.option("--tasks", "-T", metavar="A,B", help="Only messages of these tasks.")
@click.option("--limit", "-n", type=click.IntRange(1), help="End after so many messages.")
@click.option(
    "--timeout", "-t", type=Duration(), default="1s", show_default=True, help="End after so long without one."
)
@click.option("--forever", "-F", is_flag=True, help="Go on until Ctrl-C: move messages as they come.")
@click.option("--ack-messages", "-a", is_flag=True, help="Accepted for Celery's sake: messages always leave.")
@click.option(
    "--app", "-A", "app_name", metavar="MODULE[:APP]", envvar="BEATD_APP", help="Take the queues of this app."
)
@click.option("--yes", "-y", "--force", "-f", "yes", is_flag=True, help="Do not ask.")
def messages(
    *,
    source: str,
    destination: str,
    queues: str | None,
    tasks: str | None,
    limit: int | None,
    timeout: float,
    forever: bool,
    ack_messages: bool,  # noqa: ARG001 - Celery's tool has it
    app_name: str | None,
    yes: bool,
) -> None:
    """Move the messages that wait in queues of SOURCE_URL to DESTINATION_URL, unchanged and in order.

    A message leaves its source when the destination has it: none is lost if the command is interrupted, and at worst
    the last few are in both brokers. Messages that workers hold are not moved, nor are those that wait for their time
    in a worker: stop the workers of the source first.
    """
    for name, url in (("SOURCE_URL", source), ("DESTINATION_URL", destination)):
        _check_url(name, url)
    app = client_app(app_name, destination, None) if app_name else None
    name_places({"broker": "its URL"})
    declared = Queues(app.conf) if app is not None else None
    default = (list(declared.names) or [str(app.conf.task_default_queue)]) if app and declared else ["celery"]
    chosen = queue_map(queues, default)
    if source == destination and any(name == to for name, to in chosen.items()):
        raise click.UsageError("SOURCE_URL and DESTINATION_URL are the same broker; name other queues with -q A:B")
    named = ", ".join(name if name == to else f"{name} (to {to})" for name, to in chosen.items())
    confirm(f"Move all messages of {named} from {shown(source)} to {shown(destination)}?", yes=yes)
    with _interruptible(), _opened(source, list(chosen)) as from_, contextlib.ExitStack() as stack:
        to = Destination(destination, declared.arguments if declared is not None else no_arguments)
        stack.callback(to.close)
        move = Move(from_, to, chosen, frozenset(split_names(tasks)))
        try:
            move.run(limit=limit, timeout_s=None if forever else timeout)
        except KeyboardInterrupt:
            print_line("Interrupted: what has not been moved stays where it was", err=True)
        finally:
            _print_moved(move)
    if move.unreadable:
        raise click.exceptions.Exit(1)


def _check_url(argument: str, url: str) -> None:
    try:
        check_broker(url)
    except WrongUrl as error:
        raise click.UsageError(f"{argument}: {error}") from None


def queue_map(text: str | None, default: Sequence[str]) -> dict[str, str]:
    """Return the queues of ``-q``, each with the queue that gets its messages: ``a,b:c``."""
    pairs = [part.partition(":") for part in split_names(text)] or [(name, "", "") for name in default]
    if any(not name.strip() or (colon and not to.strip()) for name, colon, to in pairs):
        raise click.BadParameter("expected names of queues such as a,b or a:b", param_hint="--queues")
    return {name.strip(): to.strip() or name.strip() for name, _, to in pairs}


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """End in order on SIGTERM, too: messages that are held then return to their queues at once."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _opened(url: str, queues: Sequence[str]) -> Iterator[Source]:
    source: Source = RedisSource(redis_url(url), queues) if is_redis(url) else KombuSource(url, queues)
    try:
        yield source
    finally:
        source.close()


class RedisSource:
    """Source on Redis. Messages that it holds are under a heartbeat: when it is killed, the next consumer of beatd's,
    a worker or another migration, puts them back."""

    def __init__(self, url: str, queues: Sequence[str]) -> None:
        name = f"{_NAME}{socket.gethostname()}"
        self._consumer = RedisConsumer(url, queues, name=name, clock=SystemClock(), keys=Keys(own_prefix(url)))
        self._consumer.start()

    def take(self, at_most: int) -> list[Taken]:
        self._consumer.tend()
        return [taken_from_envelope(one, one.queue, one.original) for one in self._consumer.take(at_most)]

    def acknowledge(self, taken: Sequence[Taken]) -> None:
        self._consumer.ack([one.receipt for one in taken])

    def is_awaited(self) -> bool:
        return any(name.startswith(_NAME) for name in self._consumer.others())

    def close(self) -> None:
        self._consumer.stop()


class Counts(NamedTuple):
    """Messages of a queue by what became of them."""

    moved: int = 0
    others: int = 0
    unreadable: int = 0


class Move:
    """One migration: counts of messages by their queue at the source."""

    def __init__(
        self, source: Source, destination: Destination, queues: Mapping[str, str], tasks: frozenset[str]
    ) -> None:
        self._source = source
        self._destination = destination
        self.queues = queues
        self._tasks = tasks
        self.counts: dict[str, Counts] = {name: Counts() for name in queues}
        self.faults: dict[str, str] = {}

    @property
    def moved(self) -> int:
        """Messages that the destination has."""
        return sum(each.moved for each in self.counts.values())

    @property
    def unreadable(self) -> int:
        """Messages that stay because they are none."""
        return sum(each.unreadable for each in self.counts.values())

    def run(self, *, limit: int | None, timeout_s: float | None) -> None:
        """Move until there are no more for ``timeout_s``, or ``limit`` are moved."""
        last = begun = monotonic()
        while limit is None or self.moved < limit:
            taken = self._source.take(_BATCH if limit is None else min(_BATCH, limit - self.moved))
            if taken:
                self._put(taken)
                last = monotonic()
                continue
            is_idle = timeout_s is not None and monotonic() - last >= timeout_s
            if is_idle and (monotonic() - begun >= _AWAITED_AT_MOST_S or not self._source.is_awaited()):
                return
            sleep(_LOOK_S)

    def _put(self, taken: Sequence[Taken]) -> None:
        """Publish, then acknowledge what has arrived, also if one in between fails."""
        arrived: list[Taken] = []
        try:
            for one in taken:
                if self._is_wanted(one) and one.message is not None:
                    self._destination.put(self.queues[queue_name(one.queue)], one.message)
                    arrived.append(one)
                    self._count(one, moved=1)
        finally:
            self._source.acknowledge(arrived)

    def _is_wanted(self, one: Taken) -> bool:
        if one.message is None:
            self.faults.setdefault(queue_name(one.queue), one.fault)
            self._count(one, unreadable=1)
        elif self._tasks and one.task not in self._tasks:
            self._count(one, others=1)
        else:
            return True
        return False

    def _count(self, one: Taken, **more: int) -> None:
        name = queue_name(one.queue)
        counts = self.counts[name]
        self.counts[name] = counts._replace(**{field: getattr(counts, field) + n for field, n in more.items()})


def queue_name(key: str) -> str:
    """Return the queue of a list on Redis, which has a suffix for its priority."""
    return key.partition("\x06\x16")[0]


def _print_moved(move: Move) -> None:
    for queue, fault in move.faults.items():
        count = move.counts[queue].unreadable
        print_line(f"{plural(count, 'message')} of queue {queue} cannot be read and stay there: {fault}", err=True)
    if is_quiet():
        return
    rows = [
        (name, move.queues[name], f"{each.moved:,}", f"{each.others + each.unreadable:,}")
        for name, each in move.counts.items()
    ]
    print_table(["queue", "to", "moved", "left"], rows)
