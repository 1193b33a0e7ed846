"""The Prometheus text format, read back by rules of its own specification."""

import re

from beatd.web import metrics
from tests.unit.web.conftest import daemon, document, shard

SAMPLE = re.compile(r'([a-z_]+)(?:\{([a-z]+)="((?:[^"\\\n]|\\["\\n])*)"\})? (-?[0-9.e+-]+)')


def read(text):
    """``{(name, label value): number}``; fails on a line that is not of the format."""
    assert text.endswith("\n")
    found, typed = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in typed
            typed[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] in typed
            value = match[3] and re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), match[3])
            assert (match[1], value) not in found
            found[match[1], value] = float(match[4])
    return found


def told(status, names=(), runs=()):
    return read(metrics.text(metrics.families(status, names, runs)).decode())


def test_one_daemon():
    found = told(document(), ["a", "b"], [3, 1_790_000_000])
    assert found == {
        ("beatd_store_up", None): 1,
        ("beatd_store_down_seconds", None): 0,
        ("beatd_late_seconds", "one"): 0,
        ("beatd_held_back_entries", None): 0,
        ("beatd_daemons", None): 1,
        ("beatd_shards", None): 1,
        ("beatd_leading_shards", "one"): 1,
        ("beatd_config_mismatch", None): 0,
        ("beatd_config_broken", "one"): 0,
        ("beatd_last_turn_seconds", "one"): 1.0,
        ("beatd_clock_offset_seconds", "one"): 0.004,
        ("beatd_outbox_length", "0"): 0,
        ("beatd_entries", None): 2,
        ("beatd_runtime_entries", None): 2,
        ("beatd_paused_entries", None): 1,
        ("beatd_runs_total", "a"): 3,
        ("beatd_runs_total", "b"): 1_790_000_000,
    }


def test_names_are_escaped():
    name = 'a "quoted"\\ name\nof two lines'
    assert told(document(), [name], [5])["beatd_runs_total", name] == 5


def test_many_entries_are_one_sum():
    names = [f"e{n}" for n in range(1001)]
    few = told(document(), names[:-1], range(len(names) - 1))
    assert few["beatd_runs_total", "e999"] == 999
    many = told(document(), names, range(len(names)))
    assert [key for key in many if key[0] == "beatd_runs_total"] == [("beatd_runs_total", None)]
    assert many["beatd_runs_total", None] == sum(range(1001))


def test_what_is_wrong_can_be_alerted_on():
    two = daemon("two", digest="other", config="broken", turned_ms_ago=None, clock_offset_ms=None, shards=[])
    found = told(document([daemon(), two], shards=[shard(0, outbox=7), shard(1, leader=None)]))
    assert found["beatd_config_mismatch", None] == 1
    assert found["beatd_config_broken", "two"] == 1
    assert found["beatd_outbox_length", "0"] == 7
    assert found["beatd_leading_shards", "two"] == 0
    assert ("beatd_last_turn_seconds", "two") not in found
    assert found["beatd_runs_total", None] == 0


def test_nobody_is_there():
    found = told(document(daemons=[]))
    assert found["beatd_daemons", None] == 0
    assert not any(name == "beatd_leading_shards" for name, _ in found)
