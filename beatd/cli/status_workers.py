"""Workers in ``beatd status``: those that answer, those with a heartbeat that do not, and those that are gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import click

from beatd.broker import is_redis, redis_url
from beatd.cli.celery_beat import signs_on_servers
from beatd.cli.output import plural, print_folded, print_problem, print_table
from beatd.client.workers import WorkerClient, queue_facts
from beatd.clock import SystemClock
from beatd.config.loader import LoadedSettings, load
from beatd.exceptions import BeatdError, ConfigError
from beatd.model import Settings
from beatd.state_store import running_store
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.pipeline import joint_reads
from beatd.store.worker_registry import worker_heartbeats
from beatd.timestamps import iso_ms, span_text
from beatd.url_keyprefix import own_prefix

WITHIN_S = 4.0
"""Time in which the broker has to answer."""
ONLINE, SILENT, GONE = "online", "no answer", "gone"
_OWN_PREFIX = "beatd"
"""Prefix of the keys of workers that were started without a file."""
_MIGRATION = "migrate@"
_QUEUES_SHOWN = 10


class SeenWorkers(NamedTuple):
    """Workers on the broker, queues in which messages wait in vain, and the reason why the broker cannot be asked."""

    workers: Sequence[dict[str, Any]] = ()
    unattended: Sequence[dict[str, Any]] = ()
    problem: str | None = None
    queues: Sequence[dict[str, Any]] = ()
    """The queues of workers and entries."""
    signs: Sequence[str] = ()
    """Signs of a celery beat on the servers, in sentences."""

    @property
    def notes(self) -> Iterator[str]:
        """Things to look at, each in one line."""
        for one in self.unattended:
            count = plural(one["messages"], "message")
            yield f"queue {one['name']}: {count} and {one['problem']}"
        if self.problem:
            yield f"workers are unknown: {self.problem}"


class WorkerLook:
    """A look at the workers, in a thread: they have :data:`~beatd.client.workers.ANSWER_S` to answer."""

    def __init__(self, head: LoadedSettings, file: Path) -> None:
        self._head = head
        self._file = file
        self._seen = SeenWorkers(problem=f"the broker has not answered within {WITHIN_S:g} s")
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)
        self._thread.start()

    def seen(self) -> SeenWorkers:
        """Wait for the answers, for a bounded time."""
        self._thread.join(WITHIN_S)
        return self._seen

    def _run(self) -> None:
        try:
            self._seen = _look(self._head, self._file)
        except BeatdError as error:
            self._seen = SeenWorkers(problem=str(error))


def _look(head: LoadedSettings, file: Path) -> SeenWorkers:
    settings = head.settings
    store = running_store(settings)
    url = settings.broker.url or store
    queues = _queues_of(head, file)
    with WorkerClient(url, store) as client, ThreadPoolExecutor(3, "workers") as threads:
        heartbeats = threads.submit(_heartbeats, url, settings)
        waiting = threads.submit(client.lengths, queues)
        signs = threads.submit(_signs, settings)
        answered = {each["name"]: each for each in client.workers()}
        lengths = waiting.result()
        if further := {queue for each in answered.values() for queue in each["queues"]} - {*lengths}:
            lengths |= client.lengths(further)
    beats = heartbeats.result()
    found = [_facts(name, answered.get(name), beats) for name in sorted({*answered, *beats})]
    facts = sorted(queue_facts(lengths, {}, list(answered.values())), key=_most_messages)
    return SeenWorkers(found, [one for one in facts if one["problem"]], None, facts, signs.result())


def _signs(settings: Settings) -> list[str]:
    with suppress(BeatdError):  # another broker may be away
        return list(signs_on_servers(settings, [settings.broker.default_queue], redbeat=False))
    return []


def _most_messages(queue: Mapping[str, Any]) -> tuple[int, str]:
    return -(queue["messages"] or 0), queue["name"]


def _queues_of(head: LoadedSettings, file: Path) -> set[str]:
    """The queues to which the entries of the file send; of a broken file the default queue alone."""
    names = {head.settings.broker.default_queue}
    with suppress(ConfigError):  # it is a problem of its own
        names |= {entry.options.queue for entry in load(file, head=head).entries if entry.options.queue}
    return names


def _heartbeats(url: str, settings: Settings) -> dict[str, int | None]:
    if not is_redis(url):
        return {}
    with connect(redis_url(url), timeout_ms=settings.redis.timeout_ms, name="beatd-status", role="broker") as client:
        prefixes = {own_prefix(url, prefix) for prefix in (_OWN_PREFIX, settings.redis.prefix)}
        with joint_reads() as read:
            found = [read(worker_heartbeats, client, Keys(prefix)) for prefix in prefixes]
        beats = {name: beat for one in found for name, beat in one.result().items()}
    return {name: beat for name, beat in beats.items() if not name.startswith(_MIGRATION)}


def _facts(name: str, answer: Mapping[str, Any] | None, beats: Mapping[str, int | None]) -> dict[str, Any]:
    beat = beats.get(name)
    state = ONLINE if answer is not None else GONE if beat is None else SILENT
    known = answer or {}
    return {
        "name": name,
        "state": state,
        "pid": known.get("pid"),
        "uptime_s": known.get("uptime_s"),
        "pool": known.get("pool"),
        "concurrency": known.get("concurrency"),
        "running": known.get("active_count"),
        "queues": known.get("queues", []),
        "heartbeat_at": None if beat is None else iso_ms(beat),
        "heartbeat_age_ms": None if beat is None else max(SystemClock().now_ms() - beat, 0),
    }


def print_workers(seen: SeenWorkers) -> None:
    """Print the table of workers, and queues in which messages wait in vain."""
    if seen.workers:
        click.echo()
        print_table(["worker", "state", "running", "heartbeat", "queues"], map(_row, seen.workers))
    if seen.queues:
        click.echo()
        print_folded(f"Queues       {'; '.join(_lengths(seen.queues))}")
    if notes := list(seen.notes):
        click.echo()
    for note in notes:
        print_problem(note)


def _lengths(queues: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The longest queues, then how many others are empty or not shown."""
    shown = [each for each in queues if each["messages"]][:_QUEUES_SHOWN]
    for each in shown:
        oldest = "" if each["oldest_s"] is None else f", the oldest for {span_text(int(each['oldest_s']) * 1000)}"
        yield f"{each['name']} {plural(each['messages'], 'message')}{oldest}"
    if rest := len(queues) - len(shown):
        yield f"{rest:,} {'others' if shown else 'empty'}" if rest > 1 or not shown else "1 other"


def _row(each: Mapping[str, Any]) -> list[str]:
    running = "" if each["running"] is None else f"{each['running']:,} of {each['concurrency'] or '?'}"
    age = each["heartbeat_age_ms"]
    return [
        each["name"],
        each["state"],
        running,
        "" if age is None else f"{span_text(age)} ago",
        ", ".join(each["queues"]),
    ]


def workers_document(seen: SeenWorkers) -> dict[str, Any]:
    """The part of the JSON document."""
    return {
        "workers": list(seen.workers),
        "workers_problem": seen.problem,
        "queues": [{key: each[key] for key in ("name", "messages", "oldest_s", "workers")} for each in seen.queues],
        "unattended_queues": [{"name": one["name"], "messages": one["messages"]} for one in seen.unattended],
    }
