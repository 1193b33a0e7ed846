"""The environment: variables that a process is given."""

from __future__ import annotations

import fnmatch
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from beatd.exceptions import ConfigError, Fault

VARIABLES = (
    "BEATD_CONFIG", "BEATD_APP", "BEATD_BROKER_URL", "BEATD_RESULT_BACKEND", "BEATD_METRICS_LISTEN", "BEATD_QUIET",
    "BEATD_DEBUG",
)  # fmt: skip
"""The variables of beatd's own that a user sets."""
HANDED_ON = (
    "BEATD_APP_OPTION", "BEATD_APP_STORE_URL", "BEATD_APP_BROKER_URL", "BEATD_APP_RESULTS_URL",
    "BEATD_TITLE", "BEATD_TEXT", "BEATD_KIND",
)  # fmt: skip
"""Variables that beatd sets for the processes that it starts."""


class Environment(NamedTuple):
    """The variables that commands look at; ``None`` where one is not set."""

    notify_socket: str | None
    """``$NOTIFY_SOCKET``: the socket on which systemd waits for the news that the service is ready."""
    watchdog_usec: str | None
    """``$WATCHDOG_USEC``: microseconds without a sign of life after which systemd restarts the service."""
    watchdog_pid: str | None
    """``$WATCHDOG_PID``: the process for which that holds."""
    no_color: bool
    """``$NO_COLOR`` is set to something (no-color.org)."""
    remap_sigterm: str | None = None
    """``$REMAP_SIGTERM``: ``SIGQUIT`` has a worker take SIGTERM for it."""
    config_home: Path = Path("~/.config")
    """``$XDG_CONFIG_HOME``: where a user's own configuration is."""
    state_home: Path = Path("~/.local/state")
    """``$XDG_STATE_HOME``: where a user's programs keep what they remember."""


def environment(env: Mapping[str, str] | None = None) -> Environment:
    """The environment of this process, or of ``env``."""
    found = os.environ if env is None else env
    return Environment(
        notify_socket=found.get("NOTIFY_SOCKET") or None,
        watchdog_usec=found.get("WATCHDOG_USEC") or None,
        watchdog_pid=found.get("WATCHDOG_PID") or None,
        no_color=bool(found.get("NO_COLOR")),
        remap_sigterm=found.get("REMAP_SIGTERM") or None,
        config_home=Path(found.get("XDG_CONFIG_HOME") or _home() / ".config"),
        state_home=Path(found.get("XDG_STATE_HOME") or _home() / ".local/state"),
    )


def django_settings(env: Mapping[str, str] | None = None) -> str | None:
    """``$DJANGO_SETTINGS_MODULE``: the Django project that this process belongs to."""
    return (os.environ if env is None else env).get("DJANGO_SETTINGS_MODULE") or None


class CeleryUrls(NamedTuple):
    """The variables by which Celery's apps find their servers."""

    broker: str | None
    """``$CELERY_BROKER_URL``."""
    results: str | None
    """``$CELERY_RESULT_BACKEND``."""


def celery_urls(env: Mapping[str, str] | None = None) -> CeleryUrls:
    """The servers that the environment names, for apps that name none."""
    found = os.environ if env is None else env
    return CeleryUrls(found.get("CELERY_BROKER_URL") or None, found.get("CELERY_RESULT_BACKEND") or None)


def named_in(variable: str, env: Mapping[str, str] | None = None) -> str:
    """The module that a variable names (``config_from_envvar``); raises ConfigError if it is not set."""
    found = (os.environ if env is None else env).get(variable)
    if not found:
        raise ConfigError([Fault("the environment", None, variable, "it is not set, and should name a module")])
    return found


def _home() -> Path:
    """The home directory; for a user without one, as in many containers, a place of its own for temporary files."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"beatd-{os.getuid()}"


NEEDED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_*")
"""What every program needs, and no secret is ever in."""


def inherited(names: bool | Sequence[str]) -> dict[str, str]:
    """All of the environment, or with false what is :data:`NEEDED`, or what has one of these names."""
    if names is True:
        return dict(os.environ)
    patterns = NEEDED if names is False else tuple(names)
    return {
        name: value for name, value in os.environ.items() if any(fnmatch.fnmatchcase(name, one) for one in patterns)
    }
