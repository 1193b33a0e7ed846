"""``beatd reload`` and ``beatd step-down`` beside real daemons."""

import json
import re
from collections import Counter, defaultdict
from datetime import datetime
from itertools import pairwise

import pytest
import redis

from beatd.store.daemon_registry import Registry
from beatd.store.keys import Keys

CONFIG = """
[redis]
url = "{url}"
[leader]
ttl = "10s"
renew = "500ms"
[defaults]
catch_up = "all"
"""
ENTRY = """
[beat_schedule.e{number}]
task = "tasks.load"
schedule = 0.5
queue = "load"
"""


@pytest.fixture
def write(tmp_path, redis_url):
    def written(name="beat.toml", *, entries=1, more=""):
        text = CONFIG.format(url=redis_url) + "".join(ENTRY.format(number=number) for number in range(entries))
        (tmp_path / name).write_text(text + more)
        return name

    return written


@pytest.fixture
def broker(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_each_daemon_answers_to_a_reload(start_beatd, beatd, write):
    first = start_beatd("--config", write("one.toml"))
    first.expect("Leading")
    second = start_beatd("--config", write("two.toml"))
    second.expect("Standing by")
    done = beatd("reload", "--config", "one.toml", "--json")
    assert done.returncode == 0
    answers = json.loads(done.stdout)
    assert [(each["ok"], each["entries"], each["faults"]) for each in answers.values()] == [(True, 1, [])] * 2
    assert len({each["digest"] for each in answers.values()}) == 1
    write("two.toml", more="quue = 5\nschedul = 1\n")
    done = beatd("reload", "--config", "one.toml")
    assert done.returncode == 1
    assert "2 errors; it keeps the last valid schedule" in done.stdout
    assert '  two.toml:14:1: beat_schedule.e0.quue: unknown setting "quue"; did you mean "queue"?' in done.stdout
    assert ": 1 entry, schedule " in done.stdout
    write("two.toml", entries=2)
    done = beatd("reload", "--config", "two.toml")
    assert (done.returncode, "! the daemons have different schedules" in done.stdout) == (0, True)


def test_leaders_step_down_under_load_and_nothing_is_lost_or_doubled(start_beatd, beatd, write, broker, wait_until):
    file = write(entries=60)
    daemons = [start_beatd("--config", file)]
    daemons[0].expect("Leading")
    daemons.append(start_beatd("--config", file))
    daemons[1].expect("Standing by")
    leaders = []

    def resting():
        alive = Registry(broker, Keys()).look(shards=1).alive.values()
        return any(each.resting_ms for each in alive)

    for _ in range(2):
        before = broker.llen("load")
        wait_until(lambda before=before: broker.llen("load") > before + 60, timeout=30)
        done = beatd("step-down", "--config", file, "--for", "1s", "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["leaders"]["0"] != document["daemon"]
        leaders.append(document["leaders"]["0"])
        wait_until(lambda: not resting(), timeout=30)
    assert len(set(leaders)) == 2, "the second hands back to the first"
    before = broker.llen("load")
    wait_until(lambda: broker.llen("load") > before + 120, timeout=30)
    for daemon in daemons:
        daemon.end()
    headers = [json.loads(raw)["headers"] for raw in broker.lrange("load", 0, -1)]
    assert max(Counter(each["id"] for each in headers).values()) == 1, "none twice"
    dues = defaultdict(list)
    for each in headers:
        dues[each["beatd-entry"]].append(datetime.fromisoformat(each["beatd-due-at"]).timestamp())
    assert len(dues) == 60
    for each in dues.values():
        assert {round(1000 * (later - due)) for due, later in pairwise(sorted(each))} == {500}, "none lost"


def test_who_stepped_down_does_not_take_it_back_while_another_is_there(start_beatd, beatd, write):
    file = write()
    first = start_beatd("--config", file)
    first.expect("Leading")
    done = beatd("step-down", "--config", file)
    assert (done.returncode, "nobody could take over" in done.stderr) == (1, True)
    second = start_beatd("--config", file)
    second.expect("Standing by")
    done = beatd("step-down", "--config", file)
    assert done.returncode == 0, done.stderr
    assert "stepped down; it leads nothing for 1 min" in done.stdout
    assert "leads now, after" in done.stdout
    second.expect("Leading")
    status = beatd("status", "--config", file)
    told = r"is not eligible to lead( since [^:]+:\d\d:\d\d \w+)?: it was told to step down, and campaigns again in"
    assert re.search(told, status.stdout)
    second.end()
    first.expect("Leading", times=2)
