"""The bundled worker under chaos, and the log of what its tasks have really done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import redis

from tests.chaos.fleet import Place
from tests.chaos.ledger import Books
from tests.conftest import Server, server_binary

QUEUE = "chaos-work"

TASKS = """
import os
import time
import redis
from beatd import App

app = App("chaos")
app.conf.task_ignore_result = True
log = redis.Redis.from_url(os.environ["CHAOS_LOG"])

@app.task(name="tasks.tick", bind=True, acks_late=True)
def tick(self):
    of = (self.request.get("beatd-entry"), self.request.get("beatd-due-at"))
    log.rpush("executed", " ".join((self.request.id, *of, os.environ["CHAOS_START"], str(time.monotonic()))))
"""


Window = tuple[float, float]
"""From when to when (monotonic) something was the case."""


class Execution(NamedTuple):
    """One time that a run was executed."""

    process: int
    """The worker's number."""
    at: float
    """When (monotonic)."""


class Executions(NamedTuple):
    """What was executed, and how often."""

    executed: int
    missing: list[str]
    twice: list[str]
    """Runs that a worker executed although they had been executed, and the worker that had was not killed."""
    again: int
    """Executions of runs that a worker had executed and not settled when it was killed: late acknowledgement."""
    forgotten: int = 0
    """Executions of runs that had been executed when nodes of a cluster were away: it may not know of their ends."""

    def __str__(self) -> str:
        text = f"executed {self.executed}: {len(self.missing)} missing, {len(self.twice)} twice"
        text += f", {self.again} again after their worker was killed" * bool(self.again)
        return text + f", {self.forgotten} again as their ends were forgotten" * bool(self.forgotten)


class Work:
    """One worker that is ended and started again, and a log on a server that nobody touches."""

    def __init__(self, folder: Path, config: Path, store_kind: str) -> None:
        binary = server_binary(store_kind)
        assert binary is not None, f"{store_kind}-server is not installed"
        self._log = Server(binary)
        self._log.start()
        (folder / "chaos_tasks.py").write_text(TASKS)
        options = ("-A", "chaos_tasks", "--config", str(config), "-Q", QUEUE, "-c", "2", "--log-format", "json")
        self.place = Place("worker", folder, "worker", *options, CHAOS_LOG=self._log.url)
        self.place.start()
        self._killed: set[int] = set()

    def kill(self, *, group: bool) -> None:
        """End it in the middle of whatever it does; ``group``: together with its processes."""
        self._killed.add(self.place.starts)
        self.place.kill(group=group)

    def executed(self, books: Books | None = None) -> dict[str, list[Execution]]:
        """Run id → when it was executed. Each run is noted in ``books``, once."""
        found: defaultdict[str, list[Execution]] = defaultdict(list)
        with redis.Redis.from_url(self._log.url) as client:
            for raw in client.lrange("executed", 0, -1):
                run_id, entry, due_at, number, at = raw.decode().split()
                if books is not None and run_id not in found:
                    books.note({"id": run_id, "beatd-entry": entry, "beatd-due-at": due_at})
                found[run_id].append(Execution(int(number), float(at)))
        return found

    def count(self) -> int:
        """How many executions there have been."""
        with redis.Redis.from_url(self._log.url) as client:
            return int(client.llen("executed"))

    def balance(self, sent: set[str], forgetful: Sequence[Window] = ()) -> Executions:
        """Compare what was executed with the ids of what had come for it. ``forgetful``: when the store's nodes were
        away, or had not heard of each other's writes."""
        executed = self.executed()
        assert executed.keys() <= sent, "something was executed that nobody had sent"
        twice, again, forgotten = list[str](), 0, 0
        for run_id, times in executed.items():
            if len(times) == 1:
                continue
            if self._was_killed(times):
                again += len(times) - 1
            elif any(begin <= times[-1].at and times[0].at <= end for begin, end in forgetful):
                forgotten += len(times) - 1
            else:
                twice.append(run_id)
        return Executions(len(executed), sorted(sent - executed.keys()), twice, again, forgotten)

    def _was_killed(self, times: list[Execution]) -> bool:
        """Whether each execution but the last was in a worker of its own that was killed."""
        numbers = sorted(one.process for one in times)
        return len(set(numbers)) == len(numbers) and set(numbers[:-1]) <= self._killed

    def close(self) -> None:
        self.place.kill()
        self._log.close()
