"""The environment: variables that a process is given, and ``${NAME}`` in the strings of the file.

``${NAME}`` must be set, ``${NAME:-text}`` stands for ``text`` when the variable is missing or empty, and ``$${`` is a
plain ``${``. Keys are not touched. What came from a variable may be a secret, so it stays a :class:`Substituted`
until the file has been read, and messages show the text with the variable's name instead.
"""

from __future__ import annotations

import fnmatch
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from beatd.config.errors import ErrorReport
from beatd.config.toml_lines import KeyPath
from beatd.exceptions import ConfigError, Fault
from beatd.schedules.literals import quoted


class Environment(NamedTuple):
    """The variables that commands look at; ``None`` where one is not set."""

    notify_socket: str | None
    """``$NOTIFY_SOCKET``: where systemd wants to be told that the service is ready."""
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


_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Substituted(str):
    """A string with values of variables in it; ``written`` is how the file has it. Its ``repr`` keeps the secret."""

    __slots__ = ("missing", "written")
    written: str
    missing: bool
    """Whether a variable was not there, which has been reported: what the text is then does not matter."""

    def __new__(cls, value: str, written: str, missing: bool = False) -> Substituted:
        made = super().__new__(cls, value)
        made.written = written
        made.missing = missing
        return made

    def __repr__(self) -> str:
        return f"Substituted({self.written!r})"


def substitute(value: Any, env: Mapping[str, str], report: ErrorReport, path: KeyPath) -> Any:
    """``value`` with every variable in it replaced; what cannot be is reported and stays as it is."""
    match value:
        case str():
            return _text(value, env, report, path) if "${" in value else value
        case dict():
            return {key: substitute(each, env, report, (*path, key)) for key, each in value.items()}
        case list():
            return [substitute(each, env, report, (*path, place)) for place, each in enumerate(value)]
    return value


def substituted(value: Any) -> Substituted | None:
    """The first text in ``value`` that was made with a variable; one whose variable is missing before all others."""
    match value:
        case Substituted():
            return value
        case dict() | list() | tuple():
            inside = value.values() if isinstance(value, dict) else value
            made = [found for each in inside if (found := substituted(each)) is not None]
            return next((each for each in made if each.missing), made[0] if made else None)
    return None


def plain(value: Any) -> Any:
    """``value`` with ordinary strings for substituted ones: what leaves this package."""
    match value:
        case Substituted():
            return str(value)
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
    return value


def escaped(text: str) -> str:
    """The text as a file has it, so that reading it gives ``text`` again."""
    return text.replace("${", "$${")


def has_reference(value: Any) -> bool:
    """True if a value contains a ``${VARIABLE}`` as the file has it."""
    match value:
        case str():
            return any(found[0] != "$${" for found in _REFERENCE.finditer(value))
        case dict():
            return any(map(has_reference, value.values()))
        case list():
            return any(map(has_reference, value))
    return False


def _text(text: str, env: Mapping[str, str], report: ErrorReport, path: KeyPath) -> str:
    references = missing = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal references, missing
        if match[0] == "$${":
            return "${"
        references += 1
        value = _lookup(match, env, report, path)
        missing += value is None
        return value or ""

    value = _REFERENCE.sub(replaced, text)
    return Substituted(value, text, bool(missing)) if references else value


def _lookup(match: re.Match[str], env: Mapping[str, str], report: ErrorReport, path: KeyPath) -> str | None:
    reference = _NAME.fullmatch(match[1])
    if reference is None or not match[2]:
        right = "write ${NAME}, ${NAME:-default}, or $${ for a plain ${"
        report.add(path, f"{quoted(match[0])} is not a variable: {right}")
        return None
    name, default = reference[1], reference[2]
    value = env.get(name)
    if default is not None:
        return value or default
    if value is None:
        report.add(path, f"the environment variable {name} is not set: set it, or write ${{{name}:-default}}")
    return value
