"""Settings of a Django project for beatd, and the schedule and app that they name.

``BEATD_CONFIG`` is the path of ``beat.toml``; default: ``$BEATD_CONFIG``, then ``beat.toml`` in ``BASE_DIR`` or the
working directory. ``BEATD_APP`` is the app, ``"proj"`` or ``"proj.celery:app"``; default: that of the project's
package; ``""``: none.
``BEATD_TIMEOUT`` bounds the questions of admin and system checks to the state store, in seconds; default: 2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from beatd import config
from beatd.app.find_app import locate
from beatd.config.environment import django_settings
from beatd.exceptions import ConfigError, Fault
from beatd.sources.app_child import is_any_app, settings_of
from beatd.sources.app_file import made_for

NAMES = frozenset({"BEATD_CONFIG", "BEATD_APP", "BEATD_TIMEOUT"})
"""Names of all settings."""
TIMEOUT_S = 2.0


def project() -> str:
    """Return the project's package, which contains the settings module."""
    return str(django_settings()).partition(".")[0]


def project_app() -> Any:
    """The project's app, of beatd or of Celery; None if there is none.

    Raises ConfigError for an app that ``BEATD_APP`` names and that cannot be imported.
    """
    named = getattr(settings, "BEATD_APP", None)
    if named is not None and not isinstance(named, str):
        raise ConfigError([Fault("settings", None, "BEATD_APP", 'expected a text such as "proj" or "proj.celery:app"')])
    if named == "":
        return None
    try:
        return locate(named or project(), is_any_app, where="BEATD_APP")
    except ConfigError:
        if named:
            raise
        return None


def app_name() -> str | None:
    """The name under which other processes import the project's app; None if there is none."""
    return None if project_app() is None else getattr(settings, "BEATD_APP", None) or project()


def named_file() -> Path | None:
    """The schedule that settings or environment name, or that is in its place; None if there is none."""
    if named := getattr(settings, "BEATD_CONFIG", None):
        return Path(named)
    base = getattr(settings, "BASE_DIR", None)
    if not os.environ.get("BEATD_CONFIG") and base is not None and (path := Path(base) / "beat.toml").exists():
        return path
    try:
        return config.find()
    except ConfigError:
        return None


def schedule_file() -> Path:
    """The file with the schedule; without one, a file made from the settings of the app. Raises ConfigError."""
    path = named_file()
    if path is not None:
        return path
    app = project_app()
    if app is None:
        text = "is not set, there is no beat.toml in BASE_DIR or the working directory, and the project has no app"
        raise ConfigError([Fault("settings", None, "BEATD_CONFIG", text)])
    return made_for(str(app_name()), lambda: settings_of(app)).path


def timeout_ms() -> int:
    """Return the bound of a question to the state store; raises ImproperlyConfigured."""
    seconds = getattr(settings, "BEATD_TIMEOUT", TIMEOUT_S)
    if not isinstance(seconds, int | float) or not 0 < seconds <= 60:
        raise ImproperlyConfigured(f"BEATD_TIMEOUT = {seconds!r}: expected seconds, more than 0 and at most 60")
    return max(1, int(seconds * 1000))
