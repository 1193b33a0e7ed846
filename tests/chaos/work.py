"""The bundled worker under chaos, and the log of what its tasks have really done."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import redis

from tests.chaos.fleet import Place
from tests.chaos.ledger import Books
from tests.conftest import Server, server_binary

QUEUE = "chaos-work"

TASKS = """
import os
import redis
from beatd import App

app = App("chaos")
app.conf.task_ignore_result = True
log = redis.Redis.from_url(os.environ["CHAOS_LOG"])

@app.task(name="tasks.tick", bind=True, acks_late=True)
def tick(self):
    log.rpush("executed", self.request.id + " " + os.environ["CHAOS_START"])
"""


class Executions(NamedTuple):
    """What was executed, and how often."""

    executed: int
    missing: list[str]
    twice: list[str]
    """Runs that a worker executed although they had been executed, and the worker that had was not killed."""
    again: int
    """Executions of runs that a worker had executed and not settled when it was killed: late acknowledgement."""

    def __str__(self) -> str:
        text = f"executed {self.executed}: {len(self.missing)} missing, {len(self.twice)} twice"
        return text + f", {self.again} again after their worker was killed" * bool(self.again)


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

    def executed(self) -> dict[str, list[int]]:
        """Run id → the processes that have executed it, by their numbers."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        with redis.Redis.from_url(self._log.url) as client:
            for raw in client.lrange("executed", 0, -1):
                run_id, number = raw.decode().split()
                found[run_id].append(int(number))
        return found

    def count(self) -> int:
        """How many executions there have been."""
        with redis.Redis.from_url(self._log.url) as client:
            return int(client.llen("executed"))

    def balance(self, books: Books) -> Executions:
        """Compare what was executed with what had come for it."""
        executed = self.executed()
        assert executed.keys() <= books.ids, "something was executed that nobody had sent"
        repeated = {run_id: numbers for run_id, numbers in executed.items() if len(numbers) > 1}
        twice = [run_id for run_id, numbers in repeated.items() if not self._excused(numbers)]
        again = sum(len(numbers) - 1 for run_id, numbers in repeated.items() if self._excused(numbers))
        return Executions(len(executed), sorted(books.ids - executed.keys()), twice, again)

    def _excused(self, numbers: list[int]) -> bool:
        """Whether each execution but the last was in a worker of its own that was killed."""
        return len(set(numbers)) == len(numbers) and set(sorted(numbers)[:-1]) <= self._killed

    def close(self) -> None:
        self.place.kill()
        self._log.close()
