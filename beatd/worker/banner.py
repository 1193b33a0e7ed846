"""Banner of a worker: the settings that it starts with, in Celery's layout."""

from __future__ import annotations

import platform
from datetime import datetime

import beatd
from beatd import urls
from beatd.app.app import App
from beatd.app.routing import Queues
from beatd.broker.bindings import Binding
from beatd.redaction import printable
from beatd.worker.settings import WorkerSettings

_NAME_WIDTH = 16


def banner(app: App, settings: WorkerSettings, *, with_tasks: bool) -> str:
    """Return the lines; ``with_tasks`` adds the names of the app's own tasks."""
    declared = Queues(app.conf)
    lines = [
        f" -------------- {settings.hostname} v{beatd.__version__} (beatd)",
        f"--- {platform.platform()} {_now(app)}",
        "[config]",
        f".> app:         {app.main or '__main__'}",
        f".> transport:   {_shown(app.conf.broker_url)}",
        f".> results:     {_shown(app.conf.result_backend) or 'disabled://'}",
        f".> concurrency: {_concurrency(settings)} ({settings.pool})",
        f".> task events: {'ON' if settings.task_events else 'OFF (enable -E to monitor tasks in this worker)'}",
        "",
        "[queues]",
        *(_queue(declared.binding_of(name, settings.hostname)) for name in settings.queues),
    ]
    if with_tasks:
        lines += ["", "[tasks]", *(f"  . {name}" for name in sorted(app.tasks) if not name.startswith("celery."))]
    return "\n".join([*map(printable, lines), ""])


def _queue(bound: Binding) -> str:
    return f".> {bound.queue:<{_NAME_WIDTH}} exchange={bound.exchange}({bound.kind}) key={bound.key}"


def _now(app: App) -> datetime:
    return app.now().replace(microsecond=0, tzinfo=None)


def _shown(given: object) -> str:
    """Return URLs without their passwords."""
    text = given if isinstance(given, str) else ";".join(map(str, given)) if isinstance(given, list | tuple) else ""
    return ";".join(urls.shown(url) for url in text.split(";") if url)


def _concurrency(settings: WorkerSettings) -> str:
    if settings.autoscale is None:
        return str(settings.concurrency)
    most, least = settings.autoscale
    return f"{{min={least}, max={most}}}"
