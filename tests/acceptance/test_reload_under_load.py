"""Whatever happens to the files: no run of an entry that stays is lost, doubled, or held up."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

pytestmark = pytest.mark.slow


class Headers(msgspec.Struct):
    entry: str = msgspec.field(name="beatd-entry")
    due_at: str = msgspec.field(name="beatd-due-at")


class Message(msgspec.Struct):
    headers: Headers


class Receiver(threading.Thread):
    """Takes the messages of the steady entries as they come."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.dues: dict[str, list[int]] = defaultdict(list)
        self.latest = 0.0
        self.over = threading.Event()
        self._client = redis.Redis.from_url(url)
        self._decode = msgspec.json.Decoder(Message).decode

    def run(self) -> None:
        while self._take() or not self.over.wait(0.01):
            pass

    def _take(self) -> bool:
        messages = self._client.rpop("steady", 2000) or []
        now = time.time()
        for headers in (self._decode(raw).headers for raw in messages):
            due = datetime.fromisoformat(headers.due_at).timestamp()
            self.dues[headers.entry].append(round(due * 1000))
            self.latest = max(self.latest, now - due)
        return bool(messages)

    def unsteady(self) -> dict[str, list[int]]:
        """Entries that did not run at each second from their first run to their last one, with their due times."""
        return {
            name: dues
            for name, dues in self.dues.items()
            if dues != [*range(dues[0], dues[0] + 1000 * len(dues), 1000)]
        }


def entries(names: Iterator[str] | list[str], schedule: str = "1", queue: str = "steady") -> str:
    return "".join(
        f'[beat_schedule.{name}]\ntask = "t"\nschedule = {schedule}\nqueue = "{queue}"\n\n' for name in names
    )


class Tinkerer:
    """Does to files what people, editors and deployments do to them, one thing after the other."""

    def __init__(self, folder: Path, head: str, steady: int, hang_up: Callable[[], None]) -> None:
        self.main, self.extra, self.map = folder / "beat.toml", folder / "beat.d", folder / "map"
        self._steady = head + entries([f"steady-{n}" for n in range(steady)])
        self._hang_up = hang_up
        self._numbers = itertools.count()
        self.extra.mkdir()
        self.map.mkdir()
        self.main.write_text(self._text())
        self.config_map()
        (self.extra / "map.toml").symlink_to(self.map / "..data" / "map.toml")
        self.ways = itertools.cycle(
            [
                self.edit,
                self.rename,
                self.swap,
                self.config_map,
                self.add,
                self.break_it,
                self.edit,
                self.remove,
                self.delete,
                self.edit_again,
                self.hang_up,
                self.break_included,
                self.repair_included,
            ]
        )

    def _text(self) -> str:
        return self._steady + entries([f"churn-{next(self._numbers)}"], '"@yearly"', "churn")

    def edit(self) -> None:
        self.main.write_text(self._text())

    edit_again = edit

    def rename(self) -> None:
        new = self.main.with_name("new")
        new.write_text(self._text())
        new.replace(self.main)

    def swap(self) -> None:
        """As vim does it."""
        swap = self.main.with_name(".beat.toml.swp")
        swap.write_text("b0VIM")
        self.main.rename(self.main.with_name("beat.toml~"))
        self.main.write_text(self._text())
        swap.unlink()

    def config_map(self) -> None:
        """As Kubernetes does it."""
        version = self.map / f"..version-{next(self._numbers)}"
        version.mkdir()
        (version / "map.toml").write_text(entries([f"map-{version.name[10:]}"], '"@yearly"', "churn"))
        link = self.map / "..data_tmp"
        link.symlink_to(version.name)
        old = self.map.joinpath("..data").resolve() if (self.map / "..data").exists() else None
        link.replace(self.map / "..data")
        if old is not None:
            shutil.rmtree(old)

    def add(self) -> None:
        (self.extra / "more.toml").write_text(entries(["more"], '"@yearly"', "churn"))

    def remove(self) -> None:
        (self.extra / "more.toml").unlink()

    def break_it(self) -> None:
        self.main.write_text(self._text() + "[beat_schedule.broken\n")

    def delete(self) -> None:
        self.main.unlink()

    def hang_up(self) -> None:
        self._hang_up()

    def break_included(self) -> None:
        (self.extra / "bad.toml").write_text(entries(["bad"], '"99 * * * *"'))

    def repair_included(self) -> None:
        (self.extra / "bad.toml").write_text(entries(["bad"], '"@yearly"', "churn"))


@pytest.mark.parametrize(
    ("steady", "changes", "pause"),
    [(300, 13, 0.5), pytest.param(10_000, 100, 0.6, marks=[pytest.mark.soak, pytest.mark.timeout(400)])],
)
def test_nothing_is_lost_or_doubled_by_reloads(
    steady: int, changes: int, pause: float, start_beatd: Any, tmp_path: Path, redis_url: str, wait_until: Any
) -> None:
    head = f'include = ["beat.d/*.toml"]\n[redis]\nurl = "{redis_url}"\n[log]\nformat = "json"\n\n'
    tinkerer = Tinkerer(tmp_path, head, steady, lambda: os.kill(daemon.pid, signal.SIGHUP))
    receiver = Receiver(redis_url)
    receiver.start()
    daemon = start_beatd("--config", "beat.toml")
    wait_until(lambda: len(receiver.dues) == steady, timeout=60, what="a run of each entry")
    receiver.latest = 0.0
    time.sleep(5 * pause)
    quiet, receiver.latest = receiver.latest, 0.0
    for way in itertools.islice(tinkerer.ways, changes):
        way()
        time.sleep(pause)
    tinkerer.break_it()  # none of those before may have been seen
    daemon.expect("config_kept", times=len(daemon.find("config_kept")) + 1, timeout=30)
    tinkerer.edit()
    daemon.expect(f"churn-{next(tinkerer._numbers) - 1}", timeout=30)
    latest = receiver.latest
    reached = max(dues[-1] for dues in receiver.dues.values())
    wait_until(lambda: all(dues[-1] > reached for dues in receiver.dues.values()), timeout=30, what="runs after that")
    assert daemon.end(signal.SIGTERM, timeout=30) == 0
    receiver.over.set()
    receiver.join(30)

    taken, kept = len(daemon.find("config_reloaded|config_unchanged")), len(daemon.find("config_kept"))
    runs = sum(map(len, receiver.dues.values()))
    print(f"\n{runs:,} runs of {steady:,} entries; {taken} reloads, {kept} of broken files")
    print(f"the latest run came {latest * 1000:.0f} ms late; while nothing changed, {quiet * 1000:.0f} ms")
    assert len(receiver.dues) == steady
    assert receiver.unsteady() == {}
    assert taken >= changes // 3
    assert kept >= 1
