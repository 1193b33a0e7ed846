"""A copy of the runtime entries and pauses that follows the store.

It asks for what has changed since the revision that it has, which costs next to nothing while nothing has. When that
does not lead to what the store has (it was flushed, or went back to an older state, or too much has changed) the copy
is read anew, some entries at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import redis

from beatd.store.client import Script, border
from beatd.store.keys import Keys
from beatd.store.runtime import BATCH, KEPT

_ATTEMPTS = 3
"""Entries that change while all are read are asked for again; so often at a time."""


Before = dict[str, tuple[bytes | None, bytes | None]]


class News(NamedTuple):
    """What a look at the store brought."""

    before: Before
    """Entries that were put or removed, paused or resumed, with their tables and pauses as they were; one that was
    paused and resumed meanwhile is among them."""
    went_back: bool = False
    """The store had forgotten changes: it was flushed, or lost writes."""


class Mirror:
    """``tables`` and ``pauses`` by entry name, as stored, at ``revision``."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys.runtime()
        self._since = Script(client, "runtime_since")
        self.tables: dict[str, bytes] = {}
        self.pauses: dict[str, bytes] = {}
        self.revision = 0

    def refresh(self, *, anew: bool = False) -> News:
        """Bring the copy up to date; ``anew`` reads everything, for who may have missed something.

        Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`; the copy is then
        what it was, or a part of the way to what the store has.
        """
        before: Before = {}
        went_back = False
        for _ in range(_ATTEMPTS):
            if anew:
                known = self.revision
                before = self._read_anew() | before
                went_back |= self.revision < known
            anew, changed, is_back = self._catch_up()
            before = changed | before
            went_back |= is_back
            if not anew:
                break
        return News(before, went_back)

    def _catch_up(self) -> tuple[bool, Before, bool]:
        """Whether everything is to be read, what has changed, and whether the store went back."""
        revision, entries, pauses, *changed = self._since([*self._keys], [self.revision, KEPT])
        if not 0 <= revision - self.revision <= KEPT:
            return True, {}, revision < self.revision
        before: Before = {}
        for raw, table, pause in zip(changed[::3], changed[1::3], changed[2::3], strict=True):
            name = _text(raw)
            before[name] = self._of(name)
            _keep(self.tables, name, table)
            _keep(self.pauses, name, pause)
        if (len(self.tables), len(self.pauses)) != (entries, pauses):
            return True, before, True  # something is gone, or there, that nobody has removed or put
        self.revision = revision
        return False, before, False

    def _read_anew(self) -> Before:
        """Read all of it; returns what is different. What changes meanwhile has a higher revision."""
        with border(self._client):
            revision = self._client.get(self._keys.revision)
            tables = self._read(self._keys.schedules)
            pauses = self._read(self._keys.paused)
        different = {name for name, _ in tables.items() ^ self.tables.items()}
        different |= {name for name, _ in pauses.items() ^ self.pauses.items()}
        before = {name: self._of(name) for name in different}
        self.tables, self.pauses = tables, pauses
        self.revision = int(revision) if revision and revision.isdigit() else 0
        return before

    def _of(self, name: str) -> tuple[bytes | None, bytes | None]:
        return self.tables.get(name), self.pauses.get(name)

    def _read(self, key: str) -> dict[str, bytes]:
        found = self._client.hscan_iter(key, count=BATCH)
        return {_text(name): value for name, value in found}


def _keep(copy: dict[str, bytes], name: str, value: bytes | None) -> None:
    if value is None:
        copy.pop(name, None)
    else:
        copy[name] = value


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
