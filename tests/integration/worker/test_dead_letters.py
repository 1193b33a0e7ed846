"""``beatd dead-letters`` as an operator uses it: look, send again, throw away."""

from __future__ import annotations

import json
import subprocess

import pytest
import redis
from click.testing import CliRunner

from beatd.broker.redis_keys import queue_key
from beatd.cli import main
from beatd.message.protocol import build, envelope
from beatd.store.client import connect
from beatd.store.dead_letters import DeadLetters, encode
from beatd.store.keys import Keys
from beatd.worker.consumers.envelope import count_death, mark_redelivered

KEY = "{beatd}:dead_letters"


@pytest.fixture
def server(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def beatd(tmp_path, monkeypatch):
    """The command line, in this process: what it does takes longer to start than to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BEATD_CONFIG", raising=False)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(main, words)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def config(tmp_path, redis_url):
    (tmp_path / "beat.toml").write_text(f'[redis]\nurl = "{redis_url}"\n')


def message(task: str, task_id: str, **headers) -> bytes:
    return envelope(build(task, task_id, (1,), {"password": "sesame"}, headers=headers), queue="celery")


def letter(
    task: str, task_id: str, *, reason="its eta is wrong", at="2026-01-01T00:00:00.000+00:00", queue="celery"
) -> bytes:
    return encode(message(task, task_id, token="sesame"), reason=reason, queue=queue, at=at, worker="w@host:1")


@pytest.fixture
def letters(server, config):
    """Three dead letters: two reports and a mail, the last of them with a priority."""
    server.lpush(KEY, letter("reports.daily", "1"), letter("reports.weekly", "2", reason="content type 'x'"))
    server.lpush(KEY, letter("mail.send", "3", queue=queue_key("mail", 9)))


def listed(beatd, *options: str) -> list[dict]:
    done = beatd("dead-letters", "list", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_list_fits_80_columns_and_the_newest_is_first(beatd, letters):
    lines = beatd("dead-letters", "list").stdout.splitlines()
    assert [line.split()[3] for line in lines[1:4]] == ["mail.send", "reports.weekly", "reports.daily"]
    assert lines[2].split()[2] == "celery"
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "3 of 3 dead letters"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--task", "reports.*"], ["2", "1"]),
        (["--reason", "CONTENT TYPE"], ["2"]),
        (["--queue", "mail"], ["3"]),
        (["--older", "1h"], ["3", "2", "1"]),
        (["--limit", "1"], ["3"]),
        (["--task", "nothing"], []),
    ],
)
def test_filters(beatd, letters, options, ids):
    assert [one["task_id"] for one in listed(beatd, *options)] == ids


def test_all_about_one_without_its_secrets(beatd, letters):
    (found,) = listed(beatd, "--queue", "mail")
    shown = beatd("dead-letters", "show", found["id"][:6])
    assert shown.returncode == 0
    for words in ("mail.send", "its eta is wrong", "w@host:1", "2026-01-01"):
        assert words in shown.stdout
    assert "sesame" not in shown.stdout
    assert "sesame" in beatd("dead-letters", "show", found["id"], "--body").stdout
    (facts,) = json.loads(beatd("dead-letters", "show", found["id"], "--json").stdout)
    assert facts["headers"]["token"] == "***"


def test_messages_go_back_as_they_were(beatd, letters, server):
    done = beatd("dead-letters", "requeue", "--all")
    assert (done.returncode, done.stdout) == (0, "3 messages sent again\n")
    oldest_first = [json.loads(raw)["headers"]["id"] for raw in server.lrange("celery", 0, -1)[::-1]]
    assert oldest_first == ["1", "2"]
    assert json.loads(server.lindex(queue_key("mail", 9), 0))["headers"]["id"] == "3"
    assert server.llen(KEY) == 0


def test_a_message_that_killed_its_workers_goes_back_without_their_deaths(beatd, config, server):
    """Else the next worker would bury it again."""
    sent = message("t", "1")
    killer = mark_redelivered(count_death(count_death(count_death(sent))))
    server.lpush(KEY, encode(killer, reason="t was running 3 times", queue="celery", at="2026-01-01", worker="w"))
    assert beatd("dead-letters", "requeue", "--all").returncode == 0
    assert json.loads(server.lindex("celery", 0)) == json.loads(sent)


def test_two_operators_send_each_message_once(server, config, redis_url):
    server.lpush(KEY, *(letter("t", str(number)) for number in range(500)))
    with connect(redis_url) as one, connect(redis_url) as other:
        first, second = DeadLetters(one, Keys()), DeadLetters(other, Keys())
        found = list(first)
        assert first.requeue(found[:300]) == 300
        assert second.requeue(found) == 200
    assert server.llen("celery") == 500


def test_some_are_thrown_away(beatd, letters, server):
    done = beatd("dead-letters", "purge", "--task", "reports.*")
    assert done.stdout == "2 dead letters thrown away\n"
    assert [one["task_id"] for one in listed(beatd)] == ["3"]


def test_what_is_no_letter_is_shown_and_can_be_thrown_away(beatd, config, server):
    server.lpush(KEY, b"\xff somebody's", json.dumps({"reason": "corrupt", "queue": "", "at": "x", "message": "?"}))
    found = listed(beatd)
    assert [one["reason"] for one in found] == ["corrupt", "not a letter of beatd"]
    done = beatd("dead-letters", "requeue", "--all")
    assert done.returncode == 1
    assert "it names no queue" in done.stderr
    assert server.llen(KEY) == 2
    assert beatd("dead-letters", "purge", "--all", "--yes").stdout == "2 dead letters thrown away\n"


def wrong(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_use(beatd, letters, tmp_path):
    wrong(beatd("dead-letters", "purge"), 2, "say which")
    wrong(beatd("dead-letters", "requeue", "ab"), 2, "too short")
    wrong(beatd("dead-letters", "list", "--older", "soon"), 2, "not a duration")
    wrong(beatd("dead-letters", "show", "abcdef123456"), 1, "no dead letter")
    wrong(beatd("dead-letters", "list", "-b", "amqp://host"), 2, "keeps no dead letters")
    wrong(beatd("dead-letters", "list", "-b", "redis://127.0.0.1:1/0"), 1, "127.0.0.1:1")


def test_a_daemons_letter_goes_through_the_other_broker(beatd, redis_url, server, tmp_path, start_server):
    other = start_server()
    (tmp_path / "beat.toml").write_text(f'[redis]\nurl = "{redis_url}"\n[broker]\nurl = "{other.url}"\n')
    server.lpush(
        KEY, encode(message("t", "1"), reason="no queue gets it", queue="celery", at="2026-01-01T00:00:00+00:00")
    )
    assert beatd("dead-letters", "requeue", "--all").stdout == "1 message sent again\n"
    assert server.llen(KEY) == 0
    with redis.Redis.from_url(other.url) as broker:
        assert broker.llen("celery") == 1


@pytest.fixture
def many(server, config):
    """Forty equal dead letters whose reasons name their ids, two of another error, one of another queue."""
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(43)]
    alike = [letter("reports.daily", each, reason=f"run {each}: no worker knows reports.daily") for each in ids[:40]]
    others = [letter("reports.daily", each, reason="run: status 404") for each in ids[40:42]]
    server.lpush(KEY, *alike, *others, letter("reports.daily", ids[42], queue="mail", reason="run: status 404"))
    return ids


def test_equal_letters_are_one_line_with_their_number(beatd, many, server):
    lines = beatd("dead-letters", "list").stdout.splitlines()
    assert [line.split()[2:] for line in lines[1:4]] == [
        ["mail", "reports.daily", "run:", "status", "404"],
        ["celery", "reports.daily", "2", "×", "run:", "status", "404"],
        ["celery", "reports.daily", "40", "×", "run", *lines[3].split()[7:]],
    ]
    assert max(map(len, lines)) <= 80
    assert lines[4:] == ["43 of 43 dead letters; --each shows those that are alike one by one"]
    assert beatd("dead-letters", "list", "--limit", "2").stdout.splitlines()[-1].startswith("3 of 43 dead letters; ")
    each = beatd("dead-letters", "list", "--each").stdout.splitlines()
    assert (len(each), each[-1]) == (45, "43 of 43 dead letters")
    assert len(listed(beatd)) == 43


def test_equal_letters_are_sent_again_or_thrown_away_together(beatd, many, server):
    lines = [line.split() for line in beatd("dead-letters", "list").stdout.splitlines()]
    forty, two = lines[3][0], lines[2][0]
    assert "--alike goes with ids" in beatd("dead-letters", "purge", "--alike").stderr
    assert beatd("dead-letters", "purge", two, "--alike", "--older", "36000d").returncode == 1
    assert beatd("dead-letters", "purge", two, "--alike").stdout == "2 dead letters thrown away\n"
    assert beatd("dead-letters", "requeue", forty, "--alike").stdout == "40 messages sent again\n"
    sent = [json.loads(raw)["headers"]["id"] for raw in server.lrange("celery", 0, -1)]
    assert sorted(sent) == sorted(many[:40])
    assert [one["queue"] for one in listed(beatd)] == ["mail"]
    [purge, requeue] = [line for line in beatd("audit").stdout.splitlines() if "and all like it" in line]
    assert ("requeue" in purge + requeue, "purge" in purge + requeue) == (True, True)
