"""The registrations of an app: ``add_periodic_task`` and ``conf.beat_schedule``.

The module is imported by a fresh process (:mod:`beatd.sources.app_child`) each time. So a change of the module is seen,
one that hangs or dies hurts nobody, and what it leaves in memory is not the daemon's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from beatd import config
from beatd.app.conf_urls import first_url
from beatd.app.settings import WITHOUT_EFFECT
from beatd.config.entries import without_none
from beatd.config.fields import over_defaults
from beatd.exceptions import ConfigError, Fault, MessageError
from beatd.message.json_codec import dumps
from beatd.model import BrokerSettings, Entry
from beatd.sources.child_process import ask
from beatd.sources.task_check import call_of

_OF_BEAT = frozenset(name for name in WITHOUT_EFFECT if name.startswith("beat_"))
"""Settings of celery beat's; those of its workers are for workers to name."""
_DEFAULT_QUEUE = BrokerSettings().default_queue


class Registered(NamedTuple):
    """Registrations of an app, and the files of its own code: a change of them may change it."""

    entries: tuple[Entry, ...]
    files: tuple[str, ...]
    remarks: tuple[Fault, ...]
    """Settings of Celery's that have no effect here, and parts of registrations that are not carried over."""
    refused: tuple[Fault, ...] = ()
    """What is wrong with registrations that are not among the entries."""
    task_faults: tuple[tuple[str, str, str], ...] = ()
    """What is wrong with the calls that were given: entry, key, message."""
    own_task_faults: tuple[tuple[str, str, str], ...] = ()
    """The same of the calls of the app's own entries."""
    broker: str = ""
    """The URL of the app's broker."""
    default_queue: str = _DEFAULT_QUEUE


def load_app(name: str, **how: Any) -> tuple[Entry, ...]:
    """The entries alone of :func:`read_app`. Raises ConfigError if one of them cannot be read."""
    registered = read_app(name, **how)
    if registered.refused:
        raise ConfigError(registered.refused, registered.files)
    return registered.entries


def read_app(
    name: str,
    *,
    timezone: str = "UTC",
    defaults: Mapping[str, Any] | None = None,
    where: str = "-A",
    directory: str = "",
    timeout: float = 30.0,
    calls: Sequence[Entry] | None = None,
    default_queue: str = _DEFAULT_QUEUE,
) -> Registered:
    """Read what the app ``MODULE[:APP]`` registers; the working directory and ``directory`` are importable.

    ``timezone`` holds for an app that sets none itself, ``defaults`` is the file's table of that name. Raises
    ConfigError with the user's own traceback if the module cannot be imported, ends its process, or takes longer than
    ``timeout`` seconds. A registration that cannot be read costs only itself. ``where`` is the fault's file. With
    ``calls`` the tasks and arguments of these entries, and of the app's own, are checked against the app's tasks; and
    the routes of those that name no queue, and so go to ``default_queue``. The app's own entries without a queue go to
    the app's default queue, unless ``default_queue`` or ``defaults`` names another one.
    """
    dump = ("beatd.sources.app_child", (name, where, directory))
    given = b"" if calls is None else _calls(calls, default_queue)
    try:
        answer = ask(*dump, name=name, where=where, timeout=timeout, given=given)
    except ConfigError as error:
        awaited = _module_files(name, directory)
        more = awaited if set(awaited).isdisjoint(error.files) else []
        raise ConfigError(error.faults, (*error.files, *more)) from None
    entries: list[Entry] = []
    refused = [Fault(*fault) for fault in answer["refused"]]
    zone = answer["timezone"] or timezone
    of_app = answer["conf"]["default_queue"]
    for entry_name, fields in answer["entries"].items():
        if default_queue == _DEFAULT_QUEUE != of_app:
            fields = _with_queue(fields, defaults or {}, of_app)  # noqa: PLW2901
        try:
            entries.append(config.entry(entry_name, fields, timezone=zone, defaults=defaults, source=answer["file"]))
        except ConfigError as error:
            refused += error.faults
    files = tuple(answer["files"])
    unused = ((name, WITHOUT_EFFECT[name]) for name in answer["settings"] if name in _OF_BEAT)
    remarks = (Fault(answer["file"], None, name, f"it has no effect: {reason}") for name, reason in unused)
    dropped = (Fault(*remark) for remark in answer["remarks"])
    unchecked = [Fault(answer["file"], None, "", answer["task_remark"])] if answer.get("task_remark") and calls else []
    return Registered(
        tuple(entries),
        files,
        (*remarks, *dropped, *unchecked),
        tuple(refused),
        tuple((entry, key, message) for entry, key, message in answer.get("task_faults", ())),
        tuple((entry, key, message) for entry, key, message in answer.get("own_task_faults", ())),
        first_url(answer["conf"]["broker_url"]),
        of_app,
    )


def _with_queue(fields: Mapping[str, Any], defaults: Mapping[str, Any], queue: str) -> Mapping[str, Any]:
    """The fields of an entry, which goes to this queue if neither they nor the defaults name one, or an exchange."""
    own = without_none(fields)
    options = own.get("options", {})
    if not isinstance(options, Mapping) or {"queue", "exchange"} & over_defaults(defaults, {**options, **own}).keys():
        return fields
    return {**own, "queue": queue, "options": {key: each for key, each in options.items() if key != "queue"}}


def _module_files(name: str, directory: str) -> list[str]:
    """The files in which the module of an app would be, there or not: one that is missing may come later."""
    module = name.partition(":")[0].replace(".", "/")
    places = [place.absolute() / module for place in (Path(directory), Path())]
    return [str(place / "__init__.py") for place in places] + [f"{place}.py" for place in places]


def _calls(entries: Sequence[Entry], default_queue: str) -> bytes:
    """The calls of entries as JSON; entries that JSON cannot carry are left out: that is said elsewhere."""
    calls = []
    for entry in entries:
        with contextlib.suppress(MessageError):
            calls.append(json.loads(dumps(call_of(entry, default_queue))))
    return json.dumps(calls).encode()
