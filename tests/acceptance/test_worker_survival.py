"""What becomes of messages when processes, workers and servers die, and when a worker is told to leave."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path

import pytest
import redis

from beatd import App
from beatd.exceptions import WorkerLostError
from beatd.store.keys import Keys

pytestmark = pytest.mark.slow

TASKS = """
import os, signal, time
import redis
from beatd import App
from beatd.exceptions import Reject

app = App("proj", broker={url!r}, backend={url!r})
# a client that repeats a command whose answer is late would count a run twice
server = redis.Redis.from_url({ledger!r}, retry=None, socket_timeout=60)

@app.task
def add(x, y):
    return x + y

@app.task(acks_late=True, reject_on_worker_lost=True)
def kills_its_process():
    server.incr("killed")
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(acks_late=True, reject_on_worker_lost=True)
def kills_until_cured():
    if server.get("cured") is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return "cured"

@app.task(acks_late=True)
def polls():
    if server.incr("polled") < 8:
        raise Reject("not yet", requeue=True)
    return "at last"

@app.task(acks_late=True, reject_on_worker_lost=True)
def kills_its_worker():
    server.incr("killed")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)

@app.task(acks_late=True)
def late(seconds, name):
    server.rpush("begun", name)
    time.sleep(seconds)
    server.rpush("done", name)
    return name

@app.task
def early(seconds, name):
    server.rpush("begun", name)
    time.sleep(seconds)
    server.rpush("done", name)

@app.task(acks_late=True)
def waits():
    server.incr("waiting")
    while not server.exists("go on"):
        time.sleep(0.05)
    return "done"

@app.task(acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def count(n):
    server.hincrby("runs", n, 1)

@app.task(acks_late=True, acks_on_failure_or_timeout=False)
def fails():
    raise KeyError("fails")
"""


@pytest.fixture
def project(tmp_path, redis_url):
    def write(url):
        (tmp_path / "proj.py").write_text(TASKS.format(url=url, ledger=redis_url))
        return App("proj", broker=url, backend=url)

    return write


@pytest.fixture
def app(project, redis_url):
    client = project(redis_url)
    yield client
    client.close()


@pytest.fixture
def start_worker(start_beatd):
    def start(*options, name="w1", **env):
        worker = start_beatd("worker", "-A", "proj", "-n", name, *options, **env)
        worker.expect(r"ready\.")
        return worker

    return start


def send(app, name, *args, **options):
    return app.send_task(f"proj.{name}", args, **options)


def dead_letters(server):
    return [json.loads(letter) for letter in server.lrange(Keys().workers().dead_letters, 0, -1)]


# -- messages that kill -----------------------------------------------------------------------------------------------


def test_a_task_that_kills_its_process_has_three_chances(app, start_worker, server, wait_until):
    worker = start_worker("-c", "2")
    killer = send(app, "kills_its_process")
    with pytest.raises(WorkerLostError, match="kills_its_process was running 3 times when its process or worker died"):
        killer.get(timeout=30)
    assert server.get("killed") == "3"
    (letter,) = wait_until(lambda: dead_letters(server), 10, "the letter, which is written after the result")
    assert letter["reason"] == "proj.kills_its_process was running 3 times when its process or worker died"
    assert json.loads(letter["message"])["headers"]["beatd-deaths"] == 3
    assert send(app, "add", 2, 3).get(timeout=20) == 5
    worker.expect("it gets one more attempt, alone")


@pytest.fixture
def on_rabbitmq(rabbitmq, tmp_path, redis_url):
    """The same tasks with another broker."""
    text = TASKS.format(url=rabbitmq.url, ledger=redis_url).replace(
        "backend=" + repr(rabbitmq.url), f"backend={redis_url!r}"
    )
    (tmp_path / "proj.py").write_text(f"{text}\napp.conf.state_store = {redis_url!r}\n")
    client = App("proj", broker=rabbitmq.url, backend=redis_url)
    yield client
    client.close()


def test_it_has_no_more_of_them_on_rabbitmq(on_rabbitmq, start_worker, server):
    app = on_rabbitmq
    worker = start_worker("-c", "1", "-Q", "killers")
    killer = send(app, "kills_its_process", queue="killers")
    with pytest.raises(WorkerLostError, match="was running 3 times"):
        killer.get(timeout=30)
    assert server.get("killed") == "3"
    assert send(app, "add", 2, 3, queue="killers").get(timeout=20) == 5
    worker.expect("it gets one more attempt, alone")


def test_a_task_that_requeues_its_message_again_and_again_is_not_taken_for_one_that_kills(
    on_rabbitmq, start_worker, server
):
    start_worker("-c", "1", "-Q", "polling")
    assert send(on_rabbitmq, "polls", queue="polling").get(timeout=60) == "at last"
    assert dead_letters(server) == []


def test_a_task_that_was_cured_runs_when_its_message_is_sent_again(
    app, start_worker, server, wait_until, beatd, tmp_path, redis_url
):
    start_worker("-c", "1")
    killer = send(app, "kills_until_cured")
    wait_until(lambda: dead_letters(server), 30, "the dead letter")
    server.set("cured", "yes")
    (tmp_path / "beat.toml").write_text(f"[redis]\nurl = {redis_url!r}\n")
    done = beatd("dead-letters", "requeue", "--all")
    assert done.stdout == "1 message sent again\n"
    wait_until(lambda: killer.state == "SUCCESS", 30, "its run")
    assert dead_letters(server) == []


@pytest.mark.soak
def test_a_task_that_kills_its_worker_has_three_chances(app, start_worker, server, wait_until):
    killer, neighbour = send(app, "kills_its_worker"), send(app, "late", 3, "neighbour")
    for n in range(3):
        worker = start_worker("-c", "2", name=f"w{n}")
        wait_until(lambda n=n: server.get("killed") == str(n + 1), timeout=30)
        worker.wait()
    start_worker("-c", "2", name="last")
    with pytest.raises(WorkerLostError):
        killer.get(timeout=30)
    assert neighbour.get(timeout=30) == "neighbour"
    assert [letter["reason"].split()[0] for letter in dead_letters(server)] == ["proj.kills_its_worker"]


def test_a_failed_task_may_be_left_unacknowledged(app, start_worker, server, wait_until):
    start_worker("-c", "1")
    with pytest.raises(KeyError):
        send(app, "fails").get(timeout=20)
    wait_until(lambda: dead_letters(server))
    assert dead_letters(server)[0]["reason"] == "proj.fails failed, and acks_on_failure_or_timeout is off"


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


PREPARES = """
from beatd.signals import worker_process_init

@worker_process_init.connect
def prepare(**_):
    server.rpush("preparing", os.getpid())
    while not server.exists("go on"):
        time.sleep(0.05)
"""


def test_a_process_that_is_not_ready_yet_does_not_outlive_its_worker(app, start_worker, server, wait_until, tmp_path):
    """Its task comes back to the queue, and must not run twice."""
    with (tmp_path / "proj.py").open("a") as file:
        file.write(PREPARES)
    worker = start_worker("-c", "1")
    send(app, "late", 0, "once")
    wait_until(lambda: server.llen("preparing"))
    worker.expect(r"Task proj\.late\S+ received")
    assert app.control.ping(timeout=20, limit=1), "the turn in which it sends the task to the process is over"
    worker.send(signal.SIGKILL)
    worker.wait()
    server.set("go on", "yes")
    wait_until(lambda: ended(server.lindex("preparing", 0)))
    assert server.lrange("begun", 0, -1) == []


def test_a_worker_that_inherits_that_ends_of_processes_are_ignored(app, start_worker, tmp_path):
    with (tmp_path / "proj.py").open("a") as file:
        file.write("\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n")
    worker = start_worker("-c", "1", "--max-tasks-per-child", "1")
    for number in range(3):
        assert send(app, "add", number, 1).get(timeout=30) == number + 1
    assert worker.end(signal.SIGTERM, timeout=15) == 0


def test_a_system_that_forks_no_process_is_waited_for(app, start_worker, wait_until):
    """The worker may open one more file at most, and the link to a process needs two."""
    worker = start_worker("-c", "2")
    warm = [send(app, "add", number, 1) for number in range(20)]
    assert [result.get(timeout=20) for result in warm] == list(range(1, 21)), "all of its connections are open now"
    opened = {int(path.name) for path in Path(f"/proc/{worker.pid}/fd").iterdir()}
    first_free = next(number for number in range(len(opened) + 1) if number not in opened)
    before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (first_free, before[1]))
    killed = children(worker.pid)[0]
    os.kill(killed, signal.SIGKILL)
    worker.expect("Cannot start a process, 1 of 2 are there: .*Too many open files")
    results = [send(app, "add", number, 1) for number in range(20)]
    assert [result.get(timeout=20) for result in results] == list(range(1, 21)), "the other one runs all"
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
    wait_until(lambda: len({*children(worker.pid)} - {killed}) == 2, 20, "the second process")
    assert send(app, "add", 1, 1).get(timeout=20) == 2
    assert worker.end(signal.SIGTERM, timeout=15) == 0


def test_a_heartbeat_that_the_store_refuses_ends_no_task(project, start_server, start_worker, server, wait_until):
    """The solo pool runs the task in the thread of the loop, and another one keeps the heartbeat."""
    store = start_server()
    app = project(store.url)
    worker = start_worker("-P", "solo")
    result = send(app, "waits")
    wait_until(lambda: server.exists("waiting"), what="the task")
    with redis.Redis.from_url(store.url) as admin:
        admin.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-sadd"])
        worker.expect("Heartbeat failed: .*sadd")
        admin.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all"])
    server.set("go on", "yes")
    assert result.get(timeout=20) == "done"
    assert server.get("waiting") == "1"
    assert worker.end(signal.SIGTERM, timeout=15) == 0
    app.close()


# -- leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_leaves_within_its_grace(app, start_worker, server, wait_until, pool):
    worker = start_worker("-P", pool, "-c", "2", "--grace", "1")
    send(app, "late", 60, "unfinished")
    wait_until(lambda: server.lrange("begun", 0, -1) == ["unfinished"])
    assert worker.end(signal.SIGTERM, timeout=15) == 0
    worker.expect(r"worker: Warm shutdown \(MainProcess\)")
    worker.expect(r"worker: Cold shutdown \(MainProcess\)")
    worker.expect(r"Task proj\.late\[\S+\] is given back unfinished")
    headers = json.loads(server.lindex("celery", 0))["headers"]
    assert (headers["redelivered"], headers["beatd-deaths"]) == (True, 0), "it is not to blame"
    assert server.keys("*worker*") == []


def test_a_soft_shutdown_waits_a_while(app, start_worker, server, wait_until, tmp_path):
    with (tmp_path / "proj.py").open("a") as file:
        file.write("\napp.conf.worker_soft_shutdown_timeout = 6.5\n")
    worker = start_worker("-c", "3", REMAP_SIGTERM="SIGQUIT")
    send(app, "late", 1, "short")
    send(app, "late", 60, "long")
    lost = send(app, "early", 60, "early")
    wait_until(lambda: server.llen("begun") == 3)
    assert worker.end(signal.SIGTERM, timeout=30) == 0
    worker.expect("Initiating Soft Shutdown, terminating in 6.5 seconds")
    worker.expect(r"Task proj\.early\[\S+\] is lost")
    assert server.lrange("done", 0, -1) == ["short"]
    assert [json.loads(one)["headers"]["argsrepr"] for one in server.lrange("celery", 0, -1)] == ["(60, 'long')"]
    with pytest.raises(WorkerLostError, match="Worker shut down"):
        lost.get(timeout=10)


def test_a_second_signal_is_a_cold_one(app, start_worker, server, wait_until):
    worker = start_worker("-c", "1")
    send(app, "late", 60, "unfinished")
    wait_until(lambda: server.llen("begun") == 1)
    worker.send(signal.SIGINT)
    worker.expect("Warm shutdown")
    time.sleep(0.4)  # less is the same wish: see the worker's docs
    assert worker.end(signal.SIGINT, timeout=15) == 0
    worker.expect("Cold shutdown")
    assert server.llen("celery") == 1


# -- nothing is lost --------------------------------------------------------------------------------------------------


def finished(server, total, broker=None):
    broker = broker or server
    return server.hlen("runs") == total and broker.llen("celery") == 0 and not broker.keys("*unacked*")


def fill(app, total):
    for n in range(total):
        app.send_task("proj.count", (n,))


@pytest.mark.parametrize("total", [1_000, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_without_faults_each_task_runs_once(app, start_worker, server, wait_until, total):
    fill(app, total)
    worker = start_worker("-c", "2")
    wait_until(lambda: finished(server, total), timeout=90 + total / 30)
    repeated = {n: times for n, times in server.hgetall("runs").items() if times != "1"}
    assert repeated == {}, worker.text[-3000:]
    assert worker.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("total", [1_500, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_whoever_is_killed_no_task_is_lost(project, server, start_server, start_worker, wait_until, total, capsys):
    """A process, the worker, all of it, the server; and a worker that stands still while others take over."""
    store = start_server("--appendonly", "yes", "--appendfsync", "always")
    app, broker = project(store.url), redis.Redis.from_url(store.url, decode_responses=True)
    fill(app, total)
    first, second = (start_worker("-c", "2", name=f"w{n}") for n in range(2))

    def at(share):
        wait_until(
            lambda: server.hlen("runs") >= total * share, timeout=60 + total / 50, what=f"{share:.0%} of the tasks"
        )

    at(0.1)
    os.kill(children(first.pid)[0], signal.SIGKILL)
    at(0.2)
    first.send(signal.SIGKILL)
    at(0.35)
    second.send(signal.SIGSTOP)
    third = start_worker("-c", "2", name="w2")
    at(0.5)
    store.kill()
    store.start()
    at(0.6)
    second.send(signal.SIGCONT)
    os.killpg(third.pid, signal.SIGKILL)
    began = time.monotonic()
    wait_until(lambda: finished(server, total, broker), timeout=90 + total / 30, what="all tasks to have run")
    with capsys.disabled():
        repeated = sum(int(count) > 1 for count in server.hgetall("runs").values())
        print(f"\n{total} tasks: all done {time.monotonic() - began:.1f} s after the last kill, {repeated} ran again")
    assert broker.llen(Keys().workers().dead_letters) == 0
    assert second.end(signal.SIGTERM, timeout=15) == 0
    app.close()
    broker.close()


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
