"""Problems of the fleet, as every reader of the heartbeats finds them: ``beatd status``, the page, each daemon.

Each daemon reports in its heartbeat for how long its problems, and those of the fleet, have lasted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from beatd.beat.shard_assignment import REMEDY, SKEW_MS, why_aside
from beatd.planning.problems import Kind, Problem
from beatd.store.daemon_registry import LATE_MS, FleetView, Member, Status
from beatd.timestamps import span_text, utc_text

STUCK_MS = 20_000
"""A loop without progress for longer than this is a problem."""
UNREAD_MS = 15_000
"""Runtime entries that were not read for longer than this are a problem."""


class DaemonFault(NamedTuple):
    """A fault that one daemon reports: what is wrong, and the rest of the sentence: reason and remedy."""

    kind: Kind
    what: str
    more: str = ""
    lasting_ms: int | None = None
    """For how long, where its status has that in a field of its own."""


def fleet_problems(fleet: FleetView, shards: int, lease_key: Callable[[int], str]) -> Iterator[Problem]:
    """The problems of daemons and leadership. ``lease_key`` names the key of a shard's lease."""
    yield from _leadership(fleet, shards, lease_key)
    yield from _differences(fleet)
    for name, one in fleet.daemons.items():
        if not one.alive:
            text = f"{name} is gone: its last heartbeat was {span_text(one.age_ms)} ago"
            yield Problem("daemon_gone", text, subject=name, since_ms=fleet.now_ms - one.age_ms)
    alive = _alive(fleet)
    for one in alive:
        if why := why_aside(one.status, [other.status for other in alive]):
            yield _fleet_problem(
                fleet, "stands_aside", f"{one.status.id} is not eligible to lead", f": {why}", one.status.id
            )
        leads = any(lease.daemon_id == one.status.id for lease in fleet.leases.values())
        if leads and (blocked := blocked_runs(one.status)) is not None:
            yield _of_daemon(one, blocked, fleet, blocks=is_blocked(one.status))
        for fault in daemon_faults(one.status):
            yield _of_daemon(one, fault, fleet)


def daemon_faults(status: Status) -> Iterator[DaemonFault]:
    """The faults of one daemon that block no run, or not yet."""
    if status.config == "broken":
        more = f" (and {_plural(status.more_file_faults, 'error')} more)" if status.more_file_faults else ""
        listed = f": {'; '.join(status.file_faults)}{more}" if status.file_faults else ""
        remedy = "; it keeps the last valid schedule; run beatd check"
        yield DaemonFault("config_broken", "its files have errors", f"{remedy}{listed}")
    if status.calendar_faults:
        yield DaemonFault("calendar_unreadable", "calendars cannot be read", f": {'; '.join(status.calendar_faults)}")
    if status.task_faults:
        more = f" (and {status.more_task_faults:,} more)" if status.more_task_faults else ""
        told = f": {'; '.join(status.task_faults)}{more}; run beatd check"
        yield DaemonFault("task_fault", "the app cannot run the tasks of entries", told)
    if status.faults:
        more = f" and {status.faults - len(status.faulty):,} more" if status.faults > len(status.faulty) else ""
        count = "1 runtime entry" if status.faults == 1 else f"{status.faults:,} runtime entries"
        told = f", not in force: {', '.join(status.faulty)}{more}; see beatd list"
        yield DaemonFault("runtime_entry_broken", f"{count} with errors", told)
    if status.slow:
        yield DaemonFault("store_slow", "the state store answers slowly", f", and runs are late: {status.slow}")
    if status.unreplicated:
        remedy = "; a failover may repeat these runs: look at the replicas"
        yield DaemonFault("store_unreplicated", "claims are at the primary only", f": {status.unreplicated}{remedy}")
    if status.clock_offset_ms is not None and abs(status.clock_offset_ms) > SKEW_MS:
        ahead = "ahead of" if status.clock_offset_ms > 0 else "behind"
        what = f"its clock is {span_text(abs(status.clock_offset_ms))} {ahead} the state store's"
        yield DaemonFault("clock_skew", what, "; start NTP on that host")
    if status.read_ms_ago is not None and status.read_ms_ago > UNREAD_MS:
        what = "it has not read runtime entries"
        yield DaemonFault("runtime_unreadable", what, "; see its log", status.read_ms_ago)
    if status.turned_ms_ago is not None and status.turned_ms_ago > STUCK_MS:
        yield DaemonFault("loop_stuck", "its loop has made no progress", "; see its log", status.turned_ms_ago)


def blocked_runs(status: Status) -> DaemonFault | None:
    """The fault of a leader whose runs are not sent, or late; None if there is none."""
    late = f"; runs are {span_text(status.late_ms)} late" if status.late_ms > LATE_MS else ""
    if status.problem:
        more = f": {status.problem}{late}; it resumes by itself once that is fixed"
        return DaemonFault("runs_blocked", "no run is sent", more, status.problem_ms)
    return DaemonFault("runs_late", "no run is sent in time", f"{late}; see its log", status.late_ms) if late else None


def is_blocked(status: Status) -> bool:
    """True if the runs of a leader have been blocked, or late, for long enough to make it unhealthy."""
    return max(status.problem_ms, status.late_ms) > LATE_MS


def fault_text(fault: DaemonFault, since_ms: int | None) -> str:
    """The sentence about a fault."""
    since = "" if since_ms is None else f" since {utc_text(since_ms)}"
    return f"{fault.what}{since}{fault.more}"


class ProblemWatch:
    """The problems that one daemon sees at each heartbeat, and for how long it has seen them."""

    def __init__(self, daemon_id: str, shards: int, lease_key: Callable[[int], str]) -> None:
        self._me, self._shards, self._lease_key = daemon_id, shards, lease_key
        self._since: dict[str, float] = {}
        self.problems: Sequence[Problem] = ()
        """The problems of the fleet at the last heartbeat. May be read from any thread."""

    def saw(self, fleet: FleetView, now: float) -> None:
        """Note the problems of a fleet, at the monotonic time ``now``."""
        self.problems = tuple(fleet_problems(fleet, self._shards, self._lease_key))
        own = [_field(one.kind, one.subject) for one in self.problems if self._reports(one, fleet)]
        self._since = {field: self._since.get(field, now) for field in own}

    def _reports(self, problem: Problem, fleet: FleetView) -> bool:
        """True if no other daemon is to report for how long it has lasted."""
        return problem.subject == self._me or problem.subject not in fleet.daemons

    def lasting_ms(self, now: float) -> dict[str, int]:
        """For how long each problem has lasted, by kind and subject."""
        return {field: int((now - since) * 1000) for field, since in self._since.items()}


def shards_text(numbers: Sequence[int]) -> str:
    """``shard 3``, ``shards 1, 2``."""
    return f"shard{'s' if numbers[1:] else ''} {', '.join(map(str, numbers))}"


def _leadership(fleet: FleetView, shards: int, lease_key: Callable[[int], str]) -> Iterator[Problem]:
    alive = fleet.alive
    if not alive:
        since_ms = fleet.now_ms - min((one.age_ms for one in fleet.daemons.values()), default=0)
        what, more = "no daemon is alive", "; start one: beatd run"
        yield _fleet_problem(fleet, "no_daemon", what, more, blocks=True, since_ms=since_ms if fleet.daemons else None)
    for shard, reason in fleet.away.items():
        what, more = f"the node of shard {shard} does not answer", f", and its runs wait: {reason}"
        yield _fleet_problem(fleet, "shard_away", what, more, f"shard {shard}", blocks=True)
    free = [shard for shard in range(shards) if shard not in fleet.leases and shard not in fleet.away]
    if alive and free:
        what = "nobody leads" if len(free) == shards else f"nobody leads {shards_text(free)}"
        yield _fleet_problem(fleet, "nobody_leads", what, blocks=True)
    for shard, holder in fleet.leases.items():
        subject = f"shard {shard}"
        if holder.is_foreign:
            more = f": the key {lease_key(shard)} does not hold a lease of beatd; delete the key"
            yield _fleet_problem(fleet, "lease_foreign", f"nobody can lead shard {shard}", more, subject, blocks=True)
        elif alive and holder.daemon_id not in alive:
            left = span_text(-(-max(holder.left_ms, 0) // 1000) * 1000)
            more = f"; a standby takes over within {left}"
            what = f"{subject} is led by {holder.daemon_id}, which is gone"
            yield _fleet_problem(fleet, "leader_gone", what, more, subject, blocks=True)


def _differences(fleet: FleetView) -> Iterator[Problem]:
    if (count := len({one.digest for one in fleet.alive.values()})) > 1:
        yield _fleet_problem(fleet, "config_mismatch", f"the daemons have {count} different schedules", f": {REMEDY}")
    if len(versions := sorted({one.version for one in fleet.alive.values()} - {""})) > 1:
        what = f"the daemons have {len(versions)} different versions"
        yield _fleet_problem(fleet, "version_mismatch", what, f": {', '.join(versions)}; give all the same")


def _of_daemon(one: Member, fault: DaemonFault, fleet: FleetView, *, blocks: bool = False) -> Problem:
    since_ms = None if fault.lasting_ms is None else fleet.now_ms - one.age_ms - fault.lasting_ms
    name = one.status.id
    return _fleet_problem(
        fleet, fault.kind, f"{name}: {fault.what}", fault.more, name, blocks=blocks, since_ms=since_ms
    )


def _fleet_problem(
    fleet: FleetView,
    kind: Kind,
    what: str,
    more: str = "",
    subject: str = "",
    *,
    blocks: bool = False,
    since_ms: int | None = None,
) -> Problem:
    """A problem with since when: ``since_ms``, or as the daemons report it."""
    field = _field(kind, subject)
    reported = [one.age_ms + one.status.lasting_ms[field] for one in _alive(fleet) if field in one.status.lasting_ms]
    if since_ms is None and reported:
        since_ms = fleet.now_ms - max(reported)
    return Problem(kind, fault_text(DaemonFault(kind, what, more), since_ms), blocks, subject, since_ms)


def _field(kind: Kind, subject: str) -> str:
    return f"{kind} {subject}".rstrip()


def _alive(fleet: FleetView) -> list[Member]:
    """The daemons that are alive, the oldest first."""
    present = (one for one in fleet.daemons.values() if one.alive)
    return sorted(present, key=lambda one: (one.status.started_ms, one.status.id))


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
