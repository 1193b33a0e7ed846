"""Worker of a test: ``beatd worker`` as a child process, and the app of this process sent to the same store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from beatd.app.find_app import find_app
from beatd.clock import monotonic, sleep

READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 10.0
_LOG_SHOWN = 2_000


class WorkerProcess:
    """A worker with two threads. ``log`` is the file that it writes to."""

    def __init__(self, app: str, store: str, log: Path, options: tuple[str, ...]) -> None:
        self.app = find_app(app, where="beatd_worker")
        self.log = log
        self._urls = self.app.conf.broker_url, self.app.conf.result_backend
        self._store = store
        self._words = [sys.executable, "-m", "beatd", "worker", "-A", app, "-P", "threads", "-c", "2", *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes messages; raises RuntimeError with the end of its log if it ends."""
        self._connect(self._store, self._store)
        path = os.pathsep.join(entry for entry in sys.path if entry)
        own = {"BEATD_BROKER_URL": self._store, "BEATD_RESULT_BACKEND": self._store, "BEATD_CONFIG": ""}
        env = os.environ | own | {"PYTHONPATH": path}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._words, env=env, stdout=log, stderr=log)  # noqa: S603
        end = monotonic() + READY_WITHIN_S
        while " ready." not in self.text:
            if self._process.poll() is not None or monotonic() > end:
                self.stop()
                raise RuntimeError(f"the worker did not become ready; its log ends with:\n{self.text[-_LOG_SHOWN:]}")
            sleep(0.02)

    def stop(self) -> None:
        """Let it finish its tasks; after ten seconds it is killed."""
        self._connect(*self._urls)
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOPPED_WITHIN_S)

    @property
    def text(self) -> str:
        """The log so far."""
        return self.log.read_text("utf-8", "replace")

    def _connect(self, broker: str | None, results: str | None) -> None:
        self.app.close()
        self.app.conf.broker_url, self.app.conf.result_backend = broker, results
