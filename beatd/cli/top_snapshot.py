"""Snapshots for ``beatd top``, taken in a thread of their own, and the changes that it makes, in another.

The screen never waits for a server. What is asked is bounded: the page of entries that is shown, and workers or queues
only while they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beatd import sources
from beatd.cli.output import plural
from beatd.cli.status import look_with
from beatd.cli.status_document import facts
from beatd.cli.top_view import PAGE, Away, Change, Row, Snapshot, Style, Table, Wanted
from beatd.client.history import pause_facts
from beatd.client.moments import local_text, moment_text
from beatd.client.outcomes import FAILED, EntryOutcome, RunDetail, failure_text
from beatd.client.runs import RunClient
from beatd.client.workers import WorkerClient
from beatd.clock import SystemClock
from beatd.exceptions import BeatdError, StoreError
from beatd.model import Settings
from beatd.planning.notation import schedule_phrase
from beatd.planning.preview import Outlook
from beatd.sources.calendars import Calendars
from beatd.state_store import running_store, with_patience
from beatd.store.audit import Audit, audit_record, whoami
from beatd.store.client import connect
from beatd.store.history import ALL_RECORDS
from beatd.store.runtime_entries import Pause, Runtime
from beatd.store.server_check import ThrottledCheck, keys_in
from beatd.timestamps import span_text, to_ms
from beatd.web.broker_view import BrokerView
from beatd.web.entries import EntryListing
from beatd.web.selection import Selector, View
from beatd.web.store_view import StoreView

if TYPE_CHECKING:
    import redis

EVERY_S = 1.0
PATIENCE_MS = 2_000
RUNS = 100
"""Newest runs that are shown."""


class Collector:
    """Takes a snapshot every second, of what ``wanted`` says. Opening it raises ConfigError for a broken file."""

    def __init__(self, path: Path, app: str | None) -> None:
        self.clock = SystemClock()
        self.wanted = Wanted()
        self.snapshot: Snapshot | None = None
        self._throttled = ThrottledCheck()
        self._schedule = EntryListing(path, lambda: sources.load(path, app=app), self.clock)
        self.settings = with_patience(self._schedule.first().settings, PATIENCE_MS)
        self._store = StoreView(self._overview, lambda: running_store(self.settings), self.settings.redis, self.clock)
        self._broker = BrokerView(
            str(path), lambda: self._schedule.settings, lambda: running_store(self.settings), self.clock
        )
        self._selector = Selector(self._schedule, self._store, self.clock)
        self._calendars = Calendars.of(self.settings)
        self._awake, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._collect, name="top-snapshot", daemon=True)

    def start(self) -> None:
        """Follow the files and the store."""
        self._schedule.start()
        self._calendars.start(lambda _faults: None)
        self._thread.start()

    def close(self) -> None:
        """End the thread; a server that does not answer is not waited for."""
        self._ended.set()
        self._awake.set()
        self._calendars.stop()
        self._schedule.stop()
        self._thread.join(0.5)

    def look_at(self, wanted: Wanted) -> None:
        """Take the next snapshot of this, at once."""
        if wanted != self.wanted:
            self.wanted = wanted
            self._awake.set()

    def look_again(self) -> None:
        """Take the next snapshot at once."""
        self._awake.set()

    def _collect(self) -> None:
        while not self._ended.is_set():
            self._awake.clear()
            now_ms = self.clock.now_ms()
            try:
                self.snapshot = self._look(self.wanted, now_ms)
            except StoreError as error:
                self._be_away(str(error), now_ms)
            except Exception as error:  # noqa: BLE001 - it is shown; a log would break the screen
                self._be_away(f"unexpected: {error!r}", now_ms)
            self.clock.wait(self._awake, EVERY_S)
        self._store.close()

    def _be_away(self, reason: str, now_ms: int) -> None:
        """Keep what was seen last, and say that it is old."""
        zone = self.settings.timezone
        last = self.snapshot or Snapshot(now_ms, "", (), 0, 0, self.wanted.tab, Table(()), timezone=zone)
        self.snapshot = last._replace(now_ms=now_ms, away=last.away or Away(now_ms, reason))

    def _overview(self, client: redis.Redis) -> dict[str, Any]:
        return facts(look_with(client, self.settings, self._throttled))

    def _look(self, wanted: Wanted, now_ms: int) -> Snapshot:
        overview, timezone = self._store.status(), self.settings.timezone
        self._selector.overlay()
        table = (self._entries, self._runs, self._workers, self._queues)[wanted.tab](wanted, now_ms)
        leaders = sorted({shard["leader"] for shard in overview["shards"] if shard["leader"]})
        faults = map(str, self._schedule.faults[:3])
        alive = sum(daemon["alive"] for daemon in overview["daemons"])
        led = f"{leaders[0] if len(leaders) == 1 else len(leaders)} leads" if leaders else "nobody leads"
        return Snapshot(
            now_ms,
            f"{led}, {plural(alive, 'daemon')} alive",
            [local_text(text, timezone) for text in (*overview["problems"], *faults)],
            len(self._schedule.listing.entries),
            overview["failing_count"],
            wanted.tab,
            table,
            timezone=timezone,
        )

    def _entries(self, wanted: Wanted, now_ms: int) -> Table:
        part = self._selector.slice(View(wanted.query, sort="failures", page=wanted.page, per_page=PAGE))
        rows = [self._entry_row(look, part.outcome(look.entry.name), now_ms) for look in part.outlooks]
        return Table(("entry", "last runs", "last", "next", "state"), rows, (part.page - 1) * PAGE, part.matching)

    def _entry_row(self, look: Outlook, outcome: EntryOutcome, now_ms: int) -> Row:
        name, next_ms = look.entry.name, look.held.again_ms if look.held else look.next_fire_ms
        paused = self._schedule.pause_of(name)
        state = "paused" if paused else "held back" if look.held else "overdue" if outcome.is_late else look.note
        failing = outcome.failing_since_ms is not None
        style: Style = "bad" if failing else "warn" if look.held or outcome.is_late else "dim" if paused else ""
        detail = failure_text(name, outcome) if failing else schedule_phrase(look.entry.schedule).text
        cells = (
            name,
            f"{outcome.word or '':<8}{outcome.marks}",
            "" if look.last_due_ms is None else span_text(now_ms - look.last_due_ms),
            "" if next_ms is None else "now" if next_ms <= now_ms else span_text(next_ms - now_ms),
            state,
        )
        return Row(cells, style, name, detail=local_text(paused.note if paused else detail, look.entry.timezone))

    def _runs(self, _wanted: Wanted, now_ms: int) -> Table:
        """Running runs, as workers report them, then the newest ones of the history."""
        workers = self._broker.workers()["workers"]
        active = {task["id"]: (worker["name"], task) for worker in workers for task in worker["active"]}
        rows = []
        for run in self._store.newest(self._schedule.listing.names(), RUNS, ALL_RECORDS, now_ms):
            active.pop(run.record.run_id, None)
            rows.append(_run_row(run, now_ms))
        others = [
            Row((task["task"], "running", _since(task["started_at"], now_ms), "", worker), "good", run_id=run_id)
            for run_id, (worker, task) in active.items()
        ]
        rows.sort(key=lambda row: row.cells[1] != "running")
        return Table(("run of", "outcome", "since", "took", "worker"), [*others, *rows], 0, len(others) + len(rows))

    def _workers(self, _wanted: Wanted, _now_ms: int) -> Table:
        seen = self._broker.workers()
        rows = [
            Row((
                worker["name"],
                worker["pool"] or "",
                f"{worker['active_count']}/{worker['concurrency'] or '?'}",
                f"{worker['ran']:,}",
                ", ".join(worker["queues"]),
            ))
            for worker in seen["workers"]
        ]  # fmt: skip
        return Table(("worker", "pool", "busy", "ran", "queues"), rows, 0, len(rows), seen["problem"] or "")

    def _queues(self, _wanted: Wanted, _now_ms: int) -> Table:
        seen = self._broker.queues(self._schedule.listing.entries)
        rows = [
            Row(
                (queue["name"], f"{queue['messages']:,}", f"{queue['entries']:,}", f"{len(queue['workers'])}"),
                "bad" if queue["problem"] else "",
                detail=queue["problem"] or ", ".join(queue["workers"]),
            )
            for queue in seen["queues"]
        ]
        return Table(("queue", "messages", "entries", "workers"), rows, 0, len(rows), seen["problem"] or "")


def _run_row(run: RunDetail, now_ms: int) -> Row:
    record, last = run.record, run.last
    style: Style = "bad" if run.word in FAILED else "good" if run.word == "running" else ""
    took = "" if record.runtime_ms is None else span_text(record.runtime_ms)
    worker = run.started.worker if run.started else last.worker if last else ""
    since_ms = run.started.start_ms if run.started else record.at_ms
    error = f"{last.type}: {last.message}" if last is not None and last.type else record.reason or ""
    cells = (record.entry, run.word, span_text(now_ms - since_ms), took, worker)
    return Row(cells, style, record.entry, record.run_id or "", error)


def _since(moment: str | None, now_ms: int) -> str:
    return "" if moment is None else span_text(now_ms - to_ms(datetime.fromisoformat(moment)))


class Operations:
    """Makes changes one after the other; ``on_outcome`` gets the outcome of each as a sentence."""

    def __init__(self, settings: Settings, on_outcome: Callable[[str], None]) -> None:
        self._settings, self._on_outcome = settings, on_outcome
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="top-change")

    def make(self, change: Change) -> None:
        """Make a change in the background."""
        self._thread.submit(self._make, change)

    def close(self) -> None:
        """Begin no further change."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _make(self, change: Change) -> None:
        try:
            self._on_outcome(self._made(change))
        except BeatdError as error:
            self._on_outcome(f"Not done: {error}")
        except Exception as error:  # noqa: BLE001 - it is shown; a log would break the screen
            self._on_outcome(f"Not done: {error!r}")

    def _made(self, change: Change) -> str:
        settings, name, now_ms = self._settings, change.subject, SystemClock().now_ms()
        store_url = running_store(settings)
        if change.verb == "stop":
            with WorkerClient(settings.broker.url or store_url, store_url) as client:
                client.stop(name)
        with connect(store_url, timeout_ms=settings.redis.timeout_ms, name="beatd-top") as client:
            keys = keys_in(client, settings.redis.prefix)
            if change.verb == "run":
                sent = RunClient(client, keys, via="command").trigger(name, by=whoami())
                return f"The broker refused it: {sent.refused}" if sent.refused else f"Sent run {sent.run_id} of {name}"
            after = None
            if change.verb == "pause":
                until_ms = None if change.length_ms is None else now_ms + change.length_ms
                note = Pause(since_ms=now_ms, by=whoami(), reason=change.reason, until_ms=until_ms)
                Runtime(client, keys).put_pauses([name], note, ("until", "reason", "by"))
                after = pause_facts(note)
                until = "" if until_ms is None else f" until {moment_text(until_ms, settings.timezone)}"
                done = f"Paused {name}{until}"
            elif change.verb == "resume":
                if not Runtime(client, keys).resume([name]):
                    return f"{name} is not paused"
                done = f"Resumed {name}"
            else:
                done = f"Told the workers to end run {name}"
            action = "stop-run" if change.verb == "stop" else change.verb
            Audit(client, keys).note(audit_record(now_ms, action, [name], by=whoami(), via="command", after=after))
        return done
