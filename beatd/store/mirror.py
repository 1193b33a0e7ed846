"""A copy of the runtime entries and pauses that follows the store.

It asks for what has changed since the revision that it has, which costs next to nothing while nothing has. When that
does not lead to what the store has (it was flushed, or went back to an older state, or too much has changed) the copy
is read anew, some entries at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import redis

from beatd.store.client import Script, naming
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
        self._began = b""
        self._before: Before = {}
        self._went_back = False
        self.tables: dict[str, bytes] = {}
        self.pauses: dict[str, bytes] = {}
        self.revision = 0

    def refresh(self, *, anew: bool = False) -> News:
        """Bring the copy up to date; ``anew`` reads everything, for who may have missed something.

        Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`; the copy is then
        what it was, or a part of the way to what the store has, of which the next call tells.
        """
        for _ in range(_ATTEMPTS):
            if anew:
                self._read_anew()
            anew = not self._catch_up()
            if not anew:
                break
        news, self._before, self._went_back = News(self._before, self._went_back), {}, False
        return news

    def _catch_up(self) -> bool:
        """Take in what has changed, noting what was before; False when everything is to be read."""
        asked = [self.revision, self._began, KEPT]
        revision, began, entries, pauses, *changed = self._since([*self._keys], asked)
        if not 0 <= revision - self.revision <= KEPT or (self.revision and began != self._began):
            return False
        for raw, table, pause in zip(changed[::3], changed[1::3], changed[2::3], strict=True):
            name = _text(raw)
            self._note(name)
            _keep(self.tables, name, table)
            _keep(self.pauses, name, pause)
        if (len(self.tables), len(self.pauses)) != (entries, pauses):
            return False  # something is gone, or there, that nobody has removed or put
        self.revision, self._began = revision, began
        return True

    def _read_anew(self) -> None:
        """Read all of it, noting what was before. What changes meanwhile has a higher revision."""
        with naming(self._client, self._keys):
            mark: Any = self._client.hmget(self._keys.revision, "number", "began")
            tables = self._read(self._keys.schedules)
            pauses = self._read(self._keys.paused)
        revision, began = int(mark[0]) if mark[0] and mark[0].isdigit() else 0, mark[1] or b""
        went_back = revision < self.revision or began != self._began
        went_back |= revision == self.revision and tables.keys() != self.tables.keys()
        self._went_back |= went_back and self.revision > 0
        different = {name for name, _ in tables.items() ^ self.tables.items()}
        different |= {name for name, _ in pauses.items() ^ self.pauses.items()}
        for name in different:
            self._note(name)
        self.tables, self.pauses, self.revision, self._began = tables, pauses, revision, began

    def _note(self, name: str) -> None:
        self._before.setdefault(name, (self.tables.get(name), self.pauses.get(name)))

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
