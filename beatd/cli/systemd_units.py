"""Unit files of systemd: the packaged texts, fitted to this installation, and read back.

The texts are those of ``packaging/systemd``. A unit that beatd wrote begins with :data:`MARKER`.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import stat
import sys
import tomllib
from collections.abc import Iterator, Mapping
from glob import iglob
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import beatd
from beatd.config.settings import secret_files

DAEMON, WORKER, WEB = UNITS = ("beatd.service", "beatd-worker.service", "beatd-web.service")
SYSUSERS = "beatd.sysusers.conf"
MARKER = "# Written by: beatd service install. Your changes belong into a drop-in (systemctl edit)."

_PACKAGED = Path(beatd.__file__).parent / "systemd"
_CHECKOUT = Path(beatd.__file__).parents[1] / "packaging" / "systemd"
_STATE_DIR = Path("/var/lib/beatd")
_INCLUDED_MAX = 1_000
"""Included files that are looked at for each pattern."""

_SYSTEM_ONLY = {
    "After",
    "Wants",
    "User",
    "Group",
    "ConfigurationDirectory",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "SystemCallArchitectures",
    "LockPersonality",
    "RemoveIPC",
    "ProcSubset",
}
"""Settings that a user's service manager cannot apply: it lacks the privileges, or has no such units."""
_SANDBOX = re.compile(r"(Private|Protect|Restrict)(?!Prevent)")
_SETTING = re.compile(r"([A-Z][A-Za-z]+)=(.*)")


class Install(NamedTuple):
    """The parameters of an installed unit."""

    command: Path
    """The ``beatd`` to start."""
    config: Path
    user: str | None
    """The account of the system's services; ``None`` for a unit of the user's own service manager."""
    needed: tuple[Path, ...] = ()
    """Further files and folders that the service reads; see :func:`needed_paths`."""
    state_dir: Path = _STATE_DIR
    has_app: bool = True
    """False if the file names no app: a worker then has built-in tasks only."""
    builtin: str = ""
    """Built-in tasks of the worker, as in its option ``--builtin``."""
    page_files: tuple[Path, ...] = ()
    """Files that only the page reads: its tokens, certificate and key."""

    @property
    def environment(self) -> str:
        """The file with secrets, beside the configuration."""
        return str(self.config.parent / "environment")

    def with_page(self) -> Install:
        """The parameters of the page's unit, which reads some more files."""
        return self._replace(needed=(*self.needed, *self.page_files), page_files=())

    def lies_in(self, *folders: str) -> bool:
        """True if a file that the unit needs lies there: the configuration, the command, its interpreter, the app."""
        own = (self.config, self.command, Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix))
        paths = {path for given in (*own, self.state_dir, *self.needed) for path in (given, given.resolve())}
        return any(path.is_relative_to(folder) for path in paths for folder in folders)


def install_for(command: Path, config: Path, user: str | None) -> Install:
    """The parameters for the file at ``config``, with the paths that it names.

    A file that is missing or not TOML yet names none: the units of a new installation are written before it.
    """
    try:
        raw = tomllib.loads(config.read_text("utf-8"))
    except (OSError, ValueError):
        return Install(command, config, user)
    state_dir = raw.get("state_dir")
    folder = config.parent
    return Install(
        command,
        config,
        user,
        tuple(needed_paths(raw, folder)),
        folder / state_dir if isinstance(state_dir, str) and "${" not in state_dir else _STATE_DIR,
        has_app=raw.get("app") is not None,
        page_files=tuple(page_files(raw.get("web"), folder)),
    )


def needed_paths(raw: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Paths outside the file that the service reads: included files, secrets, the app's code and Unix sockets."""
    tables = {name: table for name, table in raw.items() if isinstance(table, dict)}
    for pattern in raw["include"] if isinstance(raw.get("include"), list) else ():
        yield folder / str(pattern)
        found = iglob(str(folder / str(pattern)))  # noqa: PTH207 - the pattern may be absolute
        yield from map(Path, islice(found, _INCLUDED_MAX))
    yield from map(Path, secret_files(tables, folder))
    app = raw.get("app")
    if isinstance(app, str):
        yield from _code_of(app.partition(":")[0].partition(".")[0], folder)
    for name in ("redis", "broker", "results"):
        yield from _paths_in(str(tables.get(name, {}).get("url", "")))


def page_files(table: Any, folder: Path) -> Iterator[Path]:
    """Files that the table [web] names."""
    if isinstance(table, dict):
        yield from (folder / str(table[name]) for name in ("tokens_file", "tls_cert", "tls_key") if name in table)


def _paths_in(url: str) -> Iterator[Path]:
    """A Unix socket, and the files of certificates that the options name."""
    scheme, _, rest = url.partition("://")
    place, _, options = rest.partition("?")
    if scheme in {"unix", "redis+socket"}:
        yield Path("/" + place.rpartition("@")[2].lstrip("/"))
    yield from (Path(value) for _, value in parse_qsl(options) if value.startswith("/"))


def unreadable(install: Install) -> Iterator[str]:
    """Warnings about files and programs that the account of the units may not reach, as far as can be told.

    The folders above a path must be searchable for the account. An account that does not exist yet is in no group.
    """
    if install.user is None:
        return
    reported: set[Path] = set()
    for path in (install.command, install.config, Path(sys.executable), *install.needed):
        closed = next((folder for folder in reversed(path.parents) if not _may_search(folder, install.user)), None)
        if closed is not None and closed not in reported:
            reported.add(closed)
            yield (
                f"the account {install.user} cannot read {path}, because {closed} is closed to it; "
                "move it, for example to /opt or /etc, or choose another account with --account"
            )


def _may_search(folder: Path, user: str) -> bool:
    try:
        facts = folder.stat()
    except OSError:  # it is not there yet
        return True
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return bool(facts.st_mode & stat.S_IXOTH)
    if account.pw_uid in {0, facts.st_uid}:
        return account.pw_uid == 0 or bool(facts.st_mode & stat.S_IXUSR)
    if facts.st_gid in os.getgrouplist(user, account.pw_gid):
        return bool(facts.st_mode & stat.S_IXGRP)
    return bool(facts.st_mode & stat.S_IXOTH)


def _code_of(package: str, folder: Path) -> Iterator[Path]:
    """The files of a module, found like at run time: in the folder of the configuration, else on the Python path."""
    spec = PathFinder.find_spec(package, [str(folder), *sys.path])
    if spec is not None:
        yield from map(Path, spec.submodule_search_locations or ([spec.origin] if spec.origin else []))


def source(name: str) -> str:
    """The text of a unit as it is packaged."""
    folder = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    return (folder / name).read_text("utf-8")


def fitted(text: str, install: Install) -> str:
    """The unit with the paths of this installation, without the settings that a user's service manager lacks."""
    body = text[text.index("[Unit]") :]
    if " web --config " in body:
        install = install.with_page()
    lines = "\n".join(_fit(body.splitlines(), install)).strip()
    return f"{MARKER}\n\n{lines}\n"


def _fit(lines: list[str], install: Install) -> Iterator[str]:
    own = _own_values(install)
    comment: list[str] = []
    for line in lines:
        if line.startswith("#"):
            comment.append(line)
            continue
        setting = _SETTING.fullmatch(line)
        if setting is None or install.user is not None or not _is_system_only(setting[1]):
            yield from comment
            yield line if setting is None else _fit_setting(setting[1], setting[2], install, own)
            if line == "ProtectSystem=strict" and not install.state_dir.is_relative_to(_STATE_DIR):
                yield f"ReadWritePaths=-{_word(install.state_dir)}"
        comment = []


def _is_system_only(setting: str) -> bool:
    return setting in _SYSTEM_ONLY or _SANDBOX.match(setting) is not None


def _fit_setting(name: str, value: str, install: Install, own: Mapping[str, str]) -> str:
    if name == "ExecStart":
        subcommand = value.partition(" --config ")[0].partition(" ")[2]
        rest = value.split("/etc/beatd/beat.toml")[1]
        more = f" --builtin {install.builtin}" if subcommand == "worker" and install.builtin else ""
        return f"ExecStart={_word(install.command)} {subcommand} --config {_word(install.config)}{rest}{more}"
    return f"{name}={own.get(name, value)}"


def _own_values(install: Install) -> Mapping[str, str]:
    shared = {
        "EnvironmentFile": "-" + install.environment.replace("%", "%%"),
        "WorkingDirectory": str(install.config.parent).replace("%", "%%"),
    }
    if install.user is None:
        return shared | {"WantedBy": "default.target"}
    values = shared | {"User": install.user, "Group": _group_of(install.user)}
    if install.lies_in("/home", "/root", "/run/user"):
        values["ProtectHome"] = "read-only"
    if install.lies_in("/tmp", "/var/tmp"):  # noqa: S108 - nothing is written there
        values["PrivateTmp"] = "no"
    return values


def _group_of(user: str) -> str:
    """The primary group of an account; for one that is not there yet the group of its name, which is made with it."""
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def _word(path: Path) -> str:
    """A path as one word of ExecStart: quoted where it must be, ``%`` and ``$`` doubled."""
    text = str(path).replace("%", "%%").replace("$", "$$")
    if not re.search(r"[\s\"'\\;]", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_FIRST_LINES_0_1_0 = (
    "[Unit]\nDescription=beatd, a highly available cron for task queues\nDocumentation=https://github.com/beatd/beatd\n",
    "[Unit]\nDescription=beatd worker\nDocumentation=https://github.com/beatd/beatd\n",
    "# sysusers.d(5): the user of beatd.service and beatd-worker.service\n",
)
"""First lines of the files that 0.1.0 wrote, which had no marker. A unit that was copied by hand has comments there."""


def is_ours(text: str) -> bool:
    """True if ``beatd service install`` wrote this file, in this version or in 0.1.0."""
    return text.startswith((MARKER.partition(".")[0], *_FIRST_LINES_0_1_0))


def installed_as(text: str) -> Install | None:
    """The parameters with which a unit was written; ``None`` if it does not start beatd like beatd's own units do."""
    settings = filter(None, map(_SETTING.fullmatch, text.splitlines()))
    values = {setting[1]: setting[2] for setting in settings}
    try:
        words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(values.get("ExecStart", ""))]
        config = Path(words[words.index("--config") + 1])
        builtin = words[words.index("--builtin") + 1] if "--builtin" in words else ""
    except (ValueError, IndexError):
        return None
    return install_for(Path(words[0]), config, values.get("User"))._replace(builtin=builtin)
