"""Replica: a copy of runtime entries and pauses in a process, which follows the store.

It asks for the changes since its revision, which costs next to nothing while there are none. When that does not lead to
what the store has (it was flushed, or went back to an older state, or too much has changed) it is read anew, some
entries at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import redis

from beatd.store.keys import Keys
from beatd.store.pipeline import joint_reads
from beatd.store.runtime_entries import KEPT, READ_MAX, TABLE_MAX, BoundedReader, text_of
from beatd.store.script import Script, translate_script_errors

_ATTEMPTS = 3
"""Entries that change while all are read are asked for again; so often at a time."""


Before = dict[str, tuple[bytes | None, bytes | None]]


class RuntimeChanges(NamedTuple):
    """Changes since the last refresh."""

    before: Before
    """Entries that were put or removed, paused or resumed, with their tables and pauses as they were; one that was
    paused and resumed meanwhile is among them."""
    went_back: bool = False
    """The store had forgotten changes: it was flushed, or lost writes."""


class RuntimeReplica:
    """``tables`` and ``pauses`` by entry name, as stored, at ``revision``."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._keys = keys.runtime()
        self.connect(client)
        self._began = b""
        self._before: Before = {}
        self._went_back = False
        self._doubles = (0, 0)
        """Tables and pauses that are missing here, since their names are no UTF-8 and read like others."""
        self.tables: dict[str, bytes] = {}
        self.pauses: dict[str, bytes] = {}
        self.revision = 0

    def connect(self, client: redis.Redis) -> None:
        """Read by another client from now on. The copy stays: of a store that has something else it is read anew."""
        self.client = client
        self._since = Script(client, "runtime_since")
        self._reader = BoundedReader(client)

    def refresh(self, *, anew: bool = False) -> RuntimeChanges:
        """Bring the copy up to date; ``anew`` reads everything, for a reader that may have missed changes.

        Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`; the copy is then
        what it was, or a part of the way to what the store has, of which the next call tells.
        """
        for _ in range(_ATTEMPTS):
            if anew:
                self._read_anew()
            anew = not self._catch_up()
            if not anew:
                break
        news, self._before, self._went_back = RuntimeChanges(self._before, self._went_back), {}, False
        return news

    def _catch_up(self) -> bool:
        """Take in what has changed, noting what was before; False when everything is to be read."""
        asked = [self.revision, self._began, KEPT, READ_MAX]
        revision, began, entries, pauses, *changed = self._since([*self._keys], asked)
        if not 0 <= revision - self.revision <= KEPT or (self.revision and began != self._began):
            return False
        if changed and any(self._doubles):
            return False
        for raw, table, pause in zip(changed[::3], changed[1::3], changed[2::3], strict=True):
            name = text_of(raw)
            self._note(name)
            _keep(self.tables, name, self._bounded(self._keys.schedules, raw, table))
            _keep(self.pauses, name, self._bounded(self._keys.paused, raw, pause))
        if (len(self.tables) + self._doubles[0], len(self.pauses) + self._doubles[1]) != (entries, pauses):
            return False  # something is gone, or there, that nobody has removed or put
        self.revision, self._began = revision, began
        return True

    def _bounded(self, key: str, name: bytes, value: bytes | int | None) -> bytes | None:
        """A value that was left out for its size is read by itself; of one that is too large, only that it is."""
        if isinstance(value, int) or len(value or b"") > TABLE_MAX:
            return dict(self._reader.values(key, [name])).get(name)
        return value

    def _read_anew(self) -> None:
        """Read all of it, noting what was before. What changes meanwhile has a higher revision."""
        reading = self.client.pipeline(transaction=False)
        with translate_script_errors(self.client, self._keys), reading as pipeline:
            pipeline.hmget(self._keys.revision, "number", "began")
            pipeline.hkeys(self._keys.schedules)
            pipeline.hkeys(self._keys.paused)
            mark, *names = pipeline.execute()
        with joint_reads() as read:
            keys = (self._keys.schedules, self._keys.paused)
            raw = [read(list, self._reader.read(key, own)) for key, own in zip(keys, names, strict=True)]
        raw_tables, raw_pauses = (one.result() for one in raw)
        tables, pauses = dict(raw_tables), dict(raw_pauses)
        self._doubles = (len(raw_tables) - len(tables), len(raw_pauses) - len(pauses))
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


def _keep(copy: dict[str, bytes], name: str, value: bytes | None) -> None:
    if value is None:
        copy.pop(name, None)
    else:
        copy[name] = value
