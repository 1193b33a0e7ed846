"""``beatd service install``: systemd units, fitted to this installation.

The texts are those of ``packaging/systemd``.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import click

import beatd
from beatd import config
from beatd.cli.output import write_file

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
    """Command line, files and user that a unit is written for."""

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
        """True if a file that the unit needs lies there: the configuration, the command, or its interpreter."""
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


SYSTEM = Path("/etc/systemd/system")
SYSUSERS_FOLDER = Path("/etc/sysusers.d")
_ACCOUNT = "beatd"


@click.group("service")
def service() -> None:
    """Run beatd as a service of systemd."""


@service.command("install")
@click.option(
    "--config", "-c", "config_file", metavar="FILE", help="Default: /etc/beatd/beat.toml; with --user ./beat.toml."
)
@click.option("--user", "own", is_flag=True, help="For your own service manager (systemctl --user), without root.")
@click.option("--account", default=_ACCOUNT, show_default=True, help="The account that runs it.")
@click.option("--no-worker", is_flag=True, help="Only the daemon.")
@click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write the units to this folder."
)
@click.option("--force", is_flag=True, help="Overwrite units that are there.")
def install(
    *, config_file: str | None, own: bool, account: str, no_worker: bool, folder: Path | None, force: bool
) -> None:
    """Write the units of the daemon and the worker, with the paths of this installation.

    Nothing is started: what to type next is printed.
    """
    default = config.find() if own and config_file is None else Path("/etc/beatd/beat.toml")
    place = Path(config_file) if config_file else default
    what = Install(_command(), place.absolute(), None if own else account)
    into = folder or (_users_folder() if own else SYSTEM)
    units = UNITS[:1] if no_worker else UNITS
    for name in units:
        _write(into / name, fitted(source(name), what), force=force)
    creates_account = not own and account == _ACCOUNT
    if creates_account:
        _write((folder or SYSUSERS_FOLDER) / SYSUSERS, source(SYSUSERS), force=force)
    for line in _next_steps(units, own=own, creates_account=creates_account):
        click.echo(line)


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{path.parent} cannot be made: {error.strerror}") from None
    write_file(path, text, force=force)
    click.echo(f"{path}")


def _next_steps(units: tuple[str, ...], *, own: bool, creates_account: bool) -> list[str]:
    systemctl = "systemctl --user" if own else "systemctl"
    names = " ".join(unit.removesuffix(".service") for unit in units)
    steps = ["systemd-sysusers"] if creates_account else []
    steps += [f"{systemctl} daemon-reload", f"{systemctl} enable --now {names}"]
    if own:
        steps.append("loginctl enable-linger    # also while you are not logged in")
    return ["Next:", *(f"  {step}" for step in steps)]


def _command() -> Path:
    """The ``beatd`` that runs now; else the one beside this Python."""
    called = Path(sys.argv[0])
    if called.name == "beatd" and called.is_file():
        return called.absolute()
    beside = Path(sys.executable).with_name("beatd")
    return beside if beside.exists() else Path(shutil.which("beatd") or beside)


def _users_folder() -> Path:
    return config.environment().config_home / "systemd" / "user"
