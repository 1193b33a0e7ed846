"""JSON Schemas of the API's answers, for its OpenAPI document. Answers may have more keys than these."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
TABLE: Schema = {"type": "object"}


def maybe(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def listed(schema: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": schema}


def table(about: str = "", /, **fields: Schema) -> Schema:
    """An object that has all of these keys."""
    told = {"description": about} if about else {}
    return {"type": "object", **told, "properties": fields, "required": sorted(fields)}


def ref(name: str) -> Schema:
    """A schema of :data:`COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_ERROR = maybe(table(type=TEXT, message=TEXT))
_OUTCOMES = {
    "last_outcome": maybe(TEXT),
    "last_error": _ERROR,
    "failing_since": maybe(MOMENT),
    "failures": WHOLE,
    "last_success_at": maybe(MOMENT),
    "outcomes": listed(TEXT),
    "overdue_since": maybe(MOMENT),
    "too_long_since": maybe(MOMENT),
    "statistics": table(
        "Of the last ten runs; in a description of all that are remembered, with bounds.",
        runs=WHOLE,
        duration_median_ms=maybe(WHOLE),
        duration_p95_ms=maybe(WHOLE),
        lateness_median_ms=maybe(WHOLE),
        lateness_p95_ms=maybe(WHOLE),
    ),
}
_ENTRY = {
    "name": TEXT,
    "source": TEXT,
    "task": TEXT,
    "schedule": {},
    "schedule_text": TEXT,
    "timezone": TEXT,
    "place": TEXT,
    "enabled": FLAG,
    "tags": listed(TEXT),
    "paused": maybe(table(since=MOMENT, by=TEXT, reason=TEXT, until=maybe(MOMENT))),
    "held_back": maybe(table(reason=TEXT, attempts=WHOLE)),
    "note": maybe(TEXT),
    "last_due_at": maybe(MOMENT),
    "next_due_at": maybe(MOMENT),
    "next_fires_at": maybe(MOMENT),
    **_OUTCOMES,
}
_WORKER = {
    "name": TEXT,
    "pid": maybe(WHOLE),
    "uptime_s": maybe(WHOLE),
    "pool": maybe(TEXT),
    "concurrency": maybe(WHOLE),
    "processes": maybe(WHOLE),
    "ran": WHOLE,
    "queues": listed(TEXT),
    "active": listed(table(id=TEXT, task=TEXT, started_at=maybe(MOMENT))),
    "active_count": WHOLE,
}

COMPONENTS: dict[str, Schema] = {
    "Error": {
        **table("A request that was not carried out, why, and since when the state store is away.", error=TEXT),
        "properties": {"error": TEXT, "since": MOMENT},
    },
    "Entry": table("An entry of a list, as in `beatd list --json`.", **_ENTRY, runs=WHOLE),
    "Description": table(
        "All that is known of an entry, as in `beatd describe --json`.",
        **_ENTRY,
        table=maybe(TABLE),
        next=listed(table(due_at=MOMENT, fires_at=MOMENT, note=maybe(TEXT))),
        runs=listed(ref("Run")),
        totals=TABLE,
    ),
    "Run": table("A run, as in `beatd history --json`.", entry=TEXT, kind=TEXT, state=TEXT, error=_ERROR),
    "Daemon": table(
        "A daemon, as in `beatd status --json`.",
        id=TEXT,
        host=TEXT,
        alive=FLAG,
        eligible=FLAG,
        digest=TEXT,
        config=TEXT,
        clock_offset_ms=maybe(WHOLE),
        shards=listed(table(shard=WHOLE, term=WHOLE)),
    ),
    "Shard": table(shard=WHOLE, leader=maybe(TEXT), term=maybe(WHOLE), outbox=WHOLE),
    "Worker": table("A worker that answered.", **_WORKER),
    "Problem": table(
        "A problem. Its kinds are those of docs/troubleshooting.md.",
        kind=TEXT,
        subject=maybe(TEXT),
        since=maybe(MOMENT),
        blocks=FLAG,
        text=TEXT,
    ),
    "Queue": table(
        name=TEXT, messages=WHOLE, oldest_s=maybe(NUMBER), entries=WHOLE, workers=listed(TEXT), problem=maybe(TEXT)
    ),
    "DeadLetter": table(
        "A message that could not be run or delivered, as in `beatd dead-letters list --json`.",
        id=TEXT,
        at=TEXT,
        reason=TEXT,
        queue=TEXT,
        by=TEXT,
        complete=FLAG,
    ),
    "Change": table(
        "A change, as in `beatd audit --json`.",
        at=MOMENT,
        action=TEXT,
        subjects=listed(TEXT),
        count=WHOLE,
        by=maybe(TEXT),
        via=TEXT,
        before={},
        after={},
        detail=maybe(TEXT),
    ),
}

STATUS = table(
    "The document of `beatd status --json`.",
    ready=FLAG,
    problems=listed(TEXT),
    problem_details=listed(ref("Problem")),
    daemons=listed(TABLE),
)
PROBLEMS = table(ready=FLAG, problems=listed(ref("Problem")))
ENTRIES = table(total=WHOLE, matching=WHOLE, page=WHOLE, pages=WHOLE, per_page=WHOLE, entries=listed(ref("Entry")))
RUNS = table(runs=listed(ref("Run")))
FLEET = table(
    daemons=listed(ref("Daemon")),
    shards=listed(ref("Shard")),
    outbox=WHOLE,
    ready=FLAG,
    config=table(file=TEXT, digest=TEXT, faults=listed(table(file=TEXT, line=maybe(WHOLE), message=TEXT))),
)
WORKERS = table(workers=listed(ref("Worker")), problem=maybe(TEXT))
QUEUES = table(queues=listed(ref("Queue")), problem=maybe(TEXT))
DEAD_LETTERS = table(dead_letters=listed(ref("DeadLetter")), total=WHOLE)
_WINDOW: dict[str, Schema] = {"from": MOMENT, "to": MOMENT}
TIMELINE = table(
    "The load of a window.",
    **_WINDOW,
    step_ms=WHOLE,
    runs=WHOLE,
    counts=listed(WHOLE),
    busiest=listed(table(at=MOMENT, runs=WHOLE, entries=listed(TABLE))),
    blackouts=listed(TABLE),
    clock_changes=listed(TABLE),
    past=table(planned=listed(WHOLE), sent=listed(WHOLE), failed=listed(WHOLE), skipped=listed(WHOLE)),
    problem=maybe(TEXT),
)
AUDIT = table(changes=listed(ref("Change")))
DONE = table("What was done, in a sentence.", done=TEXT)
