"""Check of an app of Celery's for what celery beat does in its own process, and the daemon does not.

The daemon has no code of the app: it sends what the app says when it is read. This runs in the process that imports the
app.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from beatd.app.settings import option_without_effect
from beatd.sources.task_options import unread_steps

_COMPOSITIONS = ("celery.chain", "celery.group", "celery.chord")
_JSON = {"json", "application/json"}


def app_remarks(app: Any) -> Iterator[tuple[str, str]]:
    """Yield settings and signals of the app that change what celery beat sends, each with what is the case here."""
    conf = app.conf
    accepted = conf.accept_content or ()
    if not _JSON & set(accepted):
        yield "accept_content", 'messages of the daemon are JSON, which the app\'s workers refuse; add "json"'
    if conf.task_always_eager:
        yield "task_always_eager", "it has no effect on the daemon: it sends messages, and runs no tasks"
    if unread := unread_steps(app):
        names = [name for name in ("priority_steps", "sep") if name in conf.broker_transport_options]
        for name in names:
            why = f"it has no effect on the daemon: {option_without_effect(name, redis=True)}"
            lost = f"workers do not take messages with the priorities {', '.join(map(str, unread))} of the daemon"
            yield f"broker_transport_options.{name}", f"{why}; {lost}"
    signals = sys.modules.get("celery.signals")
    if signals is not None and signals.before_task_publish.receivers:
        yield "before_task_publish", "the daemon does not call its receivers; give entries headers, or send from a task"


def task_remarks(app: Any, registrations: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield entries of which the daemon sends something else than celery beat, each reason with its first entry."""
    found: dict[str, list[str]] = {}
    for entry, fields in registrations.items():
        if why := _otherwise(app, fields.get("task")):
            found.setdefault(why, []).append(entry)
    for why, entries in found.items():
        yield entries[0], f"{why}, {len(entries)} entries" if len(entries) > 1 else why


def _otherwise(app: Any, name: Any) -> str:
    if name in _COMPOSITIONS:
        return "a composition cannot be an entry, as in Celery: workers fail to run it; let a task send it"
    task = app.tasks.get(name) if isinstance(name, str) else None
    made_by = next((each for each in type(task).__mro__ if "apply_async" in vars(each)), object)
    if task is None or made_by.__module__.partition(".")[0] in {"celery", "beatd"}:
        return ""
    place = f"{made_by.__module__}.{made_by.__qualname__}"
    return f"the daemon does not call its own apply_async (of {place}); give the entry headers and options"
