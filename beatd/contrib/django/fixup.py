"""What makes an app feel at home in a Django project."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from beatd import signals
from beatd.app.loader import Loader
from beatd.config.environment import django_settings
from beatd.exceptions import ConfigError, Fault


def install(app: Loader) -> None:
    """Have ``app`` find its task modules in the installed apps, and keep database connections fresh in workers.

    Does nothing where ``DJANGO_SETTINGS_MODULE`` is not set. Raises :class:`~beatd.exceptions.ConfigError` if it is,
    and Django is not installed.
    """
    if not django_settings():
        return
    if find_spec("django") is None:
        text = "it is set, and Django is not installed: pip install 'beatd[django]'"
        raise ConfigError([Fault("the environment", None, "DJANGO_SETTINGS_MODULE", text)])
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if app.task_cls is None:
        app.task_cls = "beatd.contrib.django.task:DjangoTask"
    app.packages = installed_apps
    app.on_import_modules.connect(_set_up, weak=False)
    signals.worker_init.connect(_in_workers, weak=False, dispatch_uid="beatd.contrib.django")


def installed_apps() -> Iterable[str]:
    """The packages of Django's installed apps."""
    from django.apps import apps  # noqa: PLC0415 - Django is imported when a project needs it

    return [each.name for each in apps.get_app_configs()]


def _set_up(**_: Any) -> None:
    """Before task modules are imported: they import models. Inside ``manage.py`` it is done already."""
    import django  # noqa: PLC0415
    from django.apps import apps  # noqa: PLC0415

    if not apps.ready and not apps.apps_ready:
        django.setup()


def _in_workers(**_: Any) -> None:
    """Connections are closed around tasks: one that the server has closed must not fail the next task."""
    signals.task_prerun.connect(_close_connections, weak=False, dispatch_uid="beatd.contrib.django")
    signals.task_postrun.connect(_close_connections, weak=False, dispatch_uid="beatd.contrib.django")
    signals.worker_process_init.connect(_leave_connections, weak=False, dispatch_uid="beatd.contrib.django")
    signals.beat_embedded_init.connect(_close_connections, weak=False, dispatch_uid="beatd.contrib.django")
    _close_connections()


def _close_connections(sender: Any = None, **_: Any) -> None:
    """As at the end of a web request: old and broken connections go, those of ``CONN_MAX_AGE`` may stay.

    Not for a task that runs in the process of its caller, inside of the caller's transaction; and not in an event loop,
    where Django has no connections.
    """
    from django.core.cache import close_caches  # noqa: PLC0415
    from django.db import close_old_connections, connections  # noqa: PLC0415

    request = getattr(sender, "request", None)
    if (request is not None and request.is_eager) or _in_event_loop():
        return
    if any(connection.in_atomic_block for connection in connections.all(initialized_only=True)):
        return
    close_old_connections()
    close_caches()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _leave_connections(**_: Any) -> None:
    """In a process that was forked: the parent's connections are the parent's. Nothing is said to the server."""
    from django.db import connections  # noqa: PLC0415

    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            with contextlib.suppress(Exception):
                os.close(connection.connection.fileno())
            connection.connection = None
