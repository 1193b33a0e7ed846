"""System checks: the schedule is valid, its tasks exist and take their arguments, the state store answers.

``manage.py check`` and every command that checks run them. ``SILENCED_SYSTEM_CHECKS = ["beatd.W003"]`` leaves one out,
with its question to the state store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's name

from beatd import config
from beatd.clock import SystemClock
from beatd.config.loader import Config, load_settings
from beatd.config.writer import plain_table
from beatd.contrib.django.conf import NAMES, named_file, project_app, schedule_file, timeout_ms
from beatd.exceptions import ConfigError, Fault, StoreError
from beatd.message.json_codec import dumps, loads
from beatd.model import Entry
from beatd.planning.lint import find_warnings
from beatd.sources import celery_schedule
from beatd.sources.celery_schedule import is_celery_app
from beatd.sources.task_check import call_faults, call_of, has_tasks
from beatd.sources.task_options import with_task_options
from beatd.state_store import running_store
from beatd.store import server_check
from beatd.store.client import connect

TAG = "beatd"
SCHEDULE, LINT, TASKS, STORE, NAME = "beatd.E001", "beatd.W001", "beatd.W002", "beatd.W003", "beatd.W004"
_SHOWN = 20
"""Messages of one kind."""


def register_all() -> None:
    """Register the checks."""
    for check in (check_names, check_schedule, check_store):
        register(_not_within(check), TAG)


Check = Callable[..., list[CheckMessage]]


def _not_within(check: Check) -> Check:
    """The check, which finds nothing while it runs already: Celery runs all checks when it imports task modules."""

    @wraps(check)
    def checked(**given: Any) -> list[CheckMessage]:
        if getattr(_running, "now", False):
            return []
        _running.now = True
        try:
            return check(**given)
        finally:
            _running.now = False

    return checked


_running = threading.local()


def check_names(**_: Any) -> list[CheckMessage]:
    """Warn of a setting whose name is nearly one of beatd's."""
    names = sorted(name for name in dir(settings) if name.startswith("BEATD") and name not in NAMES)
    return [
        Warning(f"{name} is no setting of beatd.", hint=f"did you mean {near[0]}?", id=NAME)
        for name in names
        if (near := get_close_matches(name, NAMES, 1, 0.8))
    ]


def check_schedule(**_: Any) -> list[CheckMessage]:
    """Check the file and the registrations of the app: they can be read, and their tasks exist."""
    try:
        app = project_app()
        path = named_file()
        if path is None and app is None:
            text = "There is no schedule: no beat.toml, and the project has no app."
            hint = "name the file with BEATD_CONFIG, or the app with BEATD_APP"
            return [Warning(text, hint=hint, id=LINT)]
        file = config.load(path) if path is not None else None
        registered, refused = _registrations(app, file) if app is not None else ([], [])
    except ConfigError as error:
        return _messages(Error, error.faults, SCHEDULE)
    found = _messages(Error, refused, SCHEDULE)
    if file is not None:
        found += _messages(Warning, find_warnings(file, SystemClock().now_ms()), LINT)
    if app is not None and has_tasks(app):
        entries = [*registered, *(file.entries if file else ())]  # of two with one name the file's counts
        default_queue = file.settings.broker.default_queue if file else str(app.conf.task_default_queue)
        found += _messages(Warning, _task_faults(app, entries, default_queue), TASKS)
    return found


def _registrations(app: Any, file: Config | None) -> tuple[list[Entry], list[Fault]]:
    """The entries that the app registers in this process, and what is wrong with others."""
    try:
        registrations = celery_schedule.registrations(app) if is_celery_app(app) else app.registrations()
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - task modules and receivers of the user's may raise anything
        text = f"its task modules or registrations failed: {type(error).__name__}: {error}"
        raise ConfigError([Fault(str(app.main), None, "", text)]) from None
    zone = celery_schedule.timezone_of(app) or (file.settings.timezone if file else "UTC")
    entries: list[Entry] = []
    refused: list[Fault] = []
    for name, fields in registrations.items():
        try:
            table = loads(dumps(plain_table(celery_schedule.translated(with_task_options(app, fields)))))
            defaults = file.defaults if file else None
            entries.append(config.entry(name, table, timezone=zone, defaults=defaults, source=str(app.main)))
        except ConfigError as error:
            refused += error.faults
        except Exception as error:  # noqa: BLE001 - objects of the user's may raise anything
            refused.append(Fault(str(app.main), None, f"beat_schedule.{name}", str(error) or type(error).__name__))
    return entries, refused


def _task_faults(app: Any, entries: Iterable[Entry], default_queue: str) -> Iterator[Fault]:
    by_name = {entry.name: entry for entry in entries if entry.policies.enabled}
    calls = (call_of(entry, default_queue) for entry in by_name.values())
    for name, key, message in call_faults(app, calls):
        yield Fault(by_name[name].source, None, f"beat_schedule.{name}.{key}", message)


def check_store(**_: Any) -> list[CheckMessage]:
    """Warn if the state store does not answer within ``BEATD_TIMEOUT``."""
    if STORE in settings.SILENCED_SYSTEM_CHECKS:
        return []
    try:
        found = load_settings(schedule_file()).settings
        patience_ms = min(found.redis.timeout_ms, timeout_ms())
        with connect(running_store(found), timeout_ms=patience_ms, name="beatd-check") as client:
            server_check.inspect(client)
    except ConfigError:
        return []  # said by the check of the schedule
    except StoreError as error:
        hint = "start it, or correct its address; without it no daemon sends runs"
        return [Warning(f"The state store cannot be used: {str(error).rstrip('.')}.", hint=hint, id=STORE)]
    return []


def _messages(kind: type[CheckMessage], faults: Iterable[Fault], number: str) -> list[CheckMessage]:
    listed = list(faults)
    found = [kind(str(fault), id=number) for fault in listed[:_SHOWN]]
    if (more := len(listed) - _SHOWN) > 0:
        found.append(kind(f"and {more} more", hint="beatd check shows all", id=number))
    return found
