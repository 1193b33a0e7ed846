"""``beatd why`` and the store: pause, held back, overlap and queue of the moment, the term that claimed, outcome."""

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from beatd.cli.why import why
from beatd.client import Schedules
from beatd.clock import SystemClock
from beatd.model import run_id
from beatd.schedules import parse
from beatd.store import history
from beatd.store.held_back import HeldBackEntry
from beatd.store.keys import Keys
from beatd.store.lease import Leases, read_terms
from beatd.store.outcomes import Ended, Outcomes
from beatd.store.run_record import RunRecord, encoded
from beatd.timestamps import iso_ms

KEYS, NOW, HOUR = Keys("beatd"), SystemClock().now_ms(), 3_600_000
DUE = NOW // HOUR * HOUR - 2 * HOUR
CONFIG = """
[redis]
url = "{url}"
[beat_schedule.plain]
task = "t"
schedule = "0 * * * *"
[beat_schedule.careful]
task = "t"
schedule = "0 * * * *"
queue = "slow"
overlap = "skip"
max_queue_depth = 2
catch_up = "all"
catch_up_window = "1d"
"""


@pytest.fixture
def ask(tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(CONFIG.format(url=redis_url))

    def ask(*arguments):
        done = CliRunner().invoke(why, [*arguments, "--json", "--config", str(path)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        answer = json.loads(done.stdout)
        answer["told"] = {rule["rule"]: (rule["passes"], rule["detail"]) for rule in answer["rules"]}
        return answer

    return ask


def put_run(client, name, kind, outcome="", runtime_ms=0, at_ms=DUE + 20):
    cell = history.run_cell(kind, DUE, DUE, at_ms)
    client.append(KEYS.history(name), cell[:-5] + history.end(outcome, runtime_ms))


def led(client, *terms):
    for token, began_ms, daemon in terms:
        client.lpush(KEYS.shard(0).terms, f"{token} {began_ms} {daemon}")


def test_the_term_that_claimed_and_the_outcome(ask, client):
    put_run(client, "plain", history.SENT, "FAILURE", 1_500)
    led(client, (6, DUE - HOUR, "a-1"), (7, DUE - 5, "b-2"), (8, DUE + 60_000, "c-3"))
    answer = ask("plain", iso_ms(DUE))
    assert answer["term"] == {"shard": 0, "term": 7, "daemon": "b-2", "began_at": iso_ms(DUE - 5)}
    assert "claimed by b-2 in term 7 of shard 0" in answer["told"]["term"][1]
    assert answer["told"]["history"] == (True, answer["told"]["history"][1])
    assert "20 ms late; FAILURE after 1.5 s" in answer["told"]["history"][1]
    assert (answer["due"], answer["sent"], answer["live"]) == (True, True, None)


def test_a_term_that_is_not_remembered_and_a_run_that_was_skipped(ask, client):
    put_run(client, "plain", 16 + history.REASONS.index("queue_full"))
    led(client, (8, DUE + 60_000, "c-3"))
    client.rpush(KEYS.shard(0).terms, "garbage", "x y z")
    answer = ask("plain", iso_ms(DUE))
    assert answer["term"] is None
    assert answer["told"]["term"] == (None, "the term that claimed it is not remembered")
    assert "its queue held max_queue_depth messages or more" in answer["told"]["history"][1]
    assert answer["history"]["reason"] == "queue_full"
    assert answer["verdict"] == "It was due and was skipped: its queue held max_queue_depth messages or more."


def test_a_pause_and_a_held_back_entry(ask, client, redis_url):
    with Schedules(redis_url) as schedules:
        schedules.pause("plain", reason="migration", by="anna")
    assert ask("plain", iso_ms(DUE))["told"].keys() >= {"schedule", "pause"}
    answer = ask("plain", "+1h")
    assert answer["told"]["pause"][0] is False
    assert "migration" in answer["told"]["pause"][1]
    entry = HeldBackEntry("no such exchange", NOW, NOW + 30_000, 3)
    client.hset(
        KEYS.shard(0).held, "careful", json.dumps({key: getattr(entry, key) for key in entry.__struct_fields__})
    )
    answer = ask("careful", iso_ms(DUE))
    assert answer["held_back"]["reason"] == "no such exchange"
    passes, text = answer["told"]["held back"]
    assert (passes, answer["verdict"]) == (False, "A run was due then and has not been sent: held back.")
    assert "no such exchange; next try at" in text
    answer = ask("careful", iso_ms(NOW // HOUR * HOUR + 3 * HOUR))  # not a time that may pass before this test begins
    assert answer["told"]["held back"][0] is None, "until then it may be sent"
    assert answer["verdict"] == "A run is due then; the entry is held back now."


@pytest.mark.parametrize(("messages", "unfinished"), [(0, False), (2, False), (1, True)])
def test_connect_asks_the_queue_and_the_run_before(ask, client, messages, unfinished):
    for number in range(messages):
        client.lpush("slow", f"{{{number}}}")
    if unfinished:
        until = SystemClock().now_ms() + HOUR // 2  # not NOW: this file may have been read long ago
        client.hset(KEYS.shard(0).running, "careful", f"{run_id('careful', DUE - HOUR)} {until}")
    answer = ask("careful", "+1h", "--connect")
    assert (answer["live"]["depth"], answer["live"]["is_unfinished"]) == (messages, unfinished)
    passes, text = answer["told"]["queue now"]
    assert passes is None  # the run is still to come
    assert f"{messages} message{'' if messages == 1 else 's'} in slow, at most 2" in text
    text = answer["told"]["overlap now"][1]
    assert ("has not ended: one that is due now is skipped" if unfinished else "the run before has ended") in text
    assert ("counts as ended at" in text) is unfinished
    assert ask("plain", "+1h")["live"] is None


@pytest.mark.parametrize("arguments", [("plain", "-2h"), ("--connect", "plain", "-1d2h"), ("plain", "--", "-30m")])
def test_a_distance_into_the_past_is_no_option(tmp_path, ask, arguments):
    done = CliRunner().invoke(why, ["--config", str(tmp_path / "beat.toml"), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_terms_are_written_when_leases_are_taken_and_bounded(client):
    for daemon in ("a", "b"):
        leases = Leases(client, KEYS, daemon_id=daemon, ttl_ms=10_000)
        leases.release(leases.take([0, 3]))
    terms = read_terms(client, KEYS, 3)
    assert [(term.shard, term.token, term.daemon_id) for term in terms] == [(3, 2, "b"), (3, 1, "a")]
    assert abs(terms[0].began_ms - SystemClock().now_ms()) < 3_600_000
    client.rpush(KEYS.shard(0).terms, *["1 1 x"] * 500)
    leases.release(leases.take([0]))
    assert client.llen(KEYS.shard(0).terms) == 200
    client.delete(KEYS.shard(0).terms)
    client.set(KEYS.shard(0).terms, "of another type")
    assert leases.take([0]) == {0: 4}


@pytest.mark.parametrize("policy", ["skip", "queue_one"])
def test_a_run_that_waits_for_the_one_before(ask, client, policy, tmp_path):
    file = tmp_path / "beat.toml"
    file.write_text(file.read_text().replace('"skip"', f'"{policy}"'))
    before, until = run_id("careful", DUE - HOUR), SystemClock().now_ms() + HOUR // 2
    client.hset(KEYS.shard(0).running, "careful", f"{before} {until}")
    answer = ask("careful", iso_ms(DUE))
    assert answer["verdict"] == "A run was due then and has not been sent: the run before has not ended."
    passes, text = answer["told"]["overlap now"]
    assert (passes, "waits for that" in text) == (False, policy == "queue_one")
    assert f"the run before, {before[:8]}, has not ended" in text
    assert answer["unfinished"] == {"run_id": before, "until": iso_ms(until)}
    assert answer["live"] is None


def test_a_skipped_run_names_the_one_that_had_not_ended(ask, client):
    before = history.run_cell(history.SENT, DUE - HOUR, DUE - HOUR, DUE - HOUR + 5)
    client.append(KEYS.history("careful"), before)
    put_run(client, "careful", 16 + history.REASONS.index("overlap"))
    answer = ask("careful", iso_ms(DUE))
    assert answer["verdict"] == 'It was due and was skipped: the run before had not ended, and overlap = "skip".'
    assert f"run {run_id('careful', DUE - HOUR)[:8]}, sent at" in answer["told"]["history"][1]
    assert answer["told"]["history"][1].endswith("is queued")
    record = RunRecord(run_id=run_id("careful", DUE - HOUR), state="SUCCESS", end_ms=DUE + 60_000)
    ended = Ended(record.run_id, "careful", iso_ms(DUE - HOUR), "SUCCESS", 3_660.0, encoded(record), after_ms=0)
    Outcomes(client, KEYS).note([ended])
    assert "ended at" in ask("careful", iso_ms(DUE))["told"]["history"][1]


def test_a_time_of_today(ask, client):
    days = [f"{datetime.now(UTC):%Y-%m-%d}"]
    asked = ask("plain", "05:00")["due_at"]
    days.append(f"{datetime.now(UTC):%Y-%m-%d}")  # another one, if a day has ended meanwhile
    assert asked in [f"{day}T05:00:00.000+00:00" for day in days]
    assert ask("plain", f"{days[0]} 05:00")["due_at"] == f"{days[0]}T05:00:00.000+00:00"
    assert ask("plain", "5:00")["due"], "any second of the minute"
    assert not ask("plain", "05:01")["due"]


def put_state(client, name, last_due_ms, *, schedule="0 * * * *"):
    shard = KEYS.shard(0)
    client.hset(shard.last_due, name, last_due_ms)
    client.hset(shard.fingerprints, name, f"{DUE - 100 * HOUR} {parse(schedule).fingerprint}")


def change(folder, old, new):
    file = folder / "beat.toml"
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [('schedule = "0 * * * *"', 'schedule = "30 * * * *"'), ('task = "t"', 'task = "t"\nenabled = false')],
)
def test_a_run_that_was_made_is_told_whatever_the_entry_is_now(ask, client, tmp_path, old, new):
    put_run(client, "plain", history.SENT, "SUCCESS", 1_500)
    change(tmp_path, old, new)
    answer = ask("plain", iso_ms(DUE))
    assert answer["verdict"] == "It ran: a message was sent."
    assert (answer["due"], answer["sent"], answer["due_at"]) == (True, True, iso_ms(DUE))
    assert not ask("plain", iso_ms(DUE + 1))["due"]


def test_a_run_that_was_missed_is_told_before_the_next_one_is_made(ask, client, tmp_path):
    change(tmp_path, 'catch_up = "all"\n', 'catch_up = "none"\n')
    put_state(client, "careful", DUE - HOUR)
    client.append(KEYS.history("careful"), history.missed(DUE - HOUR, DUE + 3 * HOUR))
    answer = ask("careful", iso_ms(DUE))
    assert answer["verdict"] == "It was due and was missed: nobody led."
    assert (answer["due"], answer["sent"], answer["due_at"]) == (True, False, iso_ms(DUE))


def test_nothing_was_sent_before_the_entry_was_in_force(ask, client):
    answer = ask("plain", iso_ms(DUE))
    assert (answer["sent"], answer["told"]["first seen"]) == (False, (False, "no daemon has seen the entry yet"))
    assert answer["verdict"] == "A run was due then and has not been sent: the entry was not in force."
    put_state(client, "plain", DUE)
    assert ask("plain", iso_ms(DUE))["sent"], "the history does not say otherwise"
    answer = ask("plain", iso_ms(DUE - 100 * HOUR))
    assert (answer["sent"], answer["told"]["first seen"][0]) == (False, False)


def test_the_run_of_now_is_no_reason_for_one_that_is_done_with(ask, client):
    put_state(client, "careful", DUE)
    until = SystemClock().now_ms() + HOUR // 2
    client.hset(KEYS.shard(0).running, "careful", f"{run_id('careful', DUE)} {until}")
    answer = ask("careful", iso_ms(DUE - 3 * HOUR))
    assert (answer["verdict"], answer["told"]["overlap now"][0]) == ("A run was due then.", None)
    answer = ask("careful", iso_ms(DUE + HOUR))
    assert answer["verdict"] == "A run was due then and has not been sent: the run before has not ended."


def test_the_run_that_waits_is_not_missed_and_those_after_it_are_dropped_with_it(ask, client, tmp_path):
    change(tmp_path, 'overlap = "skip"', 'overlap = "queue_one"')
    change(tmp_path, 'catch_up = "all"\n', 'catch_up = "latest"\n')
    put_state(client, "careful", DUE - HOUR)
    until = SystemClock().now_ms() + HOUR // 2
    client.hset(KEYS.shard(0).running, "careful", f"{run_id('careful', DUE - HOUR)} {until}")
    Leases(client, KEYS, daemon_id="d", ttl_ms=600_000).take([0])
    answer = ask("careful", iso_ms(DUE))
    assert answer["verdict"] == "A run was due then and has not been sent: the run before has not ended."
    assert "catch_up" not in answer["told"]
    passes, text = ask("careful", iso_ms(DUE + HOUR))["told"]["overlap"]
    assert (passes, "dropped with the run of" in text) == (False, True)
