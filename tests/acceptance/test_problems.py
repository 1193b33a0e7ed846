"""Every kind of problem reaches status, its JSON, its exit code, page, API and metrics alike: same words, same since.

Daemons are mostly heartbeats that the test writes; the last test has real ones, whose logs and notifications it reads.
"""

from __future__ import annotations

import html
import json
import re
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple, get_args
from zoneinfo import ZoneInfo

import httpx
import pytest
import redis

from beatd.clock import SystemClock
from beatd.planning.problems import Kind
from beatd.states import FAILURE
from beatd.store.daemon_registry import Registry, Status
from beatd.store.keys import Keys
from beatd.store.outcomes import Ended, Outcomes
from beatd.store.undelivered import Undelivered
from tests.receivers import receiver

ZONE = "Asia/Tokyo"
CONFIG = """timezone = "{zone}"
[redis]
url = "{url}"
[leader]
ttl = "20s"
renew = "500ms"
[notify.ops]
webhook = "{hook}"
interval = 0
"""
ENTRY = """[beat_schedule.{name}]
task = "tasks.{name}"
schedule = "0 3 * * *"
"""
KEYS = Keys("beatd")
LEASE = KEYS.shard(0).lease
LONG_MS = 600_000
JSON_LOG = ("--log-format", "json")
ELSEWHERE: dict[str, str] = {
    "shard_away": "tests/acceptance/test_cluster_links.py",
    "page_schedule_unknown": "tests/unit/web/test_page.py",
}
"""Kinds that need a cluster, or a wait of twenty seconds, and the tests that provoke them."""


def beat(admin: redis.Redis, name: str, **more: Any) -> None:
    """Write the heartbeat of a daemon that stays alive."""
    known: dict[str, Any] = {"started_ms": 1_790_000_000_000, "entries": 2, "digest": "d" * 16, "version": "1.0"}
    Registry(admin, KEYS).heartbeat(Status(id=name, **{"lapse_ms": LONG_MS, **known, **more}), shards=1)


def led(admin: redis.Redis, **more: Any) -> None:
    beat(admin, "one", **more)
    admin.set(LEASE, "one:7", px=LONG_MS)


def nobody_is_alive(admin: redis.Redis) -> None:
    beat(admin, "dead", lapse_ms=0)


def one_daemon_is_sick(admin: redis.Redis) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.set(KEYS.orders, "foreign")
    led(
        admin,
        slow="127.0.0.1:6379 took 1.2 s",
        unreplicated="replicas of 127.0.0.1:6379 do not confirm (wait_replicas = 1, 500 ms)",
        clock_offset_ms=5_000,
        read_ms_ago=LONG_MS,
        turned_ms_ago=LONG_MS,
        task_faults=['beat.toml:7:1: the app has no task "tasks.ad"'],
        calendar_faults=["the calendar hol.ics cannot be read: No such file"],
        faults=1,
        faulty=["junk"],
        lasting_ms={"clock_skew one": 90_000, "config_mismatch": 80_000, "store_slow one": 70_000},
    )


def one_daemon_is_another(admin: redis.Redis) -> None:
    led(admin, lasting_ms={"config_mismatch": 80_000})
    fault = "beat.toml:9:1: beat_schedule.late: task is missing"
    beat(admin, "two", digest="e" * 16, version="2.0", config="broken", file_faults=[fault])


def entries_are_bad(admin: redis.Redis) -> None:
    led(admin)
    now_ms = SystemClock().now_ms()
    outcomes = Outcomes(admin, KEYS)
    outcomes.note([Ended("00000000-0000-0000-0000-000000000001", "bad", None, FAILURE)])
    outcomes.set_overdue({"bad": now_ms - 300_000}, [])
    outcomes.set_too_long({"good": now_ms - 200_000}, [])
    held = {"reason": "no such queue", "since_ms": now_ms - 400_000, "again_ms": now_ms + 60_000, "attempts": 9}
    admin.hset(KEYS.shard(0).held, "good", json.dumps(held))
    Undelivered(admin, KEYS).failed("ops", "127.0.0.1 answered 500", now_ms - 120_000, given_up=True)


def a_leader_is_gone(admin: redis.Redis) -> None:
    beat(admin, "one")
    admin.set(LEASE, "ghost:3", px=LONG_MS)


def a_lease_is_foreign(admin: redis.Redis) -> None:
    beat(admin, "one")
    admin.set(LEASE, "garbage")


def nobody_leads(admin: redis.Redis) -> None:
    beat(admin, "one", lasting_ms={"nobody_leads": 60_000})


def the_broker_refuses(admin: redis.Redis) -> None:
    led(admin, problem="broker rabbit:5672: access refused", problem_ms=90_000)


def runs_are_late(admin: redis.Redis) -> None:
    led(admin, late_ms=90_000)


def the_store_is_full(admin: redis.Redis) -> None:
    led(admin)
    admin.config_set("maxmemory", "1")


STATES: dict[Callable[[redis.Redis], None], set[Kind]] = {
    nobody_is_alive: {"no_daemon", "daemon_gone"},
    one_daemon_is_sick: {
        "store_at_risk",
        "key_foreign",
        "store_slow",
        "store_unreplicated",
        "clock_skew",
        "runtime_unreadable",
        "loop_stuck",
        "task_fault",
        "calendar_unreadable",
        "runtime_entry_broken",
    },
    one_daemon_is_another: {"config_mismatch", "version_mismatch", "config_broken", "stands_aside"},
    entries_are_bad: {
        "entry_failing",
        "entry_overdue",
        "entry_too_long",
        "entry_held_back",
        "notifications_undelivered",
    },
    a_leader_is_gone: {"leader_gone"},
    a_lease_is_foreign: {"lease_foreign"},
    nobody_leads: {"nobody_leads"},
    the_broker_refuses: {"runs_blocked"},
    runs_are_late: {"runs_late"},
    the_store_is_full: {"store_refused"},
}
WITH_OTHERS: set[Kind] = {"store_unavailable", "page_file_broken"}
"""Kinds of the tests below."""
BLOCKING: set[Kind] = {
    "store_unavailable",
    "store_refused",
    "no_daemon",
    "nobody_leads",
    "leader_gone",
    "lease_foreign",
    "runs_blocked",
    "runs_late",
}
UNDATED: set[Kind] = {
    "store_refused",
    "store_at_risk",
    "key_foreign",
    "leader_gone",
    "lease_foreign",
    "config_broken",
    "stands_aside",
    "store_unreplicated",
    "task_fault",
    "calendar_unreadable",
    "runtime_entry_broken",
    "version_mismatch",
}
"""Kinds without a moment here: nothing has one, or no real daemon is there to report it."""


class Installation(NamedTuple):
    """A store, a file and a page. ``beatd`` runs a command with the file."""

    admin: redis.Redis
    page: httpx.Client
    run: Callable[..., Any]

    def metrics(self) -> dict[str, int]:
        return problem_metrics(self.page.get("/metrics").text)


def problem_metrics(text: str) -> dict[str, int]:
    found = re.findall(r'^beatd_problems\{kind="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {kind: int(float(count)) for kind, count in found}


def plain(text: str) -> str:
    """A sentence without moments and durations, which change from one look to the next."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+", "T", html.unescape(text))
    return re.sub(r"\d[\d.,]*( (ms|s|min|h)\b( \d+ (s|min))?)?", "N", text)


@pytest.fixture
def place(tmp_path, redis_url, start_beatd, beatd):
    (tmp_path / "beat.toml").write_text(
        CONFIG.format(zone=ZONE, url=redis_url, hook="http://127.0.0.1:1/") + ENTRY.format(name="bad")
    )
    [found] = start_beatd("web", "--port", "0").expect(r"Status page at (http://\S+)")
    with (
        redis.Redis.from_url(redis_url) as admin,
        httpx.Client(base_url=found[1].rstrip("/"), timeout=10, trust_env=False) as page,
    ):
        yield Installation(admin, page, beatd)
        admin.config_set("maxmemory", "0")
        admin.config_set("maxmemory-policy", "noeviction")


def test_every_kind_is_provoked():
    provoked = set().union(*STATES.values(), WITH_OTHERS, ELSEWHERE)
    assert provoked == set(get_args(Kind))


def test_all_surfaces_tell_the_same(place, wait_until):
    for number, (provoke, kinds) in enumerate(STATES.items()):
        place.admin.config_set("maxmemory", "0")
        place.admin.config_set("maxmemory-policy", "noeviction")
        place.admin.flushall()
        provoke(place.admin)
        name = provoke.__name__
        at_page = wait_until(
            lambda kinds=kinds: (
                (seen := place.page.get("/api/v1/problems").json()["problems"])
                and {one["kind"] for one in seen} == kinds
                and seen
            ),
            what=f"{kinds} as {name}, not {place.page.get('/api/v1/problems').text}",
        )
        told = json.loads((done := place.run("status", "--json")).stdout)
        assert [one["text"] for one in told["problem_details"]] == told["problems"], name
        compare(told["problem_details"], at_page, name)
        for one in at_page:
            assert one["blocks"] == (one["kind"] in BLOCKING), one
            assert (one["since"] is None) == (one["kind"] in UNDATED), one
        is_blocked = any(one["blocks"] for one in at_page)
        assert done.returncode == is_blocked, name
        assert place.page.get("/readyz").status_code == (503 if is_blocked else 200), name
        counts: dict[str, int] = {}
        for one in at_page:
            counts[one["kind"]] = counts.get(one["kind"], 0) + 1
        assert place.metrics() == counts, name
        if number in (1, 2, 3):
            check_texts(place, told["problem_details"])


def compare(some, others, where):
    """Problems as two surfaces tell them."""
    keys = ("kind", "subject", "blocks")
    assert [[one[key] for key in keys] for one in some] == [[one[key] for key in keys] for one in others], where
    for one, other in zip(some, others, strict=True):
        assert plain(one["text"]) == plain(other["text"])
        if one["since"]:
            apart = datetime.fromisoformat(one["since"]) - datetime.fromisoformat(other["since"])
            assert abs(apart) < timedelta(seconds=10), (one, other)


def check_texts(place, details):
    """People read the same sentences, with moments on the clocks of the file's zone."""
    page = " ".join(re.sub(r"<[^>]+>", " ", place.page.get("/").text).split())
    status = place.run("status").stdout
    told = [line[2:] for line in status.splitlines() if line.startswith("! ")]
    doctor = json.loads(place.run("doctor", "--json").stdout)
    examined = [plain(one["text"]) for one in doctor["findings"] if one["part"] == "daemons"]
    for one, line in zip(details, told, strict=False):
        expected = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "T", one["text"])
        assert plain(line) == plain(expected)
        assert plain(line) in examined
        if one["since"] and "since" in line:
            at = datetime.fromisoformat(one["since"]).astimezone(ZoneInfo(ZONE))
            assert f"{at:%Y-%m-%d %H:}" in line
            assert "JST" in line
            assert "UTC" not in line
        start = re.split(r" since |: |; ", one["text"].removeprefix(f"{one['subject']}: "))[0]
        assert start in html.unescape(page) or start[:1].upper() + start[1:] in html.unescape(page)


def test_a_store_that_is_away_is_the_same_problem_everywhere(tmp_path, start_server, start_beatd, beatd, wait_until):
    server = start_server()
    (tmp_path / "beat.toml").write_text(CONFIG.format(zone=ZONE, url=server.url, hook="http://127.0.0.1:1/"))
    [found] = start_beatd("web", "--port", "0").expect(r"Status page at (http://\S+)")
    daemon = start_beatd("run", *JSON_LOG, "--metrics-listen", "127.0.0.1:0")
    [served] = daemon.expect(r"Metrics and health at (http://[\w.:]+)")
    daemon.expect("Leading")
    server.stop()
    daemon.expect('"event": ?"store_unavailable"')
    done = beatd("status", "--json")
    [told] = json.loads(done.stdout)["problem_details"]
    assert (done.returncode, told["kind"], told["blocks"]) == (1, "store_unavailable", True)
    page = httpx.get(found[1], timeout=10)
    assert (page.status_code, told["text"].partition(", since")[0] in html.unescape(page.text)) == (503, True)
    for url in (served[1], found[1].rstrip("/")):
        wait_until(
            lambda url=url: problem_metrics(httpx.get(f"{url}/metrics", timeout=10).text) == {"store_unavailable": 1}
        )


def test_a_store_that_takes_no_writes_has_one_name_everywhere(tmp_path, start_server, start_beatd, beatd, wait_until):
    server = start_server()
    (tmp_path / "beat.toml").write_text(CONFIG.format(zone=ZONE, url=server.url, hook="http://127.0.0.1:1/"))
    [page] = start_beatd("web", "--port", "0").expect(r"Status page at (http://\S+)/")
    daemon = start_beatd("run", *JSON_LOG, "--metrics-listen", "127.0.0.1:0")
    [served] = daemon.expect(r"Metrics and health at (http://[\w.:]+)")
    daemon.expect("Leading")
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        daemon.expect('"event": ?"store_refused"')
        for url in (served[1], page[1]):
            wait_until(
                lambda url=url: problem_metrics(httpx.get(f"{url}/metrics", timeout=10).text) == {"store_refused": 1}
            )
        [at_page] = httpx.get(f"{page[1]}/api/v1/problems", timeout=10).json()["problems"]
        [told] = json.loads(beatd("status", "--json").stdout)["problem_details"]
        assert (told["kind"], at_page["kind"]) == ("store_refused", "store_refused")
        admin.execute_command("REPLICAOF", "NO", "ONE")
        daemon.expect('"event": ?"beat_recovered"|"event": ?"store_recovered"')
    assert not daemon.find('"store_unavailable"')


def test_real_daemons_tell_what_is_wrong_in_log_metrics_and_notifications(
    tmp_path, redis_url, start_beatd, beatd, wait_until
):
    with receiver() as web, redis.Redis.from_url(redis_url) as admin:
        head = CONFIG.format(zone=ZONE, url=redis_url, hook=f"{web.url}/hook").replace(
            "[leader]", 'wait_replicas = 1\nwait_timeout = "20ms"\n[leader]'
        )
        tick = '[beat_schedule.tick]\ntask = "t"\nschedule = 1.0\n'
        held = '[beat_schedule.held]\ntask = "t"\nschedule = 1.0\nqueue = "taken"\n'
        admin.set("taken", "not a queue")
        (tmp_path / "beat.toml").write_text(head + tick + held)
        (tmp_path / "other.toml").write_text(head + tick)
        one = start_beatd("run", "--config", "beat.toml", "--metrics-listen", "127.0.0.1:0", *JSON_LOG)
        [served] = one.expect(r"Metrics and health at (http://[\w.:]+)")
        one.expect("term_began")
        two = start_beatd("run", "--config", "other.toml", *JSON_LOG)
        three = start_beatd("run", "--config", "beat.toml", *JSON_LOG)
        for each in (two, three):
            each.expect("standing_by")
        [found] = start_beatd("web", "--port", "0", "--config", "other.toml").expect(r"Status page at (http://\S+)")
        (tmp_path / "other.toml").write_text(f"{head}{tick}[beat_schedule.half]\n")
        three.end(signal.SIGKILL)
        Outcomes(admin, KEYS).note([Ended("00000000-0000-0000-0000-000000000001", "held", None, FAILURE)])
        expected = {"config_broken", "config_mismatch", "stands_aside", "daemon_gone", "store_unreplicated"}
        expected |= {"entry_held_back", "entry_failing"}
        dated = expected | {"page_file_broken"}

        def at_page():
            with httpx.Client(base_url=found[1].rstrip("/"), timeout=10) as page:
                seen = {one["kind"]: one for one in page.get("/api/v1/problems").json()["problems"]}
            return seen if seen.keys() == dated and all(seen[kind]["since"] for kind in expected) else None

        seen = wait_until(at_page, 30, "all problems, each with since when")
        for kind in expected - {"daemon_gone"}:
            assert "since" in seen[kind]["text"], kind

        def at_command():
            told = json.loads(beatd("status", "--json", "--config", "beat.toml").stdout)
            return {one["kind"] for one in told["problem_details"]}

        wait_until(lambda: at_command() == expected, 30, "the same from the command")
        wait_until(
            lambda: (
                {*problem_metrics(httpx.get(f"{served[1]}/metrics", timeout=10).text)}
                == {kind for kind in expected if not kind.startswith("entry_")}
            ),
            30,
            "the problems of the fleet at a daemon",
        )
        events = {
            "config_broken": two,
            "config_mismatch": one,
            "stands_aside": two,
            "store_unreplicated": one,
            "entry_failed": one,
            "daemon_gone": two,
        }
        for event, daemon in events.items():
            daemon.expect(f'"event": ?"{event}"')
        wait_until(
            lambda: 'beatd_entry_failures{entry="held"} 1.0' in httpx.get(f"{served[1]}/metrics", timeout=10).text,
            30,
            "the failing entry in the leader's metrics",
        )
        wait_until(
            lambda: (
                {"config", "held", "failure"}
                <= {each["kind"] for got in web.of("/hook") for each in got.json["problems"]}
            ),
            60,
            "the notifications",
        )
        [reason] = {
            each["reason"] for got in web.of("/hook") for each in got.json["problems"] if each["kind"] == "config"
        }
        assert "its files have errors; it keeps the last valid schedule; run beatd check: " in reason
        assert reason.partition("run beatd check")[2] in seen["config_broken"]["text"]
