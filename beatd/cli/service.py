"""``beatd service install``: systemd units for this installation."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from beatd import config
from beatd.cli.units import SYSUSERS, UNITS, Install, fitted, source
from beatd.cli.writing import write_file

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
