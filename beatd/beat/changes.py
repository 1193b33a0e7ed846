"""What distinguishes one schedule from another, and how the store recognises an entry. Pure comparison."""

from __future__ import annotations

from collections.abc import Mapping
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
            if (known := before.get(name)) is not entry and (known is None or not _mean_the_same(entry, known))
        }
        return cls(put, frozenset(before.keys() - after.keys()))

    def then(self, later: Changes) -> Changes:
        """Both, one after the other, in one."""
        put = {name: entry for name, entry in self.put.items() if name not in later.gone}
        return Changes({**put, **later.put}, (self.gone - later.put.keys()) | later.gone)

    def __bool__(self) -> bool:
        return bool(self.put or self.gone)


def _mean_the_same(entry: Entry, other: Entry) -> bool:
    try:
        return entry.means(other)
    except Exception:  # noqa: BLE001 - values that cannot be compared may have changed
        return False


class Fingerprints:
    """The fingerprints of entries: the store sees by them that a schedule is another one, or was resumed."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(self, entry: Entry) -> str:
        """One entry's; found once for those that share a schedule, which must outlive this."""
        schedule = entry.schedule
        fingerprint = self._known.get(id(schedule))
        if fingerprint is None:
            fingerprint = self._known[id(schedule)] = schedule.fingerprint
        return fingerprint if entry.policies.enabled else f"off {fingerprint}"


def known_as(entry: Entry, fingerprints: Fingerprints) -> tuple[str, str]:
    """``(name, fingerprint)``; raises whatever an entry raises that is none, or that the store cannot take."""
    name, fingerprint = entry.name, fingerprints.of(entry)
    if not name.isascii():
        name.encode()
    fingerprint.encode()
    return name, fingerprint
