"""Log files of background processes: opened in the process and in those of its pool."""

from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path

from beatd import signals
from beatd.exceptions import ConfigError, Fault
from beatd.log_format import FileLog


class LogFile:
    """``template`` may have ``%i``, the number of the pool's process (0: the parent), or ``%I``, the same after a dash
    (nothing: the parent). A file that is renamed, as logrotate does, is opened anew."""

    def __init__(self, template: str, command: str = "beatd worker") -> None:
        self._template = template
        self._command = command

    def open(self) -> None:
        """Log here from now on, in this process and in those of the pool. Raises ConfigError if that cannot be."""
        self._log_to(0)
        if "%i" in self._template or "%I" in self._template:
            signals.worker_process_init.connect(self._in_child, weak=False)

    def _in_child(self, **_: object) -> None:
        number = multiprocessing.current_process().name.rpartition("-")[2]
        if number.isdigit():
            self._log_to(int(number))

    def _log_to(self, number: int) -> None:
        path = path_of(self._template, number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_fifo() and not path.is_relative_to("/dev"):  # opening it would wait for a reader
                raise ConfigError([Fault(self._command, None, "--logfile", f"{path}: it is a named pipe, not a file")])
            handler = FileLog(path)
        except OSError as error:
            raise ConfigError([Fault(self._command, None, "--logfile", f"{path}: {error.strerror}")]) from None
        root = logging.getLogger()
        for old in list(root.handlers):
            handler.setFormatter(old.formatter)
            root.removeHandler(old)
            old.close()
        root.addHandler(handler)


def path_of(template: str, number: int) -> Path:
    """The file of process ``number``."""
    index = f"-{number}" if number else ""
    return Path(template.replace("%i", str(number)).replace("%I", index)).expanduser()
