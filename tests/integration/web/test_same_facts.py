"""The same facts of an entry from ``beatd list``, ``beatd describe`` and the API."""

import json
import re
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from beatd.cli.describe import describe
from beatd.cli.list_entries import list_entries
from beatd.cli.next import next_runs
from beatd.client import Schedules
from beatd.clock import SystemClock
from beatd.model import run_id
from beatd.schedules import parse
from beatd.store import history
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.outcomes import Ended, Outcomes
from beatd.store.run_record import RunRecord, encoded
from beatd.timestamps import iso_ms, to_ms

KEYS, NOW = Keys("beatd"), 1_790_000_000_000
RUNS = [("SUCCESS", 40), ("FAILURE", 60), ("FAILURE", 1_000)]


@pytest.fixture
def past(redis_url):
    """Three runs of an entry: one that went well, then two that failed."""
    with connect(redis_url) as client:
        ended = []
        for number, (state, runtime_ms) in enumerate(RUNS):
            due_ms = NOW + number * 60_000
            cell = history.run_cell(history.SENT, due_ms, due_ms, due_ms + 5)
            client.append(KEYS.history("tick"), cell)
            error = {"type": "ValueError", "message": f"no rows {number}"} if state == "FAILURE" else {}
            record = RunRecord(run_id=run_id("tick", due_ms), state=state, end_ms=due_ms + runtime_ms, **error)
            runtime = runtime_ms / 1000
            ended.append(
                Ended(record.run_id, "tick", iso_ms(due_ms), state, runtime, encoded(record), end_ms=record.end_ms)
            )
        outcomes = Outcomes(client, KEYS)
        outcomes.note(ended)
        outcomes.set_overdue({"tick": NOW + 1}, [])
        outcomes.set_too_long({"tick": NOW + 2}, [])
        client.hset(KEYS.shard().runs, "tick", 3)


def answer(command, *arguments):
    done = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_list_describe_and_api_say_the_same(real, past):
    file = ["--config", str(real.schedule.path)]
    [listed] = answer(list_entries, "tick", *file)["entries"]
    described = answer(describe, "tick", *file)
    [by_api] = [one for one in real.ask("GET", "/api/v1/entries").json()["entries"] if one["name"] == "tick"]
    api_described = real.ask("GET", "/api/v1/entries/tick").json()
    assert listed == by_api
    assert described == api_described
    assert {key: described[key] for key in listed if key not in {"runs", "statistics"}} == {
        key: value for key, value in listed.items() if key not in {"runs", "statistics"}
    }
    assert listed["outcomes"] == ["failure", "failure", "success"]
    assert (listed["last_outcome"], listed["failures"]) == ("failure", 2)
    assert listed["last_error"] == {"type": "ValueError", "message": "no rows 2"}
    assert listed["failing_since"] == iso_ms(NOW + 60_060)
    assert listed["last_success_at"] == iso_ms(NOW + 40)
    assert (listed["overdue_since"], listed["too_long_since"]) == (iso_ms(NOW + 1), iso_ms(NOW + 2))
    numbers = {
        "runs": 3,
        "duration_median_ms": 60,
        "duration_p95_ms": 906,
        "lateness_median_ms": 5,
        "lateness_p95_ms": 5,
    }
    assert listed["statistics"] == numbers
    assert {key: described["statistics"][key] for key in numbers} == numbers
    assert set(described["statistics"]) - set(numbers) == {
        "start_within_ms", "finish_within_ms", "run_within_ms", "learned_from",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("claimed", "tally", "count", "words"),
    [
        (3, "late 2 overlap 1", 3, "3 sent by schedule"),
        (0, "triggered 2 backfilled 1", 3, "3: 2 triggered, 1 backfilled"),
        (1_003, "refused 1 triggered 2 refused_trigger 1", 1_005,
         "1,005: 1,002 sent by schedule, 1 triggered, 2 refused by the broker"),
        (0, "triggered 2", 2, "2 triggered"),
        (0, "", 0, "none yet"),
    ],
)  # fmt: skip
def test_runs_by_hand_count_as_runs_everywhere(real, redis_url, claimed, tally, count, words):
    with connect(redis_url) as client:
        client.hset(KEYS.shard().runs, "tick", claimed)
        client.hset(KEYS.shard().tally, "tick", tally)
    file = ["--config", str(real.schedule.path)]
    assert answer(list_entries, "tick", *file)["entries"][0]["runs"] == count
    described = CliRunner().invoke(describe, ["tick", *file], catch_exceptions=False).stdout
    assert [line.split(maxsplit=1)[1] for line in described.splitlines() if line.startswith("Runs ")] == [words]
    page, entry = real.ask("GET", "/").text, real.ask("GET", "/entries/tick").text
    assert f'data-label="Runs" class="number"><span>{count:,}</span>' in page
    assert f"<dt>Runs</dt><dd>{words}</dd>" in entry
    assert f'beatd_runs_total{{entry="tick"}} {count}.0' in real.ask("GET", "/metrics").text


def test_the_api_filters_by_tag(real):
    text = real.schedule.path.read_text().replace('task = "tasks.tick"', 'task = "tasks.tick"\ntags = ["billing"]')
    real.schedule.path.write_text(text)
    real.schedule.first()
    found = real.ask("GET", "/api/v1/entries?tag=billing").json()
    assert [one["name"] for one in found["entries"]] == ["tick"]
    assert found["entries"][0]["tags"] == ["billing"]
    assert real.ask("GET", "/api/v1/entries?tag=other").json()["matching"] == 0


def test_an_entry_that_is_put_by_the_api_is_checked_against_tasks(real, caplog):
    caplog.set_level("INFO")
    table = {"task": "beatd.http", "schedule": "1h", "kwargs": {"ulr": "https://example.com"}}
    answer = real.ask("PUT", "/api/v1/entries/x", json={"table": table}).json()
    assert answer["change"] == "added"
    assert answer["done"].startswith("x is added; but ")
    assert any("url" in warning for warning in answer["warnings"])
    assert [record.of for record in caplog.records if getattr(record, "event", "") == "web_action"] == ["x"]
    assert real.ask(
        "PUT", "/api/v1/entries/x", json={"table": {**table, "kwargs": {"url": "https://e.com"}}}
    ).json() == {
        "done": "x is changed",
        "change": "changed",
        "warnings": [],
    }


def test_an_entry_that_is_put_by_the_api_names_targets_that_there_are(real):
    real.schedule.path.write_text(real.schedule.path.read_text() + '\n[notify.ops]\ncommand = ["true"]\n')
    real.schedule.first()
    table = {"task": "t", "schedule": "1h", "notify": ["opps"]}
    answer = real.ask("PUT", "/api/v1/entries/x", json={"table": table})
    assert answer.status_code == 400
    assert 'notify: there is no target "opps"; did you mean "ops"?' in answer.text.replace("\\", "")
    assert (
        real.ask("PUT", "/api/v1/entries/x", json={"table": {**table, "notify": ["ops"]}}).json()["change"] == "added"
    )


def test_a_backfilled_run_is_not_late(real, redis_url):
    with connect(redis_url) as client:
        for kind in (history.BACKFILLED, history.SENT):
            client.append(KEYS.history("tick"), history.run_cell(kind, NOW, NOW, NOW + 7_200_000))
    page = real.ask("GET", "/entries/tick").text
    assert page.count("2 h late") == 1
    assert page.count('<span class="soft">backfilled</span>') == 1


@pytest.mark.parametrize("catch_up", ["none", "latest"])
def test_the_run_that_waits_for_the_one_before_is_told_alike(real, redis_url, catch_up):
    """It is neither overdue nor missed: the leader holds it back, and what came due after it is dropped."""
    minute, now_ms = 60_000, SystemClock().now_ms()
    due_ms = now_ms // (5 * minute) * 5 * minute - 10 * minute
    table = {"schedule": "*/5 * * * *", "overlap": "queue_one", "catch_up": catch_up}
    with Schedules(redis_url) as schedules:
        schedules.put("queued", task="t", **table)
    with connect(redis_url) as client:
        shard = KEYS.shard(0)
        client.hset(shard.last_due, "queued", due_ms - 5 * minute)
        client.hset(shard.fingerprints, "queued", f"{due_ms - 100 * minute} {parse('*/5 * * * *').fingerprint}")
        client.hset(shard.running, "queued", f"{run_id('queued', due_ms - 5 * minute)} {now_ms + 60 * minute}")
        Leases(client, KEYS, daemon_id="d", ttl_ms=600_000).take([0])
    options = ["--config", str(real.schedule.path)]
    waits = {"due_at": iso_ms(due_ms), "note": "waits: the run before has not ended"}
    [listed] = answer(list_entries, "queued", *options)["entries"]
    assert (listed["next_due_at"], listed["note"]) == tuple(waits.values())
    described = answer(describe, "queued", *options)
    first, second, *_ = answer(next_runs, "queued", *options)
    for runs in (described["next"], (first, second), real.ask("GET", "/api/v1/entries/queued").json()["next"]):
        assert (moment(runs[0]["due_at"]), runs[0]["note"]) == (due_ms, waits["note"])
        assert moment(runs[1]["due_at"]) > now_ms
        assert runs[1]["note"] is None
    [by_api] = [one for one in real.ask("GET", "/api/v1/entries").json()["entries"] if one["name"] == "queued"]
    assert (by_api["next_due_at"], by_api["note"]) == tuple(waits.values())
    for path in ("/", "/entries/queued"):
        assert waits["note"] in real.ask("GET", path, headers={"Accept": "text/html"}).text
    for query in ("", "?entry=queued"):
        events = real.ask("GET", f"/calendar.ics{query}").text.split("BEGIN:VEVENT")
        [event] = [each for each in events if f"UID:{run_id('queued', due_ms)}@" in each]
        assert waits["note"] in event.replace("\r\n ", "")
        assert re.search(r"DTSTART:(\w+)", event)[1] >= f"{datetime.fromtimestamp(now_ms // 1000, UTC):%Y%m%dT%H%M%SZ}"
    for command, said in ((list_entries, ("waits", waits["note"])), (next_runs, (waits["note"],))):
        text = CliRunner().invoke(command, ["queued", *options], catch_exceptions=False).stdout
        assert all(each in text for each in said)
        assert "overdue" not in text


def moment(text):
    return to_ms(datetime.fromisoformat(text))
