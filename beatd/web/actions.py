"""Actions of operators: runs by hand, pauses, entries of the store, dead letters. Page and API call the same ones.

Each returns a sentence that says what was done, and is written to the audit. Each raises HTTPException: 404 for what is
gone, 409 for what is not possible as things are now, 400 for what is not valid.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from beatd.client.entries import kind_of
from beatd.client.runs import AT_MOST, RATE, RunClient
from beatd.client.schedules import checked
from beatd.config import entry
from beatd.config.entries import LONGEST_NAME
from beatd.config.targets import NOTIFY, unknown_target
from beatd.exceptions import BrokerError, ConfigError, MessageError, NobodyLeads, RequestRefused, ScheduleError
from beatd.model import Overlap
from beatd.schedules import duration_ms
from beatd.sources import call_faults
from beatd.store.runtime_entries import Pause, Runtime, read_table, readable_table
from beatd.store.runtime_entries import place as runtime_place
from beatd.timestamps import from_ms, iso_ms, utc_text
from beatd.web.documents import Documents, letter_filter

log = logging.getLogger("beatd.web")

Sentence = dict[str, Any]
_DUES_SHOWN = 20


class RunNow(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Other arguments or another queue than the entry's. With a ``request_id`` a repeated request sends nothing."""

    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    queue: str | None = None
    request_id: str | None = None


class PauseUntil(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The end of the pause as a moment (``until``) or a duration (``for``); without them it lasts until resumed."""

    reason: str = ""
    until: str = ""
    length: str = msgspec.field(default="", name="for")


class BackfillWindow(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The runs that were due from ``from`` on and before ``to``. ``dry_run`` only counts them."""

    since: str = msgspec.field(name="from")
    until: str = msgspec.field(default="now", name="to")
    rate: float = RATE
    max: int = AT_MOST
    overlap: Overlap | None = None
    force: bool = False
    dry_run: bool = False
    request_id: str | None = None


class EntryTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An entry with the keys that it has in ``beat.toml``."""

    table: dict[str, Any]


class _Begun(Exception):
    """Raised to stop waiting for a backfill: the leader goes on with it."""


class Operator:
    """Carries actions out, each for somebody (``who``)."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._store = documents.store

    def run_now(self, who: str, name: str, wanted: RunNow) -> Sentence:
        """Send a run of an entry now."""
        self._documents.entry_named(name)
        with self._requests() as runs:
            sent = runs.trigger(
                name, wanted.args, wanted.kwargs, queue=wanted.queue, request_id=wanted.request_id, by=who
            )
        if not sent.repeated:
            given = {"args": wanted.args, "kwargs": wanted.kwargs, "queue": wanted.queue}
            changed = {key: value for key, value in given.items() if value is not None}
            self._audit(who, "trigger", name, after={"run_id": sent.run_id, **changed})
        if sent.refused is not None:
            raise HTTPException(409, f"the broker refused it: {sent.refused}; it is among the dead letters")
        what = "was sent before; nothing was sent now" if sent.repeated else "sent"
        waits = "; it waits in the outbox until the broker takes it" if sent.in_outbox else ""
        return {"done": f"run {sent.run_id[:8]} of {name} {what}{waits}", "run_id": sent.run_id}

    def pause(self, who: str, name: str, wanted: PauseUntil) -> Sentence:
        """Pause an entry, for ever or until a moment."""
        self._documents.entry_named(name)
        now_ms = self._documents.clock.now_ms()
        until_ms = self._until_ms(wanted, now_ms)
        note = Pause(since_ms=now_ms, by=who, reason=wanted.reason.strip()[:500], until_ms=until_ms)
        with self._runtime() as runtime:
            done = runtime.put_pauses([name], note, ("until", "reason", "by"))
        if not (done.paused or done.changed):
            raise HTTPException(409, f"{name} is paused like this already")
        until = None if until_ms is None else iso_ms(until_ms)
        self._audit(who, "pause", name, after={"reason": note.reason, "until": until})
        ends = "until somebody resumes it" if until_ms is None else f"until {utc_text(until_ms)}"
        return {"done": f"{name} is paused {ends}", "until": until}

    def resume(self, who: str, name: str) -> Sentence:
        """Resume a paused entry from now on."""
        self._documents.entry_named(name)
        with self._runtime() as runtime:
            if not runtime.resume([name]):
                raise HTTPException(409, f"{name} is not paused: its pause has ended meanwhile")
        self._audit(who, "resume", name)
        return {"done": f"{name} is resumed; what was due meanwhile is not caught up"}

    def backfill(self, who: str, name: str, wanted: BackfillWindow) -> Sentence:
        """Begin to send the runs of a past window; the leading daemon goes on with it."""
        self._documents.entry_named(name)
        now_ms = self._documents.clock.now_ms()
        since_ms = self._documents.moment_ms(wanted.since, "from")
        until_ms = self._documents.moment_ms(wanted.until, "to", base_ms=since_ms)
        if until_ms <= since_ms:
            raise HTTPException(400, "from must be earlier than to")
        if since_ms > now_ms:
            raise HTTPException(400, "from must be in the past")
        window = f"{iso_ms(since_ms)} to {iso_ms(until_ms)}"
        try:
            with self._requests() as runs:
                done = runs.backfill(
                    name, from_ms(since_ms), from_ms(until_ms), overlap=wanted.overlap, rate=wanted.rate,
                    at_most=wanted.max, force=wanted.force, dry_run=wanted.dry_run, request_id=wanted.request_id,
                    by=who, progress=_begun,
                )  # fmt: skip
        except _Begun as begun:
            dealt, total = begun.args
            self._audit(who, "backfill", name, after={"window": window})
            return {"done": f"the backfill of {name} has begun: {dealt:,} of {total:,} runs", "total": total}
        if wanted.dry_run:
            dues = [iso_ms(due) for due in done.dues_ms[:_DUES_SHOWN]]
            return {"done": f"{done.sent:,} of {done.total:,} runs of {name} would be sent", "dues_at": dues}
        if not done.repeated:
            self._audit(who, "backfill", name, after={"window": window, "sent": done.sent})
        left_out = "".join(f", {count:,} left out: {reason}" for reason, count in done.left_out.items())
        return {"done": f"{done.sent:,} of {done.total:,} runs of {name} sent{left_out}", "total": done.total}

    def stop(self, who: str, run_id: str) -> Sentence:
        """End a run, or a running task that no entry has sent: skipped if it waits, terminated if it is running."""
        identity, subject = self._stoppable(run_id)
        with _in_words():
            self._documents.broker.stop(identity)
        self._audit(who, "stop-run", subject, after={"run_id": identity})
        return {"done": f"run {identity[:8]} of {subject} is being stopped", "run_id": identity}

    def _stoppable(self, run_id: str) -> tuple[str, str]:
        """The whole id of a run that has not ended, and its entry, or its task where no entry has sent it."""
        try:
            run = self._documents.run_detail(run_id)
        except HTTPException:
            if (task := self._documents.running_task(run_id)) is None:
                raise
            return run_id, task
        if run.word not in ("queued", "running", "retry"):
            raise HTTPException(409, f"the run has ended meanwhile: {run.word}")
        return run.record.run_id or run_id, run.record.entry

    def requeue(self, who: str, letter: str, *, alike: bool = False) -> Sentence:
        """Send a dead letter again, and with ``alike`` all that are like it."""
        with _in_words():
            count, refusals = self._documents.broker.requeue(letter_filter((letter,), alike=alike))
        done = self._letter_done(who, "requeue", letter, count, "sent again") if count or not refusals else {}
        if refusals:
            sent = f"{done['done']}; but " if done else ""
            raise HTTPException(409, f"{sent}{refusals[0].letter.id} stays: {refusals[0].reason}")
        return done

    def purge(self, who: str, letter: str, *, alike: bool = False) -> Sentence:
        """Throw a dead letter away, and with ``alike`` all that are like it."""
        with _in_words():
            count = self._documents.broker.purge(letter_filter((letter,), alike=alike))
        return self._letter_done(who, "purge", letter, count, "thrown away")

    def put(self, who: str, name: str, table: Mapping[str, Any]) -> Sentence:
        """Put an entry into the store, or another in its place."""
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise HTTPException(400, f"a name has 1 to {LONGEST_NAME} characters that can be printed")
        self._refuse_of_file(name)
        settings, defaults = self._documents.schedule.settings, self._documents.schedule.defaults
        with _in_words():
            stored = checked(name, table, timezone=settings.timezone, defaults=defaults)
        if fault := unknown_target(stored.get(NOTIFY) or (), [target.name for target in settings.notify]):
            raise HTTPException(400, f"{NOTIFY}: {fault}")
        with self._runtime() as runtime:
            what, before = runtime.exchange(name, stored)
        if what != "unchanged":
            self._audit(who, "add" if what == "added" else "change", name, before=readable_table(before), after=stored)
        faults = self._call_faults(name, stored)
        told = "".join(f"; but {fault}" for fault in faults)
        return {"done": f"{name} is {what}{told}", "change": what, "warnings": faults}

    def _call_faults(self, name: str, table: Mapping[str, Any]) -> list[str]:
        """Faults in the task and the arguments of an entry, as far as the app of the file tells."""
        schedule = self._documents.schedule
        try:
            one = entry(
                name, table, timezone=schedule.settings.timezone, defaults=schedule.defaults, source=runtime_place(name)
            )
            return [
                f"{fault.path}: {fault.message}" for fault in call_faults(schedule.settings, schedule.defaults, [one])
            ]
        except ConfigError as error:
            return [f"it could not be checked against the app: {error.faults[0].message}"]

    def remove(self, who: str, name: str) -> Sentence:
        """Take an entry out of the store."""
        self._refuse_of_file(name)
        with self._runtime() as runtime:
            before, _ = runtime.get(name)
            if not runtime.remove(name):
                raise HTTPException(404, f"{name} is not in the state store: it was removed meanwhile")
        self._audit(who, "remove", name, before=readable_table(before))
        return {"done": f"{name} is removed"}

    def stored_table(self, name: str) -> dict[str, Any]:
        """The table of an entry of the store, as it is."""
        with self._runtime() as runtime, _in_words():
            table, _ = runtime.get(name)
            if table is None:
                raise HTTPException(404, f"{name} is not in the state store")
            return read_table(table)

    def _audit(self, who: str, action: str, subject: str, *, before: Any = None, after: Any = None) -> None:
        self._store.note_change(who, action, subject, before=before, after=after)
        log.info(
            "%s: %s %s", who, action, subject, extra={"event": "web_action", "by": who, "action": action, "of": subject}
        )

    def _letter_done(self, who: str, action: str, letter: str, count: int, text: str) -> Sentence:
        if not count:
            raise HTTPException(404, f"the dead letter {letter} is gone: somebody has sent or thrown it away")
        self._audit(who, action, letter if count == 1 else f"{letter} and {count - 1:,} like it")
        subject = f"the dead letter {letter} is" if count == 1 else f"{count:,} dead letters like {letter} are"
        return {"done": f"{subject} {text}"}

    def _refuse_of_file(self, name: str) -> None:
        self._documents.selector.overlay()
        entry = self._documents.schedule.listing.entry(name)
        if entry is not None and kind_of(entry) != "runtime":
            raise HTTPException(409, f"{name} is in {entry.source}, and that counts: change it there")

    def _until_ms(self, wanted: PauseUntil, now_ms: int) -> int | None:
        if wanted.until.strip() and wanted.length.strip():
            raise HTTPException(400, "give until or for, not both")
        if wanted.length.strip():
            try:
                return now_ms + max(duration_ms(wanted.length.strip()), 1)
            except ScheduleError as error:
                raise HTTPException(400, f"for: {error}") from None
        if not wanted.until.strip():
            return None
        until_ms = self._documents.moment_ms(wanted.until, "until")
        if until_ms <= now_ms:
            raise HTTPException(400, f"until: {wanted.until} is not later than now")
        return until_ms

    @contextmanager
    def _runtime(self) -> Iterator[Runtime]:
        with self._store.connection() as (client, keys):
            yield Runtime(client, keys)

    @contextmanager
    def _requests(self) -> Iterator[RunClient]:
        with self._store.connection() as (client, keys), _in_words():
            yield RunClient(client, keys)


def read_toml(text: str) -> dict[str, Any]:
    """The keys of an entry as they stand in ``beat.toml``; HTTPException 400."""
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"this is no TOML: {error}") from None


def _begun(done: int, total: int) -> None:
    raise _Begun(done, total)


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except RequestRefused as error:
        raise HTTPException(404 if error.unknown else 409, str(error)) from None
    except NobodyLeads as error:
        raise HTTPException(409, str(error)) from None
    except ConfigError as error:
        raise HTTPException(400, "; ".join(fault.message for fault in error.faults[:5])) from None
    except (MessageError, ScheduleError) as error:
        raise HTTPException(400, str(error)) from None
    except BrokerError as error:
        raise HTTPException(502, str(error)) from None
