"""The routes: one page for people, JSON and metrics for programs. All of them only look."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from beatd.client.history import counts, facts, held_facts
from beatd.client.outcomes import FAILED, RunDetail, detail_facts, outcome_facts, run_facts, statistics
from beatd.clock import Clock
from beatd.exceptions import StoreError
from beatd.model import Entry
from beatd.planning.notation import schedule_phrase
from beatd.planning.preview import Outlook, outlooks
from beatd.timestamps import iso_ms
from beatd.web import metrics
from beatd.web.entries import EntryListing
from beatd.web.pages import FILTERS, ORDERS, Page, Slice, View, mismatch
from beatd.web.security import Guard
from beatd.web.store_view import Document, StoreView

PER_PAGE = 200
FAULTS_SHOWN = 3
SHORTEST_ID = 4
"""Characters by which a run is looked for."""


def create(plan: EntryListing, store: StoreView, clock: Clock, *, hosts: Collection[str] | None) -> Starlette:
    """The ASGI application. It answers to the names in ``hosts``, or to all with ``None``."""
    site = Site(plan, store, clock)
    routes = [
        Route("/", site.page),
        Route("/entries/{name:path}", site.entry),
        Route("/runs/{run_id}", site.run),
        Route("/api/runs/{run_id}", site.run_document),
        Route("/api/status", site.status),
        Route("/api/entries", site.entries),
        Route("/api/entries/{name:path}/history", site.history),
        Route("/healthz", site.healthz),
        Route("/readyz", site.readyz),
        Route("/metrics", site.metrics),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, site.policy, hosts), Middleware(GZipMiddleware, minimum_size=2_000)],
        exception_handlers={StoreError: _store_down, HTTPException: _in_words},
    )


class Site:
    """The endpoints. They are plain functions, which Starlette runs in threads: looking at the store blocks."""

    def __init__(self, plan: EntryListing, store: StoreView, clock: Clock) -> None:
        self._plan = plan
        self._store = store
        self._clock = clock
        self._endpoint = metrics.PageEndpoint(plan, store, clock)
        self._page = Page()
        self.policy = self._page.policy

    def page(self, request: Request) -> Response:
        """Everything on one page; while the store is down, that it is, with 503."""
        now_ms = self._clock.now_ms()
        file = str(self._plan.path)
        try:
            status, part = self._store.status(), self._slice(request, now_ms)
        except StoreError as error:
            problems = [f"Cannot reach the state store: {error}", *self._file_problems()]
            nothing = Slice((), _query(request), 1, 1, 0, len(self._plan.listing.entries), _view(request))
            html = self._page.render(file=file, now_ms=now_ms, part=nothing, status=None, problems=problems)
            return HTMLResponse(html, 503)
        problems = [*map(_sentence, status["problems"]), *self._file_problems(status)]
        return HTMLResponse(self._page.render(file=file, now_ms=now_ms, part=part, status=status, problems=problems))

    def status(self, _: Request) -> Response:
        """The document of ``beatd status --json``."""
        return JSONResponse(self._store.status())

    def entries(self, request: Request) -> Response:
        """A page of the entries that match, by name."""
        part = self._slice(request, self._clock.now_ms())
        found = [{**_outlook_facts(one), **outcome_facts(part.outcome(one.entry.name))} for one in part.outlooks]
        counts = {"total": part.total, "matching": part.matching, "page": part.page, "pages": part.pages}
        return JSONResponse({**counts, "per_page": PER_PAGE, "entries": found})

    def history(self, request: Request) -> Response:
        """The last runs of one entry, the newest first, as in ``beatd history --json``."""
        name = request.path_params["name"]
        runs, totals = self._store.history(name, self._clock.now_ms())
        if not runs and self._plan.listing.entry(name) is None:
            raise HTTPException(404, f"there is no entry {name!r}")
        if request.query_params.get("failed", "") not in ("", "0", "false"):
            runs = [run for run in runs if run.word in FAILED]
        documents = [{**facts(run.record), **detail_facts(run)} for run in runs]
        return JSONResponse({"entry": name, "runs": documents, "totals": counts(totals)})

    def entry(self, request: Request) -> Response:
        """One entry: state, next runs, last runs with error and output."""
        name, now_ms = request.path_params["name"], self._clock.now_ms()
        self._lay_over()
        entry = self._plan.listing.entry(name)
        if entry is None:
            raise HTTPException(404, f"there is no entry {name!r}")
        [look] = self._outlooks((entry,), now_ms)
        outcome = self._store.outcomes([name], now_ms, held=self._store.held([name]))[name]
        runs, totals = self._store.history(name, now_ms)
        is_failed_only = request.query_params.get("failed") == "1"
        shown = [run for run in runs if run.word in FAILED] if is_failed_only else runs
        html = self._page.render_entry(
            look=look,
            outcome=outcome,
            runs=shown,
            totals=totals,
            numbers=statistics(run.record for run in runs),
            now_ms=now_ms,
            is_failed_only=is_failed_only,
        )
        return HTMLResponse(html)

    def run(self, request: Request) -> Response:
        """One run: attempts, error, traceback and output."""
        return HTMLResponse(self._page.render_run(self._run(request), now_ms=self._clock.now_ms()))

    def run_document(self, request: Request) -> Response:
        """The document of ``beatd run-info --json``."""
        run = self._run(request)
        return JSONResponse({**facts(run.record), **run_facts(run)})

    def _run(self, request: Request) -> RunDetail:
        run_id = request.path_params["run_id"].lower()
        self._lay_over()
        entry = request.query_params.get("entry")
        names = self._plan.listing.names() if entry is None else [entry]
        runs = self._store.find_run(run_id, names, self._clock.now_ms()) if len(run_id) >= SHORTEST_ID else []
        if len(runs) != 1:
            raise HTTPException(404, f"there is no run {run_id!r} that is remembered")
        return runs[0]

    def healthz(self, _: Request) -> Response:
        """Liveness: 200 if this process can reach the store."""
        self._store.status()
        return PlainTextResponse("ok\n")

    def readyz(self, _: Request) -> Response:
        """Readiness: 200 if runs leave; else the reason."""
        reasons = self._store.status()["not_ready"]
        if not reasons:
            return PlainTextResponse("ok\n")
        return PlainTextResponse("".join(f"{_one_line(reason)}\n" for reason in reasons), 503)

    def metrics(self, _: Request) -> Response:
        """For Prometheus."""
        return Response(self._endpoint.metrics(), media_type=metrics.CONTENT_TYPE)

    def _lay_over(self) -> None:
        mirror = self._store.mirror()
        self._plan.lay_over(mirror.tables, mirror.pauses)

    def _slice(self, request: Request, now_ms: int) -> Slice:
        query, page, view = _query(request), _page_number(request), _view(request)
        self._lay_over()
        listing = self._plan.listing
        found = self._selected(listing.search(query), view)
        pages = max(-(-len(found) // PER_PAGE), 1)
        page = min(page, pages)
        shown = found[(page - 1) * PER_PAGE : page * PER_PAGE]
        names = [entry.name for entry in shown]
        outcomes = self._store.outcomes(names, now_ms, held=self._store.held(names))
        looks = self._outlooks(shown, now_ms)
        return Slice(looks, query, page, pages, len(found), len(listing.entries), view, outcomes)

    def _selected(self, entries: tuple[Entry, ...], view: View) -> tuple[Entry, ...]:
        """The entries of a filter, in the order that is asked for."""
        if view.only == "failing":
            wanted: Container[str] = self._store.failing()
        elif view.only == "overdue":
            wanted = self._store.overdue()
        elif view.only == "paused":
            wanted = self._plan.paused
        else:
            wanted = self._store.held([entry.name for entry in entries]) if view.only == "held" else ()
        if view.only:
            entries = tuple(entry for entry in entries if entry.name in wanted)
        if view.sort == "failures":
            failing = self._store.failing()
            failures = {name: one.failures for name, one in failing.items()}
            return tuple(sorted(entries, key=lambda entry: -failures.get(entry.name, 0)))
        if view.sort == "last":
            summaries = self._store.summaries()
            ends = {name: one.end_ms for name, one in summaries.items()}
            return tuple(sorted(entries, key=lambda entry: -ends.get(entry.name, 0)))
        return entries

    def _outlooks(self, entries: tuple[Entry, ...], now_ms: int) -> list[Outlook]:
        names = [entry.name for entry in entries]
        states, held = self._store.states(entries, now_ms=now_ms), self._store.held(names)
        paused = {name: pause for name in names if (pause := self._plan.pause_of(name))}
        looks = outlooks(entries, states, now_ms, paused=paused, held=held, last_dues=self._store.last_dues)
        notes = {name: pause.note for name, pause in paused.items()}
        return [look._replace(note=notes.get(look.entry.name, look.note)) for look in looks]

    def _file_problems(self, status: Document | None = None) -> Iterator[str]:
        plan, faults = self._plan, self._plan.faults
        if faults:
            more = f" … and {len(faults) - FAULTS_SHOWN} more" if faults[FAULTS_SHOWN:] else ""
            yield f"The file has errors; showing the last valid schedule: {_listed(faults)}{more}"
        elif status is not None and mismatch(status, plan.listing.digest, plan.age):
            yield f"No daemon has the schedule of {plan.path}, which is shown below: run beatd reload"


def _query(request: Request) -> str:
    return request.query_params.get("q", "").strip()


def _view(request: Request) -> View:
    only, sort = request.query_params.get("only", ""), request.query_params.get("sort", "name")
    if only not in ("", *FILTERS):
        raise HTTPException(400, f"only is one of {', '.join(FILTERS)}")
    if sort not in ORDERS:
        raise HTTPException(400, f"sort is one of {', '.join(ORDERS)}")
    return View(only, sort)


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise HTTPException(400, "page is a number from 1 on")
    return int(text)


def _sentence(text: str) -> str:
    """A problem as the first line of a page shows it. Names of daemons keep their case."""
    return text[:1].upper() + text[1:] if text.split(" ", 1)[0] in ("no", "nobody", "the") else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _listed(faults: tuple[Any, ...]) -> str:
    return "; ".join(map(str, faults[:FAULTS_SHOWN]))


def _outlook_facts(each: Outlook) -> dict[str, Any]:
    """An entry for programs. Arguments are left out: they may be nobody's business."""
    entry = each.entry
    return {
        "name": entry.name,
        "task": entry.task,
        "schedule": entry.schedule.notation,
        "schedule_text": schedule_phrase(entry.schedule).text,
        "timezone": entry.timezone,
        "enabled": entry.policies.enabled,
        "runs": each.runs,
        "last_due_at": _iso(each.last_due_ms),
        "next_due_at": _iso(each.next_due_ms),
        "next_fires_at": _iso(each.next_fire_ms),
        "note": each.note or None,
        "held_back": each.held and held_facts(each.held),
        "source": entry.source,
    }


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso_ms(ms)


def _store_down(request: Request, error: Exception) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": str(error)}, 503)
    return PlainTextResponse(f"{error}\n", 503)


def _in_words(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
