"""Open pages: the lateness of the beat with ten status pages open, against none, in the same run.

    python benchmarks/pages.py [-n 10000] [--pages 10] [--rate 1000] [--seconds 5] [--phases 3]

One daemon and one page; N entries, each with ten past runs, of which ``--rate`` are due in each second. Phases without
and with open pages alternate. An open page does what a browser does: it keeps a stream, and asks for itself when the
stream says so, 400 ms later, and every 15 seconds. The CPU time that ten browsers would need is not spent.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis
from figures import LIMIT, Figure, lines, show, table
from herd import end, fresh_redis
from questions import fill, get, wait
from reload import cpu_seconds
from steady import lateness

SOON_S, AGAIN_S, STREAM_S = 0.4, 15.0, 30.0
"""As ``page.js``: the pause after a change, the pause without one, and how long a stream may be silent."""
WARM_S = 1.5


class OpenPage(threading.Thread):
    """A browser with the page open; ``answers`` has the seconds that each refresh took."""

    def __init__(self, port: int, place: str) -> None:
        super().__init__(daemon=True)
        self.answers: list[float] = []
        self._port, self._place = port, place
        self._changed, self._closed = threading.Event(), threading.Event()
        self._stream = http.client.HTTPConnection("127.0.0.1", port, timeout=STREAM_S)
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def run(self) -> None:
        self._listener.start()
        asking = http.client.HTTPConnection("127.0.0.1", self._port, timeout=STREAM_S)
        while not self._closed.is_set():
            began = time.perf_counter()
            asking.request("GET", self._place, headers={"Accept-Encoding": "gzip"})
            answer = asking.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"{self._place}: HTTP {answer.status}")
            self.answers.append(time.perf_counter() - began)
            self._changed.wait(AGAIN_S)
            self._closed.wait(SOON_S)
            self._changed.clear()
        asking.close()

    def close(self) -> None:
        """Close the page, as a user does."""
        self._closed.set()
        self._changed.set()
        if self._stream.sock:
            with suppress(OSError):
                self._stream.sock.shutdown(socket.SHUT_RDWR)
        self.join(STREAM_S)
        self._listener.join(STREAM_S)

    def _listen(self) -> None:
        with suppress(OSError, http.client.HTTPException):
            self._stream.request("GET", "/live")
            for line in self._stream.getresponse():
                if line.startswith(b"event: change"):
                    self._changed.set()


class Browsers:
    """Open pages in a process of their own; ``answers`` has the seconds of each refresh once they are closed."""

    def __init__(self, port: int, pages: int) -> None:
        command = [sys.executable, __file__, "--browse", str(port), "--pages", str(pages)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answers: list[float] = []

    def close(self) -> None:
        """Close all pages."""
        out, _ = self._process.communicate(timeout=2 * STREAM_S)
        self.answers = json.loads(out)


def browse(port: int, pages: int) -> None:
    """Keep pages open until the end of standard input; writes the seconds of their answers."""
    opened = [OpenPage(port, "/") for _ in range(pages)]
    for page in opened:
        page.start()
    sys.stdin.read()
    for page in opened:
        page.close()
    print(json.dumps([seconds for page in opened for seconds in page.answers]))


def beat_toml(url: str, n: int, rate: int) -> str:
    """``n`` entries, of which ``rate`` are due in each second, one after the other."""
    parts = [f'[redis]\nurl = "{url}"\n[log]\nlevel = "warning"\n']
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(n):
        anchor = (begin + timedelta(seconds=number / rate)).isoformat(timespec="milliseconds")
        schedule = f'{{ every = "{n // rate}s", anchor = {anchor} }}'
        parts.append(f'[beat_schedule.entry-{number}]\ntask = "tasks.noop"\nschedule = {schedule}\n')
    return "".join(parts)


def figures(n: int, pages: int, rate: int, seconds: float, phases: int) -> Iterator[Figure]:
    """One round."""
    row = f"{rate:,}/s of {n:,} entries, {pages} pages"
    with fresh_redis() as url, tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        Path(folder, "beat.toml").write_text(beat_toml(url, n, rate))
        fill(url, n)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "beatd"]
        daemon = subprocess.Popen([*command, "run"], cwd=folder)
        page = subprocess.Popen([*command, "web", "--port", str(port)], cwd=folder)
        try:
            client = redis.Redis.from_url(url)
            wait(lambda: client.llen("celery"), "the first message")
            wait(lambda: answers(port), "the page")
            for _ in range(phases):
                yield from phase(f"{LIMIT}: no page", row, url, seconds)
                opened, cpu = Browsers(port, pages), cpu_seconds(page.pid)
                began = time.monotonic()
                try:
                    yield from phase("beatd", row, url, seconds)
                finally:
                    opened.close()
                spent = (cpu_seconds(page.pid) - cpu) / (time.monotonic() - began)
                yield Figure(row, "CPU of the page", "beatd", 100 * spent, "%", more_is_better=False)
                yield Figure(row, "refreshes", "beatd", len(opened.answers) / (time.monotonic() - began))
                answer = statistics.median(opened.answers)
                yield Figure(row, "answer of the page, p50", "beatd", 1000 * answer, "ms", more_is_better=False)
        finally:
            end(page)
            end(daemon)


def phase(who: str, row: str, url: str, seconds: float) -> Iterator[Figure]:
    """The lateness in so many seconds, after some that do not count."""
    lateness(url, WARM_S)
    late = sorted(lateness(url, seconds))
    yield Figure(row, "runs", who, len(late) / seconds)
    for what, at in (("lateness, p50", 0.5), ("lateness, p99", 0.99), ("lateness, most", 1.0)):
        ms = late[min(int(len(late) * at), len(late) - 1)] if late else math.nan
        yield Figure(row, what, who, ms, "ms", more_is_better=False)


def answers(port: int) -> bool:
    try:
        return get(f"http://127.0.0.1:{port}/") == 200
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=10_000, help="entries (default: 10000)")
    parser.add_argument("--pages", type=int, default=10, help="pages that are open (default: 10)")
    parser.add_argument("--rate", type=int, default=1_000, help="runs a second (default: 1000)")
    parser.add_argument("--seconds", type=float, default=5, help="of each phase (default: 5)")
    parser.add_argument("--phases", type=int, default=3, help="without and with pages (default: 3)")
    parser.add_argument("--browse", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.browse:
        browse(options.browse, options.pages)
        return
    os.environ.pop("BEATD_CONFIG", None)
    found = []
    for one in figures(options.n, options.pages, options.rate, options.seconds, options.phases):
        show([one])
        found.append(one)
    print(table(lines(found)))


if __name__ == "__main__":
    main()
