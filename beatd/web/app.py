"""The application: places for people, API and metrics for programs, actions of operators; and what guards them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from beatd.clock import Clock
from beatd.exceptions import BrokerError, ConfigError, StoreError, StoreUnavailable
from beatd.model import WebSettings
from beatd.redaction import encodable
from beatd.timestamps import iso_ms
from beatd.web import metrics
from beatd.web.access import Access
from beatd.web.actions import Operator
from beatd.web.api import Api, JsonResponse
from beatd.web.broker_view import BrokerView
from beatd.web.documents import Documents
from beatd.web.entries import EntryListing
from beatd.web.form import Forms
from beatd.web.operations import SELECTION, view_of
from beatd.web.pages import shared_page
from beatd.web.parameters import read_parameters
from beatd.web.rates import RateLimit
from beatd.web.routing import NAME
from beatd.web.security import Guard
from beatd.web.site import Site
from beatd.web.store_view import StoreView
from beatd.web.tokens import Tokens

ACTIONS_AT_ONCE = 8
"""Actions that are carried out at the same time; they may wait for a leader, and pages do not wait for them."""
PROBES_AT_ONCE = 4
"""Answers about health at the same time: they have threads of their own, and slow pages cannot keep them waiting."""
_PLAIN = ("/healthz", "/readyz", "/metrics", "/live", "/calendar.ics", "/badge/")


class PageSources(NamedTuple):
    """Sources of the page: the schedule, the views of store and broker, and the clock."""

    schedule: EntryListing
    store: StoreView
    broker: BrokerView
    clock: Clock


class Guards(NamedTuple):
    """Names that the page answers to (``None``: all), tokens, and the rights of requests without one."""

    hosts: Collection[str] | None
    tokens: Tokens = Tokens(None)
    settings: WebSettings = WebSettings()
    anonymous_reads: bool = True


def create(sources: PageSources, guards: Guards) -> Starlette:
    """The ASGI application."""
    page, acting = shared_page(), anyio.CapacityLimiter(ACTIONS_AT_ONCE)
    documents = Documents(*sources)
    access = Access(guards.settings, guards.tokens, sources.clock, reads=guards.anonymous_reads)
    operator = Operator(documents)
    site = Site(documents, operator, access, page)
    endpoint = metrics.PageEndpoint(sources.schedule, sources.store, sources.clock)
    programs = Programs(documents, endpoint, access, anyio.CapacityLimiter(PROBES_AT_ONCE))
    forms = Forms(operator, access, acting, site.edit_form, secure=guards.settings.tls_cert is not None)
    errors = Errors(site)
    return Starlette(
        routes=[
            *programs.routes(),
            *Api(documents, operator, access, acting).routes(),
            *forms.routes(),
            *site.routes(),
        ],
        middleware=[
            Middleware(Guard, page.policy, guards.hosts),
            Middleware(RateLimit, sources.clock),
            Middleware(GZipMiddleware, minimum_size=2_000),
        ],
        exception_handlers={
            StoreError: errors.store_down,
            BrokerError: errors.broker_down,
            ConfigError: errors.config,
            HTTPException: errors.in_words,
        },
    )


class Programs:
    """Endpoints for programs beside API v1: health, metrics, and the API of 0.1.0."""

    def __init__(
        self, documents: Documents, endpoint: metrics.PageEndpoint, access: Access, probing: anyio.CapacityLimiter
    ) -> None:
        self._documents, self._endpoint, self._access, self._probing = documents, endpoint, access, probing

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
            Route("/api/status", self.status),
            Route("/api/entries", self.entries),
            Route(f"/api/entries/{NAME}/history", self.history),
            Route("/api/runs/{id}", self.run),
        ]

    async def healthz(self, _: Request) -> Response:
        """Liveness: 200 if this process can reach the store."""
        await anyio.to_thread.run_sync(self._documents.status, limiter=self._probing)
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """Readiness: 200 if runs leave; else the reason."""
        status = await anyio.to_thread.run_sync(self._documents.status, limiter=self._probing)
        reasons = status["not_ready"]
        if not reasons:
            return PlainTextResponse("ok\n")
        return PlainTextResponse(encodable("".join(f"{' '.join(reason.split())}\n" for reason in reasons)), 503)

    def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        self._access.require(request, "read")
        return Response(self._endpoint.metrics(), media_type=metrics.CONTENT_TYPE)

    def status(self, request: Request) -> Response:
        """The document of ``beatd status --json``."""
        self._access.require(request, "read")
        return JsonResponse(self._documents.status())

    def entries(self, request: Request) -> Response:
        """A page of the entries that match."""
        self._access.require(request, "read")
        document = self._documents.entries(view_of(read_parameters(request.query_params, SELECTION)))
        document["entries"] = [_entry_of_0_1(entry) for entry in document["entries"]]
        return JsonResponse(document)

    def history(self, request: Request) -> Response:
        """The last runs of one entry, the newest first."""
        self._access.require(request, "read")
        failed = request.query_params.get("failed", "") not in ("", "0", "false")
        return JsonResponse(self._documents.history(request.path_params["name"], failed=failed))

    def run(self, request: Request) -> Response:
        """The document of ``beatd run-info --json``."""
        self._access.require(request, "read")
        return JsonResponse(self._documents.run(request.path_params["id"], request.query_params.get("entry", "")))


class Errors:
    """Errors in words: JSON for programs, text for probes, a page for people."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def store_down(self, request: Request, error: Exception) -> Response:
        """503 with the reason, and since when."""
        since_ms = error.since_ms if isinstance(error, StoreUnavailable) else None
        return self._answer(request, 503, str(error), since_ms=since_ms)

    def broker_down(self, request: Request, error: Exception) -> Response:
        """502 with the reason."""
        return self._answer(request, 502, str(error))

    def config(self, request: Request, error: Exception) -> Response:
        """503: a file that is needed cannot be used now."""
        return self._answer(request, 503, " ".join(str(error).split()))

    def in_words(self, request: Request, error: Exception) -> Response:
        """The status of the exception, with its text."""
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for these
        return self._answer(request, error.status_code, error.detail, error.headers)

    def _answer(
        self, request: Request, code: int, text: str, headers: Any = None, *, since_ms: int | None = None
    ) -> Response:
        path, text = request.scope["path"], encodable(text)
        if path.startswith("/api/"):
            since = {} if since_ms is None else {"since": iso_ms(since_ms)}
            return JSONResponse({"error": text, **since}, code, headers)
        if path.startswith(_PLAIN):
            return PlainTextResponse(f"{text}\n", code, headers)
        answer = self._site.message(request, code, text)
        answer.headers.update(headers or {})
        return answer


def _entry_of_0_1(entry: dict[str, Any]) -> dict[str, Any]:
    """The keys that 0.1.0 had: the source is the place, and the pause is in the note."""
    kept = {key: value for key, value in entry.items() if key not in ("paused", "place")}
    return {**kept, "source": entry["place"]}
