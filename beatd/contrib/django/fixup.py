"""Django fixup of an app: task discovery in the installed apps, and fresh database connections in workers."""

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
    """Integrate ``app`` with Django: task modules of the installed apps, fresh database connections in workers.

    Does nothing where ``DJANGO_SETTINGS_MODULE`` is not set. Raises :class:`~beatd.exceptions.ConfigError` if it is,
    and Django is not installed.
    """
    if not django_settings():
        return
    if find_spec("django") is None:
        text = "is set, but Django is not installed: pip install 'beatd[django]'"
        raise ConfigError([Fault("the environment", None, "DJANGO_SETTINGS_MODULE", text)])
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if app.task_cls is None:
        app.task_cls = "beatd.contrib.django.task:DjangoTask"
    app.packages = installed_apps
    app.on_import_modules.connect(_set_up, weak=False)
    signals.worker_init.connect(_connect_signals, weak=False, dispatch_uid="beatd.contrib.django")


def installed_apps() -> Iterable[str]:
    """Return the packages of Django's installed apps."""
    from django.apps import apps  # noqa: PLC0415 - Django is an optional dependency

    return [config.name for config in apps.get_app_configs()]


def _set_up(**_: Any) -> None:
    """Set up Django before task modules are imported, as they import models; ``manage.py`` has done it already."""
    import django  # noqa: PLC0415
    from django.apps import apps  # noqa: PLC0415

    if not apps.ready and not apps.apps_ready:
        django.setup()


def _connect_signals(**_: Any) -> None:
    """Close database connections around tasks: a connection that the server has closed must not fail the next task."""
    signals.task_prerun.connect(_close_connections, weak=False, dispatch_uid="beatd.contrib.django")
    signals.task_postrun.connect(_close_connections, weak=False, dispatch_uid="beatd.contrib.django")
    signals.worker_process_init.connect(_drop_connections, weak=False, dispatch_uid="beatd.contrib.django")
    signals.beat_embedded_init.connect(_close_connections, weak=False, dispatch_uid="beatd.contrib.django")
    _close_connections()


def _close_connections(sender: Any = None, **_: Any) -> None:
    """Close old and broken connections, as at the end of a web request; ``CONN_MAX_AGE`` applies.

    Skipped for eager tasks, which may run in the caller's transaction, and in an event loop, where Django has no
    connections.
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


def _drop_connections(**_: Any) -> None:
    """Drop the parent's connections in a forked process, without a message to the server."""
    from django.db import connections  # noqa: PLC0415

    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            with contextlib.suppress(Exception):
                os.close(connection.connection.fileno())
            connection.connection = None
