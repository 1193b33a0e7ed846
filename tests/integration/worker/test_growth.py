"""Growth: what the store holds depends on the number of entries, not on the number of their runs."""

import re
from collections import Counter

import pytest

from beatd.model import Entry, Options, Policies
from beatd.schedules import every
from tests.simulated_fleet import Fleet

ENTRIES = 40


def boom():
    raise ValueError("boom")


TASKS = {"none": lambda: None, "add": lambda x=1: x + 1, "boom": boom}
PLAIN = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|e\d+$")


def entries(task):
    overlaps = ("allow", "skip", "queue_one")
    return [
        Entry(name=f"e{n}", task=task, schedule=every("1s"), policies=Policies(overlap=overlaps[n % 3]))
        for n in range(ENTRIES)
    ]


@pytest.fixture
def make_fleet(redis_url):
    fleets = []

    def make(**conf):
        fleets.append(Fleet(redis_url, TASKS, **conf))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


def kinds(client):
    """How many keys there are of each kind."""
    return Counter(PLAIN.sub("*", key.decode()) for key in client.scan_iter(count=1000))


@pytest.mark.parametrize("task", [*(pytest.param(task, marks=pytest.mark.slow) for task in ("none", "add")), "boom"])
def test_neither_keys_nor_memory_grow_with_runs(make_fleet, task):
    fleet = make_fleet()
    fleet.schedule(entries(task))
    fleet.run_for(75)
    first, bytes_before = kinds(fleet.client), fleet.client.info("memory")["used_memory_dataset"]
    fleet.run_for(75)
    assert fleet.client.hvals(fleet.keys.shard().runs) == [b"150"] * ENTRIES
    assert fleet.client.hlen(fleet.keys.shard().ended) == ENTRIES
    assert {len(text.split()) for text in fleet.client.hvals(fleet.keys.shard().ended)} == {2}
    assert kinds(fleet.client) == first
    assert {kind: count for kind, count in first.items() if count > 1} == {
        "{beatd}:history:*": ENTRIES,
        "{beatd}:outcomes:*": ENTRIES,
    }
    grown = fleet.client.info("memory")["used_memory_dataset"] - bytes_before
    runs = 75 * ENTRIES
    assert grown / runs < 30, "bytes a run; its keys alone took 388"


def test_a_document_is_there_where_somebody_asks_for_it(make_fleet):
    fleet = make_fleet()
    kept = Entry(name="kept", task="add", schedule=every("1s"), options=Options(keep_result=True))
    fleet.schedule([kept, *entries("add")[:1]])
    fleet.run_for(3)
    assert kinds(fleet.client)["celery-task-meta-*"] == 3


def test_a_worker_whose_store_is_not_the_daemons_stores_documents(make_fleet):
    """The daemon finds nothing else of its runs."""
    fleet = make_fleet()
    fleet.schedule(entries("add")[:1])
    fleet.client.delete(fleet.keys.shard().fingerprints)
    fleet.run_for(3)
    assert kinds(fleet.client)["celery-task-meta-*"] == 3
    fleet.client.hset(fleet.keys.shard().fingerprints, "e0", "0 every")
    fleet.run_for(3)
    assert kinds(fleet.client)["celery-task-meta-*"] == 3


def test_the_app_may_ask_for_all_of_them_and_an_entry_refuse(make_fleet):
    fleet = make_fleet(task_keep_result=True)
    refuses = Entry(name="refuses", task="add", schedule=every("1s"), options=Options(keep_result=False))
    fleet.schedule([refuses, *entries("add")[:1]])
    fleet.run_for(3)
    assert kinds(fleet.client)["celery-task-meta-*"] == 3
