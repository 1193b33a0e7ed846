"""Calls of tasks that note what they see, and what became of them on a worker, in a form to compare."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tests.acceptance.celery_pairs import Pair

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"countdown": 0.1},
    {"expires": 60},
    {"priority": 3},
    {"headers": {"a": 1, "b": [1]}},
    {"time_limit": 20, "soft_time_limit": 10},
    {"shadow": "alias"},
    {"ignore_result": True},
    {"ignore_result": False},
    {"compression": "gzip"},
    {"argsrepr": "ARGS", "kwargsrepr": "KW"},
    {"link_error": "errback"},
    {"root_id": "root", "parent_id": "parent"},
    {"group_id": "group", "group_index": 3},
    {"retries": 1},
    {"replaced_task_nesting": 2},
)
"""Options of a call."""

RETRIES: tuple[dict[str, Any], ...] = (
    {},
    {"exc": "e"},
    {"args": [5]},
    {"kwargs": {"z": 1}},
    {"args": [], "kwargs": {}},
    {"countdown": 0.1},
    {"eta": 1},
    {"max_retries": 5},
    {"max_retries": 0},
    {"max_retries": 0, "exc": "e"},
    {"priority": 7},
    {"headers": {"h": 1}},
    {"expires": 30},
    {"time_limit": 9},
    {"soft_time_limit": 4},
    {"shadow": "sh"},
    {"compression": "gzip"},
)
"""Arguments of ``retry``."""

ERRORS = [
    "own",
    "own_text",
    "nested_class",
    "chained",
    "suppressed",
    "noted",
    "grouped",
    "os",
    "unicode",
    "syntax",
    "key",
    "attribute",
    "import",
    "no_arguments",
    "class",
    "dict",
    "bytes",
    "object",
    "date",
    "nan",
    "exception",
    "tuple",
    "zero",
    "task_error",
    "max_retries",
    "soft",
    "stop",
    "timeout",
    "zero_division",
    "json",
    "redis",
]

VALUES = [
    "nan",
    "infinity",
    "bytes",
    "tuple",
    "keys",
    "int_enum",
    "named_tuple",
    "counter",
    "ordered",
    "times",
    "decimal",
    "uuid",
    "large",
    "text",
    "signature",
    "chain",
    "surrogate",
    "zero",
    "none",
    "empty",
    "has_json",
]

STATES = [
    "progress",
    "no_meta",
    "list",
    "exception",
    "failure_dict",
    "success",
    "retry",
    "revoked",
    "started",
    "other",
    "lower",
    "backend",
    "backend_failure",
]


class Probe(NamedTuple):
    """A call of a task of ``celery_probed_tasks.py``."""

    task: str
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - it is not changed
    options: dict[str, Any] = {}  # noqa: RUF012

    def send(self, pair: Pair) -> str:
        """Send it; returns its id."""
        task_id = str(uuid.uuid4())
        options = dict(self.options)
        if "link_error" in options:
            options["link_error"] = pair.s(options["link_error"])
        for name in ("root_id", "parent_id", "group_id"):
            if name in options:
                options[name] += task_id
        pair.app.send_task(f"proj.{self.task}", self.args, self.kwargs, task_id=task_id, **options)
        return task_id


def probes() -> Iterator[Probe]:
    """Yield all calls."""
    for options in OPTIONS:
        yield Probe("look", (1,), {"k": {"n": None}}, options)
        yield Probe("look_again", (1,), {"k": 2}, options)
    for how in RETRIES:
        yield Probe("look_again", (1,), {"how": how, "k": 1}, {"headers": {"first": 1}, "priority": 2})
    for limits in (
        {"max_retries": 0},
        {"max_retries": 2},
        {"max_retries": 0, "exc": "x"},
        {"max_retries": 2, "exc": "x"},
    ):
        yield Probe("retries", (limits,))
    for task, given in {
        "fails": ERRORS,
        "throws": ("own", "key", "unicode"),
        "returns": VALUES,
        "states": STATES,
        "by_hand": ("retry", "retry exc", "retry when", "retry when time", "ignore", "reject", "reject exc", "fail"),
        "auto_any": ("ignore", "reject", "retry", "os"),
        "late": ("x", "requeue", "reject", "fail"),
        "hooked": ("x", "fail", "own", "retry", "retry plain", "ignore", "replace", "before"),
        "eager_inside": ("x", "fail", "retry", "ignore", "reject"),
    }.items():
        yield from (
            Probe(task, (each.replace("_", " ") if task in {"fails", "returns", "states"} else each,)) for each in given
        )
    for task in ("unlimited", "never", "auto_none", "reads", "tracked", "soft_limited"):
        yield Probe(task)
    yield Probe("auto", ("x",))
    yield Probe("never", (True,))
    yield Probe("hooked", (), {"unknown": 1})
    yield Probe("hooked", (1, 2), {"what": 1})
    yield Probe(
        "reads", options={"priority": 2, "headers": {"a": 1}, "expires": 50, "time_limit": 30, "countdown": 0.01}
    )
    for fails in (False, True):
        for task in ("wanted_not", "errors_wanted"):
            yield Probe(task, (fails,))
            yield Probe(task, (fails,), options={"ignore_result": False})
        yield Probe("fails", ("key",), options={"ignore_result": fails})
    yield Probe("soft_limited", (True,), options={"soft_time_limit": 0.2, "time_limit": 20})
    for task, args in (("fails", ("key",)), ("auto", ("x",)), ("by_hand", ("fail",))):
        yield Probe(task, args, options={"link_error": "errback"})
    yield Probe("look", options={"expires": -5})
    yield Probe("look", options={"countdown": 0.3, "expires": 0.1})


DROPPED = {"utc", "origin", "expiration", "reply_to", "date_done", "taskset", "pid", "delivery_tag", "stamped_headers"}
"""Fields that differ from run to run, or that nobody reads."""

LOGGED = ("soft_limited", "late", "auto_any")
"""Tasks of which the lines of the log are compared."""


def neutral(value: Any) -> Any:
    """The value without what differs from run to run, or between modules and nodes; None and {} are the same."""
    if isinstance(value, dict):
        kept = {name: neutral(each) for name, each in value.items() if name not in DROPPED}
        return {name: each for name, each in kept.items() if each not in (None, {}, [], ["list"])}
    if isinstance(value, list):
        return [neutral(each) for each in value]
    if not isinstance(value, str):
        return value
    for pattern, text in (
        (r"\b(ours|theirs)(@[\w.-]+)?", "<node>"),
        (r"\d{4}-\d\d-\d\d[T ][\d:.]+(\+00:00)?", "<time>"),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
        (r" 0x[0-9a-f]+", ""),
        (r"\b(celery|billiard|beatd)\.exceptions\.", ""),
        (r"SoftTimeLimitExceeded\([\d.]*,?\)", "SoftTimeLimitExceeded()"),  # the limit is its argument
        (r"succeeded in [\d.e-]+s", "succeeded"),
        (r"(retry: Retry (in|at) [^:]*): .*", r"\1"),  # with the reason, also without exc=
        (r"  ETA:.*", ""),
    ):
        value = re.sub(pattern, text, value)
    return value


def own_frames(traceback: str | None) -> list[str]:
    """The lines of a traceback that are of the tasks' file, and those without a file."""
    shown, inside = [], False
    for line in (traceback or "").splitlines():
        if line.strip().startswith(("File", "| File")):
            inside = 'proj.py"' in line
        if (inside or not line.startswith(" ")) and line.strip(" ~^"):
            shown.append(re.sub(r'File ".*/proj.py", line \d+|\d+ more times', "", line))
    return shown


def outcome(probe: Probe, task_id: str, pair: Pair, log: str) -> Any:
    """What is stored of a call, what its task has noted, and for some the log's lines."""
    raw = pair.store.get(f"celery-task-meta-{task_id}")
    document = json.loads(str(raw)) if raw else {}
    frames = own_frames(document.pop("traceback", None))
    if document.get("status") == "RETRY":  # beatd's has the reason, also without exc=, and no handle of itself
        document = {"status": "RETRY", "retries": document.get("retries")}
    elif not any("Reject" in line for line in frames[-1:]):  # of a rejection Celery stores no traceback
        document["traceback"] = frames
    if isinstance(result := document.get("result"), dict) and result.get("exc_type") == "SoftTimeLimitExceeded":
        del result["exc_message"]  # the limit
    notes = [json.loads(each) for each in pair.store.lrange(f"notes-{task_id}", 0, -1)]
    lines = [line for line in log.splitlines() if task_id in line and line.startswith("[")]
    lines = sorted(re.sub(r"^\[[^\]]*: (\w+)/[^\]]*\]", r"\1", line) for line in lines)
    return neutral({"document": document, "notes": notes, "log": lines if probe.task in LOGGED else []})
