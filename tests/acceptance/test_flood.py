"""A flood of connections to the page of a real installation: visitors are answered, memory and the beat stay as they
are, and connections that say nothing are closed."""

import contextlib
import json
import resource
import select
import socket
import ssl
import statistics
import subprocess
from pathlib import Path

import httpx
import pytest

CONFIG = """
[redis]
url = "{url}"
[history]
keep = 1000
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.2
"""
TLS = '[web]\ntls_cert = "web.crt"\ntls_key = "web.key"\n'
GROWTH_MAX = 512 << 10
"""KiB by which the process of the page may grow: 10,000 connections in their handshake took four times as much."""


@pytest.fixture
def many_files():
    """As many descriptors as there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Flood:
    """Connections that begin a request and never end it; those that are closed are opened again."""

    def __init__(self, port, count):
        self._port, self._count = port, count
        self._open, self._poll = {}, select.epoll()
        self.closed = 0

    def turn(self):
        """Open what is missing, a hundred at most; take note of what was closed."""
        for _ in range(min(100, self._count - len(self._open))):
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", self._port))
            self._open[one.fileno()] = one
            self._poll.register(one, select.EPOLLIN | select.EPOLLOUT)
        for descriptor, event in self._poll.poll(0.01):
            if event & select.EPOLLOUT and not event & (select.EPOLLHUP | select.EPOLLERR):
                self._poll.modify(descriptor, select.EPOLLIN)
                with contextlib.suppress(OSError):
                    self._open[descriptor].send(b"GET / HTTP/1.1\r\nX: ")
            else:
                self._open.pop(descriptor).close()
                self.closed += 1

    def close(self):
        for one in self._open.values():
            one.close()
        self._poll.close()


def memory_kib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@pytest.mark.parametrize(
    ("count", "secure"),
    [
        (600, False),
        (600, True),
        pytest.param(10_000, False, marks=pytest.mark.slow),
        pytest.param(10_000, True, marks=pytest.mark.slow),
    ],
)
def test_a_flood_keeps_nobody_out(count, secure, many_files, start_beatd, beatd, tmp_path, redis_url, wait_until):
    if many_files < count + 200:
        pytest.skip(f"only {many_files} descriptors are allowed")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", "web.key", "-out", "web.crt", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "web.key").chmod(0o600)
    file = tmp_path / "beat.toml"
    file.write_text(CONFIG.format(url=redis_url) + (TLS if secure else ""))
    start_beatd("--config", str(file)).expect("Leading")
    page = start_beatd("web", "--port", "0", "--config", str(file))
    url = page.expect(r"Status page at (https?://\S+)/")[0][1]
    verify = ssl.create_default_context(cafile=str(tmp_path / "web.crt"))
    flood = Flood(int(url.rpartition(":")[2]), count)

    def visit():
        flood.turn()
        with contextlib.suppress(httpx.HTTPError), httpx.Client(verify=verify, timeout=10, trust_env=False) as client:
            return client.get(f"{url}/").status_code == 200
        return False

    wait_until(visit, 60, what="the page")
    before_kib = memory_kib(page.pid)
    try:
        while flood.closed < count:
            flood.turn()
        for _ in range(5):
            wait_until(visit, 60, what="an answer during the flood")
    finally:
        flood.close()
    assert memory_kib(page.pid) - before_kib < GROWTH_MAX
    if not secure:
        page.expect("Too many connections")
    runs = json.loads(beatd("history", "tick", "-n", "1000", "--json", "--config", str(file)).stdout)["runs"]
    assert statistics.median(run["lateness_ms"] for run in runs) <= 1_000
