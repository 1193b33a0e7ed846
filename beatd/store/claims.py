"""Claims: the state of entries, and the atomic write by which runs are sent (idempotent: a run is claimed once)."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import redis

from beatd.exceptions import StoreRolledBack
from beatd.model import EntryState
from beatd.redaction import encodable
from beatd.store import history
from beatd.store.client import translate_errors
from beatd.store.keys import Keys, shard_of
from beatd.store.script import BulkStrings, Replicas, Script, bulk_strings
from beatd.timestamps import LAST_MS

LOAD_BATCH = 1_000
"""Entries read in one call: a call of this size keeps the server busy for about a millisecond."""

GAPS_KEPT_MS = 7 * 86_400_000
MISSED_KEPT_MS = 2 * 3_600_000
"""Time (ms) for which gaps are kept: a clock that is set right within it gets the runs that it passed over."""


DIGITS = 15
"""Most digits of an instant or a number in the store."""


class Unreadable(NamedTuple):
    """A value in the store that is no state of an entry, and its key."""

    key: str
    value: bytes

    def __str__(self) -> str:
        return f"the entry's field in {self.key} holds {self.value[:60]!r}; correct it, or delete it"


class Refusal(NamedTuple):
    """Runs of a batch, by number, that the store refused: nothing was written for them; all others were claimed."""

    reason: str
    key: str
    """The key that the reason is about: the queue's, or one of beatd's own."""
    numbers: Sequence[int]


class Claimed(NamedTuple):
    """Result of a batch."""

    left_out: frozenset[int]
    """Numbers of runs that had been claimed before; their messages were not pushed again."""
    refusals: Sequence[Refusal] = ()


class Gap(NamedTuple):
    """Missed runs of an entry that are not caught up: due after the first instant and before the second."""

    name: str
    after_ms: int
    before_ms: int
    decided_ms: int | None = None
    """Until when all runs are decided about, if none is caught up: from there the entry goes on, whoever leads next."""


DROPPED = "dropped"
"""In place of :attr:`Claim.running`, of a run that is not sent: it is left out if the one before it is."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """One run to claim. ``queue`` is the key of a Redis list, or ``None`` to claim without sending."""

    name: str
    due_ms: int
    queue: str | None = None
    message: bytes = b""
    running: str = ""
    """``<run id> <ms until which it may run>``, for entries that mind overlaps; or :data:`DROPPED`."""
    record: history.CountedCell = history.NO_CELL
    """Its record in the history and the tally, see :mod:`beatd.store.history`."""


class Claims:
    """The claimed state of one shard's entries.

    ``lease_value`` fences every call: :class:`~beatd.exceptions.TermLost` means that the term is over and that nothing
    was written. :class:`~beatd.exceptions.StoreUnavailable` leaves it open whether the write happened; repeating it is
    harmless, because a run is claimed only once. :class:`~beatd.exceptions.StoreRolledBack` means that claims which the
    store had confirmed are gone, and that the state is to be read again. ``keep`` is how many runs of an entry its
    history has at least.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        *,
        shard: int = 0,
        shards: int = 1,
        replicas: Replicas | None = None,
        keep: int = 20,
    ) -> None:
        self._client = client
        self._replicas = replicas
        self._keys = keys.shard(shard)
        self._histories, self._outcomes = self._keys.history, self._keys.outcomes
        self._keep = keep * history.CELL
        self._shard, self._shards = shard, shards
        own, histories = self._keys, self._histories
        self._claim_keys = (own.lease, own.last_due, own.runs, own.running, own.gaps, own.claims, own.tally, histories)
        self._load_entries = Script(client, "load_entries")
        self._claim = Script(client, "claim")
        self._pass_over = Script(client, "pass_over")
        self._sweep = Script(client, "sweep")
        self._confirmed = 0
        """The number of claims that the store had when it last answered. It only has fewer after losing writes."""

    def load_entries(
        self,
        entries: Iterable[tuple[str, str]],
        *,
        lease_value: str,
        now_ms: int,
        limits: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[tuple[str, EntryState | Unreadable]]:
        """Read the state of ``(name, fingerprint)`` pairs; ``limits`` has the limits of those that have any. It may
        be filled while the pairs are taken.

        Entries that are new, changed or resumed go on from ``now_ms``, and so do those that other limits had let run no
        more. The fingerprint of one that is not enabled begins with ``"off "``. Of one whose state cannot be read
        nothing is overwritten. Equal states are one object.
        """
        shard, under_way = self._keys, deque[Sequence[tuple[str, str]]]()
        keys = [shard.lease, shard.last_due, shard.fingerprints, shard.runs, shard.gaps, shard.claims, shard.limits]

        def calls() -> Iterator[tuple[list[str], BulkStrings]]:
            rest = iter(entries)
            while batch := list(islice(rest, LOAD_BATCH)):
                under_way.append(batch)
                text = msgspec.json.encode(list(chain.from_iterable(batch)))
                limited = msgspec.json.encode({name: limits[name] for name, _ in batch if name in limits})
                numbers = b"%d" % now_ms, b"%d" % GAPS_KEPT_MS, b"%d" % self._confirmed
                yield keys, bulk_strings(lease_value.encode(), *numbers, text, limited)

        known: dict[bytes, EntryState | Unreadable] = {}
        try:
            for number, states, *unreadable in self._load_entries.stream(calls()):
                self._confirmed = int(number)
                others = iter(unreadable)
                for (name, _), raw in zip(under_way.popleft(), states.split(b","), strict=True):
                    state = known.get(raw)
                    if state is None:
                        state = self._state(*(raw.split(b" ") if raw else next(others)))
                        if raw:
                            known[raw] = state
                    yield name, state
        except StoreRolledBack:
            self._confirmed = 0  # as for claims
            raise

    def claim(self, batches: Iterable[Sequence[Claim]], *, lease_value: str) -> Iterator[Claimed]:
        """Move last due forward and push the messages: one step of the store for each batch.

        Runs of one entry must be in the order of their due times. Yields the result of each batch. The next
        batch is asked for while the store works on the one before. Replicas that are to confirm a batch are waited for
        before it is yielded.
        """
        calls = (self._call(batch, lease_value) for batch in batches)
        try:
            for number, left_out, *refusals in self._claim.stream(calls, self._replicas):
                self._confirmed = number
                yield Claimed(frozenset(left_out), [_refusal(refusal) for refusal in refusals])
        except StoreRolledBack:
            self._confirmed = 0  # the store is taken as it is from now on
            raise

    def verify_term(self, *, lease_value: str) -> None:
        """Verify the term without claiming: raises as any claim would, if the term is over, or the store rolled back or
        refuses."""
        for _ in self.claim([()], lease_value=lease_value):
            pass

    def pass_over(self, gaps: Sequence[Gap], *, lease_value: str) -> None:
        """Record what catch-up leaves out; to be called before the first run after it is claimed.

        The rule is: a run is claimed once, whatever clocks say, and one that was never claimed is made when its time
        comes. A clock that is a day ahead passes over a day of runs; when it is set right they are still to come, and
        those that were made ahead of their time are not made again.
        """
        keys = [self._keys.lease, self._keys.gaps, self._histories, self._keys.missed, self._keys.last_due]
        for start in range(0, len(gaps), LOAD_BATCH):
            batch = gaps[start : start + LOAD_BATCH]
            flat = (part for gap in batch for part in _gap_arguments(gap))
            self._pass_over(keys, [lease_value, GAPS_KEPT_MS, self._keep, MISSED_KEPT_MS, *flat])

    def sweep(
        self, names: Collection[str], *, lease_value: str, now_ms: int, keep_ms: int, unloaded: int = 0
    ) -> list[str]:
        """Forget the state of this shard's entries that have not been among ``names`` for ``keep_ms``; returns their
        names.

        ``unloaded`` of ``names`` may have no state in the store. If the others, and the entries that are marked as
        gone, are as many as the store knows, it knows no others: its names, which are many, are then not read.
        """
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            pipeline.hlen(self._keys.fingerprints)
            pipeline.zrange(self._keys.gone, 0, -1, withscores=True)
            number_known, marked = pipeline.execute()
        gone = {name: since for raw, since in marked if self._owns(name := raw.decode(errors="backslashreplace"))}
        known: set[str] = set()
        if number_known > len(names) - unloaded + sum(name not in names for name in gone):
            with translate_errors(self._client):
                known = self._mine(self._client.hkeys(self._keys.fingerprints))
        forgotten = [name for name, since in gone.items() if name not in names and since < now_ms - keep_ms]
        changes = [(name, "") for name in gone if name in names]
        changes += [(name, "forget") for name in forgotten]
        changes += [(name, "mark") for name in sorted(known) if name not in names and name not in gone]
        self._mark(changes, lease_value, now_ms)
        return forgotten

    def note_absence(self, gone: Iterable[str], back: Iterable[str], *, lease_value: str, now_ms: int) -> None:
        """Mark entries that have left the schedule as :meth:`sweep` does, and take the marks from those that are back.

        One that comes back after it was marked goes on from then.
        """
        changes = [*((name, "mark") for name in gone), *((name, "") for name in back)]
        known = [(name, change) for name, change in changes if name == encodable(name)]  # others have no state
        self._mark(known, lease_value, now_ms)

    def _mark(self, changes: Sequence[tuple[str, str]], lease_value: str, now_ms: int) -> None:
        shard = self._keys
        hashes = [shard.fingerprints, shard.last_due, shard.runs, shard.running, shard.gaps, shard.missed, shard.tally]
        hashes += (shard.last_outcome, shard.ended, shard.limits)
        for start in range(0, len(changes), LOAD_BATCH):
            flat = [text for change in changes[start : start + LOAD_BATCH] for text in change]
            keys = [shard.lease, shard.gone, self._histories, self._outcomes, *hashes]
            self._sweep(keys, [lease_value, now_ms, *flat])

    def _mine(self, raw: Any) -> set[str]:
        return {name for name in (text.decode(errors="backslashreplace") for text in raw) if self._owns(name)}

    def _owns(self, name: str) -> bool:
        return shard_of(name, self._shards) == self._shard

    def _call(self, batch: Sequence[Claim], lease_value: str) -> tuple[Sequence[str], BulkStrings]:
        number, data = bulk_strings(lease_value.encode(), b"%d" % self._confirmed, b"%d" % self._keep)
        parts = [data]
        for group in _groups(batch):
            number += _pack(group, parts)
        return self._claim_keys, BulkStrings(number, b"".join(parts))

    def _state(
        self, resume_point: bytes, first_seen: bytes, runs: bytes, unreadable_gaps: bytes = b""
    ) -> EntryState | Unreadable:
        """State of an entry, from the values that ``load_entries.lua`` returns."""
        shard = self._keys
        if unreadable_gaps:
            return Unreadable(shard.gaps, unreadable_gaps)
        raws = ((shard.last_due, resume_point), (shard.fingerprints, first_seen), (shard.runs, runs))
        wrong = [
            Unreadable(key, raw) for key, raw in raws if not raw.isdigit() or len(raw) > DIGITS or int(raw) > LAST_MS
        ]
        if wrong:  # a field that is absent reads as an empty one: the other is the reason
            return next((one for one in wrong if one.value), wrong[0])
        return EntryState(int(resume_point), int(first_seen), int(runs))


def _groups(batch: Sequence[Claim]) -> list[list[Claim]]:
    """The claims of a batch in groups of those in a row that share the values which are sent once for all of them."""
    groups: list[list[Claim]] = []
    last: Claim | None = None
    for claim in batch:
        if (
            last is not None
            and claim.due_ms == last.due_ms
            and claim.queue == last.queue
            and claim.record == last.record
            and (claim.running == "") == (last.running == "")
        ):
            groups[-1].append(claim)
        else:
            groups.append([claim])
        last = claim
    return groups


_RUN = b"$%d\r\n%b\r\n" * 2
_RUN_WITH_VALUE = b"$%d\r\n%b\r\n" * 3


def _pack(group: Sequence[Claim], parts: list[bytes]) -> int:
    """Add the arguments for a group of runs to ``parts``; returns their number.

    All of a run are formatted at once: a herd waits for ten thousand of them.
    """
    first, record = group[0], group[0].record
    has_value = first.running != ""
    size, queue = 3 if has_value else 2, first.queue or ""
    numbers = b"%d" % len(group), b"%d" % first.due_ms
    common = bulk_strings(*numbers, queue.encode(), record.cell, record.word.encode(), b"%d" % size)
    parts.append(common.data)
    for claim in group:
        name, message = claim.name.encode(), claim.message
        if has_value:
            running = claim.running.encode()
            parts.append(_RUN_WITH_VALUE % (len(name), name, len(message), message, len(running), running))
        else:
            parts.append(_RUN % (len(name), name, len(message), message))
    return common.number + size * len(group)


def _gap_arguments(gap: Gap) -> tuple[str | int | bytes, ...]:
    cell, decided_ms = history.missed(gap.after_ms, gap.before_ms), gap.decided_ms
    return gap.name, gap.after_ms, gap.before_ms, cell, "" if decided_ms is None else decided_ms


def _refusal(raw: Sequence[Any]) -> Refusal:
    reason, key, *numbers = raw
    text, key = reason.decode(errors="replace"), key.decode(errors="replace")
    return Refusal(f"the state store refuses: {text.partition(' script: ')[0]} (key {key})", key, numbers)
