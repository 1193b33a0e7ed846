"""What each path answers: to whom, with which headers, and while the store is down."""

import asyncio
import html
import os
import re
import threading

import httpx
import pytest

from beatd import config
from beatd.client.outcomes import EntryOutcome, RunDetail, Statistics
from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.store.held_back import HeldBackEntry
from beatd.store.history import Record
from beatd.store.outcomes import Summary
from beatd.store.run_record import RunRecord
from beatd.web.entries import EntryListing
from tests.unit.web.conftest import NOW, daemon, document

PATHS = ("/", "/api/status", "/api/entries", "/api/entries/tick/history", "/healthz", "/readyz", "/metrics")


def many(count):
    entries = (f'[beat_schedule.entry-{n:04}]\ntask = "tasks.t{n % 7}"\nschedule = "1m"\n' for n in range(count))
    return "".join(entries)


def names(answer):
    return [entry["name"] for entry in answer.json()["entries"]]


@pytest.mark.parametrize("path", PATHS)
def test_every_path_answers(site, path):
    answer = site.get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/metrics"])
def test_a_store_that_is_down_is_said_in_words(site, path):
    site.store.error = StoreUnavailable("state store redis.example.com:6379/0: Connection refused")
    answer = site.get(path)
    assert answer.status_code == 503
    assert "state store redis.example.com:6379/0: Connection refused" in answer.text
    assert "Traceback" not in answer.text


def test_slow_pages_keep_no_probe_waiting(site, monkeypatch):
    asked, go_on = [], threading.Event()

    def slow(entries, *, now_ms):
        asked.append(1)
        go_on.wait(60)
        return [None for _ in entries]

    monkeypatch.setattr(site.store, "states", slow)
    app = site.app

    async def probe():
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8800") as client:
            readers = [asyncio.create_task(client.get("/api/entries")) for _ in range(60)]
            try:
                while len(asked) < 40:  # as many threads as there are
                    await asyncio.sleep(0.01)
                return [(await asyncio.wait_for(client.get(path), 20)).status_code for path in ("/healthz", "/readyz")]
            finally:
                go_on.set()
                await asyncio.gather(*readers, return_exceptions=True)

    assert asyncio.run(asyncio.wait_for(probe(), 50)) == [200, 200]


def test_metrics_stay_while_the_store_is_down_and_say_so(site):
    assert "beatd_store_up 1.0\n" in site.get("/metrics").text
    site.store.error = StoreUnavailable("state store redis.example.com:6379/0: Connection refused")
    answer = site.get("/metrics")
    assert answer.status_code == 200
    assert "beatd_store_up 0.0\n" in answer.text
    assert "beatd_entries 1.0\n" in answer.text


def test_an_entry_that_is_held_back_is_shown_with_the_reason(site):
    site.store.held_back = {"tick": HeldBackEntry("no such <queue>", NOW - 1_000, NOW + 1_000, 2)}
    [entry] = site.get("/api/entries").json()["entries"]
    assert entry["note"] == "held back: no such <queue>"
    assert entry["held_back"]["since"] == "2026-09-21T14:13:19.000+00:00"
    assert "held back: no such &lt;queue&gt;" in site.get("/").text


def test_one_entry_that_cannot_be_computed_hides_no_other(site):
    late = '[beat_schedule.late]\ntask = "t"\nschedule = "1m"\n[beat_schedule.tick]\ntask = "t"\nschedule = "1m"\n'
    site.write(late)
    site.known("late", last_due_ms=10**18, first_seen_ms=10**18, runs=1)
    entries = {entry["name"]: entry for entry in site.get("/api/entries").json()["entries"]}
    assert entries.keys() >= {"late", "tick"}
    assert entries["tick"]["next_due_at"] is not None
    assert site.get("/").status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(site, path, method):
    assert site.get(path, method=method).status_code == 405


def test_headers_forbid_everything_that_the_page_does_not_need(site):
    policy = site.get("/").headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not any("unsafe" in rule or "*" in rule or "http" in rule for rule in policy)
    for path in ("/nothing-here", "/api/status"):
        assert site.get(path).headers["content-security-policy"].split("; ") == policy
        assert site.get(path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8800", "127.0.0.1:1", "[::1]:8800", "[::1]"])
def test_it_answers_to_the_names_of_this_machine(site, host):
    assert site.get("/healthz", host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example.com", "localhost.evil.com:8800", "127.0.0.1.nip.io", "", "[::2]:80", "]"]
)
def test_it_answers_to_no_other_name_on_the_loopback_address(site, host):
    answer = site.get("/", host=host)
    assert answer.status_code == 421
    assert "--allow-host" in answer.text
    assert "tick" not in answer.text


def test_it_answers_to_all_names_elsewhere(site):
    site.hosts = None
    assert site.get("/healthz", host="status.example.com").status_code == 200


def test_status_is_the_document_of_the_command(site):
    assert site.get("/api/status").json() == site.store.document


def test_ready_means_that_runs_leave(site):
    assert site.get("/readyz").status_code == 200
    site.store.document = document(not_ready=["nobody leads shards 1, 2", "one: a\nb"])
    answer = site.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "nobody leads shards 1, 2\none: a b\n")
    assert site.get("/healthz").status_code == 200


def test_entries_come_in_pages(site):
    site.write(many(450))
    first, last = site.get("/api/entries").json(), site.get("/api/entries?page=3").json()
    assert (first["total"], first["matching"], first["page"], first["pages"]) == (450, 450, 1, 3)
    assert [each["name"] for each in first["entries"]] == [f"entry-{n:04}" for n in range(200)]
    assert [each["name"] for each in last["entries"]] == [f"entry-{n:04}" for n in range(400, 450)]
    assert names(site.get("/api/entries?page=99")) == [each["name"] for each in last["entries"]]


def test_a_full_last_page_is_followed_by_none(site):
    site.write(many(400))
    assert site.get("/api/entries?page=2").json()["pages"] == 2
    assert len(names(site.get("/api/entries?page=2"))) == 200


@pytest.mark.parametrize("page", ["0", "-1", "x", "1.5", "", "٣", "9" * 5000])
def test_a_page_that_is_no_number_is_refused_in_words(site, page):
    answer = site.get(f"/api/entries?page={page}")
    assert answer.status_code == 400
    assert answer.json() == {"error": "page is a number from 1 to 1,000,000"}
    assert site.get(f"/?page={page}").status_code == 400


def test_search_finds_every_word_in_name_task_and_zone(site):
    site.write(
        many(30) + '[beat_schedule.Nightly-Report]\ntask = "reports.x"\nschedule = "1h"\ntimezone = "Europe/Berlin"\n'
    )
    assert names(site.get("/api/entries?q=nightly")) == ["Nightly-Report"]
    assert names(site.get("/api/entries?q=REPORTS.X")) == ["Nightly-Report"]
    assert names(site.get("/api/entries?q=berlin night")) == ["Nightly-Report"]
    assert names(site.get("/api/entries?q=berlin entry")) == []
    assert len(names(site.get("/api/entries?q=tasks.t3"))) == 4
    found = site.get("/api/entries?q=%25").json()
    assert (found["matching"], found["pages"], found["page"]) == (0, 1, 1)


def test_an_entry_for_programs(site):
    site.known("tick", last_due_ms=NOW - 200_000, first_seen_ms=NOW - 10_000_000, runs=12)
    [entry] = site.get("/api/entries").json()["entries"]
    assert entry == {
        "name": "tick",
        "task": "tasks.tick",
        "schedule": "*/5 * * * *",
        "schedule_text": "*/5 * * * *",
        "timezone": "UTC",
        "enabled": True,
        "runs": 12,
        "last_due_at": "2026-09-21T14:10:00.000+00:00",
        "next_due_at": "2026-09-21T14:15:00.000+00:00",
        "next_fires_at": "2026-09-21T14:15:00.000+00:00",
        "note": None,
        "held_back": None,
        "source": f"{site.path}:1",
        "last_outcome": None,
        "last_error": None,
        "failing_since": None,
        "failures": 0,
        "last_success_at": None,
        "outcomes": [],
        "overdue_since": None,
        "too_long_since": None,
        "tags": [],
        "statistics": Statistics(0, None, None, None, None)._asdict(),
    }


def test_metrics_are_of_everybody(site):
    site.store.document = document([daemon("one"), daemon("two", shards=[]), daemon("three", alive=False)])
    text = site.get("/metrics").text
    assert "beatd_daemons 2.0\n" in text
    assert 'beatd_leading_shards{daemon="two"} 0.0\n' in text
    assert "three" not in text


def test_past_runs_of_an_entry(site):
    site.store.past["a/b c"] = [Record("a/b c", "scheduled", NOW, NOW + 3, 3, "id", outcome="SUCCESS", runtime_ms=12)]
    answer = site.get("/api/entries/a%2Fb%20c/history").json()
    [run] = answer["runs"]
    assert answer["totals"] == {"scheduled": 7, "overlap": 2}
    assert (run["run_id"], run["lateness_ms"], run["outcome"], run["runtime_ms"]) == ("id", 3, "SUCCESS", 12)


def test_an_entry_may_have_no_past_but_must_exist(site):
    assert site.get("/api/entries/tick/history").json()["runs"] == []
    answer = site.get("/api/entries/tock/history")
    assert (answer.status_code, "tock" in answer.json()["error"]) == (404, True)


def test_what_was_added_and_paused_at_run_time_is_shown(site):
    site.store.tables = {"later": b'{"task": "tasks.later", "schedule": "1h"}'}
    site.store.pauses = {"tick": b'{"since": 1790000000000, "by": "me", "reason": "why"}'}
    later, tick = site.get("/api/entries").json()["entries"]
    assert (later["name"], later["task"], later["source"]) == ("later", "tasks.later", "runtime:later")
    assert (tick["enabled"], tick["note"], tick["next_due_at"]) == (
        False,
        "paused since 2026-09-21 14:13:20 UTC by me: why",
        None,
    )
    assert "by me: why" in site.get("/").text
    site.store.tables, site.store.pauses = {}, {}
    (tick,) = site.get("/api/entries").json()["entries"]
    assert (tick["enabled"], tick["note"]) == (True, None)


def failed_run(name="tick", run_id="0123abcd-0000-5000-8000-000000000000"):
    record = Record(name, "scheduled", NOW - 5_000, NOW - 5_000, 0, run_id, outcome="FAILURE", runtime_ms=40)
    attempt = RunRecord(
        run_id=run_id,
        state="FAILURE",
        start_ms=NOW - 4_000,
        end_ms=NOW - 3_960,
        worker="celery@one",
        type="ValueError",
        message="no <rows>",
        traceback="Traceback\n  boom",
        output="printed <b>",
    )
    return RunDetail(record, "failure", [attempt])


def test_the_pages_of_an_entry_and_a_run_show_error_and_output(site):
    run = failed_run()
    site.store.details = {run.record.run_id: run}
    site.store.past = {"tick": [run.record]}
    site.store.outcome = {"tick": EntryOutcome("failure", ["failure", "success"], NOW - 9_000, error=run.attempts[0])}
    for path in ("/entries/tick", "/entries/tick?failed=1", f"/runs/{run.record.run_id}", "/runs/0123abcd?entry=tick"):
        answer = site.get(path)
        assert answer.status_code == 200, path
        assert "ValueError: no &lt;rows&gt;" in answer.text
        assert "printed &lt;b&gt;" in answer.text
    assert "✗" in site.get("/").text
    document = site.get(f"/api/runs/{run.record.run_id}").json()
    assert (document["state"], document["error"]["type"], document["output"]) == (
        "failure",
        "ValueError",
        "printed <b>",
    )
    assert site.get("/runs/ffff").status_code == 404
    assert site.get("/entries/nobody").status_code == 404


def test_entries_are_filtered_and_ordered(site):
    site.write(many(4))
    site.store.summed = {"entry-0002": Summary(NOW, NOW, None, 3, "failure"), "gone": Summary(NOW, NOW, None, 1, "")}
    site.store.late = {"entry-0001": NOW}
    assert names(site.get("/api/entries?only=failing")) == ["entry-0002"]
    assert names(site.get("/api/entries?only=overdue")) == ["entry-0001"]
    assert names(site.get("/api/entries?only=paused")) == []
    assert names(site.get("/api/entries?sort=failures"))[0] == "entry-0002"
    assert "No entry is paused." in site.get("/?only=paused").text
    for query in ("only=broken", "sort=colour"):
        assert site.get(f"/api/entries?{query}").status_code == 400


def test_tags_of_entries_lead_to_the_entries_that_have_them(site):
    tagged = '[beat_schedule.{}]\ntask = "t"\nschedule = "1m"\ntags = [{}]\n'
    site.write(tagged.format("bill", '"money", "team:a"') + tagged.format("mail", '"post"'))
    assert 'href="?tag=money"' in site.get("/").text
    assert 'href="?tag=team%3Aa"' in site.get("/").text
    assert 'href="/?tag=team%3Aa"' in site.get("/entries/bill").text
    found = site.get("/?tag=team%3Aa&only=").text
    assert "/entries/bill" in found
    assert "/entries/mail" not in found
    assert "1 of 2 entries match and have the tag team:a" in found
    assert '<input type="hidden" name="tag" value="team:a">' in found


@pytest.mark.parametrize("name", ["a/b c", "ünï", "<script>", "a?b#c"])
def test_the_page_of_an_entry_with_any_name_can_be_reached(site, name):
    site.write(f'[beat_schedule."{name}"]\ntask = "t"\nschedule = "1m"\n')
    link = re.search(r'href="(/entries/[^"]+)"', site.get("/").text)[1]
    answer = site.get(html.unescape(link))
    assert answer.status_code == 200
    assert html.escape(name) in answer.text


@pytest.mark.parametrize("path", ["/", "/fleet", "/entries/tick", "/timeline", "/nothing-here"])
def test_a_file_whose_name_is_no_utf_8_is_shown(site, tmp_path, path):
    site.path = tmp_path / os.fsdecode(b"caf\xe9.toml")
    site.schedule = EntryListing(site.path, lambda: config.load(site.path, env={}), site.clock)
    site.write('[beat_schedule.tick]\ntask = "tasks.tick"\nschedule = "*/5 * * * *"\n')
    assert site.get(path).status_code == (404 if path == "/nothing-here" else 200)
    assert path not in ("/", "/fleet") or r"caf\udce9.toml" in site.get(path).text


def test_an_error_about_such_a_file_is_said_in_words(site):
    site.store.error = StoreRefused("the embedded store cannot use caf\udce9/store: Permission denied")
    for path in ("/", "/entries/tick", "/healthz", "/api/v1/status"):
        answer = site.get(path)
        assert (answer.status_code, "udce9" in answer.text) == (503, True), path


def test_other_sites_may_show_badges_and_nothing_else(site):
    policies = {
        path: site.get(path).headers["cross-origin-resource-policy"] for path in ("/badge/tick.svg", "/", "/api/status")
    }
    assert policies == {"/badge/tick.svg": "cross-origin", "/": "same-origin", "/api/status": "same-origin"}
