"""``beatd service``: install, remove and inspect the systemd units of this installation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from difflib import ndiff
from pathlib import Path
from typing import Any

import click

from beatd import config
from beatd.cli.output import joined, plural, print_json, print_line, split_names, write_file
from beatd.cli.systemd_units import (
    DAEMON,
    MARKER,
    SYSUSERS,
    UNITS,
    WEB,
    WORKER,
    fitted,
    install_for,
    installed_as,
    is_ours,
    source,
    unreadable,
)
from beatd.worker.builtin import NAMES

SYSTEM = Path("/etc/systemd/system")
PACKAGES = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
"""Folders of the units of packages. A unit of the same name in SYSTEM takes precedence."""
SYSUSERS_FOLDER = Path("/etc/sysusers.d")
_ACCOUNT = "beatd"
_SYSTEMCTL_S = 5.0
"""Seconds that systemctl may take to answer."""
_DIFFERENCES_SHOWN = 10


@click.group("service")
def service() -> None:
    """Install, remove and inspect the systemd units."""


_OWN = click.option("--user", "own", is_flag=True, help="Use your own service manager (systemctl --user); no root.")
_FOLDER = click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Folder of the units.")


@service.command("install")
@click.option(
    "--config", "-c", "config_file", metavar="FILE", help="Default: /etc/beatd/beat.toml; with --user ./beat.toml."
)
@_OWN
@click.option("--account", default=_ACCOUNT, show_default=True, help="Account that runs the units.")
@click.option("--no-worker", is_flag=True, help="Leave out the worker's unit.")
@click.option(
    "--builtin", metavar="NAMES", multiple=True, callback=joined, help="Built-in tasks of the worker: command, http."
)
@click.option("--web", is_flag=True, help="Also write the unit of the status page.")
@_FOLDER
@click.option("--force", is_flag=True, help="Overwrite existing units.")
def install(
    *,
    config_file: str | None,
    own: bool,
    account: str,
    no_worker: bool,
    builtin: str,
    web: bool,
    folder: Path | None,
    force: bool,
) -> None:
    """Write the units of the daemon and the worker.

    The units have the paths of this installation. Starts nothing; prints the commands to run next. The units are
    sandboxed; the sandbox is opened as far as the configuration needs it (files below /home, /root or /tmp, a
    state_dir of its own).
    """
    default = config.find() if own and config_file is None else Path("/etc/beatd/beat.toml")
    file = Path(config_file) if config_file else default
    parameters = install_for(_command(), file.absolute(), None if own else account)._replace(builtin=_known(builtin))
    into = _units_folder(folder, own=own)
    units = (DAEMON, *([] if no_worker else [WORKER]), *([WEB] if web else []))
    for warning in unreadable(parameters.with_page() if web else parameters):
        print_line(f"warning: {warning}", err=True)
    if not (no_worker or builtin or parameters.has_app):
        text = f"the worker has no tasks: set app in {file}, or give --builtin command,http, or --no-worker"
        print_line(f"warning: {text}", err=True)
    for name in units:
        _write(into / name, fitted(source(name), parameters), force=force)
    creates_account = not own and account == _ACCOUNT
    if creates_account:
        _write((folder or SYSUSERS_FOLDER) / SYSUSERS, f"{MARKER}\n{source(SYSUSERS)}", force=force)
    for line in _next_steps(units, own=own, creates_account=creates_account):
        print_line(line)


def _known(builtin: str) -> str:
    """Return the names of built-in tasks, checked. Raises UsageError for an unknown one."""
    names = split_names(builtin)
    if unknown := sorted(set(names) - set(NAMES)):
        raise click.UsageError(f"--builtin {', '.join(unknown)}: expected {' or '.join(NAMES)}")
    return ",".join(names)


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{path.parent} cannot be created: {error.strerror}") from None
    write_file(path, text, force=force)
    print_line(str(path))


def _next_steps(units: tuple[str, ...], *, own: bool, creates_account: bool) -> list[str]:
    systemctl = _systemctl(own=own)
    names = " ".join(map(_short, units))
    steps = ["systemd-sysusers"] if creates_account else []
    steps += [f"{systemctl} daemon-reload", f"{systemctl} enable --now {names}"]
    if own:
        steps.append("loginctl enable-linger    # keep running while you are logged out")
    return ["Next:", *(f"  {step}" for step in steps)]


@service.command("uninstall")
@_OWN
@_FOLDER
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
def uninstall(*, own: bool, folder: Path | None, dry_run: bool) -> None:
    """Remove the units that "beatd service install" wrote.

    Units of a package, units that somebody else wrote, drop-ins, the configuration, the state and the account stay.
    Exit code 1 while one of the units is running: stop it first.
    """
    into = _units_folder(folder, own=own)
    paths = [into / name for name in UNITS]
    if not own:
        paths.append((folder or SYSUSERS_FOLDER) / SYSUSERS)
    texts = {path: text for path in paths if (text := _text(path)) is not None}
    ours = [path for path, text in texts.items() if is_ours(text)]
    if folder is None and not dry_run:
        _refuse_while_running([path.name for path in ours], own=own)
    for path in texts:
        if path in ours:
            _remove(path, dry_run=dry_run)
        else:
            print_line(f"kept {path}: beatd did not write it")
        if path.with_name(f"{path.name}.d").is_dir():
            print_line(f"kept {path}.d: your changes")
    packaged = _packaged(own=own, folder=folder)
    for path in packaged.values():
        print_line(f"kept {path}: it is of a package; remove that with the package manager, as in apt remove beatd")
    if not texts and not packaged:
        print_line(f"Nothing to remove: no unit of beatd in {into}")
    elif ours:
        print_line("Next:")
        print_line(f"  {_systemctl(own=own)} daemon-reload")


def _refuse_while_running(names: list[str], *, own: bool) -> None:
    running = [name for name in names if (_show(name, own=own) or {}).get("ActiveState") in ("active", "activating")]
    if running:
        stop = f"{_systemctl(own=own)} disable --now {' '.join(map(_short, running))}"
        raise click.ClickException(f"{', '.join(running)} is running; stop it first: {stop}")


def _remove(path: Path, *, dry_run: bool) -> None:
    """Remove a unit, and the links by which it is enabled."""
    links = [link for link in path.parent.glob(f"*.wants/{path.name}") if link.is_symlink()]
    for victim in (*links, path):
        try:
            if not dry_run:
                victim.unlink()
        except OSError as error:
            raise click.ClickException(f"{victim} cannot be removed: {error.strerror}") from None
        print_line(f"{'would remove' if dry_run else 'removed'} {victim}")


@service.command("status")
@_OWN
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def status(*, own: bool, folder: Path | None, as_json: bool) -> None:
    """Show if units are installed, current and running.

    Exit code 1 when the daemon's unit is not installed, or a unit is outdated, changed by hand, or failed.
    """
    into = _units_folder(folder, own=own)
    packaged = _packaged(own=own, folder=folder)
    units = [_unit_facts(into / name, packaged.get(name), own=own) for name in UNITS]
    if as_json:
        print_json({"folder": str(into), "units": units})
    else:
        print_line(f"Units in {into}")
        for unit in units:
            for line in _described(unit):
                print_line(line)
    if not units[0]["installed"] or any(unit["differs"] or unit["active"] == "failed" for unit in units):
        raise click.exceptions.Exit(1)


def _packaged(*, own: bool, folder: Path | None) -> dict[str, Path]:
    """The units that a package has installed, by name; none where only one folder is asked about."""
    if own or folder is not None:
        return {}
    found = ((name, place / name) for place in reversed(PACKAGES) for name in UNITS)
    return {name: path for name, path in found if path.is_file()}


def _unit_facts(path: Path, packaged: Path | None, *, own: bool) -> dict[str, Any]:
    text = _text(path)
    ours = text is not None and is_ours(text)
    shown = _show(path.name, own=own) if text is not None or packaged is not None else None
    return {
        "unit": path.name,
        "installed": text is not None or packaged is not None,
        "packaged": str(packaged) if packaged is not None else None,
        "overrides_package": text is not None and packaged is not None,
        "written_by_beatd": ours,
        "differs": _differences(path.name, text) if ours and text is not None else [],
        "enabled": (shown or {}).get("UnitFileState") or None,
        "active": (shown or {}).get("ActiveState") or None,
        "needs_daemon_reload": (shown or {}).get("NeedDaemonReload") == "yes",
    }


def _differences(name: str, text: str) -> list[str]:
    """The lines (``- installed``, ``+ of now``) in which a unit differs from what ``install`` would write now."""
    parameters = installed_as(text)
    if parameters is None:
        return ["- ExecStart does not start beatd"]
    now = fitted(source(name), parameters._replace(command=_command()))
    return [line for line in ndiff(text.splitlines(), now.splitlines()) if line.startswith(("- ", "+ "))]


def _described(unit: dict[str, Any]) -> Iterator[str]:
    name = f"{unit['unit']:<20}"
    if not unit["installed"]:
        yield f"{name}  not installed"
        return
    form = "outdated or changed by hand" if unit["differs"] else "up to date"
    if not unit["written_by_beatd"]:
        form = "not written by beatd"
    if unit["packaged"] is not None:
        form = f"{form}, in place of the package's" if unit["overrides_package"] else "of the package"
    systemd = f"{unit['active']}, {unit['enabled']}" if unit["active"] else "state unknown: systemctl does not answer"
    yield f"{name}  {form}; {systemd}"
    yield from (f"  {line}" for line in unit["differs"][:_DIFFERENCES_SHOWN])
    if unit["differs"][_DIFFERENCES_SHOWN:]:
        yield f"  and {plural(len(unit['differs']) - _DIFFERENCES_SHOWN, 'line')} more"
    if unit["overrides_package"]:
        yield f"  to use that of the package ({unit['packaged']}): beatd service uninstall"
    if unit["differs"]:
        yield '  to renew it: beatd service install --force; see "beatd service install --help"'
    if unit["needs_daemon_reload"]:
        yield "  systemd still has an older version: run systemctl daemon-reload"


def _text(path: Path) -> str | None:
    """The text of a file; ``None`` where there is none."""
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None


def _show(unit: str, *, own: bool) -> dict[str, str] | None:
    """The properties of a unit that systemd has; ``None`` when systemd cannot be asked."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return None
    properties = "--property=ActiveState,UnitFileState,NeedDaemonReload"
    command = [systemctl, *(["--user"] if own else []), "show", properties, unit]
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            command, capture_output=True, text=True, timeout=_SYSTEMCTL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def _systemctl(*, own: bool) -> str:
    return "systemctl --user" if own else "systemctl"


def _short(unit: str) -> str:
    return unit.removesuffix(".service")


def _command() -> Path:
    """The ``beatd`` that runs now; else the one beside this Python."""
    called = Path(sys.argv[0])
    if called.name == "beatd" and called.is_file():
        return called.absolute()
    beside = Path(sys.executable).with_name("beatd")
    return beside if beside.exists() else Path(shutil.which("beatd") or beside)


def _units_folder(folder: Path | None, *, own: bool) -> Path:
    if folder is not None:
        return folder
    return config.environment().config_home / "systemd" / "user" if own else SYSTEM
