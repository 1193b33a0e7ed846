"""Operations of API v1: each with its path, parameters and answer. Routes and the OpenAPI document are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from beatd.web import schemas
from beatd.web.documents import Documents, RunQuery, letter_filter
from beatd.web.parameters import Parameter
from beatd.web.schemas import Schema
from beatd.web.selection import FILTERS, ORDERS, PER_PAGE, View
from beatd.web.timeline import WINDOWS

ROOT = "/api/v1"
Role = Literal["read", "operate"]

PAGES_MAX = 1_000_000
SELECTION = (
    Parameter("q", "Words that name, task or time zone have in them."),
    Parameter("only", "Only entries in this state.", choices=("", *FILTERS)),
    Parameter("sort", "Order.", "name", choices=tuple(ORDERS)),
    Parameter("source", "Only entries of this source: file, app, runtime, or a file's name."),
    Parameter("page", "Page, from 1 on.", 1, most=PAGES_MAX),
)
"""Parameters of lists of entries, on the page and in the API."""
LETTERS = (
    Parameter("reason", "Only with this text in the reason."),
    Parameter("task", "Only of this task (glob)."),
    Parameter("queue", "Only of this queue."),
    Parameter("older", "Minimum age, such as 1d."),
)
LIMIT = Parameter("limit", "Maximum number.", 100, most=1_000)
WINDOW = Parameter("window", "Length of the window.", "24h", choices=tuple(WINDOWS))


class Call(NamedTuple):
    """One request of the API: who asks, and what was given."""

    documents: Documents
    path: Mapping[str, str]
    values: Mapping[str, Any]
    who: str = ""
    body: Any = None
    operator: Any = None


class Operation(NamedTuple):
    """One operation. ``body`` is the type of the JSON document that comes with it."""

    method: str
    path: str
    id: str
    summary: str
    answer: Schema
    call: Callable[[Call], Any]
    parameters: Sequence[Parameter] = ()
    body: type[msgspec.Struct] | None = None
    role: Role = "read"


def view_of(values: Mapping[str, Any], per_page: int = PER_PAGE) -> View:
    """The view that the parameters of :data:`SELECTION` ask for."""
    return View(values["q"], values["only"], values["sort"], values["source"], values["page"], per_page)


def _letters(call: Call) -> Any:
    values = call.values
    wanted = letter_filter((), values["reason"], values["task"], values["queue"], values["older"])
    return call.documents.dead_letters(wanted, values["limit"])


def _runs(call: Call) -> Any:
    values = call.values
    return call.documents.runs(RunQuery(values["entry"], values["failed"], values["since"], values["limit"]))


READING = (
    Operation("GET", "/status", "status", "State of the installation", schemas.STATUS, lambda c: c.documents.status()),
    Operation(
        "GET", "/problems", "problems", "All problems, blocking ones first", schemas.PROBLEMS,
        lambda c: c.documents.problems(),
    ),
    Operation(
        "GET", "/entries", "list_entries", "Entries, searched, filtered, ordered, in pages", schemas.ENTRIES,
        lambda c: c.documents.entries(view_of(c.values, c.values["per_page"])),
        (*SELECTION, Parameter("per_page", "Entries of a page.", PER_PAGE, most=1_000)),
    ),
    Operation(
        "GET", "/entries/{name}", "describe_entry", "All that is known of one entry", schemas.ref("Description"),
        lambda c: c.documents.entry(c.path["name"]),
    ),
    Operation(
        "GET", "/runs", "list_runs", "The newest runs, of one entry or of all", schemas.RUNS, _runs,
        (
            Parameter("entry", "Only of this entry."),
            Parameter("failed", "Only runs that failed.", False),
            Parameter("since", "Only runs that were due since then: a time, or a distance such as -2h."),
            LIMIT,
        ),
    ),
    Operation(
        "GET", "/runs/{id}", "show_run", "One run: attempts, error, traceback, output", schemas.ref("Run"),
        lambda c: c.documents.run(c.path["id"], c.values["entry"]),
        (Parameter("entry", "The entry of the run: the search is faster."),),
    ),
    Operation("GET", "/fleet", "fleet", "Daemons, shards, terms, clocks, files", schemas.FLEET,
              lambda c: c.documents.fleet()),
    Operation("GET", "/workers", "workers", "Workers and what they do", schemas.WORKERS,
              lambda c: c.documents.workers()),
    Operation("GET", "/queues", "queues", "Queues and how long they are", schemas.QUEUES,
              lambda c: c.documents.queues()),
    Operation("GET", "/dead-letters", "list_dead_letters", "Dead letters, the newest first", schemas.DEAD_LETTERS,
              _letters, (*LETTERS, LIMIT)),
    Operation("GET", "/timeline", "timeline", "Load of the coming day or week, and what ran", schemas.TIMELINE,
              lambda c: c.documents.timeline(c.values["window"]), (WINDOW,)),
)  # fmt: skip
"""Operations that change nothing."""
