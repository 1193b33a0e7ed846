"""systemd units, fitted to where beatd is installed. The texts are those of ``packaging/systemd``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import beatd

UNITS = ("beatd.service", "beatd-worker.service")
SYSUSERS = "beatd.sysusers.conf"

_PACKAGED = Path(beatd.__file__).parent / "systemd"
_CHECKOUT = Path(beatd.__file__).parents[1] / "packaging" / "systemd"

_NOT_A_USERS = {
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
"""What a user's service manager cannot apply, has no such units for, or would need privileges for."""
_SANDBOX = re.compile(r"(Private|Protect|Restrict)(?!Prevent)")
_SETTING = re.compile(r"([A-Z][A-Za-z]+)=(.*)")


class Install(NamedTuple):
    """What a unit is to run."""

    command: Path
    """The ``beatd`` to start."""
    config: Path
    user: str | None
    """The account of the system's services; ``None`` for a unit of the user's own service manager."""

    @property
    def environment(self) -> str:
        """The file with secrets, beside the configuration."""
        return str(self.config.parent / "environment")

    def lies_in(self, *folders: str) -> bool:
        """Whether a file that the unit needs lies there: the configuration, the command, or its interpreter."""
        needed = (self.config, self.command, Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix))
        paths = {path for given in needed for path in (given, given.resolve())}
        return any(path.is_relative_to(folder) for path in paths for folder in folders)


def source(name: str) -> str:
    """The text of a unit as it is packaged."""
    folder = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    return (folder / name).read_text("utf-8")


def fitted(text: str, install: Install) -> str:
    """The unit with the paths of this installation, and without what a user's service manager cannot do."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return "\n".join(_fit(lines, install)).strip() + "\n"


def _fit(lines: list[str], install: Install) -> Iterator[str]:
    own = _own_values(install)
    for line in lines:
        setting = _SETTING.fullmatch(line)
        if setting is None:
            yield line
        elif setting[1] == "ExecStart":
            subcommand = setting[2].split(" --config ")[0].split(" ", 1)[1]
            rest = setting[2].split("/etc/beatd/beat.toml")[1]
            yield f"ExecStart={_word(install.command)} {subcommand} --config {_word(install.config)}{rest}"
        elif setting[1] in own:
            yield f"{setting[1]}={own[setting[1]]}"
        elif install.user is not None or not (setting[1] in _NOT_A_USERS or _SANDBOX.match(setting[1])):
            yield line


def _own_values(install: Install) -> Mapping[str, str]:
    shared = {"EnvironmentFile": f"-{install.environment}", "WorkingDirectory": str(install.config.parent)}
    if install.user is None:
        return shared | {"WantedBy": "default.target"}
    values = shared | {"User": install.user, "Group": install.user}
    if install.lies_in("/home", "/root", "/run/user"):
        values["ProtectHome"] = "read-only"
    if install.lies_in("/tmp", "/var/tmp"):  # noqa: S108 - nothing is written there
        values["PrivateTmp"] = "no"
    return values


def _word(path: Path) -> str:
    """A path as one word of ExecStart: quoted where it must be, ``%`` and ``$`` doubled."""
    text = str(path).replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if re.search(r"[\s\"'\\;]", text) else text
