"""Watch over outcomes, in a thread of its own: results of Celery's workers, runs that were lost, and overdue runs.

The bundled worker reports ends itself. For runs of other workers the result documents of their run ids are looked for,
soon at first and then less and less often, for a day. Only the daemon that leads an entry looks for its runs; it has
sent them itself, so the store is not asked which entries have new ones.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice, repeat
from typing import Any

from beatd.beat.overdue import OverdueWatch
from beatd.beat.pending_runs import PendingRun, PendingRuns
from beatd.clock import Clock
from beatd.exceptions import StoreError
from beatd.model import Entry
from beatd.redaction import redacted_text
from beatd.states import SUCCESS
from beatd.store.ended_runs import covers
from beatd.store.entry_state import EntryStates
from beatd.store.history import OpenRun, open_runs
from beatd.store.history_reader import Ending, Histories
from beatd.store.keys import shard_of
from beatd.store.outcomes import Ended, Outcomes, Started
from beatd.store.results import Meta
from beatd.store.run_record import (
    ARGUMENTS_MAX,
    LOST,
    MESSAGE_MAX,
    TRACEBACK_MAX,
    RunRecord,
    bounded,
    encoded,
    result_text,
)
from beatd.store.server_check import NodeCheck
from beatd.timestamps import iso_ms, to_ms

log = logging.getLogger("beatd.beat.outcomes")

LOOK_S = 5.0
"""Seconds between two looks."""
_FIRST_TRY_MS, _LONGEST_TRY_MS, _TRIED_FOR_MS = 5_000, 60_000, 86_400_000
_PENDING_MAX = 50_000
"""Runs that are looked for; the oldest go first."""
_ENTRIES_A_LOOK, _RUNS_A_LOOK = 5_000, 10_000
"""Most entries whose histories are read in a look, and most runs that are looked for. Once so many runs are new no more
histories are read, as no more runs are looked for later. The others have their turn in the next looks. It bounds the
time that is taken from a daemon which sends thousands of runs a second."""
_DUE_AT_ONCE, _BATCH = 1_000, 100
_PAUSE_S = 0.015
"""Seconds between two batches, in which the loop of the daemon runs. A batch takes 1 to 2 ms of the interpreter: runs
wait for it no longer than that, and the loop has most of the time."""
_RECENT = 20
_PLAIN_MODULES = ("", "builtins", "__main__", "celery.exceptions", "billiard.exceptions")


class OutcomeWatch:
    """Watches the entries that ``led`` returns, by name for each shard. ``ran`` tells, each time it is called, which of
    them have had runs since, or may have. ``on_look`` is called with each look of a daemon that leads.

    Entries and runs whose node of a cluster does not answer are put off. ``check_nodes`` is of the keys of the others.
    """

    def __init__(
        self,
        led: Callable[[], Sequence[Mapping[str, Entry]]],
        ran: Callable[[], Iterable[str]],
        outcomes: Outcomes,
        histories: Histories,
        states: EntryStates,
        *,
        clock: Clock,
        check_nodes: NodeCheck,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._check_nodes, self._keys = check_nodes, check_nodes.keys
        self._led = led
        self._ran = ran
        self._on_look = on_look
        self._outcomes = outcomes
        self._histories = histories
        self._clock = clock
        self._shards: Sequence[Mapping[str, Entry]] = ()
        self._by_name: Mapping[str, Entry] = {}
        self._changed: dict[str, None] = {}
        """Entries with new runs, the one that waits longest first."""
        self._pending = PendingRuns(_PENDING_MAX)
        self._looked_ms = 0
        self._is_away = False
        self._stopping = threading.Event()
        self._overdue = OverdueWatch(outcomes, histories, states, self._keys, self._batches)
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch; returns when the thread has ended, or after a second."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(1)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.look()
                self._is_away = False
            except StoreError as error:
                if not self._is_away:
                    text = "Outcomes cannot be read: %s; trying again every %d s"
                    log.warning(text, error, LOOK_S, extra={"event": "outcomes_unreadable"})
                self._is_away = True
            except Exception:
                log.exception("Looking for outcomes failed in an unexpected way", extra={"event": "outcomes_error"})

    def look(self) -> None:
        """Look once. Raises a :class:`~beatd.exceptions.StoreError`."""
        ran, led = self._ran(), self._led()  # in this order: what is loaded between is told of in the next look
        if list(map(id, led)) != list(map(id, self._shards)):  # a changed schedule is another object
            self._shards, self._by_name = led, led[0] if len(led) == 1 else dict(chain(*(part.items() for part in led)))
        if not self._by_name:
            self._changed = {}
            self._pending.clear()
            self._overdue.forget()
            return
        before_ms, self._looked_ms = self._looked_ms, self._clock.now_ms()
        now_ms = self._looked_ms
        if now_ms < before_ms:  # the clock was set back: no moment is waited for that was planned by the other time
            self._pending.try_all(now_ms)
            self._overdue.forget()
        self._changed.update(zip(ran, repeat(None)))  # without a table in between: there may be a million
        self._check_nodes()
        readable = (name for name in self._changed if not self._keys.is_away(name))
        added = 0
        for batch in self._batches([*islice(readable, _ENTRIES_A_LOOK)]):
            names = [name for name in batch if name in self._by_name]
            histories = self._histories.tails(names, _RECENT)
            for name, history in histories.items():
                added += self._expect(name, open_runs(history, _RECENT), now_ms)
            self._overdue.ran(name for name, history in histories.items() if history)
            for name in batch:
                del self._changed[name]
            if added >= _RUNS_A_LOOK:
                break
        left = _RUNS_A_LOOK
        while due := self._pending.due(now_ms, min(left, _DUE_AT_ONCE)):
            self._try(due, now_ms)
            left -= len(due)
        self._overdue.look(self._by_name, now_ms, self._is_led)
        self._on_look()

    def _is_led(self, name: str) -> bool:
        """True if the shard of an entry is led, also if the entry has left the schedule."""
        return bool(self._shards[shard_of(name, len(self._shards))])

    def _batches(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for start in range(0, len(items), _BATCH):
            yield items[start : start + _BATCH]
            self._stopping.wait(_PAUSE_S)

    def _expect(self, name: str, runs: Iterable[OpenRun], now_ms: int) -> int:
        """Look for the ends of these runs of an entry from now on; returns how many of them were not pending before."""
        pending = (run for run in runs if now_ms - run.at_ms < _TRIED_FOR_MS)
        return self._pending.add(name, pending, try_at_ms=now_ms, pause_ms=_FIRST_TRY_MS)

    def _try(self, runs: Sequence[PendingRun], now_ms: int) -> None:
        for run in runs:
            if self._keys.is_away(run.entry):
                self._pending.put_off(run, now_ms + run.pause_ms, run.pause_ms)
        for batch in self._batches([run for run in runs if not self._keys.is_away(run.entry)]):
            ids = [run.run_id for run in batch]
            stretches = self._outcomes.ended_runs.stretches(list({run.entry for run in batch}))
            endings, started = self._histories.endings(ids), self._outcomes.started(ids)
            ended, over = list[Ended](), list[PendingRun]()
            for run, ending in zip(batch, endings, strict=True):
                end = self._end_or_none(run, ending, started.get(run.run_id), now_ms)
                if end is not None:
                    ended.append(end)
                is_over = end is not None or ending is not None or _is_noted(run, stretches)
                if is_over or now_ms - run.at_ms > _TRIED_FOR_MS:
                    over.append(run)
                else:
                    is_at_work = run.run_id in started  # its worker may die at any time
                    pause_ms = _FIRST_TRY_MS if is_at_work else min(2 * run.pause_ms, _LONGEST_TRY_MS)
                    self._pending.put_off(run, now_ms + min(run.pause_ms, pause_ms), pause_ms)
            left = {end.run_id for end in self._outcomes.note(ended)}
            for run in over:  # not before their ends are noted
                if run.run_id in left:
                    self._pending.put_off(run, now_ms + _FIRST_TRY_MS, run.pause_ms)
                else:
                    self._pending.remove(run)

    def _end_or_none(
        self, run: PendingRun, ending: Ending | None, started: Started | None, now_ms: int
    ) -> Ended | None:
        """:meth:`_end`; a result that breaks it concerns no other run."""
        try:
            return self._end(run, ending, started, now_ms)
        except Exception:
            extra = {"event": "outcomes_error", "entry": run.entry, "run_id": run.run_id}
            log.exception("The end of run %s of %s cannot be noted", run.run_id, run.entry, extra=extra)
            return None

    def _end(self, run: PendingRun, ending: Ending | None, started: Started | None, now_ms: int) -> Ended | None:
        """The end of a run to be noted, if it is known here and nowhere else."""
        if ending is not None:
            is_celerys = ending.result is not None and ending.runtime_ms is None
            return _end_of(run, record_of(run, ending.result or {}, now_ms)) if is_celerys else None
        if started is None or not started.is_lost(now_ms):
            return None
        text = "Run %s of %s is lost: its worker %s has been silent since %s"
        extra = {"event": "run_lost", "entry": run.entry, "run_id": run.run_id, "worker": started.worker}
        log.warning(text, run.run_id, run.entry, started.worker, iso_ms(started.seen_ms), extra=extra)
        lost = RunRecord(
            run_id=run.run_id,
            state=LOST,
            end_ms=started.seen_ms,
            start_ms=started.start_ms,
            worker=started.worker,
            attempt=started.attempt,
            type="WorkerLostError",
            message="its worker stopped without reporting the end of the run",
        )
        return _end_of(run, lost)


def _is_noted(run: PendingRun, stretches: Mapping[str, bytes | None]) -> bool:
    """True if a bundled worker has noted the end. Runs by hand are in no stretch, though their time may be."""
    return run.is_scheduled and covers(stretches[run.entry], run.due_ms)


def _end_of(run: PendingRun, attempt: RunRecord) -> Ended:
    return Ended(
        attempt.run_id,
        run.entry,
        iso_ms(run.due_ms),
        attempt.state,
        None,
        encoded(attempt),
        attempt.mark,
        is_over=False,
        end_ms=attempt.end_ms,
    )


def record_of(run: PendingRun, meta: Meta, now_ms: int) -> RunRecord:
    """The record of a run from the result document of a Celery worker."""
    error = meta.get("result") if meta.get("status") not in ("SUCCESS", "IGNORED") else None
    kind, message = "", ""
    if isinstance(error, dict):
        module, kind = str(error.get("exc_module") or ""), str(error.get("exc_type") or "")
        kind = kind if module in _PLAIN_MODULES else f"{module}.{kind}"
        said = error.get("exc_message")
        message = ", ".join(map(str, said)) if isinstance(said, list | tuple) else str(said or "")
    elif error is not None:
        message = str(error)
    retries = meta.get("retries")
    return RunRecord(
        run_id=run.run_id,
        state=LOST if kind.endswith("WorkerLostError") else str(meta.get("status")),
        end_ms=_done_ms(meta.get("date_done"), now_ms),
        worker=str(meta.get("worker") or ""),
        task=str(meta.get("name") or ""),
        attempt=retries + 1 if isinstance(retries, int) else 1,
        type=kind,
        message=redacted_text(message, at_most=MESSAGE_MAX),
        traceback=bounded(str(meta.get("traceback") or ""), TRACEBACK_MAX),
        args=redacted_text(str(meta.get("args") or ""), at_most=ARGUMENTS_MAX),
        kwargs=redacted_text(str(meta.get("kwargs") or ""), at_most=ARGUMENTS_MAX),
        result=result_text(meta.get("result")) if meta.get("status") == SUCCESS else "",
    )


def _done_ms(date_done: Any, now_ms: int) -> int:
    try:
        moment = datetime.fromisoformat(str(date_done))
        return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError:
        return now_ms
