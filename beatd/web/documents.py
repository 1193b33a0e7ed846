"""Documents: the facts of an installation for programs, as the commands' ``--json`` has them.

The API answers with them, and the pages show the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException

from beatd.client.audit import audit_facts
from beatd.client.dead_letters import Filter
from beatd.client.entries import NEXT, Description, description_facts, entry_facts
from beatd.client.history import counts, facts
from beatd.client.moments import read_moment
from beatd.client.outcomes import FAILED, RunDetail, detail_facts, run_facts
from beatd.clock import Clock
from beatd.exceptions import Fault, ScheduleError
from beatd.model import Entry
from beatd.planning.catchup import ResumePoints
from beatd.planning.preview import new_state, upcoming
from beatd.planning.problems import Problem, problem_facts
from beatd.schedules import duration_ms
from beatd.store.audit import AuditRecord
from beatd.store.history import RecordFilter
from beatd.store.pipeline import joint_reads
from beatd.web.broker_view import BrokerView
from beatd.web.entries import EntryListing
from beatd.web.selection import Selector, View
from beatd.web.store_view import Document, StoreView
from beatd.web.timeline import Timeline

SHORTEST_ID = 4
"""Characters by which a run or a dead letter is looked for."""
FAULTS_SHOWN = 3
MISMATCH_AFTER_S = 20.0
"""Seconds for which the file may differ from what the daemons have: a change reaches all within some seconds."""
_SENT = frozenset({"scheduled", "backfilled", "triggered"})


class RunQuery(NamedTuple):
    """Runs that are asked for."""

    entry: str = ""
    failed: bool = False
    since: str = ""
    limit: int = 100


class Documents:
    """Reader of all documents. Raises HTTPException for what is not there, and StoreError."""

    def __init__(self, schedule: EntryListing, store: StoreView, broker: BrokerView, clock: Clock) -> None:
        self.schedule, self.store, self.broker, self.clock = schedule, store, broker, clock
        self.selector = Selector(schedule, store, clock)
        self._timeline = Timeline(schedule, store, clock)

    def status(self) -> Document:
        """The document of ``beatd status --json``."""
        return self.store.status()

    def problems(self) -> dict[str, Any]:
        """All problems as sentences, and whether runs leave; the first ones keep them from leaving."""
        status = self.store.status()
        found = [*status["problem_details"], *map(problem_facts, file_problems(self.schedule, status))]
        return {"ready": status["ready"], "problems": found}

    def entries(self, view: View) -> dict[str, Any]:
        """A page of the entries that match."""
        part = self.selector.slice(view)
        found = [
            entry_facts(look, part.outcome(look.entry.name), self.schedule.pause_of(look.entry.name))
            for look in part.outlooks
        ]
        counted = {"total": part.total, "matching": part.matching, "page": part.page, "pages": part.pages}
        return {**counted, "per_page": view.per_page, "entries": found}

    def entry(self, name: str) -> dict[str, Any]:
        """The document of ``beatd describe --json``."""
        return description_facts(self.description(name))

    def description(self, name: str) -> Description:
        """All that is known of one entry."""
        self.selector.look()
        entry, now_ms, held = self.entry_named(name), self.clock.now_ms(), self.store.held([name])
        with joint_reads() as read:
            looks = read(self.selector.outlooks, (entry,), held)
            states = read(self.store.states, (entry,), now_ms=now_ms)
            outcomes = read(self.store.outcomes, [name], now_ms, held=held)
            history, bounds = read(self.store.history, name, now_ms), read(self.store.bounds, entry)
        [look], [state], (details, totals) = looks.result(), states.result(), history.result()
        waiting = self.store.waiting((entry,), (state,), now_ms)
        following = upcoming(entry, state or new_state(now_ms), ResumePoints(now_ms, waiting))
        return Description(
            look,
            self.schedule.pause_of(name),
            outcomes.result()[name],
            details,
            [] if look.next_due_ms is None else list(islice(following, NEXT)),
            totals,
            bounds.result(),
        )

    def entry_named(self, name: str) -> Entry:
        """The entry in force of that name; HTTPException 404."""
        self.selector.overlay()
        entry = self.schedule.listing.entry(name)
        if entry is None:
            raise HTTPException(404, f"there is no entry {name!r}")
        return entry

    def history(self, name: str, *, failed: bool) -> dict[str, Any]:
        """The last runs of one entry, the newest first, as in ``beatd history --json``."""
        runs, totals = self.store.history(name, self.clock.now_ms())
        if not runs and self.schedule.listing.entry(name) is None:
            raise HTTPException(404, f"there is no entry {name!r}")
        shown = [run for run in runs if run.word in FAILED] if failed else runs
        return {"entry": name, "runs": list(map(_run_document, shown)), "totals": counts(totals)}

    def runs(self, query: RunQuery) -> dict[str, Any]:
        """The newest runs of an entry, or of all."""
        names = [self.entry_named(query.entry).name] if query.entry else self._names()
        since_ms = self.moment_ms(query.since, "since") if query.since else 0
        found = self.store.newest(names, query.limit, RecordFilter(since_ms, query.failed), self.clock.now_ms())
        return {"runs": list(map(_run_document, found))}

    def run(self, run_id: str, entry: str = "") -> dict[str, Any]:
        """The document of ``beatd run-info --json``."""
        run = self.run_detail(run_id, entry)
        return {**facts(run.record), **run_facts(run)}

    def run_detail(self, run_id: str, entry: str = "") -> RunDetail:
        """The run whose id begins so; HTTPException 404 if there is not exactly one."""
        names, run_id = [entry] if entry else self._names(), run_id.lower()
        long_enough = len(run_id) >= SHORTEST_ID
        runs = self.store.find_run(run_id, names, self.clock.now_ms()) if long_enough else []
        if len(runs) != 1:
            raise HTTPException(404, f"there is no run {run_id!r} that is remembered")
        return runs[0]

    def fleet(self) -> dict[str, Any]:
        """Daemons, shards, terms, clocks, the store, and the faults of the page's files."""
        status = self.store.status()
        keys = ("state_store", "daemons", "shards", "outbox", "runtime", "same_schedule", "ready")
        config = {
            "file": str(self.schedule.path),
            "digest": self.schedule.listing.digest,
            "entries": len(self.schedule.listing.entries),
            "in_force": not mismatch(status, self.schedule.listing.digest, 1e9),
            "faults": [fault_facts(fault) for fault in self.schedule.faults],
        }
        return {**{key: status[key] for key in keys}, "config": config}

    def workers(self) -> dict[str, Any]:
        """The workers that answer."""
        return self.broker.workers()

    def running_task(self, run_id: str) -> str | None:
        """The name of the task that a worker is running under that id."""
        active = (task for worker in self.broker.workers()["workers"] for task in worker["active"])
        return next((str(task["task"]) for task in active if task["id"] == run_id), None)

    def queues(self) -> dict[str, Any]:
        """The queues and their lengths."""
        self.selector.overlay()
        return self.broker.queues(self.schedule.listing.entries)

    def dead_letters(self, wanted: Filter, limit: int) -> dict[str, Any]:
        """The dead letters that match, the newest first."""
        found = self.broker.dead_letters(wanted, limit)
        return {"dead_letters": found.letters, "total": found.total}

    def timeline(self, window: str) -> dict[str, Any]:
        """The load of the coming window, and what ran."""
        self.selector.overlay()
        return self._timeline.document(window)

    def audit(self, limit: int, entry: str = "") -> dict[str, Any]:
        """The document of ``beatd audit --json``."""
        return {"changes": [audit_facts(record) for record in self.changes(limit, entry)]}

    def changes(self, limit: int, entry: str = "") -> list[AuditRecord]:
        """The newest changes, of entries that match or of all."""
        return self.store.changes(limit, entry or "*")

    def _names(self) -> list[str]:
        self.selector.overlay()
        return self.schedule.listing.names()

    def moment_ms(self, text: str, name: str, *, base_ms: int | None = None) -> int:
        """The moment that a parameter means, in the zone of the file; HTTPException 400."""
        now_ms = self.clock.now_ms()
        try:
            zone = self.schedule.settings.timezone
            return read_moment(text, timezone=zone, base_ms=base_ms or now_ms, now_ms=now_ms)
        except ScheduleError as error:
            raise HTTPException(400, f"{name}: {error}") from None


def letter_filter(
    ids: tuple[str, ...] = (),
    reason: str = "",
    task: str = "",
    queue: str = "",
    older: str = "",
    *,
    alike: bool = False,
) -> Filter:
    """The filter of dead letters that is asked for; HTTPException 400."""
    if any(len(each) < SHORTEST_ID for each in ids):
        raise HTTPException(400, f"{SHORTEST_ID} characters of an id at least")
    try:
        older_ms = duration_ms(older) if older else None
    except ScheduleError as error:
        raise HTTPException(400, f"older: {error}") from None
    return Filter(ids, reason or None, task or None, queue or None, older_ms, alike)


def fault_facts(fault: Fault) -> dict[str, Any]:
    """A fault of a file: its place, and what is wrong."""
    return {"file": fault.file, "line": fault.line, "path": fault.path, "message": fault.message}


def file_problems(schedule: EntryListing, status: Document | None) -> Iterator[Problem]:
    """Problems of the page's own file. ``status`` is None while the store is away."""
    faults = schedule.faults
    if faults:
        more = f" … and {len(faults) - FAULTS_SHOWN} more" if faults[FAULTS_SHOWN:] else ""
        listed = "; ".join(map(str, faults[:FAULTS_SHOWN]))
        text = f"The file has errors; showing the last valid schedule: {listed}{more}"
        yield Problem("page_file_broken", text, subject=str(schedule.path))
    elif status is not None and mismatch(status, schedule.listing.digest, schedule.age):
        text = f"No daemon has the schedule of {schedule.path}, which is shown below: run beatd reload"
        yield Problem("page_schedule_unknown", text, subject=str(schedule.path))


def mismatch(status: Document, digest: str, age: float) -> bool:
    """True if the file of this page, read ``age`` seconds ago, is not what any of the daemons has."""
    digests = {daemon["digest"] for daemon in status["daemons"] if daemon["alive"]}
    return bool(digests) and digest not in digests and age > MISMATCH_AFTER_S


def _run_document(run: RunDetail) -> dict[str, Any]:
    return {**facts(run.record), **detail_facts(run)}
