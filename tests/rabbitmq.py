"""A real RabbitMQ of its own for tests and benchmarks: a private node in a temporary directory, on free ports.

Runs as root and as an ordinary user, beside any other RabbitMQ of the machine, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import amqp

from tests.ports import free_port

BIN = Path("/usr/lib/rabbitmq/bin")
"""Where Debian keeps the real scripts; the ones on PATH insist on the user ``rabbitmq``."""


def installed() -> bool:
    """Whether this machine has a RabbitMQ to start."""
    return (BIN / "rabbitmq-server").exists() and shutil.which("epmd") is not None


class RabbitMQ:
    """One node, and the port mapper that its command line tool needs."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="beatd-rabbit-"))
        self.port, dist_port, epmd_port = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        home = self.directory
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced"),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(home),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_NODENAME": f"beatd{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            # the schedulers of a test's broker must not spin on the cores that the test needs
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }
        (home / "plugins").write_text("[].\n")
        (home / "rabbitmq.conf").write_text("log.console.level = warning\nvm_memory_high_watermark.relative = 0.6\n")
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._node is not None and self._node.poll() is None

    def start(self) -> RabbitMQ:
        """Start it unless it runs, and wait until it takes connections."""
        if not self.running:
            if self._epmd is None:
                self._epmd = self._spawn("epmd", "-address", "127.0.0.1")
            self._node = self._spawn(str(BIN / "rabbitmq-server"))
            self._wait(self._answers, 90)  # several nodes may start at the same time, on few processors
        return self

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); ``start`` brings it back, with what was durable."""
        if self._node is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._node.pid, signal.SIGKILL)
            self._node.wait(15)
            self._node = None

    def stop(self) -> None:
        """End it in order."""
        if self._node is not None:
            self._node.send_signal(signal.SIGTERM)
            self._node.wait(60)
            self.kill()

    def restart(self) -> None:
        """Stop in order and start again: durable queues and persistent messages are kept."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop it from answering, its connections staying open, until ``resume``."""
        assert self._node is not None
        os.killpg(self._node.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._node is not None
        os.killpg(self._node.pid, signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """``rabbitmqctl``: takes a second or two. Returns what it wrote."""
        done = subprocess.run(
            [BIN / "rabbitmqctl", "--quiet", *arguments],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def connect(self) -> amqp.Connection:
        """A connection by py-amqp, opened; the caller closes it."""
        connection = amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=5, read_timeout=5, write_timeout=5)
        connection.connect()
        return connection

    def close(self) -> None:
        """Kill everything and remove the directory."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(15)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=self._env,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        assert self.running, f"RabbitMQ ended: {self.log[-2000:]}"
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self.directory / "log").read_text(errors="replace")

    def _wait(self, predicate: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not predicate():
            assert time.monotonic() < deadline, f"RabbitMQ was not ready within {timeout} s: {self.log[-2000:]}"
            time.sleep(0.05)
