"""Asking the leader of an entry for runs, and waiting for its answer.

Nothing here sends a message: the daemon that leads does, so that no run leaves under a term that is over, and whoever
asks needs to reach nothing but the state store.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from beatd.clock import Backoff, SystemClock, monotonic, sleep
from beatd.exceptions import MessageError, NobodyLeads, RequestRefused
from beatd.message import json_codec
from beatd.model import Overlap
from beatd.store.audit import Audit, Via, audit_record
from beatd.store.daemon_registry import Registry
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys, shard_of
from beatd.store.outbox import holds
from beatd.store.run_requests import Backfill, Reason, RequestReply, Requests, Trigger
from beatd.timestamps import iso_ms, to_ms

if TYPE_CHECKING:
    import redis

AT_MOST, MOST = 5_000, 100_000
"""Runs of a window, unless the caller allows more; and what no caller can allow."""

RATE, RATE_MAX = 10.0, 10_000.0
"""Runs per second of a backfill."""

_LOOK_MIN_S, _LOOK_MAX_S = 0.01, 0.1
"""Seconds between two looks for the answer."""
_LEFT_ALONE_S = 30.0
"""Seconds without any daemon after which a backfill that has begun is not watched any longer."""
_ID = re.compile(r"[\w.:@/+-]{1,100}", re.ASCII)


class Triggered(NamedTuple):
    """A run that was sent by hand. ``repeated``: by an earlier request of the same id, and not once more."""

    entry: str
    run_id: str
    request_id: str
    repeated: bool = False
    refused: str | None = None
    """Why the broker refused it."""
    in_outbox: bool = False
    """The broker has not confirmed it yet; the daemon that leads goes on trying."""


class Backfilled(NamedTuple):
    """Result of a backfill: of ``total`` runs ``sent`` were sent, and the others left out for a reason.

    ``dues_ms`` are the first thousand that would be sent, after a dry run.
    """

    entry: str
    request_id: str
    total: int
    sent: int
    left_out: Mapping[Reason, int]
    dues_ms: Sequence[int] = ()
    repeated: bool = False


class BackfillWithdrawn(KeyboardInterrupt):
    """Ctrl-C while a backfill was under way: what was left is withdrawn, and ``done`` is what was sent."""

    def __init__(self, done: Backfilled) -> None:
        super().__init__()
        self.done = done


Progress = Callable[[int, int], object]
"""Called with how many runs have been dealt with, and how many there are."""


class RunClient:
    """Requests to the daemons of one installation.

    Methods raise :class:`~beatd.exceptions.NobodyLeads`, :class:`~beatd.exceptions.RequestRefused`,
    :class:`~beatd.exceptions.MessageError` for what no request can carry, or a
    :class:`~beatd.exceptions.StoreError`. After the last of these it is not known whether the request was carried out:
    repeat it with the same ``request_id``. ``via``: requests are recorded in the audit as made in this way.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, via: Via | None = None) -> None:
        self._client, self._keys = client, keys
        self._audit, self._via = Audit(client, keys), via
        self._requests = Requests(client, keys)
        self._histories = Histories(client, keys)
        self._registry = Registry(client, keys)

    def trigger(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        queue: str | None = None,
        request_id: str | None = None,
        by: str = "",
        timeout: float = 10.0,
    ) -> Triggered:
        """Send a run of an entry now, with other arguments or to another queue if these are given.

        Returns when the broker has confirmed or refused it, or has done neither within ``timeout``.
        """
        request = Trigger(
            entry=name,
            by=by,
            args=None if args is None else json_codec.dumps(list(args)).decode(),
            kwargs=None if kwargs is None else json_codec.dumps(dict(kwargs)).decode(),
            queue=queue,
        )
        request_id = _checked(request_id)
        answer, repeated = self._carry_out(request_id, request, timeout)
        in_outbox = not self._has_left_outbox(name, answer.run_id, timeout)
        refused = self._histories.refused(answer.run_id)
        if not repeated:
            given = {"args": args, "kwargs": kwargs, "queue": queue}
            changed = {key: value for key, value in given.items() if value is not None}
            self._note("trigger", name, by, {"run_id": answer.run_id, **changed})
        return Triggered(name, answer.run_id, request_id, repeated, refused, in_outbox)

    def backfill(
        self,
        name: str,
        since: datetime,
        until: datetime,
        *,
        overlap: Overlap | None = None,
        rate: float = RATE,
        at_most: int = AT_MOST,
        force: bool = False,
        dry_run: bool = False,
        request_id: str | None = None,
        by: str = "",
        timeout: float = 10.0,
        progress: Progress = lambda _done, _total: None,
    ) -> Backfilled:
        """Send the runs of an entry that are due from ``since`` on and before ``until``, ``rate`` of them a second.

        ``timeout`` is for the leader to begin. Whoever stops waiting (KeyboardInterrupt) withdraws what is left,
        and gets :class:`BackfillWithdrawn`.
        """
        if not 0 < rate <= RATE_MAX:
            raise MessageError(f"a rate of {rate:g} a second: expected more than 0, and at most {RATE_MAX:,.0f}")
        if not 0 < at_most <= MOST:
            raise MessageError(f"{at_most:,} runs: expected at least 1, and at most {MOST:,}")
        request = Backfill(
            entry=name,
            by=by,
            from_ms=to_ms(since),
            to_ms=to_ms(until),
            overlap=overlap,
            rate=rate,
            at_most=at_most,
            force=force,
            dry_run=dry_run,
        )
        request_id = _checked(request_id)
        try:
            answer, repeated = self._carry_out(request_id, request, timeout, progress)
        except KeyboardInterrupt:
            withdrawn = self._requests.withdraw(request_id)
            known = withdrawn.answer if withdrawn.found else self._requests.answer(request_id)
            answer, repeated = known or RequestReply(state="under_way", entry=name, what="backfill"), False
        if not (dry_run or repeated):
            window = {"from": iso_ms(to_ms(since)), "to": iso_ms(to_ms(until)), "force": force, "sent": answer.sent}
            self._note("backfill", name, by, window)
        done = Backfilled(name, request_id, answer.total, answer.sent, answer.left_out, answer.dues_ms, repeated)
        if answer.state != "done":
            raise BackfillWithdrawn(done)
        return done

    def _note(self, action: str, name: str, by: str, after: Mapping[str, Any]) -> None:
        if self._via is not None:
            at_ms = SystemClock().now_ms()
            self._audit.note(audit_record(at_ms, action, [name], by=by, via=self._via, after=after))

    def _carry_out(
        self, request_id: str, request: Trigger | Backfill, timeout: float, progress: Progress = lambda _d, _t: None
    ) -> tuple[RequestReply, bool]:
        """The last answer, and whether it was there before."""
        answer = self._requests.answer(request_id)
        repeated = answer is not None and answer.state == "done"
        if answer is None or answer.state == "refused":
            self._refuse_if_nobody_is_there()
            answer = self._requests.ask(request_id, request, good_for_ms=int(timeout * 1000))
        answer = self._wait(request_id, request, answer, timeout, progress)
        if (answer.entry, answer.what) != (request.entry, _what(request)):
            text = f"the request id {request_id} was used before, for a {answer.what} of {answer.entry}"
            raise RequestRefused(text)
        if answer.state == "refused":
            done = f"; {answer.sent:,} of {answer.total:,} runs were sent before" if answer.sent else ""
            raise RequestRefused(answer.message + done, unknown=answer.unknown)
        return answer, repeated

    def _wait(
        self,
        request_id: str,
        request: Trigger | Backfill,
        answer: RequestReply | None,
        timeout: float,
        progress: Progress,
    ) -> RequestReply:
        until, backoff = monotonic() + timeout, Backoff(_LOOK_MIN_S, _LOOK_MAX_S, factor=1.1)
        while answer is None or answer.state == "under_way":
            if answer is not None:
                progress(answer.sent + sum(answer.left_out.values()), answer.total)
            if monotonic() > until:
                if answer is None and (answer := self._withdrawn(request_id)) is None:
                    raise NobodyLeads(f"{self._why(request.entry, timeout)}; the request was withdrawn")
                if answer.state == "under_way" and not self._alive():
                    raise NobodyLeads("no daemon is alive any more; the next one goes on with what is left")
                until = monotonic() + _LEFT_ALONE_S
            sleep(backoff.failed())
            answer = self._requests.answer(request_id) or answer
        return answer

    def _withdrawn(self, request_id: str) -> RequestReply | None:
        """Withdraw a request; the answer if a leader was quicker. One that is gone without an answer has expired."""
        withdrawn = self._requests.withdraw(request_id).found
        return None if withdrawn else self._requests.answer(request_id)

    def _has_left_outbox(self, name: str, run_id: str, timeout: float) -> bool:
        """Wait until the broker has confirmed or refused a run; where the store is the broker, it has it already."""
        shards = max((each.shards for each in self._registry.look(shards=1).alive.values()), default=1)
        key = self._keys.shard(shard_of(name, shards)).outbox
        until, backoff = monotonic() + timeout, Backoff(_LOOK_MIN_S, _LOOK_MAX_S, factor=1.1)
        while holds(self._client, key, run_id):
            if monotonic() > until:
                return False
            sleep(backoff.failed())
        return True

    def _alive(self) -> bool:
        return bool(self._registry.look(shards=1).alive)

    def _refuse_if_nobody_is_there(self) -> None:
        """A daemon that starts alone has its leases before its first heartbeat: it is there, too."""
        fleet = self._registry.look(shards=1)
        leads_already = (one.daemon_id not in fleet.daemons and not one.is_foreign for one in fleet.leases.values())
        if not (fleet.alive or any(leads_already)):
            raise NobodyLeads("no daemon is alive: nothing was sent")

    def _why(self, entry: str, timeout: float) -> str:
        """Why nobody has taken a request up."""
        alive = self._registry.look(shards=1).alive
        if not alive:
            return "no daemon is alive"
        shards = max(each.shards for each in alive.values())
        shard = shard_of(entry, shards)
        holder = self._registry.look(shards=shards).leases.get(shard)
        if holder is None:
            return "nobody leads" + (f" shard {shard}, which {entry} belongs to" if shards > 1 else "")
        return f"{holder.daemon_id} leads, and did not answer within {timeout:g} s"


def _checked(request_id: str | None) -> str:
    if request_id is None:
        return secrets.token_hex(8)
    if not _ID.fullmatch(request_id):
        raise MessageError(f"{request_id!r} cannot be a request id: expected up to 100 of A-Z a-z 0-9 _ . : @ / + -")
    return request_id


def _what(request: Trigger | Backfill) -> str:
    return "trigger" if isinstance(request, Trigger) else "backfill"
