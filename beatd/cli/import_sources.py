"""Schedules that ``beatd import`` reads: files, apps, databases, and servers of Redis."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from beatd.config.values import size_text
from beatd.exceptions import StoreError, StoreUnavailable
from beatd.importers.apscheduler import Jobs, jobs_of_database, jobs_of_file, jobs_of_redis, read_apscheduler
from beatd.importers.celery_app import read_celery_app
from beatd.importers.cronstable import read_cronstable
from beatd.importers.crontab import decoded, read_crontab
from beatd.importers.django_celery_beat import read_django_tables
from beatd.importers.dkron import read_dkron
from beatd.importers.github_actions import read_github_actions
from beatd.importers.kubernetes import read_kubernetes
from beatd.importers.redbeat import read_redbeat
from beatd.importers.report import FoundSchedule
from beatd.importers.systemd_timers import read_systemd
from beatd.store.client import connect, translate_errors
from beatd.urls import is_store
from beatd.urls import shown as shown_url

_LARGEST = 4 << 20
"""Bytes of a file that are read."""

_FILES: dict[str, Callable[..., FoundSchedule]] = {
    "kubernetes": read_kubernetes,
    "dkron": read_dkron,
    "cronstable": read_cronstable,
    "github-actions": read_github_actions,
}
"""Sources that are one file."""
SOURCES = ("celery", "crontab", "redbeat", "django-celery-beat", "apscheduler", *_FILES, "systemd")
HAVE_LAST_RUNS = ("celery", "redbeat", "django-celery-beat", "apscheduler", "dkron", "kubernetes")
"""Sources that know when their entries last ran."""


class Choices(NamedTuple):
    """Options for single sources."""

    timezone: str | None
    system: bool | None
    prefix: str
    table: str
    key: str


class Origin(NamedTuple):
    """The schedule of another scheduler: which one, where it is, and how it is read."""

    source: str
    place: str
    choices: Choices

    @property
    def shown(self) -> str:
        """The place without what a URL may have of secrets."""
        has_url = self.source == "redbeat" or (self.source == "apscheduler" and "://" in self.place)
        return shown_url(self.place) if has_url else self.place

    def read(self) -> FoundSchedule:
        """Its entries. Raises ConfigError, or click's errors."""
        timezone = self.choices.timezone
        match self.source:
            case "celery":
                found = read_celery_app(self.place)
            case "django-celery-beat":
                found = read_django_tables(self.place)
            case "redbeat":
                with _redis_at(self.place) as client:
                    return read_redbeat(client, prefix=self.choices.prefix, timezone=timezone)
            case "apscheduler":
                return read_apscheduler(self._jobs(), shown=self.shown, timezone=timezone)
            case "systemd":
                return read_systemd(_existing(self.place), timezone=timezone)
            case "crontab":
                return _crontab(self.place, timezone, system=self.choices.system)
            case _:
                return _FILES[self.source](_content(self.place), shown=self.place, timezone=timezone)
        return found._replace(timezone=timezone) if timezone else found

    def _jobs(self) -> Jobs:
        if is_store(self.place):
            with _redis_at(self.place) as client:
                return jobs_of_redis(client, self.choices.key)
        if "://" in self.place:
            return jobs_of_database(self.place, self.choices.table)
        return jobs_of_file(_existing(self.place))


@contextlib.contextmanager
def _redis_at(place: str) -> Iterator[Any]:
    """Connect to the Redis that is read; where it is away, the error speaks of PLACE and not of the state store."""
    try:
        with connect(place, timeout_ms=5_000, name="beatd-import") as client, translate_errors(client):
            yield client
    except StoreError as error:
        step = "Start that server, or give the URL of another one as PLACE."
        reason = str(error).removeprefix("state store ")
        raise click.ClickException(f"{reason}\n{step}" if isinstance(error, StoreUnavailable) else reason) from None


def _existing(place: str) -> Path:
    try:
        is_there = Path(place).exists()
    except (OSError, ValueError):
        is_there = False
    if not is_there:
        raise click.BadParameter(f"{place} cannot be read: No such file or directory", param_hint="PLACE")
    return Path(place)


def _content(place: str) -> bytes:
    """The bytes of a file, or of standard input for ``-``."""
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if place == "-" else Path(place).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise click.BadParameter(f"{place} cannot be read: {why}", param_hint="PLACE") from None
    if len(data) > _LARGEST:
        raise click.BadParameter(f"{place} has more than {size_text(_LARGEST)}", param_hint="PLACE")
    return data


def _crontab(place: str, timezone: str | None, *, system: bool | None) -> FoundSchedule:
    path, data = Path(place), _content(place)
    if system is None and (path.absolute() == Path("/etc/crontab") or path.absolute().parent == Path("/etc/cron.d")):
        system = True
    return read_crontab(decoded(data, place), shown=place, has_users=system, timezone=timezone)
