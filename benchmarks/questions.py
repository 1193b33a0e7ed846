"""The ten questions of an operator, with a stop-watch: each command, and each place of the page, on a large fleet.

    python benchmarks/questions.py [-n 10000] [--workers 3] [--rounds 3]

One daemon, several workers and the page; N entries with ten past runs each, five entries that fail, one that is paused,
one dead letter. Times are of whole command lines, from the start of the process to its end, and of whole answers over
HTTP: the median of some rounds. The last column is the exit code, or the HTTP status.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from herd import fresh_redis

from beatd.client import Schedules
from beatd.model import run_id
from beatd.store import history
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.outcomes import Ended, Outcomes
from beatd.store.run_record import RunRecord, encoded
from beatd.timestamps import iso_ms

FAILING, RUNS = 5, 10
GOAL_S = 1.0
APP = """
import time
from beatd import App

app = App("proj")


@app.task(name="proj.fails")
def fails():
    raise ValueError("no rows")


@app.task(name="proj.long")
def long():
    time.sleep(600)


@app.task(name="proj.works")
def works():
    print("42 rows")
"""
ENTRY = '[beat_schedule.{name}]\ntask = "proj.{task}"\nschedule = "{schedule}"\ntags = ["{tag}"]\n\n'


def beat_toml(url: str, n: int) -> str:
    """A file with so many entries, spread over day and week."""
    parts = [f'app = "proj_of_questions:app"\n[redis]\nurl = "{url}"\n[log]\nlevel = "warning"\n\n']
    for number in range(n - FAILING - 2):
        schedule = f"{number % 60} {number // 60 % 24} * * {number % 7}"
        parts.append(ENTRY.format(name=f"entry-{number}", task="works", schedule=schedule, tag=f"team-{number % 20}"))
    parts += [
        ENTRY.format(name=f"failing-{number}", task="fails", schedule="0 4 * * *", tag="failing")
        for number in range(FAILING)
    ]
    parts.append(ENTRY.format(name="nightly-report", task="works", schedule="30 2 * * *", tag="billing"))
    parts.append(ENTRY.format(name="long", task="long", schedule="@yearly", tag="billing"))
    return "".join(parts)


def fill(url: str, n: int) -> None:
    """Write ten past runs of each entry, as a daemon and workers would have."""
    keys, now_ms = Keys("beatd"), time.time_ns() // 1_000_000
    names = [f"entry-{number}" for number in range(n - FAILING - 2)] + ["nightly-report"]
    with connect(url) as client:
        outcomes = Outcomes(client, keys)
        for start in range(0, len(names), 500):
            batch, ended = names[start : start + 500], []
            with client.pipeline(transaction=False) as pipeline:
                for name in batch:
                    dues = [now_ms - day * 86_400_000 for day in range(RUNS, 0, -1)]
                    cells = [history.run_cell(history.SENT, due_ms, due_ms, due_ms + 2) for due_ms in dues]
                    cells = [cell[:-5] + history.end("SUCCESS", 1_200) for cell in cells]
                    pipeline.append(keys.history(name), b"".join(cells))
                    id_ = run_id(name, dues[-1])
                    record = RunRecord(run_id=id_, state="SUCCESS", start_ms=dues[-1], end_ms=dues[-1] + 1_200)
                    ended.append(
                        Ended(id_, name, iso_ms(dues[-1]), "SUCCESS", 1.2, encoded(record), end_ms=record.end_ms)
                    )
                pipeline.execute()
            outcomes.note(ended)


class Fleet:
    """Processes of beatd in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> None:
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "beatd", *arguments]
            self.running.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "beatd", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, timeout=120, check=False)

    def end(self) -> None:
        for each in self.running:
            each.send_signal(signal.SIGTERM)
        for each in self.running:
            try:
                each.wait(15)
            except subprocess.TimeoutExpired:
                each.kill()


@contextmanager
def fleet(n: int, workers: int) -> Iterator[tuple[Fleet, int, str]]:
    """A fleet as the questions need it, the port of its page, and the id of a run that is at work."""
    with fresh_redis() as url, tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        one = Fleet(Path(folder))
        (one.folder / "proj_of_questions.py").write_text(APP)
        (one.folder / "beat.toml").write_text(beat_toml(url, n))
        (one.folder / "new.toml").write_text(beat_toml(url, n).replace("30 2 * * *", "30 3 * * *"))
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        try:
            fill(url, n)
            one.start("run")
            for number in range(workers):
                one.start("worker", "--config", "beat.toml", "-c", "1", "-n", f"w{number}@host")
            one.start("web", "--port", str(port))
            with Schedules(url) as schedules:
                wait(lambda: json.loads(one.ask("status", "--json").stdout or b"{}").get("ready"), "the daemon")
                for number in range(FAILING):
                    schedules.trigger(f"failing-{number}")
                running = schedules.trigger("long").run_id
                schedules.pause("entry-7", reason="migration", by="anna")
            with connect(url) as client:
                client.lpush("celery", b"garbage")
            failed = lambda: len(json.loads(one.ask("list", "--failed", "--json").stdout)["entries"])  # noqa: E731
            wait(lambda: failed() == FAILING, "the failures")
            yield one, port, running
        finally:
            one.end()


def wait(is_there: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 120
    while not is_there():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.1)


def questions(running: str) -> list[tuple[str, list[list[str]], list[str]]]:
    """Each question with the commands and the places that answer it."""
    return [
        ("1 is all well", [["status", "--check"]], ["/", "/api/v1/problems"]),
        ("2 which fail", [["list", "--failed"], ["list", "--json"], ["list", "--tag", "billing"]],
         ["/?only=failing", "/api/v1/entries?only=failing"]),
        ("3 did it run", [["history", "nightly-report"], ["describe", "nightly-report"], ["run-info", running[:8]]],
         ["/entries/nightly-report", f"/runs/{running}"]),
        ("4 what comes", [["next", "-n", "20"], ["simulate", "--to", "+1d"], ["advise"]],
         ["/timeline", "/timeline?window=7d"]),
        ("5 why", [["why", "nightly-report", "-1d"], ["why", "entry-7", "now", "--connect"]], []),
        ("6 act", [["trigger", "nightly-report"], ["pause", "entry-8", "--for", "1h"], ["resume", "entry-8"],
                   ["backfill", "nightly-report", "--from", "-2d", "--to", "now", "--dry-run"]], []),
        ("7 who did", [["audit"]], ["/audit"]),
        ("8 workers", [["inspect", "active"]], ["/workers", "/queues"]),
        ("9 dead letters", [["dead-letters", "list"]], ["/dead-letters"]),
        ("10 who leads", [["status", "--json"], ["diff", "new.toml"]], ["/fleet"]),
        ("6 stop it", [["stop-run", running]], []),
    ]  # fmt: skip


def timed(ask: Callable[[], int], rounds: int) -> tuple[float, int]:
    times, code = [], 0
    for _ in range(rounds):
        began = time.perf_counter()
        code = ask()
        times.append(time.perf_counter() - began)
    return statistics.median(times), code


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.pop("BEATD_CONFIG", None)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation has its bytecode
    slow = 0
    with fleet(options.n, options.workers) as (one, port, running):
        for question, commands, places in questions(running):
            for words in commands:
                rounds = 1 if words[0] in ("stop-run", "resume", "pause") else options.rounds
                seconds, code = timed(lambda words=words: one.ask(*words).returncode, rounds)
                slow += seconds > GOAL_S
                print(f"{question:<16} beatd {' '.join(words)[:44]:<46} {seconds:7.2f} s  {code}", flush=True)
            for place in places:
                url = f"http://127.0.0.1:{port}{place}"
                seconds, code = timed(lambda url=url: get(url), options.rounds)
                slow += seconds > GOAL_S
                print(f"{question:<16} {place[:50]:<52} {seconds:7.2f} s  {code}", flush=True)
    print(f"{slow} took longer than {GOAL_S:g} s")


if __name__ == "__main__":
    main()
