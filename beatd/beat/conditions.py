"""Conditions: the problems of the installation now, as they are reported to notification targets."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress

from beatd.beat.problems import daemon_faults
from beatd.beat.shard_assignment import REMEDY
from beatd.clock import Clock
from beatd.exceptions import StoreRefused
from beatd.model import AlertKind
from beatd.planning.alerts import Condition, Subject, is_recent
from beatd.store.daemon_registry import FleetView
from beatd.store.held_back import HeldBack
from beatd.store.notices import Notices
from beatd.store.outcomes import Outcomes
from beatd.store.recoveries import Recoveries, Recovery
from beatd.timestamps import iso_ms

HELD_MAX = 10_000
"""Most held-back entries that are reported."""
SKEW_S = 60.0
"""Seconds for which daemons may differ in their schedules, as in a deployment."""
_FLEET = "the fleet"
_CONFIG = frozenset({"config_broken", "runtime_entry_broken"})
"""Kinds of faults that are reported as ``config``."""
_FAILED = frozenset("fle")
"""Marks of attempts that count as failures."""


class Conditions:
    """Reads conditions of ``kinds`` only. Raises a :class:`~beatd.exceptions.StoreError`.

    ``unknown`` after a look: the kinds that could not be read, because a key is not beatd's.
    """

    def __init__(
        self,
        outcomes: Outcomes,
        recoveries: Recoveries,
        held: HeldBack,
        notices: Notices,
        *,
        clock: Clock,
        fleet: Callable[[], FleetView | None],
    ) -> None:
        self._outcomes, self._recoveries = outcomes, recoveries
        self._held, self._notices, self._clock = held, notices, clock
        self._fleet = fleet
        self._since: dict[Subject, tuple[float, int]] = {}
        """When a condition of the fleet was first seen: monotonic, and for people."""
        self.unknown: set[str] = set()

    def look(self, kinds: Container[str], *, shards: int, ttl_s: float) -> dict[Subject, Condition]:
        """Return the conditions of now, as the leader of shard 0 sees them."""
        self.unknown = set()
        found: dict[Subject, Condition] = {}
        readers: tuple[tuple[str, Callable[[], Iterator[tuple[Subject, Condition]]]], ...] = (
            ("failure", self._failing),
            ("overdue", lambda: self._late("overdue", self._outcomes.overdue())),
            ("too_long", lambda: self._late("too_long", self._outcomes.too_long())),
            ("held", self._held_back),
            ("missed", self._missed),
        )
        for kind, read in readers:
            if kind in kinds:
                self.unknown.add(kind)
                with suppress(StoreRefused):
                    found.update(read())
                    self.unknown.discard(kind)
        found.update(self._of_fleet(kinds, shards=shards, ttl_s=ttl_s))
        return found

    def recoveries(self, after: int) -> list[Recovery]:
        """Entries that have succeeded after failures, noted behind ``after``; none where the key is not beatd's."""
        with suppress(StoreRefused):
            return self._recoveries.after(after)
        return []

    def last_noted(self) -> int:
        """``noted`` of the last recovery; 0 if there is none."""
        with suppress(StoreRefused):
            return self._recoveries.last()
        return 0

    def reasons(self, names: list[str]) -> dict[str, str]:
        """The last errors of entries, in a line each; of one that has succeeded since, that before."""
        latest = self._outcomes.latest(names)
        for name in [name for name, one in latest.items() if one.mark not in _FAILED]:
            before = next((one for one in self._outcomes.records(name) if one.mark in _FAILED), None)
            if before is not None:
                latest[name] = before
        return {name: ": ".join(filter(None, (one.type, one.message))) for name, one in latest.items()}

    def _failing(self) -> Iterator[tuple[Subject, Condition]]:
        for name, one in self._outcomes.failing().items():
            yield Subject("failure", name), Condition(one.failing_since_ms or one.end_ms, one.failures)

    @staticmethod
    def _late(kind: AlertKind, since: Mapping[str, int]) -> Iterator[tuple[Subject, Condition]]:
        for name, since_ms in since.items():
            yield Subject(kind, name), Condition(since_ms)

    def _held_back(self) -> Iterator[tuple[Subject, Condition]]:
        for name, one in self._held.all(HELD_MAX).items():
            yield Subject("held", name), Condition(one.since_ms, text=one.reason)

    def _missed(self) -> Iterator[tuple[Subject, Condition]]:
        now_ms = self._clock.now_ms()
        for name, (after_ms, before_ms) in self._notices.missed().items():
            if is_recent(before_ms, now_ms):
                text = f"the runs after {iso_ms(after_ms)} and before {iso_ms(before_ms)} are not caught up"
                yield Subject("missed", name), Condition(after_ms, text=text)

    def _of_fleet(self, kinds: Container[str], *, shards: int, ttl_s: float) -> Iterator[tuple[Subject, Condition]]:
        """Return the conditions of the fleet that have lasted long enough to be reported."""
        fleet = self._fleet()
        seen: dict[Subject, tuple[str, float]] = {}
        if fleet is not None and "config" in kinds:
            seen |= {Subject("config", name): (text, 0.0) for name, text in _config_problems(fleet)}
            if (digests := len({one.digest for one in fleet.alive.values()})) > 1:
                seen[Subject("config", _FLEET)] = f"the daemons have {digests} different schedules: {REMEDY}", SKEW_S
        if fleet is not None and "nobody_leads" in kinds:
            seen |= {subject_of(shard): ("", ttl_s) for shard in range(1, shards) if is_free(fleet, shard)}
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        self._since = {subject: self._since.get(subject, (now, now_ms)) for subject in seen}
        for subject, (text, after_s) in seen.items():
            since, since_ms = self._since[subject]
            if now - since >= after_s:
                yield subject, Condition(since_ms, text=text)


def subject_of(shard: int) -> Subject:
    """The subject of a shard that nobody leads."""
    return Subject("nobody_leads", f"shard {shard}")


def is_free(fleet: FleetView, shard: int) -> bool:
    """True if nobody leads a shard."""
    owner = fleet.leases.get(shard)
    return owner is None or owner.is_foreign


def _config_problems(fleet: FleetView) -> Iterator[tuple[str, str]]:
    for name, status in fleet.alive.items():
        faults = [f"{one.what}{one.more}" for one in daemon_faults(status) if one.kind in _CONFIG]
        if faults:
            yield name, "; ".join(faults)
