"""Outcomes of runs for people and programs: the same facts for the commands, the page and the client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from beatd.planning.overdue import Bounds, bounds_of, learned_bounds
from beatd.store.history import Record
from beatd.store.history_reader import Histories
from beatd.store.outcomes import Outcomes, Started, Summary
from beatd.store.pipeline import joint_reads
from beatd.store.run_record import WORDS, RunRecord
from beatd.timestamps import iso_ms, span_text, utc_text

if TYPE_CHECKING:
    import redis

    from beatd.model import Entry
    from beatd.store.keys import Keys

LAST = 10
"""Runs of which lists show the outcomes."""

MARKS = {
    "success": "✓",
    "failure": "✗",
    "retry": "↻",
    "revoked": "⊘",
    "lost": "†",
    "skipped": "-",
    "missed": "!",
    "running": "▶",
    "queued": "·",
    "held": "H",
}
"""The outcome of a run as one character."""
FAILED = frozenset({"failure", "revoked", "lost"})
"""Words of runs that did not do what they should."""


class EntryOutcome(NamedTuple):
    """The outcomes of an entry. Instants in ms."""

    word: str | None
    """The last outcome: ``success failure retry revoked lost skipped missed held running queued``; None: no run."""
    words: Sequence[str]
    """Outcomes of the last ten runs, the newest first."""
    failing_since_ms: int | None = None
    last_success_ms: int | None = None
    overdue_since_ms: int | None = None
    failures: int = 0
    """Failures in a row."""
    error: RunRecord | None = None
    """The last failed attempt, of an entry that fails."""
    too_long_since_ms: int | None = None
    """Since when a run takes too long."""
    records: Sequence[Record] = ()
    """The last ten runs, the newest first."""
    runs: int = 0
    """All runs, by schedule or by hand."""

    @property
    def is_late(self) -> bool:
        """True if a run is overdue or takes too long."""
        return self.overdue_since_ms is not None or self.too_long_since_ms is not None

    def while_held(self, is_held: bool) -> EntryOutcome:
        """The same of an entry that may be held back: then that is its last outcome."""
        return self._replace(word="held") if is_held else self

    @property
    def marks(self) -> str:
        """The last ten runs as marks, the newest first."""
        return "".join(MARKS.get(word, "?") for word in self.words)


class RunDetail(NamedTuple):
    """One line of a history with all that is known of the run."""

    record: Record
    word: str
    attempts: Sequence[RunRecord] = ()
    """The attempts that have ended, the oldest first."""
    started: Started | None = None
    """The attempt that is running."""

    @property
    def last(self) -> RunRecord | None:
        """The last attempt that has ended."""
        return self.attempts[-1] if self.attempts else None


class Statistics(NamedTuple):
    """Median and 95th percentile of durations and lateness (ms) of runs that were sent."""

    runs: int
    """Number of runs that were sent."""
    duration_median_ms: int | None
    duration_p95_ms: int | None
    lateness_median_ms: int | None
    lateness_p95_ms: int | None


class OutcomeReader:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys, histories: Histories | None = None) -> None:
        self._outcomes = Outcomes(client, keys)
        self._histories = histories or Histories(client, keys)

    def summaries(self) -> dict[str, Summary]:
        """The summaries of all entries."""
        return self._outcomes.summaries()

    def totals(self, names: Container[str]) -> Counter[str]:
        """Ends of attempts of these entries together, by outcome."""
        return self._outcomes.totals(names)

    def failing(self) -> dict[str, Summary]:
        """The entries of the schedule whose last run failed, those that fail longest first."""
        with joint_reads() as read:
            failing, gone = read(self._outcomes.failing), read(self._outcomes.gone)
        summaries = failing.result()
        for name in gone.result() if summaries else ():
            summaries.pop(name, None)
        return dict(sorted(summaries.items(), key=lambda item: (item[1].failing_since_ms, item[0])))

    def errors(self, names: Sequence[str]) -> dict[str, RunRecord]:
        """The newest attempt of each entry that has one."""
        return self._outcomes.latest(names)

    def overdue(self) -> dict[str, int]:
        """The entries that are overdue, and since when (ms)."""
        return self._outcomes.overdue()

    def too_long(self) -> dict[str, int]:
        """The entries of which a run takes too long, and since when (ms)."""
        return self._outcomes.too_long()

    def bounds(self, entry: Entry) -> Bounds:
        """The bounds beyond which a run of the entry is overdue or takes too long, learned ones among them."""
        with joint_reads() as read:
            records, ended = read(list, self._histories.of([entry.name])), read(self._outcomes.ended, [entry.name])
        dues = {str(one.run_id): one.due_ms for one in records.result() if one.sent}
        return bounds_of(entry.policies, learned_bounds(ended.result()[entry.name], dues))

    def of(self, names: Sequence[str], now_ms: int) -> dict[str, EntryOutcome]:
        """The outcomes of entries."""
        with joint_reads() as read:
            runs, ends = read(self._recent, names), read(self._ends, names)
            overdue, too_long = read(self._outcomes.overdue), read(self._outcomes.too_long)
            totals = read(self._histories.totals, names)
        (recent, started), (summaries, errors) = runs.result(), ends.result()
        return {
            name: _outcome(
                [word_of(record, started, now_ms) for record in recent[name]],
                summaries.get(name),
                overdue_since_ms=overdue.result().get(name),
                error=errors.get(name),
            )._replace(
                too_long_since_ms=too_long.result().get(name),
                records=recent[name],
                runs=totals.result()[name].runs,
            )
            for name in names
        }

    def _recent(self, names: Sequence[str]) -> tuple[dict[str, list[Record]], dict[str, Started]]:
        """The last runs of entries, and the marks of those that are at work."""
        recent = self._histories.recent(names, LAST)
        return recent, self._started(record for records in recent.values() for record in records)

    def _ends(self, names: Sequence[str]) -> tuple[dict[str, Summary], dict[str, RunRecord]]:
        """The summaries of entries, and the last attempts of those that fail."""
        summaries = self._outcomes.summaries(names)
        return summaries, self._outcomes.latest([name for name, one in summaries.items() if one.failing_since_ms])

    def detailed(self, lines: Sequence[Record], now_ms: int) -> list[RunDetail]:
        """The records, completed, with words, attempts and errors."""
        wanted = {record.run_id for record in lines}
        names = dict.fromkeys(record.entry for record in lines if record.sent)
        with joint_reads() as read:
            completed, marks = read(self._histories.completed, lines), read(self._started, lines)
            all_attempts = read(self._outcomes.records, *names)
        records, started = completed.result(), marks.result()
        kept = [attempt for attempt in all_attempts.result() if attempt.run_id in wanted]
        attempts: dict[str, list[RunRecord]] = {}
        for attempt in reversed(kept):
            same_run = attempts.setdefault(attempt.run_id, [])
            if attempt not in same_run[-1:]:  # noted twice, as the answer of the store was lost
                same_run.append(attempt)
        return [
            RunDetail(
                record,
                word_of(record, started, now_ms),
                attempts.get(run_id := record.run_id or "", ()),
                started.get(run_id),
            )
            for record in records
        ]

    def find(self, run_id: str, names: Sequence[str], now_ms: int) -> list[RunDetail]:
        """The runs of these entries whose ids begin with ``run_id``."""
        return self.detailed(self._histories.find(run_id, names), now_ms)

    def _started(self, records: Iterable[Record]) -> dict[str, Started]:
        return self._outcomes.started([str(record.run_id) for record in records if record.is_open])


def word_of(record: Record, started: Mapping[str, Started], now_ms: int) -> str:
    """The outcome of a run in a word. ``started``: the marks of runs that are running, by run id."""
    if record.is_open and (mark := started.get(str(record.run_id))) is not None:
        return "lost" if mark.is_lost(now_ms) else "running"
    if record.outcome is None:
        return "queued" if record.sent else record.kind
    return WORDS.get(record.outcome, record.outcome.lower())


def _outcome(
    words: Sequence[str],
    summary: Summary | None,
    *,
    overdue_since_ms: int | None,
    error: RunRecord | None,
) -> EntryOutcome:
    word = words[0] if words else None
    if summary is None:
        return EntryOutcome(word, words, overdue_since_ms=overdue_since_ms)
    return EntryOutcome(
        word or summary.word or None,
        words,
        summary.failing_since_ms,
        summary.last_success_ms,
        overdue_since_ms,
        summary.failures,
        error if error is not None and error.type else None,
    )


def statistics(records: Iterable[Record]) -> Statistics:
    """Durations and lateness of the runs of one entry."""
    runs = [record for record in records if record.sent]
    durations = [record.runtime_ms for record in runs if record.runtime_ms is not None and record.outcome]
    lateness = [record.late_ms for record in runs if record.kind == "scheduled"]
    return Statistics(len(runs), *_median_and_p95(durations), *_median_and_p95(lateness))


def _median_and_p95(values: list[int]) -> tuple[int | None, int | None]:
    if not values:
        return None, None
    values.sort()
    return _quantile(values, 0.5), _quantile(values, 0.95)


def _quantile(ordered: Sequence[int], part: float) -> int:
    """The value below which that part of the values lies: between two of them in proportion."""
    whole, rest = divmod(part * (len(ordered) - 1), 1)
    low = ordered[int(whole)]
    return round(low + rest * (ordered[int(whole) + 1] - low)) if rest else low


def bounds_facts(bounds: Bounds) -> dict[str, int | None]:
    """The bounds of an entry for programs."""
    return {
        "start_within_ms": bounds.start_ms,
        "finish_within_ms": bounds.finish_ms,
        "run_within_ms": bounds.runtime_ms,
        "learned_from": bounds.learned_from,
    }


def bounds_text(bounds: Bounds) -> str:
    """The bounds of an entry in words."""
    parts = [
        text.format(span_text(ms))
        for text, ms in (
            ("starts within {}", bounds.start_ms),
            ("finishes within {}", bounds.finish_ms),
            ("runs for at most {}", bounds.runtime_ms),
        )
        if ms is not None
    ]
    learned = f" (learned from {bounds.learned_from} runs)" if bounds.learned_from else ""
    return f"{', '.join(parts)}{learned}" if parts else "none yet"


def failure_text(name: str, outcome: EntryOutcome) -> str:
    """An entry that fails, in a sentence: since when, how often, and the first line of the last error."""
    return failing_text(name, outcome.failing_since_ms, outcome.failures, outcome.error)


_ERROR_SHOWN = 200
"""Characters of an error in a sentence."""


def failing_text(name: str, since_ms: int | None, failures: int, error: RunRecord | None) -> str:
    """The sentence of :func:`failure_text`."""
    times = "once" if failures == 1 else f"{failures:,} times in a row"
    since = f" since {utc_text(since_ms)}" if since_ms else ""
    text = " ".join(error.message.split()) if error else ""
    text = text if len(text) <= _ERROR_SHOWN else f"{text[: _ERROR_SHOWN - 1]}…"
    cause = f": {error.type}: {text}" if error and error.type else ""
    return f"entry {name} failed {times}{since}{cause}; see beatd history {name} --failed"


def outcome_facts(outcome: EntryOutcome) -> dict[str, Any]:
    """The outcomes of an entry for programs."""
    return {
        "last_outcome": outcome.word,
        "last_error": outcome.error and error_facts(outcome.error),
        "failing_since": _iso(outcome.failing_since_ms),
        "failures": outcome.failures,
        "last_success_at": _iso(outcome.last_success_ms),
        "outcomes": list(outcome.words),
        "overdue_since": _iso(outcome.overdue_since_ms),
        "too_long_since": _iso(outcome.too_long_since_ms),
    }


def error_facts(attempt: RunRecord) -> dict[str, Any] | None:
    """The error of an attempt; None for one that has none."""
    return {"type": attempt.type, "message": attempt.message} if attempt.type else None


def attempt_facts(attempt: RunRecord) -> dict[str, Any]:
    """An attempt for programs."""
    return {
        "attempt": attempt.attempt,
        "outcome": attempt.word,
        "started_at": _iso(attempt.start_ms),
        "ended_at": _iso(attempt.end_ms or None),
        "worker": attempt.worker or None,
        "error": error_facts(attempt),
        "traceback": attempt.traceback or None,
        "output": attempt.output or None,
        "result": attempt.result or None,
    }


def detail_facts(detail: RunDetail) -> dict[str, Any]:
    """The facts of a run beside the record: the outcome in a word, the error, times and worker."""
    last = detail.last
    start_ms = detail.started.start_ms if detail.started else last.start_ms if last else None
    return {
        "state": detail.word,
        "error": error_facts(last) if last is not None and detail.word != "success" else None,
        "started_at": _iso(start_ms),
        "ended_at": _iso((last.end_ms or None) if last and detail.word not in ("running", "queued") else None),
        "worker": detail.started.worker if detail.started else (last.worker or None) if last else None,
        "attempt": detail.started.attempt if detail.started else last.attempt if last else None,
    }


def run_facts(detail: RunDetail) -> dict[str, Any]:
    """One run whole, beside the record."""
    last = detail.last
    arguments = {"task": last.task or None, "args": last.args or None, "kwargs": last.kwargs or None} if last else {}
    output = {
        "traceback": (last.traceback or None) if last else None,
        "output": (last.output or None) if last else None,
        "result": (last.result or None) if last else None,
    }
    attempts = list(map(attempt_facts, detail.attempts))
    return {**detail_facts(detail), **arguments, **output, "attempts": attempts}


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso_ms(ms)
