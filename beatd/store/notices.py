"""Outbox of notifications: notices that are to be sent, and marks of those that were sent.

Notices and marks are written in one step, under the lease of shard 0: what is marked as told is in the outbox, so the
next leader neither loses nor repeats it. A notice that was taken comes again after a while unless it is settled, as its
sender may have died. Notices name their target or entry: no address and no secret is in the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
import redis

from beatd.store.client import translate_errors
from beatd.store.keys import Keys
from beatd.store.script import Script

NOTICES_MAX = 5_000
"""Notices in the outbox; beyond it the oldest are dropped."""
KEPT_MS = 7 * 86_400_000
"""Time for which notices and marks are kept after the last write."""


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message to a target, or a ping of an entry."""

    kind: Literal["message", "ping", "check_in"]
    name: str
    """The target of a message, or the entry."""
    body: dict[str, Any]
    created_ms: int
    attempts: int = 0
    left: list[int] = []
    """Of a target with several addresses, those that have not got it yet; empty: all."""


class TakenNotice(msgspec.Struct, frozen=True):
    """A notice that is being sent."""

    id: str
    notice: Notice

    @property
    def destination(self) -> str:
        """One notice at a time goes to a destination."""
        return self.id.rpartition("|")[0]


class Notices:
    """Raises :class:`~beatd.exceptions.StoreUnavailable`, ``StoreRefused`` or ``TermLost``."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._put = Script(client, "put_notices")
        self._take = Script(client, "take_notices")
        self._settle = Script(client, "settle_notice")

    def put(
        self, notices: Iterable[tuple[str, Notice]], marks_of: str, marks: Mapping[str, str], *, lease_value: str
    ) -> int:
        """Add notices by id, and set or remove (empty) marks; returns how many old notices were dropped for them.

        ``marks_of`` is the target, or empty for those of pings. Without ``lease_value`` nobody leads; then -1 says that
        a mark exists already, and nothing was done.
        """
        items = list(notices)
        flat = [part for id_, notice in items for part in (id_, msgspec.json.encode(notice))]
        flat += [part for field, text in marks.items() for part in (field, text)]
        keys = [self._keys.shard(0).lease, self._keys.notices, self._keys.notices_due, self._marks_key(marks_of)]
        return int(self._put(keys, [lease_value, NOTICES_MAX, KEPT_MS, len(items), *flat]))

    def marks(self, marks_of: str) -> dict[str, str]:
        """The marks of a target, or of pings."""
        with translate_errors(self._client):
            raw: Any = self._client.hgetall(self._marks_key(marks_of))
        return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()}

    def keep(self, marks_of: Iterable[str]) -> None:
        """Keep the marks for as long again."""
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for one in marks_of:
                pipeline.pexpire(self._marks_key(one), KEPT_MS)
            pipeline.execute()

    def take(self, at_most: int, *, again_ms: int, busy: Iterable[str]) -> list[TakenNotice]:
        """Take notices that are due, one for each destination that is not busy."""
        raw = self._take([self._keys.notices, self._keys.notices_due], [at_most, again_ms, *busy])
        taken = []
        for id_, text in zip(raw[::2], raw[1::2], strict=True):
            try:
                taken.append(TakenNotice(id_.decode(), msgspec.json.decode(text, type=Notice)))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self.remove(id_.decode(errors="replace"))
        return taken

    def remove(self, id_: str) -> None:
        """Remove a notice that was sent or given up."""
        self._settle([self._keys.notices, self._keys.notices_due], [id_, "", 0])

    def put_back(self, taken: TakenNotice, after_ms: int) -> None:
        """Have a notice sent again after a while."""
        text = msgspec.json.encode(taken.notice)
        self._settle([self._keys.notices, self._keys.notices_due], [taken.id, text, after_ms])

    def destinations(self) -> Counter[str]:
        """Number of notices in the outbox, by destination."""
        with translate_errors(self._client):
            raw: Any = self._client.zrange(self._keys.notices_due, 0, -1)
        return Counter(id_.decode(errors="replace").rpartition("|")[0] for id_ in raw)

    def count(self) -> int:
        """Return the number of notices in the outbox."""
        with translate_errors(self._client):
            return int(self._client.zcard(self._keys.notices_due))

    def led_ms_ago(self) -> int | None:
        """Time (ms) since :meth:`note_led` was last called, by whichever leader; None: never. By the server's clock."""
        with translate_errors(self._client):
            left: Any = self._client.pttl(self._keys.led)
        return KEPT_MS - left if 0 <= left <= KEPT_MS else None

    def note_led(self) -> None:
        """Note that shard 0 has a leader now."""
        with translate_errors(self._client):
            self._client.set(self._keys.led, "1", px=KEPT_MS)

    def missed(self) -> dict[str, tuple[int, int]]:
        """The newest stretch (after, before; ms) of each entry whose runs were missed and are not caught up."""
        found: dict[str, tuple[int, int]] = {}
        with translate_errors(self._client):
            for name, text in (
                pair for part in self._keys.all_parts() for pair in self._client.hscan_iter(part.missed, count=1_000)
            ):
                words = text.split()
                if len(words) == 2 and b"".join(words).isdigit():
                    found[name.decode(errors="backslashreplace")] = (int(words[0]), int(words[1]))
        return found

    def _marks_key(self, marks_of: str) -> str:
        return self._keys.alerts(marks_of) if marks_of else self._keys.pinged
