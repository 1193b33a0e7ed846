"""Outcomes of runs that no bundled worker reports: those by hand among them, whatever has ended around them."""

import pytest

from beatd import config
from beatd.beat.outcomes import OutcomeWatch
from beatd.exceptions import StoreUnavailable
from beatd.message import json_codec
from beatd.model import Entry, manual_run_id, run_id
from beatd.schedules import parse
from beatd.store.client import connect
from beatd.store.entry_state import EntryStates, Fingerprints
from beatd.store.history import SENT, TRIGGERED, by_hand, run_cell
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys, shard_of
from beatd.store.outcomes import SILENT_MS, Outcomes, Started
from beatd.store.results import result_key
from beatd.store.server_check import NodeCheck
from beatd.store.topology import slot_of
from tests.fakes import NOW, FakeClock

KEYS, STEP = Keys("beatd"), 3_600_000
ENTRY = Entry(name="a", task="t", schedule=parse("1h"))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def watch(client, clock):
    return watch_of(client, clock, lambda: [{"a": ENTRY}], ["a"])


def watch_of(client, clock, led, ran, keys=KEYS, results=()):
    """A watch over what is led; ``ran`` is emptied as it looks."""
    keys = keys.without({})

    def ran_since():
        names = list(ran)
        ran.clear()
        return names

    return OutcomeWatch(
        led,
        ran_since,
        Outcomes(client, keys),
        Histories(client, keys, results=results),
        EntryStates(client, keys),
        clock=clock,
        check_nodes=NodeCheck(client, keys),
    )


def look(watch, clock):
    for _ in range(3):  # the first look finds the runs, later ones try them again
        watch.look()
        clock.advance(60)


def test_the_end_of_a_run_by_hand_is_found_though_runs_around_it_have_ended(client, clock, watch):
    """A bundled worker ran the regular runs until now; a worker of Celery's runs what was triggered in between."""
    shard, by_hand_ms = KEYS.shard(), NOW - STEP // 2
    regular, manual = run_id("a", NOW), manual_run_id("a", "request")
    client.append(KEYS.history("a"), by_hand(TRIGGERED, by_hand_ms, by_hand_ms, manual))
    client.append(KEYS.history("a"), run_cell(SENT, NOW, NOW, NOW))
    client.hset(shard.last_due, "a", NOW)
    client.hset(shard.fingerprints, "a", NOW - STEP)
    client.hset(shard.ended, "a", f"{NOW - STEP} {NOW}")
    watch.look()
    result = {"status": "SUCCESS", "result": 1, "task_id": manual, "traceback": None, "children": []}
    client.set(result_key(manual), json_codec.dumps(result))
    clock.advance(60)
    look(watch, clock)
    noted = {one.run_id: one.state for one in Outcomes(client, KEYS).records("a")}
    assert noted == {manual: "SUCCESS"}, f"and nothing is looked for of {regular}"


def test_a_look_is_bounded_and_all_entries_have_their_turn(client, clock, monkeypatch):
    """Entries that run between all looks do not keep the others from being read."""
    monkeypatch.setattr("beatd.beat.outcomes._ENTRIES_A_LOOK", 10)
    monkeypatch.setattr("beatd.beat.outcomes._RUNS_A_LOOK", 10)
    entries = [Entry(name=f"e{number:02}", task="t", schedule=parse("1h")) for number in range(30)]
    outcomes, ran = Outcomes(client, KEYS), []
    watch = watch_of(client, clock, lambda: [{one.name: one for one in entries}], ran)
    client.mset(
        {
            result_key(run_id(entry.name, NOW)): json_codec.dumps(
                {
                    "status": "SUCCESS",
                    "result": 1,
                    "task_id": run_id(entry.name, NOW),
                    "traceback": None,
                    "children": [],
                }
            )
            for entry in entries
        }
    )
    for entry in entries:
        client.append(KEYS.history(entry.name), run_cell(SENT, NOW, NOW, NOW))
    for turn in range(4):
        ran += [entry.name for entry in entries[: None if not turn else 10]]
        watch.look()
        clock.advance(60)
    assert [entry.name for entry in entries if not outcomes.records(entry.name)] == []


def test_no_more_histories_are_read_than_there_is_time_to_look_for_their_runs(client, clock, monkeypatch):
    """A daemon whose runs nobody takes reads a part of the histories in each look, and all of them after some."""
    monkeypatch.setattr("beatd.beat.outcomes._RUNS_A_LOOK", 300)
    names = [f"e{number}" for number in range(400)]
    led = {name: Entry(name=name, task="t", schedule=parse("1h")) for name in names}
    watch = watch_of(client, clock, lambda: [led], list(names))
    for name in names:
        client.append(KEYS.history(name), run_cell(SENT, NOW, NOW, NOW) + run_cell(SENT, NOW + 1, NOW + 1, NOW + 1))
    pending = []
    for _ in range(3):
        watch.look()
        pending.append(len(watch._pending))
        clock.advance(5)
    assert pending == [400, 800, 800], "two runs of each entry: 300 are new within the second batch of 100 entries"


def test_the_histories_of_entries_that_have_had_runs_are_read_and_no_others(client, clock):
    led = [Entry(name=name, task="t", schedule=parse("1h")) for name in ("a", "b")]
    outcomes, ran = Outcomes(client, KEYS), ["a", "b", "of another leader"]
    watch = watch_of(client, clock, lambda: [{one.name: one for one in led}], ran)
    watch.look()
    led[:] = [led[1], Entry(name="c", task="t", schedule=parse("1h"))]
    ran += ["a", "c"]
    for name in ("b", "c"):
        client.append(KEYS.history(name), run_cell(SENT, NOW, NOW, NOW))
        ended = {"status": "SUCCESS", "result": 1, "task_id": run_id(name, NOW), "traceback": None, "children": []}
        client.set(result_key(run_id(name, NOW)), json_codec.dumps(ended))
    clock.advance(60)
    for _ in range(2):
        watch.look()
        clock.advance(60)
    assert [name for name in ("b", "c") if outcomes.records(name)] == ["c"], "b has had no new run since it was read"
    ran.append("b")
    for _ in range(2):
        watch.look()
        clock.advance(60)
    assert outcomes.records("b")


def sent(client, entry, due_ms=NOW, **result):
    """A run was sent, and a worker of Celery's has stored its result; return its id."""
    one = run_id(entry, due_ms)
    client.append(KEYS.history(entry), run_cell(SENT, due_ms, due_ms, due_ms))
    document = {"status": "SUCCESS", "result": None, "task_id": one, "traceback": None, "children": [], **result}
    client.set(result_key(one), json_codec.dumps(document))
    return one


ODD_RESULTS = [
    {"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["caf\udce9"], "exc_module": "builtins"}},
    {"status": "FAILURE", "result": "caf\udce9", "traceback": "caf\udce9" * 1_000, "worker": "\ud800"},
    {"result": {"\udce9": "\udce9"}, "name": "\udce9", "args": "\udce9"},
    {"retries": 10**30},
    {"retries": -5, "date_done": "0001-01-01T00:00:00+14:00"},
    {"date_done": 5, "result": 10**400},
]


@pytest.mark.parametrize("odd", ODD_RESULTS)
def test_a_result_that_is_odd_keeps_no_other_end_from_being_noted(client, clock, odd):
    entries = {name: Entry(name=name, task="t", schedule=parse("1h")) for name in ("a", "b", "c")}
    watch = watch_of(client, clock, lambda: [entries], [*entries])
    for name in entries:
        sent(client, name, **(odd if name == "b" else {}))
    look(watch, clock)
    outcomes = Outcomes(client, KEYS)
    assert [one.state for name in "ac" for one in outcomes.records(name)] == ["SUCCESS", "SUCCESS"]
    if "retries" not in odd:
        assert outcomes.records("b"), "what can be shown is"


def test_an_end_that_could_not_be_noted_is_noted_by_a_later_look(client, clock, watch, monkeypatch):
    """Its entry may have no other run for a year, after which its history would be read again."""
    one, note = sent(client, "a"), watch._outcomes.note

    def away(_ended):
        monkeypatch.setattr(watch._outcomes, "note", note)
        raise StoreUnavailable("away")

    monkeypatch.setattr(watch._outcomes, "note", away)
    with pytest.raises(StoreUnavailable):
        watch.look()
    clock.advance(60)
    look(watch, clock)
    assert [record.run_id for record in Outcomes(client, KEYS).records("a")] == [one]


def test_an_end_whose_node_of_a_cluster_is_away_is_noted_by_a_later_look(client, clock, watch, monkeypatch):
    one = sent(client, "a")
    note, left = Outcomes.note, []
    monkeypatch.setattr(Outcomes, "note", lambda self, ended: left.extend(ended) or list(ended))
    look(watch, clock)
    assert left
    monkeypatch.setattr(Outcomes, "note", note)
    look(watch, clock)
    assert [end.run_id for end in Outcomes(client, KEYS).records("a")] == [one]


def test_a_clock_that_is_set_back_delays_no_end(client, clock, watch):
    one = run_id("a", NOW)
    client.append(KEYS.history("a"), run_cell(SENT, NOW, NOW, NOW))
    for _ in range(4):
        watch.look()
        clock.advance(60)
    clock.step(-4 * 3600)
    client.set(result_key(one), json_codec.dumps({"status": "SUCCESS", "result": None, "task_id": one}))
    watch.look()
    assert [record.run_id for record in Outcomes(client, KEYS).records("a")] == [one]


class ClusterWatch:
    """A watch over two entries of each of three shards, in a cluster; their results are on another server."""

    KEYS = Keys(parts=3)

    def __init__(self, cluster, store, results, clock):
        self.cluster, self.store, self.results, self.clock = cluster, store, results, clock
        self.outcomes = Outcomes(store, self.KEYS)
        self.names = [[f"e{n}" for n in range(50) if shard_of(f"e{n}", 3) == shard][:2] for shard in range(3)]
        policies = {"overdue_after": 60, "expect_within": "never"}
        self.entries = {
            name: config.entry(name, {"task": "t", "schedule": "1h", **policies}) for own in self.names for name in own
        }
        self.ran = []
        self.watch = watch_of(store, clock, lambda: [self.entries], self.ran, self.KEYS, [results])

    def send(self, name):
        """Send a run that is due now; return its id."""
        due_ms, shard = self.clock.now_ms(), self.KEYS.of(name)
        self.store.append(self.KEYS.history(name), run_cell(SENT, due_ms, due_ms, due_ms))
        self.store.hset(shard.last_due, name, due_ms)
        self.store.hset(shard.fingerprints, name, f"{due_ms - 1} {Fingerprints().of(self.entries[name])}")
        self.ran.append(name)
        return run_id(name, due_ms)

    def fail(self, one):
        """A worker of Celery's stores that a run failed."""
        error = {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}
        document = {"status": "FAILURE", "result": error, "task_id": one, "traceback": None, "children": []}
        self.results.set(result_key(one), json_codec.dumps(document))

    def node_of(self, shard):
        return self.cluster.owner(slot_of(self.KEYS.shard(shard).lease))

    def look(self, times=3):
        for _ in range(times):
            self.watch.look()
            self.clock.advance(60)

    def failures(self, *shards):
        """The runs that failed, as the records of entries and their summaries have them."""
        names = [name for shard in shards for name in self.names[shard]]
        records = self.outcomes.records(*names)
        counted = sum(one.failures for one in self.outcomes.summaries(names).values())
        assert len(records) == counted
        return sorted(one.run_id for one in records)


@pytest.fixture
def in_cluster(cluster, client, clock):
    with connect(cluster.url, timeout_ms=1_000) as store:
        yield ClusterWatch(cluster, store, client, clock)


def events(caplog, name):
    return sorted(record.entry for record in caplog.records if getattr(record, "event", "") == name)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_node_that_is_away_puts_off_only_the_ends_of_its_entries(in_cluster, wait_until, caplog, how):
    """Of each shard one entry had its run before the node went away, and one had it shortly before and is not read."""
    caplog.set_level("INFO")
    firsts, seconds = zip(*in_cluster.names, strict=True)
    runs = {name: in_cluster.send(name) for name in firsts}
    in_cluster.look()
    assert set(in_cluster.outcomes.overdue()) == set(firsts)
    runs |= {name: in_cluster.send(name) for name in seconds}
    node = in_cluster.node_of(1)
    (node.kill if how == "killed" else node.pause)()
    try:
        for one in runs.values():
            in_cluster.fail(one)
        in_cluster.look(5)
        wanted = [runs[name] for shard in (0, 2) for name in in_cluster.names[shard]]
        assert in_cluster.failures(0, 2) == sorted(wanted)
        assert events(caplog, "entry_overdue") == sorted(firsts)
        assert events(caplog, "entry_overdue_over") == sorted([firsts[0], firsts[2]]), "of the others nothing is known"
    finally:
        (node.start if how == "killed" else node.resume)()
    wait_until(in_cluster.cluster.settled, 30, "the cluster to be settled")
    wait_until(lambda: not away(in_cluster), 30, "the node to be used again")
    in_cluster.look(5)
    assert in_cluster.failures(0, 1, 2) == sorted(runs.values())
    assert events(caplog, "entry_overdue") == sorted(firsts)
    assert events(caplog, "entry_overdue_over") == sorted(firsts)
    assert in_cluster.outcomes.overdue() == {}


def away(in_cluster):
    check = NodeCheck(in_cluster.store, in_cluster.KEYS.without({}))
    check()
    return check.keys.away


@pytest.mark.slow
def test_without_the_node_of_the_marks_no_run_is_lost_or_overdue(in_cluster, wait_until, caplog):
    """Marks of started runs are all on the node of shard 0: without them nobody can tell if a run has begun."""
    lost, at_work, waits = in_cluster.names[1][0], in_cluster.names[1][1], in_cluster.names[2][0]
    runs = {name: in_cluster.send(name) for name in (lost, at_work, waits)}
    now_ms = in_cluster.clock.now_ms()
    in_cluster.outcomes.began({runs[lost]: Started(now_ms, now_ms, 1, "w")})
    in_cluster.outcomes.began({runs[at_work]: Started(now_ms, now_ms + 86_400_000, 1, "w")})
    node = in_cluster.node_of(0)
    node.kill()
    in_cluster.clock.advance(SILENT_MS / 1_000)
    in_cluster.look(4)
    assert in_cluster.failures(1, 2) == []
    assert events(caplog, "entry_overdue") == []
    node.start()
    wait_until(in_cluster.cluster.settled, 30, "the cluster to be settled")
    wait_until(lambda: not away(in_cluster), 30, "the node to be used again")
    in_cluster.look(3)
    assert in_cluster.failures(1, 2) == [runs[lost]]
    assert events(caplog, "run_lost") == [lost]
    assert waits in events(caplog, "entry_overdue")
    assert at_work not in events(caplog, "entry_overdue")
