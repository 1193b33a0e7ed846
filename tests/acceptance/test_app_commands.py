"""Client commands of an app as Celery has them: ``call``, ``result``, ``purge``, ``report``, ``events``."""

import json

import pytest
import redis

from beatd import App

APP = """
from {package} import {kind}
app = {kind}("proj", broker="{url}", backend="{url}")
@app.task(name="proj.add")
def add(x, y):
    return x + y
"""


@pytest.fixture(params=[("beatd", "App"), ("celery", "Celery")], ids=["beatd", "celery"])
def project(request, tmp_path, redis_url):
    """An app of beatd's or of Celery's in ``proj.py``; its worker is beatd's, of a module beside it."""
    package, kind = request.param
    (tmp_path / "proj.py").write_text(APP.format(package=package, kind=kind, url=redis_url))
    (tmp_path / "work.py").write_text(APP.format(package="beatd", kind="App", url=redis_url))


def test_a_task_is_called_and_its_result_and_events_are_seen(project, beatd, start_beatd, redis_url):
    worker = start_beatd("worker", "-A", "work", "-c", "1", "-E")
    worker.expect("ready", timeout=20)
    events = start_beatd("-A", "proj", "events", "--dump", "--json")
    events.expect("worker-heartbeat", timeout=20)
    called = beatd("-A", "proj", "call", "proj.add", "-a", "[2, 3]")
    task_id = called.stdout.strip()
    shown = beatd("result", task_id, "-A", "proj")
    assert (shown.returncode, shown.stdout.strip()) == (0, "5")
    events.expect(f'"task-succeeded".*{task_id}|{task_id}.*"task-succeeded"', timeout=20)
    failed = beatd("-A", "proj", "call", "proj.add", "-k", '{"x": "a", "y": 1}').stdout.strip()
    shown = beatd("-A", "proj", "result", failed, "--traceback")
    assert shown.returncode == 1
    assert "TypeError" in shown.stdout
    document = json.loads(beatd("-A", "proj", "result", failed, "--json").stdout)
    assert document["state"] == "FAILURE"
    assert beatd("-A", "proj", "inspect", "ping", "-t", "10").returncode == 0
    seen, app = [], App("monitor", broker=redis_url, set_as_current=False)
    app.events.Receiver(handlers={"worker-heartbeat": seen.append}).capture(limit=1, timeout=20)
    assert seen[0]["sw_ident"] == "beatd"
    assert seen[0]["local_received"] >= seen[0]["timestamp"]  # Celery's State does not take an event without it
    with app.producer_or_acquire() as producer:
        producer.publish({"any": "thing"}, routing_key="other", serializer="json")
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("other") == 1
    app.close()
    assert worker.end() == 0


def test_waiting_messages_are_purged_only_when_confirmed(project, beatd, redis_url):
    for _ in range(2):
        assert beatd("-A", "proj", "call", "proj.add", "--countdown", "1h").returncode == 0
    asked = beatd("-A", "proj", "purge")
    assert asked.returncode == 2
    assert "confirm it with --yes" in asked.stderr
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("celery") == 2
        assert "Purged 2 messages from 1 queue" in beatd("-A", "proj", "purge", "-f").stdout
        assert client.llen("celery") == 0
    assert beatd("-A", "proj", "purge", "-f", "-X", "celery").returncode == 2


def test_a_result_that_does_not_come_and_a_report(project, beatd):
    waited = beatd("-A", "proj", "result", "nothing", "-t", "200ms")
    assert waited.returncode == 1
    assert "nothing has not ended within 0.2 s; its state is PENDING" in waited.stderr
    told = beatd("-A", "proj", "report").stdout
    assert told.startswith("software -> beatd:")


def test_wrong_words_are_answered_in_words(beatd, tmp_path):
    hopeless = ("-b", "redis://:tail9zq@127.0.0.1:1/0")
    for words, code, text in (
        (("call", "t", "-a", "{}", *hopeless), 2, "expected a list"),
        (("call", "t", "--eta", "soon", *hopeless), 2, "expected a time such as"),
        (("call", "t", *hopeless), 1, "Connection refused"),
        (("events", *hopeless), 1, "Connection refused"),
        (("purge", "-f", *hopeless), 1, "Connection refused"),
        (("result", "x"), 2, "or an app with -A MODULE"),
        (("report", "-A", "nowhere"), 2, "no module named 'nowhere'"),
    ):
        done = beatd(*words)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert text in done.stderr, (words, done.stderr)
        assert "tail9zq" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


AWAY = "redis://127.0.0.1:1/0"
OF_FILE = 'url under [redis] to another one; url = "embedded" starts one by itself'


@pytest.mark.parametrize(
    ("words", "environment", "place"),
    [
        (["call", "proj.add", "-A", "proj"], {}, "broker_url of proj to another one"),
        (["call", "proj.add", "-A", "bare"], {"CELERY_BROKER_URL": AWAY}, "$CELERY_BROKER_URL to another one"),
        (["call", "proj.add", "-A", "of_celery"], {}, "broker_url of of_celery to another one"),
        (["call", "proj.add", "-b", AWAY], {}, "--broker to another one"),
        (["call", "proj.add", "--config", "my.toml"], {}, OF_FILE),
        (["purge", "--yes", "-A", "proj"], {}, "broker_url of proj to another one"),
        (["purge", "--yes", "-A", "proj", "-b", AWAY], {}, "--broker to another one"),
        (["inspect", "ping", "-A", "proj"], {}, "broker_url of proj to another one"),
        (["result", "an-id", "-A", "proj"], {}, "result_backend of proj to another one"),
        (["result", "an-id", "-A", "proj", "--result-backend", AWAY], {}, "--result-backend to another one"),
        (["list", "-A", "proj"], {}, "broker_url of proj to another one"),
        (["list", "-A", "proj"], {"BEATD_BROKER_URL": AWAY}, "$BEATD_BROKER_URL to another one"),
        (["list", "-A", "proj", "-b", AWAY], {}, "--broker to another one"),
        (["list", "--config", "my.toml"], {}, OF_FILE),
        (["migrate", "--yes", AWAY, "redis://127.0.0.1:2/0"], {}, "its URL to another one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_advice_about_a_server_that_is_away_names_where_its_url_is_set(words, environment, place, beatd, tmp_path):
    (tmp_path / "proj.py").write_text(APP.format(package="beatd", kind="App", url=AWAY))
    (tmp_path / "of_celery.py").write_text(APP.format(package="celery", kind="Celery", url=AWAY))
    (tmp_path / "bare.py").write_text('from beatd import App\napp = App("bare")\n')
    (tmp_path / "my.toml").write_text(f'[redis]\nurl = "{AWAY}"\n')
    done = beatd(*words, **environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].rstrip(".") == f"Start the server, or set {place}"
