"""The state of entries, and the claim: the one write by which runs leave."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import redis

from beatd.exceptions import StoreWentBack
from beatd.store import records
from beatd.store.client import Script, border
from beatd.store.keys import Keys, shard_of
from beatd.store.replicas import Replicas

log = logging.getLogger("beatd.store")

ADOPT_BATCH = 1_000
"""Entries read in one call: a call of this size keeps the server busy for about a millisecond."""

GAPS_KEPT_MS = 7 * 86_400_000
"""How long a clock may have been ahead for what it passed over to be made good."""


class EntryState(NamedTuple):
    """What the store remembers of an entry; times in milliseconds since the epoch."""

    last_due_ms: int
    """The due time after which it goes on: of its last claimed run, or, when that lies in the future because a clock
    was ahead, of the last one before what that clock passed over."""
    first_seen_ms: int
    runs: int
    """How many runs have been sent."""


class Gap(NamedTuple):
    """Runs of an entry that were missed and are not caught up: those due between the two, and with neither of them."""

    name: str
    after_ms: int
    before_ms: int


class Claim(NamedTuple):
    """One run as the store sees it. ``queue`` is the key of a Redis list, or ``None`` to claim without sending."""

    name: str
    due_ms: int
    queue: str | None = None
    message: bytes = b""
    running: str = ""
    """``<run id> <ms until which it may run>``, for entries that mind overlaps."""
    record: bytes = records.NONE
    """What goes into the history, see :mod:`beatd.store.records`."""


class Claims:
    """The claimed state of one shard's entries.

    ``lease_value`` fences every call: :class:`~beatd.exceptions.TermLost` means that the term is over and that nothing
    was written. :class:`~beatd.exceptions.StoreUnavailable` leaves it open whether the write happened; repeating it is
    harmless, because a run is claimed only once. :class:`~beatd.exceptions.StoreWentBack` means that claims which the
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
        self._histories = keys.history("")
        self._keep = keep * records.CELL
        self._shard, self._shards = shard, shards
        self._adopt = Script(client, "adopt")
        self._claim = Script(client, "claim")
        self._pass_over = Script(client, "pass_over")
        self._sweep = Script(client, "sweep")
        self._confirmed = 0
        """What the store last told us of how often it was written to. It never has less, unless it lost writes."""

    def adopt(
        self, entries: Sequence[tuple[str, str]], *, lease_value: str, now_ms: int
    ) -> Iterator[tuple[str, EntryState]]:
        """Read the state of ``(name, fingerprint)`` pairs.

        Entries that are new, changed or resumed go on from ``now_ms``. The fingerprint of one that is not enabled
        begins with ``"off "``. One whose state cannot be read is left out, which is logged, and nothing overwritten.
        """
        shard = self._keys
        keys = [shard.lease, shard.last_due, shard.known, shard.runs, shard.gaps, shard.claims]
        batches = [entries[start : start + ADOPT_BATCH] for start in range(0, len(entries), ADOPT_BATCH)]
        first = (lease_value, now_ms, GAPS_KEPT_MS)
        calls = ((keys, [*first, *(text for pair in batch for text in pair)]) for batch in batches)
        for batch, (number, *flat) in zip(batches, self._adopt.stream(calls), strict=True):
            self._confirmed = int(number)
            values = iter(flat)
            for name, _ in batch:
                raw = next(values), next(values), next(values)
                try:
                    state = EntryState(*map(int, raw))
                except ValueError:
                    self._report_unreadable(name, raw)
                else:
                    yield name, state

    def claim(self, batches: Iterable[Sequence[Claim]], *, lease_value: str) -> Iterator[frozenset[int]]:
        """Move last due forward and push the messages: one step of the store for each batch.

        Runs of one entry must be in the order of their due times. Yields, batch by batch, the indexes of runs that had
        been claimed before, by anyone; their messages were not pushed again. The next batch is asked for while the
        store works on the one before. Replicas that are to confirm a batch are waited for before it is yielded.
        """
        calls = (self._call(batch, lease_value) for batch in batches)
        try:
            for number, *left_out in self._claim.stream(calls, self._replicas):
                self._confirmed = number
                yield frozenset(left_out)
        except StoreWentBack:
            self._confirmed = 0
            raise

    def look_back(self, *, lease_value: str) -> None:
        """Do nothing but learn what a claim would: that the term is over, or that the store went back."""
        for _ in self.claim([()], lease_value=lease_value):
            pass

    def pass_over(self, gaps: Sequence[Gap], *, lease_value: str) -> None:
        """Remember what catch-up leaves out; to be called before the first run after it is claimed.

        The rule is: a run is claimed once, whatever clocks say, and one that was never claimed is made when its time
        comes. A clock that is a day ahead passes over a day of runs; when it is set right they are still to come, and
        those that were made ahead of their time are not made again.
        """
        keys = [self._keys.lease, self._keys.gaps, self._histories]
        for start in range(0, len(gaps), ADOPT_BATCH):
            batch = gaps[start : start + ADOPT_BATCH]
            flat = (part for gap in batch for part in (*gap, records.missed(gap.after_ms, gap.before_ms)))
            self._pass_over(keys, [lease_value, GAPS_KEPT_MS, self._keep, *flat])

    def sweep(self, names: Iterable[str], *, lease_value: str, now_ms: int, keep_ms: int) -> list[str]:
        """Forget the state of this shard's entries that have not been among ``names`` for ``keep_ms``; returns their
        names."""
        present, too_old = frozenset(names), now_ms - keep_ms
        with border(self._client):
            known = self._mine(self._client.hkeys(self._keys.known))
            marked: list[Any] = self._client.zrange(self._keys.gone, 0, -1, withscores=True)
        gone = {name: since for name, since in ((raw.decode(), since) for raw, since in marked) if self._owns(name)}
        forgotten = [name for name, since in gone.items() if name not in present and since < too_old]
        changes = [(name, "") for name in gone if name in present]
        changes += [(name, "forget") for name in forgotten]
        changes += [(name, "mark") for name in sorted(known) if name not in present and name not in gone]
        shard = self._keys
        hashes = [shard.last_due, shard.known, shard.runs, shard.running, shard.gaps, shard.tally]
        for start in range(0, len(changes), ADOPT_BATCH):
            flat = [text for change in changes[start : start + ADOPT_BATCH] for text in change]
            self._sweep([shard.lease, shard.gone, self._histories, *hashes], [lease_value, now_ms, *flat])
        return forgotten

    def _mine(self, raw: Any) -> set[str]:
        return {name for name in (text.decode() for text in raw) if self._owns(name)}

    def _owns(self, name: str) -> bool:
        return shard_of(name, self._shards) == self._shard

    def _call(self, batch: Sequence[Claim], lease_value: str) -> tuple[list[str], list[str | int | bytes]]:
        shard = self._keys
        keys = [shard.lease, shard.last_due, shard.runs, shard.running, shard.gaps, shard.claims, shard.tally]
        keys.append(self._histories)
        queues: dict[str, int] = {}
        args: list[str | int | bytes] = [lease_value, self._confirmed, self._keep]
        for name, due_ms, queue, message, running, record in batch:
            number = 0 if queue is None else queues.setdefault(queue, len(keys) + len(queues) + 1)
            note = record + b" " + running.encode() if running else record
            args += (name, due_ms, number, message, note)
        return [*keys, *queues], args

    def _report_unreadable(self, name: str, raw: Sequence[bytes]) -> None:
        for key, value in zip((self._keys.last_due, self._keys.known, self._keys.runs), raw, strict=True):
            if not value.isdigit():
                text = "%s is not scheduled: the field of that name in %s holds %.60r; correct it, or delete it"
                log.error(text, name, key, value, extra={"event": "state_unreadable", "entry": name, "key": key})
