"""Costs that repeat: commands to the server, bytes and calls of functions for each run. Seconds are not counted.

A batch of runs costs a number of commands, not a number for each run; so the counts below are of one instant at which
many entries are due.
"""

import sys
import threading
from collections import Counter

import pytest
import redis

from beatd.model import Entry
from beatd.schedules import every
from tests.simulated_fleet import Fleet


@pytest.fixture
def make_fleet(redis_url):
    fleets = []

    def make(entries):
        fleets.append(Fleet(redis_url, {"proj.tasks.none": lambda: None}))
        fleets[-1].schedule(
            [Entry(name=f"entry-{n}", task="proj.tasks.none", schedule=every("1s")) for n in range(entries)]
        )
        fleets[-1].run_for(3)  # scripts are sent, and templates made
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


class Listener(threading.Thread):
    """The commands that clients send; those of scripts are theirs."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.commands = []
        self._client = redis.Redis.from_url(url)
        self.ready = threading.Event()

    def run(self):
        with self._client.monitor() as monitor:
            self.ready.set()
            for one in monitor.listen():
                if "the end" in one["command"]:
                    return
                if one["client_type"] != "lua":
                    self.commands.append(one["command"].split(" ", 1)[0].upper())


def commands(fleet, redis_url):
    """The commands of one instant."""
    listener = Listener(redis_url)
    listener.start()
    assert listener.ready.wait(10)
    fleet.run_for(1)
    fleet.client.echo("the end")
    listener.join(10)
    assert not listener.is_alive()
    return Counter(listener.commands)


def test_a_batch_of_runs_costs_as_many_commands_as_a_few_of_them(make_fleet, redis_url):
    few = commands(make_fleet(10), redis_url)
    make_fleet(0).client.flushall()
    many = commands(make_fleet(200), redis_url)
    assert sum(few.values()) <= 13, few
    assert 0 <= many.pop("EVALSHA") - few.pop("EVALSHA") <= 3, "claims; the first batches of a herd are small"
    assert few == many


def test_bytes_of_a_run(make_fleet):
    fleet = make_fleet(200)
    before = fleet.client.info("stats")
    fleet.run_for(5)
    after = fleet.client.info("stats")
    assert int(fleet.client.hget(fleet.keys.shard().runs, "entry-0")) == 8
    to_server = (after["total_net_input_bytes"] - before["total_net_input_bytes"]) / 1_000
    from_server = (after["total_net_output_bytes"] - before["total_net_output_bytes"]) / 1_000
    assert to_server < 1_700, "its message, 830 bytes, goes there once, and 250 of its record"
    assert from_server < 1_200, "its message comes back once"


def calls_of_a_turn(fleet, entries, *, ahead):
    """The calls of functions, those in C among them, of a turn in which so many entries are due at an instant.

    ``ahead``: their messages were rendered before it, as they are where a turn has come between 5 s and the instant.
    """
    fleet.schedule([Entry(name=f"entry-{n}", task="proj.tasks.none", schedule=every("6s")) for n in range(entries)])
    for seconds in (6, 6, 3) if ahead else (6, 6):  # scripts are sent, templates made, and the term verified
        fleet.clock.advance(seconds)
        while fleet.daemon.turn() == 0.0:
            pass
    fleet.clock.advance(3 if ahead else 6)
    number = 0

    def count(_frame, event, _function):
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    fleet.daemon.turn()
    sys.setprofile(None)
    assert fleet.heap.next_fire_ms() == fleet.clock.now_ms() + 6_000
    return number


@pytest.mark.parametrize(("ahead", "of_a_turn", "of_a_run"), [(True, 335, 23), (False, 360, 44)])
def test_calls_of_functions(make_fleet, ahead, of_a_turn, of_a_run):
    """A third of those of a turn are redis-py's. Python 3.11 is the version that makes most."""
    fleet = make_fleet(0)
    turn = calls_of_a_turn(fleet, 1, ahead=ahead)
    herd = calls_of_a_turn(fleet, 301, ahead=ahead)
    assert turn < of_a_turn, "with its only run"
    assert (herd - turn) / 300 < of_a_run
