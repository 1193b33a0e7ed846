"""The registrations of an app: ``add_periodic_task`` and ``conf.beat_schedule``.

The module is imported by a fresh process (:mod:`beatd.sources.app_dump`) each time. So a change of the module is seen,
one that hangs or dies hurts nobody, and what it leaves in memory is not the daemon's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import IO, Any

from beatd import config
from beatd.exceptions import ConfigError, Fault, MessageError
from beatd.model import Entry
from beatd.wire import loads

log = logging.getLogger(__name__)

_SHOWN = 2_000
"""Characters of a module's own output that are shown."""


def load_app(
    name: str,
    *,
    timezone: str = "UTC",
    defaults: Mapping[str, Any] | None = None,
    where: str = "-A",
    directory: str = "",
    timeout: float = 30.0,
) -> tuple[Entry, ...]:
    """The entries that the app ``MODULE[:APP]`` registers; the working directory and ``directory`` are importable.

    ``timezone`` holds for an app that sets none itself, ``defaults`` is the file's table of that name. Raises
    ConfigError with the user's own traceback if the module cannot be imported, ends its process, or takes longer than
    ``timeout`` seconds; and with all that is wrong with the entries themselves. ``where`` is the fault's file.
    """
    answer = _ask(name, where, directory, timeout)
    if faults := answer.get("faults"):
        raise ConfigError(Fault(*fault) for fault in faults)
    entries: list[Entry] = []
    found: list[Fault] = []
    for entry_name, fields in answer["entries"].items():
        zone = answer["timezone"] or timezone
        try:
            entries.append(config.entry(entry_name, fields, timezone=zone, defaults=defaults, source=answer["file"]))
        except ConfigError as error:
            found += error.faults
    if found:
        raise ConfigError(found)
    return tuple(entries)


def _ask(name: str, where: str, directory: str, timeout: float) -> dict[str, Any]:
    """What the child process writes about the app. Its output goes to files, which no grandchild can keep open."""
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "beatd.sources.app_dump", name, where, directory, str(answer.fileno())]
        child = subprocess.Popen(  # noqa: S603 - our own words, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[answer.fileno()],
            start_new_session=True,
        )
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise _refused(where, name, f"importing it took longer than {timeout:g} s", output) from None
        finally:
            _end_group(child)
        answer.seek(0)
        try:
            found = loads(answer.read())
        except MessageError:
            raise _refused(where, name, f"importing it {_ended(status)}", output) from None
        if said := _tail(output):
            log.debug("%s said: %s", name, said, extra={"event": "app_output", "app": name})
    return dict(found)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child and of the processes that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says it of zombies this way
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(10)


def _refused(where: str, name: str, message: str, output: IO[bytes]) -> ConfigError:
    said = _tail(output)
    return ConfigError([Fault(where, None, name, f"{message}\n{said}" if said else message)])


def _tail(output: IO[bytes]) -> str:
    output.seek(0, os.SEEK_END)
    output.seek(max(0, output.tell() - _SHOWN))
    return output.read().decode("utf-8", "replace").strip()


def _ended(status: int) -> str:
    if status < 0:
        return f"killed its process ({signal.Signals(-status).name})"
    return f"ended its process with exit code {status}"
