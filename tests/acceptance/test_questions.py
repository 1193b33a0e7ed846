"""Questions to a real installation: why, diff, explain, a pause that ends by itself, completion, options before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CONFIG = """
timezone = "Europe/Berlin"
[redis]
url = "{url}"
[leader]
ttl = "10s"
renew = "500ms"
[beat_schedule.tick]
task = "tasks.tick"
schedule = "* * * * * *"
queue = "ticks"
[beat_schedule.weekly]
task = "tasks.weekly"
schedule = "30 7 * * mon"
"""


@pytest.fixture
def file(tmp_path: Path, redis_url: str) -> Path:
    path = tmp_path / "beat.toml"
    path.write_text(CONFIG.format(url=redis_url))
    return path


def test_a_pause_ends_by_itself_and_why_tells_of_both(start_beatd, beatd, file, wait_until):
    daemon = start_beatd("run")
    daemon.expect("Leading shard 0")
    wait_until(lambda: json.loads(beatd("history", "tick", "--json").stdout)["runs"], 20, "a run")

    assert beatd("pause", "tick", "--for", "1h", "--reason", "migration", "--by", "anna").returncode == 0
    [tick] = [each for each in json.loads(beatd("--json", "list").stdout)["entries"] if each["name"] == "tick"]
    assert (tick["paused"]["by"], tick["paused"]["reason"]) == ("anna", "migration")
    assert tick["paused"]["until"] > tick["paused"]["since"]
    answer = json.loads(beatd("why", "tick", "+1s", "--json").stdout)
    assert answer["pause"]["reason"] == "migration"

    assert beatd("resume", "tick").returncode == 0
    assert beatd("pause", "tick", "--for", "2s").returncode == 0
    daemon.expect("The pause of tick is over", timeout=30)
    wait_until(lambda: not json.loads(beatd("status", "--json").stdout)["runtime"]["paused"], 10, "the end")
    run = json.loads(beatd("history", "tick", "--json").stdout)["runs"][0]
    answer = json.loads(beatd("why", "tick", run["due_at"], "--json").stdout)
    assert (answer["due"], answer["sent"], answer["run_id"]) == (True, True, run["run_id"])
    assert (answer["term"]["shard"], answer["term"]["term"]) == (0, 1)
    assert "in term 1 of shard 0" in beatd("why", "tick", run["due_at"]).stdout
    live = json.loads(beatd("why", "tick", "+1s", "--connect", "--json").stdout)["live"]
    assert (live["queue"], live["is_unfinished"], live["depth"] > 0) == ("ticks", False, True)


def test_why_names_the_field_that_does_not_match(beatd, file):
    done = beatd("why", "weekly", "2027-03-30 07:30")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("No run is due then: schedule.")
    assert "day 30, Tuesday: does not match" in done.stdout
    assert "The run after it is due at Mon 2027-04-05 07:30:00 CEST." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["why", "weekli", "now"], 'there is no entry "weekli"; did you mean weekly?'),
        (["why", "weekly", "soon"], "expected a time such as"),
        (["pause", "*"], "confirm it with --yes"),
        (["pause", "tick", "--for", "soon"], "expected seconds or a duration"),
        (["pause", "tick", "--until", "2020-01-01"], "is not later than now"),
        (["pause", "tick", "--for", "2h", "--until", "+1d"], "not both"),
        (["explain", "61 * * * *"], "out of range"),
        (["explain", "sunrise"], "needs a place"),
        (["control", "shutdown"], "confirm it with --yes"),
        (["dead-letters", "purge", "--all"], "confirm it with --yes"),
    ],
)
def test_wrong_use_is_told_and_exits_with_2(beatd, file, arguments, said):
    done = beatd(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert said in done.stderr


def test_diff_of_two_files(beatd, file, tmp_path):
    new = tmp_path / "new.toml"
    text = file.read_text().replace("30 7 * * mon", "45 7 * * mon").replace("beat_schedule.tick", "beat_schedule.tock")
    new.write_text(text)
    assert beatd("diff", "beat.toml", "--against", "beat.toml").returncode == 0
    done = beatd("diff", "new.toml", "--json")
    assert done.returncode == 1, done.stderr
    changes = {each["name"]: each for each in json.loads(done.stdout)["entries"]}
    assert {name: each["change"] for name, each in changes.items()} == {
        "tick": "removed", "tock": "added", "weekly": "changed",
    }  # fmt: skip
    assert changes["weekly"]["keys"] == {"schedule": {"old": "30 7 * * mon", "new": "45 7 * * mon"}}
    assert (changes["weekly"]["runs"]["appear"], changes["weekly"]["runs"]["moved"]) == (1, 1)
    assert '    schedule: "30 7 * * mon" → "45 7 * * mon"' in beatd("diff", "new.toml").stdout
    new.write_text("[beat_schedule.x]\ntask = 1")
    assert beatd("diff", "new.toml").returncode == 2


def test_explain_and_completion(beatd, file):
    explained = json.loads(beatd("explain", "30 7 * * mon-fri", "--timezone", "Europe/Berlin", "--json").stdout)
    assert explained["words"] == "at 07:30 on Monday to Friday, Europe/Berlin time"
    assert (len(explained["runs"]), explained["warnings"]) == (10, [])
    for shell in ("bash", "zsh", "fish"):
        assert "_BEATD_COMPLETE" in beatd("completion", shell).stdout
    names = beatd("why", _BEATD_COMPLETE="bash_complete", COMP_WORDS="beatd why w", COMP_CWORD="2").stdout
    assert names == "plain,weekly\n"
