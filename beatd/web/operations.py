"""Operations of API v1: each with its path, parameters and answer. Routes and the OpenAPI document are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from beatd.client.dead_letters import Filter
from beatd.web import actions, schemas
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
    Parameter("tag", "Only entries with this tag."),
    Parameter("page", "Page, from 1 on.", 1, most=PAGES_MAX),
)
"""Parameters of lists of entries, on the page and in the API."""
LETTERS = (
    Parameter("reason", "Only with this text in the reason."),
    Parameter("task", "Only of this task (glob)."),
    Parameter("queue", "Only of this queue."),
    Parameter("older", "Minimum age, such as 1d."),
    Parameter("alike", "Only those like the one with this id: of its task and queue, with its error."),
)
"""Parameters of lists of dead letters, on the page and in the API."""
LIMIT = Parameter("limit", "Maximum number.", 100, most=1_000)
WINDOW = Parameter("window", "Length of the window.", "24h", choices=tuple(WINDOWS))


class Call(NamedTuple):
    """One request of the API: its sender, and what was given."""

    documents: Documents
    path: Mapping[str, str]
    values: Mapping[str, Any]
    who: str = ""
    body: Any = None
    operator: actions.Operator | None = None


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
    return View(values["q"], values["only"], values["sort"], values["source"], values["page"], per_page, values["tag"])


def wanted_letters(values: Mapping[str, Any]) -> Filter:
    """The filter that the parameters of :data:`LETTERS` ask for; HTTPException 400."""
    alike = values["alike"]
    ids = (alike,) if alike else ()
    return letter_filter(ids, values["reason"], values["task"], values["queue"], values["older"], alike=bool(alike))


def _letters(call: Call) -> Any:
    return call.documents.dead_letters(wanted_letters(call.values), call.values["limit"])


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
    Operation("GET", "/audit", "audit", "Changes: who did what, the newest first", schemas.AUDIT,
              lambda c: c.documents.audit(c.values["limit"], c.values["entry"]),
              (Parameter("entry", "Only of this entry, or of those that match, such as report-*."), LIMIT)),
)  # fmt: skip
"""Operations that change nothing."""


def _act(  # noqa: PLR0917 - read as a table
    method: str,
    path: str,
    name: str,
    summary: str,
    call: Callable[[actions.Operator, Call], Any],
    body: type[msgspec.Struct] | None = None,
) -> Operation:
    def act(c: Call) -> Any:
        assert c.operator is not None  # noqa: S101 - who may operate has one
        return call(c.operator, c)

    return Operation(method, path, name, summary, schemas.DONE, act, (), body, "operate")


CHANGING = (
    _act("POST", "/entries/{name}/run", "run_entry", "Send a run of an entry now",
         lambda o, c: o.run_now(c.who, c.path["name"], c.body), actions.RunNow),
    _act("POST", "/entries/{name}/pause", "pause_entry", "Pause an entry, with a reason, until a moment",
         lambda o, c: o.pause(c.who, c.path["name"], c.body), actions.PauseUntil),
    _act("POST", "/entries/{name}/resume", "resume_entry", "Resume an entry",
         lambda o, c: o.resume(c.who, c.path["name"])),
    _act("POST", "/entries/{name}/backfill", "backfill_entry", "Send the runs of a past window",
         lambda o, c: o.backfill(c.who, c.path["name"], c.body), actions.BackfillWindow),
    _act("PUT", "/entries/{name}", "put_entry", "Put an entry into the state store",
         lambda o, c: o.put(c.who, c.path["name"], c.body.table), actions.EntryTable),
    _act("DELETE", "/entries/{name}", "remove_entry", "Take an entry out of the state store",
         lambda o, c: o.remove(c.who, c.path["name"])),
    _act("POST", "/runs/{id}/stop", "stop_run", "End a run that waits or is running",
         lambda o, c: o.stop(c.who, c.path["id"])),
    _act("POST", "/dead-letters/{id}/requeue", "requeue_dead_letter", "Send a dead letter again",
         lambda o, c: o.requeue(c.who, c.path["id"])),
    _act("DELETE", "/dead-letters/{id}", "purge_dead_letter", "Throw a dead letter away",
         lambda o, c: o.purge(c.who, c.path["id"])),
)  # fmt: skip
"""Operations that change something."""

OPERATIONS = (*READING, *CHANGING)
