"""The worker between its fakes in random order. Starts, ends, kills, revocations and failing servers interleave as they
like; in the end each message is settled once, after its result."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from beatd.exceptions import BrokerError, StoreError
from beatd.states import FAILURE, SUCCESS
from beatd.worker.messages import KILLED, LOST

RUN = {"beatd-entry": "e", "beatd-due-at": "2026-01-01T00:00:00+00:00"}
TASKS = ["late", "late", "early", "limited", "keeps", "unknown"]


class Play:
    """One random sequence of events; ``moves`` are what may happen between two turns."""

    def __init__(self, bench, seed):
        self.bench, self.draw = bench, random.Random(seed)
        self.tasks: dict[int, str] = {}
        self.lost: set[int] = set()
        """Messages that another worker has taken."""
        self.held_when_lost: set[int] = set()
        self.dropped: set[int] = set()
        """Requests that remote control has revoked before they began."""
        self.moves = [
            *[self.send, self.begin, self.end] * 3,
            self.revoke,
            self.drop,
            self.end_in_the_turn_of_its_start,
            self.report_twice,
            self.lose_message,
            self.fail_servers,
            self.mend_servers,
            self.pass_time,
        ]

    def send(self):
        tag = len(self.tasks) + 1
        self.tasks[tag] = self.draw.choice(TASKS)
        self.bench.send(tag, self.tasks[tag], headers=RUN if self.draw.random() < 0.5 else {})

    def _waiting(self):
        return [tag for tag in self.bench.pool.jobs if tag not in self.bench.pool.running]

    def begin(self):
        if waiting := self._waiting():
            self.bench.pool.begin(self.draw.choice(waiting))

    def end(self):
        if running := list(self.bench.pool.running):
            self._end(self.draw.choice(running))

    def _end(self, tag):
        killed = any(tag == each for each, _ in self.bench.pool.killed)
        state = KILLED if killed else self.draw.choice([SUCCESS, SUCCESS, LOST])
        self.bench.pool.end(tag, state, **({} if state == SUCCESS else {"document": None, "text": "signal 9"}))

    def end_in_the_turn_of_its_start(self):
        if waiting := self._waiting():
            tag = self.draw.choice(waiting)
            self.bench.pool.begin(tag)
            self._end(tag)

    def report_twice(self):
        """The process has reported the end, and its death is noticed, too."""
        if running := list(self.bench.pool.running):
            tag = self.draw.choice(running)
            self.bench.pool.end(tag)
            self.bench.pool.end(tag, LOST, document=None, text="signal 9")

    def revoke(self):
        if self.tasks:
            self.bench.remote.revoked.add([f"id-{self.draw.choice(list(self.tasks))}"], self.bench.clock.now_ms())

    def drop(self):
        """Remote control revokes a request that no process has; one that runs is killed."""
        if requests := list(self.bench.remote.tools.requests.values()):
            request = self.draw.choice(requests)
            if self.bench.pool.withdraw(request.delivery.tag):
                self.dropped.add(request.delivery.tag)
                self.bench.remote.tools.drop(request)
            else:
                request.terminated = 15
                self.bench.pool.kill(request.delivery.tag, 15)

    def lose_message(self):
        held = [request.delivery.tag for request in self.bench.remote.tools.held()]
        if tags := [*self.bench.pool.jobs, *held]:
            tag = self.draw.choice(tags)
            self.held_when_lost |= {tag} & set(held)
            self.lost.add(tag)
            self.bench.consumer.gone.append(tag)

    def fail_servers(self):
        bench, draw = self.bench, self.draw
        bench.consumer.away = {name for name in ("ack", "tend", "take", "give_back") if draw.random() < 0.3}
        bench.results.away, bench.finished.away = draw.random() < 0.3, draw.random() < 0.3

    def mend_servers(self):
        self.bench.consumer.away = set()
        self.bench.results.away = self.bench.finished.away = False

    def pass_time(self):
        self.bench.clock.advance(self.draw.random() * 3)

    def turn(self):
        try:
            self.bench.turn()
        except (BrokerError, StoreError):
            return

    def run(self, steps):
        for _ in range(steps):
            for _ in range(self.draw.randrange(4)):
                self.draw.choice(self.moves)()
            self.turn()
        self.mend_servers()
        bench = self.bench
        while bench.consumer.inbox or bench.pool.jobs or bench.pool.reports or bench.remote.tools.held():
            bench.clock.advance(1)
            for tag in list(self.bench.pool.jobs):
                self.bench.pool.begin(tag)
                self._end(tag)
            self.turn()
        self.turn()


@pytest.mark.parametrize("seed", range(40))
def test_each_message_is_settled_once_and_after_its_result(make_bench, seed):
    bench = make_bench(rates={"early": "2/s"})
    play = Play(bench, seed)
    play.run(120)
    journal = bench.journal
    assert not bench.remote.tools.requests
    assert not bench.worker._settlement.pending
    settled = Counter(journal.of("ack") + journal.of("give_back"))
    stored = Counter(task_id for task_id, _ in journal.of("store"))
    assert len(play.tasks) > 20
    for tag, task in play.tasks.items():
        if tag in play.lost & set(bench.pool.withdrawn) - play.dropped:
            assert (settled[tag], stored[f"id-{tag}"]) == (0, 0), (tag, task)
            continue
        if tag in play.held_when_lost:  # forgotten, or begun in the turn before
            assert settled[tag] == stored[f"id-{tag}"] <= 1, (tag, task)
            continue
        assert settled[tag] == 1, (tag, task)
        if tag in journal.of("give_back"):
            assert stored[f"id-{tag}"] == 0, (tag, task)
            continue
        assert stored[f"id-{tag}"] == 1, (tag, task)
        if task != "early":
            result = next(n for n, (kind, value) in enumerate(journal) if kind == "store" and value[0] == f"id-{tag}")
            assert result < journal.index(("ack", tag)), (tag, task)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_unfinished_at_the_end_goes_back_or_fails(make_bench, seed):
    """A cold shutdown at any point: unacknowledged messages go back, tasks that were acknowledged early fail."""
    bench = make_bench()
    play = Play(bench, seed)
    for _ in range(30):
        play.draw.choice([play.send, play.send, play.begin, play.end, play.end_in_the_turn_of_its_start])()
        play.turn()
    bench.worker.stop()
    bench.worker.stop()
    bench.worker.run()
    settled = Counter(bench.journal.of("ack") + bench.journal.of("give_back"))
    taken = play.tasks.keys() - {delivery.tag for delivery in bench.consumer.inbox}
    assert {tag: settled[tag] for tag in taken} == dict.fromkeys(taken, 1)
    states = dict(bench.journal.of("store"))
    for tag in bench.journal.of("ack"):
        assert states[f"id-{tag}"] in {SUCCESS, FAILURE}
