"""The daemon beside a worker (``beatd worker -B``), for development: a child process, started again when it ends."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from beatd.broker import is_redis, redis_url
from beatd.cli.processes import die_with_parent
from beatd.clock import Backoff
from beatd.exceptions import ConfigError, Fault
from beatd.url_keyprefix import global_keyprefix, own_prefix, without_keyprefix

log = logging.getLogger("celery.worker")

_PAUSE_MIN_S, _PAUSE_MAX_S = 1.0, 30.0
"""Before a daemon that ended is started again; doubled each time."""
_PARTING_S = 5.0


@contextmanager
def beat_inside(config_file: str | None, app_name: str | None, broker: str) -> Iterator[None]:
    """Have a daemon run as a child process for as long as the block lasts, and start it again should it end.

    Its schedule is that of ``config_file``, or without one the app's, with its state in the broker. Raises
    :class:`ConfigError` if there is neither.
    """
    with contextlib.ExitStack() as stack:
        if config_file is None:
            config_file = _file_for(stack, app_name, broker)
        words = [sys.executable, "-m", "beatd", "run", "--config", config_file, *(["-A", app_name] if app_name else [])]
        words += ["--metrics-listen", "off"]  # the port is the worker's
        beat = _Beat(words)
        stack.callback(beat.stop)
        yield


def _file_for(stack: contextlib.ExitStack, app_name: str | None, broker: str) -> str:
    """A file that says where the state is; everything else is the app's."""
    if app_name is None or not is_redis(broker):
        wrong = (
            "name the app with -A" if app_name is None else "the broker is no Redis that could keep the beat's state"
        )
        raise ConfigError([Fault("beatd worker", None, "-B", f"{wrong}, or give it a beat.toml with --config")])
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="beatd-"))
    path = Path(directory) / "beat.toml"
    tables = {"redis": {"url": without_keyprefix(redis_url(broker)), "prefix": own_prefix(broker)}}
    if global_keyprefix(broker):
        tables["broker"] = {"url": broker}
    path.write_text(tomli_w.dumps(tables))
    path.chmod(0o600)  # the URL may have a password
    return str(path)


class _Beat:
    """The child process. It is made in this thread, before there are others; one that replaces it, in a thread."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._over = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._tend, name="beat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it in order."""
        self._over.set()
        self._process.terminate()
        try:
            self._process.wait(_PARTING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join(_PARTING_S)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own words, no shell
            self._words,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the worker, who passes it on
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, looked up beforehand
        )

    def _tend(self) -> None:
        backoff = Backoff(_PAUSE_MIN_S, _PAUSE_MAX_S)
        while True:
            code = self._process.wait()
            if self._over.is_set():
                return
            pause = backoff.failed()
            log.error(
                "The beat ended with exit code %s; restarting it in %g s",
                code,
                pause,
                extra={"event": "child_died", "child": "beat"},
            )
            if self._over.wait(pause):
                return
            self._process = self._start()
