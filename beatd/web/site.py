"""Places: the pages for people. Each shows a document of :mod:`~beatd.web.documents`, and what one may do there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import wraps
from itertools import zip_longest
from typing import Any, NamedTuple
from urllib.parse import quote

import tomli_w
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from beatd.client.audit import audit_facts, change_text
from beatd.client.history import totals_text
from beatd.client.outcomes import FAILED
from beatd.exceptions import StoreError
from beatd.planning.preview import new_state
from beatd.planning.problems import problem_facts, store_problem
from beatd.redaction import encodable
from beatd.store.outage import unreachable_text
from beatd.web import badge, calendar, session
from beatd.web.access import Access
from beatd.web.actions import Operator
from beatd.web.documents import Documents, file_problems
from beatd.web.heatmap import heat_map, herds, past_bars
from beatd.web.operations import LETTERS, LIMIT, SELECTION, WINDOW, view_of, wanted_letters
from beatd.web.pages import Frame, Page, daemon_rows, entry_row, moment, run_row, spread
from beatd.web.parameters import Parameter, read_parameters
from beatd.web.routing import NAME, name_in_path
from beatd.web.selection import FILTERS, ORDERS, Slice
from beatd.web.stream import Stream

Endpoint = Callable[[Request], Response]
RUNS_SHOWN = 100
_TITLES = {404: "Not found", 400: "Not understood", 401: "Not known"}
_LOOKED_AT = 20_000
"""Runs that the calendar of all entries looks at."""


class ShownProblem(NamedTuple):
    """A problem as a sentence, and where the page tells more."""

    text: str
    link: str = ""
    title: str = ""
    blocks: bool = False


class Site:
    """The endpoints. They are plain functions, which Starlette runs in threads: looking at the store blocks."""

    def __init__(self, documents: Documents, operator: Operator, access: Access, page: Page) -> None:
        self._documents, self._operator, self._access, self._page = documents, operator, access, page
        self._stream = Stream(documents.store)

    def routes(self) -> list[BaseRoute]:
        """The routes, paths with more parts first: the name of an entry may have slashes."""
        places: Mapping[str, Endpoint] = {
            "/": self.entries,
            "/timeline": self.timeline,
            "/workers": self.workers,
            "/queues": self.queues,
            "/dead-letters": self.dead_letters,
            "/fleet": self.fleet,
            "/audit": self.audit,
            "/runs/{id}": self.run,
            "/edit": self.edit,
            f"/entries/{NAME}": self.entry,
            f"/badge/{NAME}.svg": self.badge,
            "/calendar.ics": self.calendar,
        }
        guarded: list[BaseRoute] = [Route(path, self._guarded(endpoint)) for path, endpoint in places.items()]
        return [Route("/login", self.login), Route("/live", self.live), *guarded]

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint for those who may read; others are sent to the login."""

        @wraps(endpoint)
        def guarded(request: Request) -> Response:
            if self._access.person(request).role is None:
                if not self._access.can_log_in:
                    raise HTTPException(401, "this page is for users whom its proxy names")
                return RedirectResponse(f"/login?back={quote(_path_of(request))}", 303)
            return endpoint(request)

        return guarded

    def entries(self, request: Request) -> Response:
        """Problems and entries; while the store is down, that it is, with 503."""
        view = view_of(read_parameters(request.query_params, SELECTION))
        documents, file, now_ms = self._documents, str(self._documents.schedule.path), self._documents.clock.now_ms()
        try:
            status, part = documents.selector.look(), documents.selector.slice(view)
        except StoreError as error:
            away = store_problem(error)._replace(text=unreachable_text(error))
            problems = [shown(problem_facts(one)) for one in (away, *file_problems(documents.schedule, None))]
            part = Slice(view, total=len(documents.schedule.listing.entries))
            facts: dict[str, Any] = {"status": None, "part": part, "problems": problems, "daemons": [], "rows": []}
            return self._html(request, "page.html", "/", 503, file=file, filters=FILTERS, orders=ORDERS, **facts)
        problems = [shown(one) for one in documents.problems()["problems"]]
        rows = [entry_row(look, now_ms, part.outcome(look.entry.name)) for look in part.outlooks]
        daemons = list(daemon_rows(status, now_ms))
        facts = {"status": status, "part": part, "problems": problems, "daemons": daemons, "rows": rows}
        return self._html(request, "page.html", "/", file=file, filters=FILTERS, orders=ORDERS, **facts)

    def entry(self, request: Request) -> Response:
        """One entry: state, next runs, last runs with error and output."""
        name, now_ms = request.path_params["name"], self._documents.clock.now_ms()
        values = read_parameters(request.query_params, (Parameter("failed", "Only failed runs.", False),))
        seen = self._documents.description(name)
        outcome, numbers, zone = seen.outcome, seen.statistics, seen.entry.timezone
        since = {
            "failing": outcome.failing_since_ms,
            "overdue": outcome.overdue_since_ms,
            "too_long": outcome.too_long_since_ms,
            "success": outcome.last_success_ms,
        }
        shown = [run for run in seen.runs if run.word in FAILED or not values["failed"]][:RUNS_SHOWN]
        return self._html(
            request,
            "entry.html",
            "/",
            title=name,
            seen=seen,
            row=entry_row(seen.look, now_ms, outcome),
            outcome=outcome,
            table=_table_text(seen.table),
            since={key: None if ms is None else moment(ms, zone, now_ms) for key, ms in since.items()},
            following=[(moment(run.due_ms, zone, now_ms), run.note) for run in seen.following],
            runs=[run_row(run, zone, now_ms) for run in shown],
            totals=totals_text(seen.totals),
            duration=spread(numbers.duration_median_ms, numbers.duration_p95_ms),
            lateness=spread(numbers.lateness_median_ms, numbers.lateness_p95_ms),
            is_failed_only=values["failed"],
        )

    def run(self, request: Request) -> Response:
        """One run: attempts, error, traceback and output."""
        now_ms = self._documents.clock.now_ms()
        run = self._documents.run_detail(request.path_params["id"], request.query_params.get("entry", ""))
        zone = self._zone_of(run.record.entry)
        attempts = [
            {
                "attempt": attempt,
                "start": None if attempt.start_ms is None else moment(attempt.start_ms, zone, now_ms),
                "end": moment(attempt.end_ms, zone, now_ms) if attempt.end_ms else None,
            }
            for attempt in run.attempts
        ]
        title = f"{run.record.entry}, run {(run.record.run_id or '')[:8]}"
        return self._html(request, "run.html", "/", title=title, run=run_row(run, zone, now_ms), attempts=attempts)

    def _zone_of(self, name: str) -> str:
        """The time zone of an entry; for one that has gone the file's."""
        try:
            return self._documents.entry_named(name).timezone
        except HTTPException:
            return self._documents.schedule.settings.timezone

    def timeline(self, request: Request) -> Response:
        """The load of the coming day or week, and what ran."""
        window = read_parameters(request.query_params, (WINDOW,))["window"]
        document, zone = self._documents.timeline(window), self._documents.schedule.settings.timezone
        return self._html(
            request, "timeline.html", "/timeline", title="Timeline", window=window, document=document,
            map=heat_map(document, zone), bars=past_bars(document["past"], zone), herds=herds(document),
        )  # fmt: skip

    def workers(self, request: Request) -> Response:
        """The workers that answer, and their running tasks."""
        return self._html(request, "workers.html", "/workers", title="Workers", document=self._documents.workers())

    def queues(self, request: Request) -> Response:
        """The queues, and how long they are."""
        return self._html(request, "queues.html", "/queues", title="Queues", document=self._documents.queues())

    def dead_letters(self, request: Request) -> Response:
        """The dead letters, with why."""
        each = Parameter("each", "A line for each letter, not one for all that are alike.", False)
        values = read_parameters(request.query_params, (*LETTERS, LIMIT, each))
        is_each = values["each"] or bool(values["alike"])
        broker, wanted = self._documents.broker, wanted_letters(values)
        found = (broker.dead_letters if is_each else broker.grouped_letters)(wanted, values["limit"])
        letters = list(zip_longest(found.letters, found.counts, fillvalue=1))
        facts: dict[str, Any] = {"letters": letters, "total": found.total, "values": values, "is_each": is_each}
        return self._html(request, "dead_letters.html", "/dead-letters", title="Dead letters", **facts)

    def fleet(self, request: Request) -> Response:
        """Daemons, shards, terms, clocks, the store, and the faults of files."""
        now_ms, status = self._documents.clock.now_ms(), self._documents.status()
        return self._html(
            request, "fleet.html", "/fleet", title="Fleet", document=self._documents.fleet(), status=status,
            daemons=list(daemon_rows(status, now_ms)), problems=[shown(one) for one in status["problem_details"]],
        )  # fmt: skip

    def audit(self, request: Request) -> Response:
        """The changes, and who made them."""
        values = read_parameters(request.query_params, (LIMIT, Parameter("entry", "Only of this entry.")))
        records = self._documents.changes(values["limit"], values["entry"])
        changes = [
            {**audit_facts(record), "text": change_text(record), "run": _run_of(record.after)} for record in records
        ]
        known = {entry.name for entry in self._documents.schedule.listing.entries}
        return self._html(request, "audit.html", "/audit", title="Audit", changes=changes, known=known)

    def edit(self, request: Request) -> Response:
        """The form of an entry of the store: a new one, or the one that is named."""
        self._access.require(request, "operate")
        name = read_parameters(request.query_params, (Parameter("name", "The entry."),))["name"]
        table = self._operator.stored_table(name) if name else None
        text = _table_text(table) if table else 'task = "module.task"\nschedule = "0 7 * * *"\n'
        return self.edit_form(request, name=name, is_new=not name, table=text)

    def edit_form(self, request: Request, *, name: str, is_new: bool, table: str, error: str = "") -> Response:
        """The form with what was filled in, and why that cannot be stored."""
        facts = {"name": name, "is_new": is_new, "table": table, "error": error}
        code = 400 if error else 200
        return self._html(request, "edit.html", "/", code, title="New entry" if is_new else name, **facts)

    def login(self, request: Request) -> Response:
        """The form for a token."""
        if not self._access.can_log_in:
            raise HTTPException(404, "there are no tokens; name a file with [web] tokens_file")
        return self._html(request, "login.html", "", title="Log in", back=request.query_params.get("back", "/"))

    def live(self, request: Request) -> Response:
        """The stream of changes."""
        self._access.require(request, "read")
        return self._stream.open(request)

    def badge(self, request: Request) -> Response:
        """A small picture of an entry's state."""
        name = request.path_params["name"]
        state, colour = badge.state_of(self._documents.description(name))
        return Response(badge.badge(name, state, colour), media_type="image/svg+xml")

    def calendar(self, request: Request) -> Response:
        """The runs to come as iCalendar, of all entries or of one."""
        name = read_parameters(request.query_params, (Parameter("entry", "Only this entry."),))["entry"]
        documents, now_ms = self._documents, self._documents.clock.now_ms()
        if name:
            entries: tuple[Any, ...] = (documents.entry_named(name),)
        else:
            documents.selector.overlay()
            entries = documents.schedule.listing.entries
        enabled = [entry for entry in entries if entry.policies.enabled]
        states = documents.store.states(enabled, now_ms=now_ms)
        known = {entry.name: state for entry, state in zip(enabled, states, strict=True) if state is not None}
        most = calendar.EVENTS_MAX if name else max(1, min(calendar.OF_ONE_MAX, _LOOKED_AT // max(len(enabled), 1)))
        waiting = documents.store.waiting(enabled, states, now_ms)
        runs = calendar.first_runs(
            enabled, lambda entry: known.get(entry.name, new_state(now_ms)), now_ms, most, waiting
        )
        text = calendar.calendar(name or "beatd", runs, now_ms)
        return Response(text, media_type="text/calendar")

    def message(self, request: Request, code: int, text: str) -> Response:
        """A page that says why something was not done."""
        is_post = request.method == "POST"  # its path is no place that could be loaded again
        back = request.scope["path"].rpartition("/")[0] if is_post else "/"
        to = quote(back) if back.startswith("/entries/") else "/"
        title = "Not available" if code >= 500 else "Not done" if is_post else _TITLES.get(code, "Refused")
        facts = {"title": title, "text": text, "to": to, "is_post": is_post, "is_away": code >= 500}
        return self._html(request, "message.html", "", code, **facts)

    def _html(self, request: Request, template: str, place: str, code: int = 200, **facts: Any) -> Response:
        try:
            person = self._access.person(request)
        except HTTPException:
            person = self._access.nobody
        note = self._access.read_note(request)
        now_ms = self._documents.clock.now_ms()
        frame = Frame(person, now_ms, note, self._access.can_log_in, place, _path_of(request))
        facts = {"zone": self._documents.schedule.settings.timezone, **facts}
        answer = HTMLResponse(encodable(self._page.render(template, frame, **facts)), code)
        if note:
            answer.delete_cookie(session.NOTE, path="/", httponly=True, samesite="strict")
        return answer


def _path_of(request: Request) -> str:
    """The path and the query, as a link has them. In ``request.url`` a "?" of a name is quoted already."""
    query = request.scope["query_string"].decode("ascii", "replace")
    return quote(request.scope["path"]) + (f"?{query}" if query else "")


def _run_of(after: object) -> str:
    """The run that a change has made, where it has made one and nothing else."""
    made = {key: value for key, value in after.items() if value} if isinstance(after, dict) else {}
    return str(made["run_id"]) if set(made) == {"run_id"} else ""


def _table_text(table: Mapping[str, Any] | None) -> str:
    """A table as TOML, or as JSON where TOML has no word for it."""
    if not table:
        return ""
    try:
        return tomli_w.dumps(table)
    except (TypeError, ValueError):
        return json.dumps(table, indent=2, default=str)


def shown(problem: Mapping[str, Any]) -> ShownProblem:
    """A problem as the page shows it: a link in place of the command that tells more. Names keep their case."""
    kind, text, subject = problem["kind"], problem["text"], problem["subject"] or ""
    sentence, _, hint = text.rpartition("; see beatd ")
    start = sentence or text
    if not (subject and start.startswith(subject)):
        start = start[:1].upper() + start[1:]
    if kind.startswith("entry_") and subject:
        return ShownProblem(f"{start}.", f"/entries/{name_in_path(subject)}", "See the entry")
    if sentence and kind in _FILTERS:
        return ShownProblem(f"{start}.", f"/?only={_FILTERS[kind]}", "Show all")
    return ShownProblem(f"{start}{f'; see beatd {hint}' if sentence else ''}", blocks=problem["blocks"])


_FILTERS = {
    "entry_failing": "failing",
    "entry_overdue": "overdue",
    "entry_too_long": "overdue",
    "entry_held_back": "held",
}
"""The filter that shows the entries with a problem of that kind."""
