"""What distinguishes one schedule from another, and how the store recognises an entry. Pure comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from beatd.model import Entry


@dataclass(frozen=True, slots=True)
class Changes:
    """What a heap has to do to follow a schedule: entries to put (new or changed), and names that are gone."""

    put: Mapping[str, Entry] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()

    @classmethod
    def between(cls, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> Changes:
        """What leads from one schedule, by name, to another. That a line has moved in its file is no change."""
        put = {
            name: entry
            for name, entry in after.items()
            if (known := before.get(name)) is not entry and (known is None or not entry.means(known))
        }
        return cls(put, frozenset(before.keys() - after.keys()))

    def then(self, later: Changes) -> Changes:
        """Both, one after the other, in one."""
        put = {name: entry for name, entry in self.put.items() if name not in later.gone}
        return Changes({**put, **later.put}, (self.gone - later.put.keys()) | later.gone)

    def __bool__(self) -> bool:
        return bool(self.put or self.gone)


def fingerprints(entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """``(name, fingerprint)`` of each entry: the store sees by it that a schedule is another one, or was resumed."""
    known: dict[int, str] = {}
    for entry in entries:
        schedule = entry.schedule
        fingerprint = known.get(id(schedule))
        if fingerprint is None:
            fingerprint = known[id(schedule)] = schedule.fingerprint
        yield entry.name, fingerprint if entry.policies.enabled else f"off {fingerprint}"
