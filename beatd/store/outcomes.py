"""Outcomes of runs: records of attempts with error and output, a summary of each entry, and runs that have started.

Records and summaries are written by ``note_ends.lua`` with the end of a run that is reported anyway. The newest
:data:`RECORDS_MAX` records of an entry are kept, and of these as many as :data:`BYTES_MAX` bytes can hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis

from beatd.exceptions import StoreUnavailable
from beatd.planning.overdue import EndedAttempt
from beatd.states import FAILURE
from beatd.store import history
from beatd.store.client import translate_errors
from beatd.store.ended_runs import EndedRuns, SentRun, others_answer
from beatd.store.keys import Keys, ShardKeys
from beatd.store.pipeline import joint_reads
from beatd.store.run_record import LOST, MARKS, WORDS, RunRecord, decoded
from beatd.store.script import Script

RECORDS_MAX, BYTES_MAX = 50, 64 << 10
"""Bounds of the records of one entry."""
_DAY_MS = 24 * 3600 * 1000
SILENT_MS = 60_000
"""A run counts as lost when its worker has not renewed its mark for so long."""
OVERDUE_KEPT_MS = 300_000
BATCH = 1_000
"""Entries in one command."""
_COUNTED = "sflevr"
"""Marks in the order of their counts in a summary."""
_WORD_OF_MARK = {mark: word for word, mark in MARKS.items()} | {"e": "revoked"}
ENDS_AT_ONCE = 500
"""Ends that are noted in one call: keeps the store busy for milliseconds."""


class Ended(NamedTuple):
    """An attempt of a run that has ended. ``due_at`` as its message has it (ISO 8601), ``runtime`` in seconds, None if
    it is not known."""

    run_id: str
    entry: str
    due_at: str | None
    state: str
    runtime: float | None = 0.0
    record: bytes = b""
    """An encoded :class:`RunRecord`."""
    mark: str = ""
    """The letter for the summary; empty: that of ``state``."""
    is_over: bool = True
    """False if the run is tried again, or may be: a message that comes once more is no repetition."""
    end_ms: int | None = None
    """None: now."""
    after_ms: int | None = None
    """The instant (ms) after which it is the first run of its entry, as its message says."""
    was_marked: bool = False
    """True if its worker has noted that it runs."""

    def sent(self) -> SentRun:
        """The run as its message describes it."""
        return SentRun(self.run_id, self.entry, self.due_at, self.after_ms)


def note_arguments(
    part: ShardKeys, ended: Sequence[Ended], *, kept_ms: int = _DAY_MS, refusals: Sequence[str] = ()
) -> tuple[list[str], list[Any]]:
    """Keys and arguments of ``note_ends.lua``, for entries of one part. ``refusals``: for each run, the reason why the
    broker refused it.

    A run that the schedule sent leaves nothing under its id, see :mod:`beatd.store.ended_runs`.
    """
    by_id = part.refused if refusals else part.finished
    names = [part.last_outcome, part.ended, part.running, by_id, part.history, part.outcomes, part.recovered]
    args = list[Any]([kept_ms, RECORDS_MAX, BYTES_MAX])
    for place, end in enumerate(ended):
        sent, runtime_ms = end.sent(), history.UNKNOWN_MS if end.runtime is None else int(end.runtime * 1000)
        is_over = end.is_over or bool(refusals)
        due_ms = sent.due_ms
        value, stretch = "", ("", "")
        if due_ms is None or end.after_ms is None:
            value = refusals[place] if refusals else f"{_public(end.state)} {runtime_ms}" if is_over else ""
        elif is_over and not refusals:
            stretch = (f"{end.after_ms}", f"{due_ms}")
        args += (end.run_id, value, *stretch, "1" if is_over else "")
        args += history.end_arguments(sent, due_ms, end.state, runtime_ms)
        mark = end.mark or MARKS.get(WORDS.get(end.state, ""), "")
        args += (end.entry, mark, "" if end.end_ms is None else end.end_ms, end.record)
    return names, args


def _by_part(keys: Keys, ended: Sequence[Ended]) -> Iterator[tuple[ShardKeys, Sequence[Ended]]]:
    """The parts in which entries are, each with the ends of its own."""
    for part, names in keys.by_part([end.entry for end in ended]):
        own = frozenset(names)
        yield part, ended if keys.parts == 1 else [end for end in ended if end.entry in own]


def _public(state: str) -> str:
    return FAILURE if state == LOST else state


class Started(NamedTuple):
    """A run that is running. ``seen_ms``: the last report of its worker."""

    start_ms: int
    seen_ms: int
    attempt: int
    worker: str

    def is_lost(self, now_ms: int) -> bool:
        """True if its worker is silent."""
        return now_ms - self.seen_ms > SILENT_MS


class Summary(NamedTuple):
    """The outcomes of an entry in short. Instants in ms."""

    end_ms: int
    failing_since_ms: int | None
    last_success_ms: int | None
    failures: int
    """Failures in a row."""
    word: str
    """The last outcome."""
    ends: Sequence[bytes] = ()
    """Number of ends for each mark."""

    @property
    def counts(self) -> Counter[str]:
        """Ends of attempts, by outcome."""
        return _counts({b" ".join(self.ends): 1})


def _counts(ends: Mapping[bytes, int]) -> Counter[str]:
    """Ends of attempts by outcome. ``ends`` are the last fields of summaries, and how many entries have the same."""
    totals = [0] * len(_COUNTED)
    for fields, entries in ends.items():
        numbers = fields.split()[: len(_COUNTED)]
        if b"".join(numbers).isdigit():
            for place, number in enumerate(numbers):
                totals[place] += int(number) * entries
    counts: Counter[str] = Counter()
    for mark, count in zip(_COUNTED, totals, strict=True):
        counts[_WORD_OF_MARK[mark]] += count
    return +counts


class Outcomes:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._note = Script(client, "note_ends")
        self.ended_runs = EndedRuns(client, keys)

    def note(self, ended: Sequence[Ended]) -> list[Ended]:
        """Note that attempts have ended: one call of the store for :data:`ENDS_AT_ONCE` of them.

        Returns those that are not noted, as their node of a cluster does not answer while another one does.
        """
        left = list[Ended]()
        for part, own in _by_part(self._keys, ended):
            try:
                for start in range(0, len(own), ENDS_AT_ONCE):
                    self._note(*note_arguments(part, own[start : start + ENDS_AT_ONCE]))
            except StoreUnavailable:
                if not others_answer(self._client, self._keys):
                    raise
                left += own
        self._unmark(ended)
        return left

    def _unmark(self, ended: Sequence[Ended]) -> None:
        """Remove the marks of runs that took a while."""
        if marked := [self._keys.started(end.run_id) for end in ended if end.was_marked]:
            with self._unless_away(), translate_errors(self._client):
                self._client.delete(*marked)

    @contextmanager
    def _unless_away(self) -> Iterator[None]:
        """Pass over that the node of a cluster which has the marks does not answer."""
        try:
            yield
        except StoreUnavailable:
            if not others_answer(self._client, self._keys):
                raise

    def began(self, runs: Mapping[str, Started]) -> None:
        """Note that runs are running; to be repeated before :data:`SILENT_MS` have passed."""
        if runs:
            with (
                self._unless_away(),
                translate_errors(self._client),
                self._client.pipeline(transaction=False) as pipeline,
            ):
                for run_id, run in runs.items():
                    value = f"{run.start_ms} {run.seen_ms} {run.attempt} {run.worker}"
                    pipeline.set(self._keys.started(run_id), value, px=_DAY_MS)
                pipeline.execute()

    @property
    def knows_started(self) -> bool:
        """False while the node of a cluster that has the marks of started runs is left out."""
        return 0 not in self._keys.away

    def started(self, run_ids: Sequence[str]) -> dict[str, Started]:
        """The started runs among these, as far as their workers have reported; none without :attr:`knows_started`."""
        if not run_ids or not self.knows_started:
            return {}
        with translate_errors(self._client):
            raws: Any = self._client.mget([self._keys.started(run_id) for run_id in run_ids])
        runs = zip(run_ids, map(_started, raws), strict=True)
        return {run_id: run for run_id, run in runs if run is not None}

    def failing(self) -> dict[str, Summary]:
        """The summaries of entries whose last run failed."""
        with joint_reads() as read:
            parts = [read(self._failing, part) for part in self._keys.all_parts()]
        failing = (pair for part in parts for pair in part.result())
        summaries = ((name.decode(errors="backslashreplace"), _summary(value)) for name, value in failing)
        return {name: summary for name, summary in summaries if summary is not None and summary.failing_since_ms}

    def _failing(self, part: ShardKeys) -> list[tuple[bytes, bytes]]:
        with translate_errors(self._client):  # some at a time: other clients get their turn between
            scanned = self._client.hscan_iter(part.last_outcome, count=BATCH)
            return [(name, value) for name, value in scanned if value[value.find(b" ") :][:3] != b" 0 "]

    def summaries(self, names: Sequence[str] | None = None) -> dict[str, Summary]:
        """The summaries of entries, of all by default; one that has none is left out."""
        with translate_errors(self._client):
            if names is None:
                items: Iterable[tuple[str, bytes | None]] = (
                    (name.decode(errors="backslashreplace"), value) for name, value in self._all("last_outcome")
                )
            else:
                batches = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
                asked = [item for batch in batches for item in self._keys.by_part(batch)]
                with self._client.pipeline(transaction=False) as pipeline:
                    for part, own in asked:
                        pipeline.hmget(part.last_outcome, own)
                    answers = pipeline.execute()
                items = [
                    pair
                    for (_, own), values in zip(asked, answers, strict=True)
                    for pair in zip(own, values, strict=True)
                ]
        summaries = ((name, _summary(value)) for name, value in items if value)
        return {name: summary for name, summary in summaries if summary is not None}

    def totals(self, names: Container[str]) -> Counter[str]:
        """Ends of attempts of many entries together, by outcome; much faster than the sum of their summaries."""
        with translate_errors(self._client):
            raw = self._all("last_outcome")
        values = (value for name, value in raw if name.decode(errors="backslashreplace") in names)
        return _counts(Counter(value.split(maxsplit=5)[-1] for value in values if value.count(b" ") >= 5))

    def overdue(self) -> dict[str, int]:
        """The entries that are overdue, and since when (ms)."""
        return self._moments("overdue")

    def too_long(self) -> dict[str, int]:
        """The entries of which a run takes too long, and since when (ms)."""
        return self._moments("too_long")

    def set_overdue(self, since: Mapping[str, int], gone: Sequence[str]) -> None:
        """Put entries that are overdue, and take out those that are not any more."""
        self._set_moments("overdue", since, gone)

    def set_too_long(self, since: Mapping[str, int], gone: Sequence[str]) -> None:
        """Put entries of which a run takes too long, and take out those of which none does any more."""
        self._set_moments("too_long", since, gone)

    def _moments(self, which: str) -> dict[str, int]:
        with translate_errors(self._client):
            items = ((name.decode(errors="backslashreplace"), value) for name, value in self._all(which))
        return {name: int(value) for name, value in items if value.isdigit()}

    def _all(self, which: str) -> list[tuple[bytes, bytes]]:
        """The fields of one of the hashes, of all entries."""
        with self._client.pipeline(transaction=False) as pipeline:
            for part in self._keys.all_parts():
                pipeline.hgetall(getattr(part, which))
            return [pair for found in pipeline.execute() for pair in found.items()]

    def _set_moments(self, which: str, since: Mapping[str, int], gone: Sequence[str]) -> None:
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for part, own in self._keys.by_part(gone) if gone else ():
                pipeline.hdel(getattr(part, which), *own)
            for part, own in self._keys.by_part([*since]) if since else ():
                pipeline.hset(getattr(part, which), mapping={name: str(since[name]) for name in own})
                pipeline.pexpire(getattr(part, which), OVERDUE_KEPT_MS)
            pipeline.execute()

    def gone(self) -> list[str]:
        """Names of entries that have left the schedule."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for part in self._keys.all_parts():
                pipeline.zrange(part.gone, 0, -1)
            return [name.decode(errors="backslashreplace") for names in pipeline.execute() for name in names]

    def records(self, *names: str) -> list[RunRecord]:
        """The attempts of entries that are kept, one entry after the other, of each the newest first."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.lrange(self._keys.outcomes(name), 0, -1)
            answers = pipeline.execute()
        return [record for raws in answers for record in map(decoded, raws) if record is not None]

    def ended(self, names: Sequence[str]) -> dict[str, list[EndedAttempt]]:
        """The times of the attempts of entries, the newest first."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.lrange(self._keys.outcomes(name), 0, -1)
            answers = pipeline.execute(raise_on_error=False)
        lists = (raws if isinstance(raws, list) else () for raws in answers)
        return {
            name: [attempt for attempt in map(_attempt, raws) if attempt is not None]
            for name, raws in zip(names, lists, strict=True)
        }

    def latest(self, names: Sequence[str]) -> dict[str, RunRecord]:
        """The newest record of each entry that has one."""
        newest: dict[str, RunRecord] = {}
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.lrange(self._keys.outcomes(name), 0, 0)
            answers = pipeline.execute(raise_on_error=False)
        for name, raws in zip(names, answers, strict=True):
            if isinstance(raws, list) and raws and (record := decoded(raws[0])) is not None:
                newest[name] = record
        return newest


def _attempt(raw: bytes) -> EndedAttempt | None:
    record = decoded(raw)
    if record is None:
        return None
    return EndedAttempt(record.run_id, record.start_ms, record.end_ms, record.attempt == 1, record.word == "success")


def _started(raw: bytes | None) -> Started | None:
    words = (raw or b"").decode(errors="replace").split(" ", 3)
    if len(words) != 4 or not all(word.isdigit() for word in words[:3]):
        return None
    return Started(int(words[0]), int(words[1]), int(words[2]), words[3])


def _summary(raw: bytes) -> Summary | None:
    words = raw.split()
    if len(words) < 5 or not b"".join(words[:4]).isdigit() or (words[5:] and not b"".join(words[5:]).isdigit()):
        return None
    word = _WORD_OF_MARK.get(words[4].decode(errors="replace"), "")
    return Summary(int(words[0]), int(words[1]) or None, int(words[2]) or None, int(words[3]), word, tuple(words[5:]))
