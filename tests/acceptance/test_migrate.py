"""``beatd migrate SOURCE DESTINATION``: messages of queues go to another broker, none is lost."""

import json
import signal

import pytest
import redis
from kombu import Connection

from beatd import App


@pytest.fixture
def rabbit_url(rabbitmq):
    return rabbitmq.url


def sent(url, queue, count, **options):
    """Send numbered messages, as a client of an app does."""
    app = App("client", broker=url, set_as_current=False)
    return [
        app.send_task("proj.add", (n,), queue=queue, headers={"tenant": f"t{n}"}, **options).id for n in range(count)
    ]


def waiting(url, queue):
    """Take all messages of a queue: id, arguments, the user's header, priority."""
    found = []
    with Connection(url) as connection, connection.channel() as channel:
        while True:
            raw = channel.basic_get(queue, no_ack=True)
            if raw is None:
                return found
            message = channel.message_to_python(raw)
            found.append(
                (
                    message.headers["id"],
                    json.loads(message.body)[0][0],
                    message.headers["tenant"],
                    message.properties["priority"],
                )
            )


def test_from_redis_to_rabbitmq_and_back_with_headers_and_priorities(beatd, redis_url, rabbit_url, queue):
    urgent = sent(redis_url, queue, count=2, priority=0)
    later = sent(redis_url, queue, count=3, priority=9)
    there = beatd("migrate", redis_url, rabbit_url, "-y", "-q", queue)
    assert there.returncode == 0, there.stderr
    assert there.stdout.splitlines()[-1].split() == [queue, queue, "5", "0"]
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys(f"{queue}*") == client.keys("*unacked*") == []
    back = beatd("migrate", "messages", rabbit_url, redis_url, "-y", "-q", f"{queue}:other")
    assert back.returncode == 0, back.stderr
    assert waiting(rabbit_url, queue) == []
    expected = [(urgent[n], n, f"t{n}", 0) for n in range(2)] + [(later[n], n, f"t{n}", 9) for n in range(3)]
    assert waiting(redis_url, "other") == expected


def test_a_worker_of_the_destination_runs_what_was_moved(beatd, start_beatd, redis_url, rabbit_url, queue, tmp_path):
    text = (
        "from beatd import App\n"
        f"app = App('proj', broker='{rabbit_url}', backend='{redis_url}')\n"
        "@app.task(name='proj.add')\ndef add(x):\n    return x + 1\n"
    )
    (tmp_path / "proj.py").write_text(text)
    ids = sent(redis_url, queue, count=3)
    assert beatd("migrate", redis_url, rabbit_url, "-y", "-q", queue).returncode == 0
    start_beatd("worker", "-A", "proj", "-c", "1", "-P", "solo", "-Q", queue).expect("ready", timeout=20)
    app = App("client", broker=rabbit_url, backend=redis_url, set_as_current=False)
    assert [app.AsyncResult(each).get(timeout=20) for each in ids] == [1, 2, 3]


@pytest.mark.slow
def test_nothing_is_lost_when_it_is_killed(beatd, start_beatd, redis_url, rabbit_url, queue):
    ids = set(sent(redis_url, queue, count=3_000))
    moving = start_beatd("migrate", redis_url, rabbit_url, "-y", "-q", queue)
    with redis.Redis.from_url(redis_url) as client:
        moving._wait_until(lambda: client.llen(queue) < 2_900, 20, "the first messages to leave")
    moving.end(signal.SIGKILL)
    again = beatd("migrate", redis_url, rabbit_url, "-y", "-q", queue)
    assert again.returncode == 0, again.stderr
    found = [each[0] for each in waiting(rabbit_url, queue)]
    assert set(found) == ids
    assert len(found) <= len(ids) + 50


def test_only_some_messages(beatd, redis_url, rabbit_url, queue):
    ids = sent(redis_url, queue, count=4)
    App("client", broker=redis_url, set_as_current=False).send_task(
        "proj.other", (9,), queue=queue, headers={"tenant": "o"}
    )
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(queue, "no message")
    limited = beatd("migrate", "-n", "1", redis_url, rabbit_url, "--yes", "-q", queue)
    assert limited.stdout.splitlines()[-1].split() == [queue, queue, "1", "0"]
    rest = beatd("migrate", redis_url, rabbit_url, "--yes", "-q", queue, "-T", "proj.add", "-t", "300ms")
    assert rest.returncode == 1
    assert rest.stdout.splitlines()[-1].split() == [queue, queue, "3", "2"]
    assert f"1 message of queue {queue} cannot be read" in rest.stderr
    assert [each[0] for each in waiting(rabbit_url, queue)] == ids
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen(queue) == 2


def test_wrong_words_are_answered_in_words(beatd, redis_url):
    nowhere = "redis://:tail9zq@127.0.0.1:1/0"
    for words, code, text in (
        ((redis_url, nowhere), 2, "confirm it with --yes"),
        ((redis_url, redis_url, "-y"), 2, "are the same broker"),
        ((redis_url, nowhere, "-y"), 1, "Connection refused"),
        ((nowhere, redis_url, "-y"), 1, "Connection refused"),
        (("messages", redis_url, "there", "-y"), 2, "DESTINATION_URL: a URL: expected SCHEME://HOST"),
        (("there", redis_url, "-y"), 2, "SOURCE_URL: a URL: expected SCHEME://HOST"),
        ((redis_url, nowhere, "-y", "-q", "a:"), 2, "such as a,b or a:b"),
        ((redis_url, "-y"), 2, "Missing argument 'DESTINATION_URL'"),
    ):
        done = beatd("migrate", *words)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert text in done.stderr, (words, done.stderr)
        assert "tail9zq" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
