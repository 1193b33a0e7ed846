"""Child process that runs a user's code: it may hang, die, or start processes of its own, and does no harm."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Any

from beatd.exceptions import ConfigError, Fault, MessageError
from beatd.message.json_codec import loads

log = logging.getLogger("beatd.sources.child")

_SHOWN = 2_000
"""Characters of a module's own output that are shown."""


def ask(
    module: str, arguments: Sequence[str], *, name: str, where: str, timeout: float, given: bytes = b""
) -> dict[str, Any]:
    """The JSON document that ``python -m MODULE ARGUMENTS… DESCRIPTOR`` writes to the descriptor.

    ``given`` is its standard input.

    Its output goes to files, which no grandchild can keep open. Raises ConfigError about ``name``, in the file
    ``where``, with the user's own traceback if there is no document, if it is one of ``faults``, or if it takes longer
    than ``timeout`` seconds.
    """
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as input_file:
        input_file.write(given)
        input_file.seek(0)
        # -B: bytecode of a file that is changed twice within a second, to the same length, would be taken for current
        command = [sys.executable, "-B", "-m", module, *arguments, str(answer.fileno())]
        child = subprocess.Popen(  # noqa: S603 - our own words, no shell
            command,
            stdin=input_file,
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
            found = dict(loads(answer.read()))
        except MessageError:
            raise _refused(where, name, f"importing it {_ended(status)}", output) from None
        if said := _tail(output):
            log.debug("%s said: %s", name, said, extra={"event": "app_output", "app": name})
    if faults := found.get("faults"):
        raise ConfigError((Fault(*fault) for fault in faults), found.get("files", ()))
    return found


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
