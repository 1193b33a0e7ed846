"""Daemon status: the record that a daemon keeps in the store, updated by its parts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import structs

import beatd
from beatd.beat.loop import Problem
from beatd.beat.term import Leadership
from beatd.clock import Clock
from beatd.exceptions import StoreError
from beatd.metrics.counters import DaemonCounters
from beatd.model import Entry
from beatd.planning.problems import Problem as FleetProblem
from beatd.store.daemon_registry import Registry, Status
from beatd.store.outcomes import Outcomes
from beatd.store.server_check import NodeCheck
from beatd.store.undelivered import Undelivered

FAULTY_TOLD, FAULTY_LENGTH = 10, 100
"""Invalid runtime entries that are named; and characters of each name."""

FILE_FAULTS_TOLD, FILE_FAULT_LENGTH = 3, 300
"""Errors of the files that are listed; and characters of each."""


class ScheduleStatus(NamedTuple):
    """The schedule in force: entries of files and app and their digest, runtime entries, pauses."""

    entries: int = 0
    digest: str = ""
    runtime: int = 0
    paused: int = 0


class Shard(Protocol):
    """The loop of one shard, as status and metrics read it. Read from other threads."""

    def led(self) -> Mapping[str, Entry]: ...

    def next_fire_ms(self, name: str) -> int | None: ...

    @property
    def oldest_due_ms(self) -> int | None: ...

    @property
    def held(self) -> int: ...

    @property
    def problem(self) -> Problem | None: ...


class DaemonStatus:
    """Written by several threads, each its own fields; read by the elector's."""

    def __init__(self, daemon_id: str, clock: Clock, *, shards: int, lapse_ms: int) -> None:
        self._clock = clock
        self.daemon_id = daemon_id
        self._first = Status(
            id=daemon_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=beatd.__version__,
            started_ms=clock.now_ms(),
            shards=shards,
            lapse_ms=lapse_ms,
        )
        self._turned_at: float | None = None
        self._read_at: float | None = None
        self._revision = 0
        self._late_since: float | None = None
        self.shards: Sequence[Shard] = ()
        """The loops of all shards."""
        self.unreplicated: Callable[[], str] = str
        """The servers whose replicas do not confirm claims, as one line."""
        self.schedule = ScheduleStatus()
        """The schedule in force."""
        self._faulty: Sequence[str] = ()
        self.file_faults: Sequence[str] = ()
        """Errors of the files when they were last read; the last good schedule is in force."""
        self._calendar_faults: Sequence[str] = ()
        self.task_faults: Sequence[str] = ()
        """Entries in force whose tasks are unknown to the app, or do not take their arguments."""

    def turned(self) -> None:
        """Note that the loop has made progress."""
        self._turned_at = self._clock.monotonic()

    def read(self, revision: int) -> None:
        """Note that the runtime entries were read, and are in force as of that revision."""
        self._revision = revision
        self._read_at = self._clock.monotonic()

    def runtime_faults(self, names: Sequence[str]) -> None:
        """Set the invalid runtime entries, which are not in force."""
        self._faulty = names

    def calendars_read(self, faults: Sequence[str]) -> None:
        """Set the calendars that cannot be read."""
        self._calendar_faults = faults

    def status(self) -> Status:
        """Return the whole status."""
        problem = next((shard.problem for shard in self.shards if shard.problem), None)
        return structs.replace(
            self._first,
            **self.schedule._asdict(),
            config="broken" if self.file_faults else "ok",
            file_faults=_first_faults(self.file_faults),
            more_file_faults=max(len(self.file_faults) - FILE_FAULTS_TOLD, 0),
            task_faults=_first_faults(self.task_faults),
            more_task_faults=max(len(self.task_faults) - FILE_FAULTS_TOLD, 0),
            calendar_faults=_first_faults(self._calendar_faults),
            revision=self._revision,
            faults=len(self._faulty),
            faulty=[name[:FAULTY_LENGTH] for name in self._faulty[:FAULTY_TOLD]],
            turned_ms_ago=self._ago_ms(self._turned_at),
            read_ms_ago=self._ago_ms(self._read_at),
            late_ms=self._late_ms(),
            held=sum(shard.held for shard in self.shards),
            problem=problem.text if problem else "",
            problem_ms=(self._ago_ms(problem.since) or 0) if problem else 0,
            unreplicated=self.unreplicated(),
        )

    def _late_ms(self) -> int:
        """Return the age of the oldest run that should have left, since this daemon could have sent it.

        Runs that were missed while nobody led are no sign that this one does not send them.
        """
        waiting = [due_ms for shard in self.shards if (due_ms := shard.oldest_due_ms) is not None]
        late_ms = self._clock.now_ms() - min(waiting, default=self._clock.now_ms())
        if late_ms <= 0:
            self._late_since = None
            return 0
        if self._late_since is None:
            self._late_since = self._clock.monotonic()
        return min(late_ms, self._ago_ms(self._late_since) or 0)

    def _ago_ms(self, at: float | None) -> int | None:
        return None if at is None else int((self._clock.monotonic() - at) * 1000)


def _first_faults(faults: Sequence[str]) -> list[str]:
    """The first faults, each cut to a length."""
    return [fault[:FILE_FAULT_LENGTH] for fault in faults[:FILE_FAULTS_TOLD]]


class DaemonParts(NamedTuple):
    """The parts of a daemon from which metrics and health are read."""

    status: DaemonStatus
    leaderships: Sequence[Leadership]
    counters: DaemonCounters
    registry: Registry
    """On a connection of its own, with a short timeout."""
    outcomes: Outcomes
    """On the same."""
    check_nodes: NodeCheck
    """Of the keys of ``outcomes``."""
    undelivered: Undelivered
    """On the same."""
    store_away_s: Callable[[], float]
    """Seconds for which the store has not answered; 0 while it does."""
    store_error: Callable[[], StoreError | None]
    """Why a leader, or a standby, cannot write to the store, if so."""
    problems: Callable[[], Sequence[FleetProblem]]
    """The problems of the fleet at the last heartbeat."""
    clock_offset_ms: Callable[[], int | None]
    """How far this host's clock is ahead of the store's."""

    @property
    def shards(self) -> Sequence[Shard]:
        """The loops of all shards."""
        return self.status.shards
