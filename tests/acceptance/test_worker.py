"""The bundled worker as a user starts it: it runs tasks, survives what happens to it, and ends in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from beatd import App
from beatd.exceptions import NotRegistered, SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from beatd.store.keys import Keys

TASKS = """
import os, signal, sys, threading, time
import redis
from beatd import App, Request, get_task_logger
from beatd.exceptions import SoftTimeLimitExceeded

app = App("proj", broker={url!r}, backend={url!r})
server = redis.Redis.from_url({url!r})
log = get_task_logger(__name__)

class Told(Request):
    def on_accepted(self, pid, time_accepted):
        server.rpush("told", "accepted")
    def on_success(self, failed__retval__runtime, **kwargs):
        server.rpush("told", f"success {{failed__retval__runtime[1]}}")
    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        server.rpush("told", f"failure {{exc_info.exception!r}}")
    def on_timeout(self, soft, timeout):
        server.rpush("told", f"timeout {{soft}} {{timeout}}")

@app.task
def add(x, y):
    log.info("adding")
    return x + y

@app.task(Request=Told)
def told(seconds):
    time.sleep(seconds)
    return seconds

@app.task(bind=True, max_retries=3)
def flaky(self, wanted):
    if self.request.retries < wanted:
        raise self.retry(countdown=0.2, exc=KeyError("again"))
    return [self.request.retries, self.request.id]

@app.task(acks_late=True)
def late(seconds, name):
    server.rpush("begun", name)
    time.sleep(seconds)
    server.rpush("done", name)
    return name

@app.task(acks_late=True)
def held(name):
    server.rpush("begun", name)
    server.blpop("go", timeout=60)
    server.rpush("done", name)

@app.task
def early(seconds, name):
    server.rpush("begun", name)
    time.sleep(seconds)
    server.rpush("done", name)

@app.task(acks_late=True, reject_on_worker_lost=True)
def dies_once(name):
    if server.incr(name) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"

@app.task
def dies():
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(soft_time_limit=0.2)
def soft(catch):
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        if not catch:
            raise
        return "cleaned up"

@app.task(time_limit=0.3)
def hard():
    time.sleep(30)

@app.task(track_started=True)
def tracked():
    server.blpop("go", timeout=60)

@app.task
def nap(seconds):
    time.sleep(seconds)
    return "rested"

@app.task
def leave():
    sys.exit(3)

@app.task
def big(size):
    return "x" * size

@app.task
def first(x):
    return add.delay(x, 1).id
"""


@pytest.fixture
def project(tmp_path, redis_url):
    (tmp_path / "proj.py").write_text(TASKS.format(url=redis_url))
    return tmp_path


@pytest.fixture
def app(redis_url):
    client = App("proj", broker=redis_url, backend=redis_url)
    yield client
    client.close()


@pytest.fixture
def start_worker(project, start_beatd) -> Callable:
    def start(*options, name="w1"):
        worker = start_beatd("worker", "-A", "proj", "-n", name, *options)
        worker.expect(r"ready\.")
        return worker

    return start


def send(app, name, *args, **options):
    return app.send_task(f"proj.{name}", args, **options)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_pool_runs_tasks_and_ends_in_order(start_worker, app, server, pool):
    worker = start_worker("-P", pool, "-c", "2")
    assert send(app, "add", 2, 3).get(timeout=10) == 5
    results = [send(app, "add", n, n) for n in range(50)]
    assert [result.get(timeout=10) for result in results] == [2 * n for n in range(50)]
    assert send(app, "flaky", 2, task_id="the-id").get(timeout=10) == [2, "the-id"]
    assert worker.end(signal.SIGTERM) == 0
    assert server.keys("*worker*") == []
    assert worker.find("Traceback") == []
    worker.expect(r"Task proj\.add\[\S+\] received", times=51)
    worker.expect(r"Task proj\.add\[\S+\] succeeded in \d+\.\d+s: 5$")
    worker.expect(r"Task proj\.flaky\[the-id\] retry: Retry in 0\.2s: KeyError\('again'\)", times=2)


def test_the_banner_has_the_settings_and_no_password(project, start_beatd, redis_url):
    place = redis_url.removeprefix("redis://")
    (project / "proj.py").write_text(TASKS.format(url=f"redis://default:Sek-tail9@{place}"))
    options = ("-A", "proj", "-P", "threads", "-c", "3", "-Q", "a,b", "-n", "w1@h")
    loud, quiet, program = (
        start_beatd("worker", *options, *more) for more in ((), ("-l", "error"), ("--log-format", "json"))
    )
    for line in ("w1@h v", r"transport: .*redis://\S*127\.0\.0\.1", r"concurrency: 3 \(threads\)", r"\.> b "):
        loud.expect(line)
    loud.expect(r"^  \. proj\.add$")
    program.expect("worker_ready")
    assert not quiet.find("transport")
    assert not program.find("transport: ")
    assert "tail9" not in loud.text + program.text


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_the_tasks_of_celerys_other_pools_run_in_threads(start_worker, app, pool):
    worker = start_worker("-P", pool, "-c", "2")
    worker.expect(f"There is no pool {pool}: this worker runs its tasks in threads")
    assert send(app, "add", 1, 2).get(timeout=10) == 3


def test_a_failed_task_raises_at_the_caller(start_worker, app):
    worker = start_worker("-c", "1")
    result = send(app, "add", 1, "x")
    with pytest.raises(TypeError):
        result.get(timeout=10)
    assert "in add" in result.traceback
    worker.expect(r"raised unexpected: TypeError")


def test_an_unknown_task_fails_and_the_worker_lives(start_worker, app):
    worker = start_worker("-c", "1")
    with pytest.raises(NotRegistered):
        send(app, "ad", 1, 2).get(timeout=10)
    worker.expect(r"Did you mean 'proj\.add'")
    assert send(app, "add", 1, 2).get(timeout=10) == 3


def test_time_limits(start_worker, app):
    worker = start_worker("-c", "2")
    caught, uncaught, killed = send(app, "soft", True), send(app, "soft", False), send(app, "hard")
    assert caught.get(timeout=10) == "cleaned up"
    with pytest.raises(SoftTimeLimitExceeded) as over:
        uncaught.get(timeout=10)
    assert str(over.value) == "SoftTimeLimitExceeded(0.2,)"  # Celery's text
    with pytest.raises(TimeLimitExceeded) as over:
        killed.get(timeout=10)
    assert str(over.value) == "TimeLimitExceeded(0.3,)"
    worker.expect(r"Hard time limit \(0\.3s\) exceeded for proj\.hard")
    assert send(app, "add", 1, 2).get(timeout=10) == 3


def test_a_process_that_dies_is_replaced_and_its_task_fails(start_worker, app):
    worker = start_worker("-c", "1")
    with pytest.raises(WorkerLostError, match="signal 9"):
        send(app, "dies").get(timeout=10)
    assert send(app, "add", 1, 2).get(timeout=10) == 3
    worker.expect(r"ended while it ran a task: signal 9")


def test_a_task_may_ask_to_be_run_again_when_its_process_dies(start_worker, app):
    start_worker("-c", "1")
    assert send(app, "dies_once", "counter").get(timeout=10) == "survived"


def test_sys_exit_and_large_results_hurt_nobody(start_worker, app):
    start_worker("-c", "1")
    with pytest.raises(Exception, match="3") as raised:  # not SystemExit itself, which would end this process
        send(app, "leave").get(timeout=10)
    assert type(raised.value).__name__ == "SystemExit"
    assert len(send(app, "big", 5_000_000).get(timeout=20)) == 5_000_000
    assert send(app, "add", "a" * 3_000_000, "b").get(timeout=20)[-1] == "b"


def test_states_are_tracked(start_worker, app, server):
    start_worker("-c", "1")
    seen = []

    def on_message(meta):
        seen.append(meta["status"])
        server.rpush("go", "on")

    result = send(app, "tracked")
    result.get(timeout=30, on_message=on_message)
    assert seen == ["STARTED", "SUCCESS"]


def test_a_tasks_own_request_class_is_told(start_worker, app, server, wait_until):
    start_worker("-c", "1")
    send(app, "told", 0.0).get(timeout=10)
    with pytest.raises(TimeLimitExceeded):
        send(app, "told", 60, time_limit=0.3).get(timeout=10)
    wait_until(lambda: server.llen("told") == 5)
    assert server.lrange("told", 0, -1) == [
        "accepted",
        "success 0.0",
        "accepted",
        "timeout False 0.3",
        "failure TimeLimitExceeded(0.3)",
    ]


ELSEWHERE = """
from beatd import current_app, shared_task
elsewhere = App("elsewhere", broker="redis://elsewhere.invalid")

@shared_task
def which():
    return current_app.main, which.app.main
"""


def test_the_app_of_a_worker_is_the_current_one_though_its_module_makes_another(project, start_worker, app):
    with (project / "proj.py").open("a") as file:
        file.write(ELSEWHERE)
    start_worker("-c", "1")
    assert send(app, "which").get(timeout=10) == ["proj", "proj"]


def test_tasks_send_tasks(start_worker, app):
    start_worker("-c", "1")
    result = send(app, "first", 4)
    child = app.AsyncResult(result.get(timeout=10))
    assert child.get(timeout=10) == 5
    assert result.children == [child]


def test_a_link_gets_the_result(start_worker, app, server, wait_until):
    start_worker("-c", "1")
    callback = app.signature("proj.late", (0,), {}).set(task_id="linked")
    callback["args"] = []
    callback["kwargs"] = {"name": "called"}
    send(app, "add", 0, 0, link=callback)
    assert app.AsyncResult("linked").get(timeout=10) == "called"


def test_expired_messages_are_revoked(start_worker, app):
    result = send(app, "add", 1, 2, expires=-1)
    start_worker("-c", "1")
    assert result.get(timeout=10, propagate=False).args == ("expired",)
    assert result.state == "REVOKED"


def test_an_eta_is_kept_in_the_store(start_worker, app, server, wait_until):
    worker = start_worker("-c", "1")
    result = send(app, "add", 1, 2, countdown=6)
    wait_until(lambda: server.zcard(Keys().workers().parked) == 1)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    start_worker("-c", "1", name="w2")
    assert result.get(timeout=30) == 3


def test_a_parked_task_is_shown_with_its_exact_eta_and_announced_once(start_worker, app, wait_until):
    worker = start_worker("-c", "1")
    eta = datetime.now(UTC).replace(microsecond=123_456) + timedelta(seconds=8)
    result = send(app, "add", 1, 2, eta=eta)
    worker.expect("received")
    (node,) = wait_until(lambda: app.control.inspect(timeout=5, limit=1).scheduled() or {}).values()
    assert [task["eta"] for task in node] == [eta.isoformat()]
    assert result.get(timeout=30) == 3
    assert len(worker.find(r"Task proj\.add\[\S+\] received")) == 1


def test_a_second_worker_of_the_same_name_says_so(start_worker, app):
    first, second = start_worker("-c", "1"), start_worker("-c", "1")
    second.expect(r"Another worker has the name celery@w1, too: .* Give each worker a name of its own with -n\.")
    assert first.find("Another worker") == []


def test_a_warm_shutdown_finishes_what_runs(start_worker, app, server, wait_until):
    worker = start_worker("-c", "1")
    send(app, "held", "running")
    wait_until(lambda: server.lrange("begun", 0, -1) == ["running"])
    send(app, "late", 0, "waiting")
    worker.send(signal.SIGTERM)
    worker.expect("Warm shutdown")
    assert server.lrange("done", 0, -1) == []
    server.rpush("go", "on")
    assert worker.wait(30) == 0
    assert server.lrange("done", 0, -1) == ["running"]
    assert server.llen("celery") == 1


def test_a_cold_shutdown_gives_back_what_runs(start_worker, app, server, wait_until):
    worker = start_worker("-c", "1")
    send(app, "late", 60, "running")
    wait_until(lambda: server.lrange("begun", 0, -1) == ["running"])
    assert worker.end(signal.SIGQUIT) == 0
    assert server.lrange("done", 0, -1) == []
    assert json.loads(server.lindex("celery", 0))["headers"]["redelivered"] is True


@pytest.mark.slow
def test_a_killed_workers_tasks_are_run_by_another_within_half_a_minute(start_worker, app, server, wait_until):
    killed = start_worker("-c", "2", name="killed")
    send(app, "late", 3, "a")
    send(app, "late", 3, "b")
    wait_until(lambda: server.llen("begun") == 2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    heir = start_worker("-c", "2", name="heir")
    wait_until(lambda: server.llen("begun") == 4, timeout=30)  # twelve seconds on a machine that is not loaded
    wait_until(lambda: sorted(server.lrange("done", 0, -1)) == ["a", "b"])
    heir.expect(r"Worker celery@killed\S* is gone: gave back the 2 messages")


def test_a_task_acknowledged_early_is_not_run_twice(start_worker, app, server, wait_until):
    killed = start_worker("-c", "1", name="killed")
    send(app, "early", 60, "a")
    wait_until(lambda: server.lrange("begun", 0, -1) == ["a"])
    wait_until(lambda: server.keys("*unacked*") == [])
    send(app, "early", 0, "b")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    start_worker("-c", "1", name="heir")
    wait_until(lambda: server.lrange("done", 0, -1) == ["b"], timeout=30)
    assert server.lrange("begun", 0, -1) == ["a", "b"]


MALFORMED = [b"", b"hello", b"null", b"[]", b'{"headers": {}}', b'{"headers": {"id": 1, "task": "t"}}', b"[" * 50_000]


def test_malformed_messages_are_buried_and_the_worker_lives(start_worker, app, server, wait_until):
    worker = start_worker("-c", "1")
    server.lpush("celery", *MALFORMED)
    bad_body = json.loads(_message(app, server))
    bad_body["body"] = "WzFd"
    server.lpush("celery", json.dumps(bad_body))
    wait_until(lambda: server.llen(Keys().workers().dead_letters) == len(MALFORMED) + 1)
    assert all(json.loads(one)["reason"] for one in server.lrange(Keys().workers().dead_letters, 0, -1))
    assert send(app, "add", 1, 2).get(timeout=10) == 3
    assert worker.find("Traceback") == []


def _message(app, server):
    app.send_task("proj.add", (1, 2), queue="elsewhere")
    return server.rpop("elsewhere")


def test_a_run_of_the_scheduler_is_not_run_twice(start_worker, app, server, wait_until):
    worker = start_worker("-c", "1")
    for _ in range(2):
        send(app, "late", 0, "a", task_id="run-id", headers={"beatd-entry": "nightly"})
        app.AsyncResult("run-id").get(timeout=10)
        wait_until(lambda: server.keys("*unacked*") == [])
    worker.expect(r"Dropping proj\.late\[run-id\]: this run has ended before")
    assert server.lrange("done", 0, -1) == ["a"]


def test_the_worker_outlives_its_broker(project, start_server, start_beatd):
    server = start_server("--appendonly", "yes")
    (project / "proj.py").write_text(TASKS.format(url=server.url))
    client = App("proj", broker=server.url, backend=server.url)
    worker = start_beatd("worker", "-A", "proj", "-c", "1")
    worker.expect(r"ready\.")
    result = send(client, "nap", 1.0)
    worker.expect("received")
    server.kill()
    worker.expect(r"A server is away.*: (broker|result backend) 127\.0\.0\.1:")
    worker.expect("succeeded")
    server.start()
    assert result.get(timeout=15) == "rested"
    assert send(client, "add", 1, 2).get(timeout=10) == 3
    client.close()


def test_the_worker_waits_for_its_broker(project, start_server, start_beatd):
    server = start_server()
    server.kill()
    (project / "proj.py").write_text(TASKS.format(url=server.url))
    worker = start_beatd("worker", "-A", "proj", "-c", "1", "-l", "debug")
    worker.expect(rf"Cannot connect to .*: broker 127\.0\.0\.1:{server.port}/0.*Trying again", times=2)
    server.start()
    worker.expect(r"ready\.")


def send_a_long_one_among_short_ones(app, server, count, *, long_one, seconds):
    """Send tasks all at once, so that the long one has company in its batch: those before it were short."""
    for result in [send(app, "add", n, n) for n in range(300)]:
        result.get(timeout=10)
    pipeline = server.pipeline()
    for n in range(count):
        app.send_task("proj.late", (seconds if n == long_one else 0, f"n{n}"), queue="prepared")
        pipeline.lmove("prepared", "celery", "RIGHT", "LEFT")
    pipeline.execute()


def test_no_task_waits_behind_a_long_one_while_a_process_is_free(start_worker, app, server, wait_until):
    worker = start_worker("-c", "2")
    send_a_long_one_among_short_ones(app, server, 100, long_one=20, seconds=60)
    wait_until(lambda: server.llen("done") == 99, 30, "all but the long one to be done")
    assert server.llen("begun") == 100, "none was run twice"
    assert worker.end(signal.SIGQUIT) == 0


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_no_task_waits_behind_a_long_one_while_another_worker_is_free(start_worker, app, server, wait_until, pool):
    first = start_worker("-c", "1", "-P", pool)
    send_a_long_one_among_short_ones(app, server, 60, long_one=2, seconds=120)
    wait_until(lambda: server.llen("begun") == 3, 20, "the long one to begin")
    second = start_worker("-c", "1", name="w2")
    wait_until(lambda: server.llen("done") == 59, 40, "all but the long one to be done")
    assert server.llen("begun") == 60, "none was run twice"
    for worker in (first, second):
        assert worker.end(signal.SIGQUIT) == 0


def test_processes_are_replaced_after_so_many_tasks(start_worker, app, project):
    (project / "pids.py").write_text(
        "import os\nfrom proj import app\n@app.task(name='proj.pid')\ndef pid():\n    return os.getpid()\n"
    )
    (project / "proj.py").write_text((project / "proj.py").read_text() + "\nimport pids\n")
    start_worker("-c", "1", "--max-tasks-per-child", "2")
    pids = [result.get(timeout=10) for result in [send(app, "pid") for _ in range(6)]]
    assert len(set(pids)) == 3


def test_queues_may_be_chosen(start_worker, app):
    start_worker("-c", "1", "-Q", "a,b")
    assert send(app, "add", 1, 2, queue="b").get(timeout=10) == 3
    assert send(app, "add", 1, 2, queue="a", priority=9).get(timeout=10) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-A", "missing"], "no module named 'missing'"),
        (
            ["-A", "./prj.py"],
            'not the name of a module; expected MODULE or MODULE:APP such as "proj.tasks:app"; did you',
        ),
        (["-A", "misspelt"], "broker ampq://h: No such transport: ampq.  Did you mean amqp?"),
        (["-A", "celerys"], "celerys.add: base: celery.app.task.Task cannot be the class of a task"),
        (["-A", "proj", "-b", "ampq://h"], "there is no such transport; did you mean amqp://?"),
        (["-A", "proj", "--autoscale", "ten"], "'ten': expected MAX,MIN such as 10,3"),
        (["-A", "broken"], "ZeroDivisionError: division by zero"),
        ([], "no app: name one with -A"),
        (["-A", "proj", "--builtin", "shell"], "no built-in task 'shell', there are: command, http"),
        (["-A", "proj", "-l", "loud"], "unknown level 'loud'"),
        (["-A", "proj", "-c", "-1"], "expected a number or auto"),
        (["-A", "proj", "-b", "redis://localhost:x"], "its port is not a number"),
    ],
)
def test_a_wrong_command_line_is_answered_in_words(project, start_beatd, arguments, words):
    (project / "broken.py").write_text("1 / 0\n")
    (project / "misspelt.py").write_text("from beatd import App\napp = App('x', broker='ampq://h')\n")
    of_celery = "import beatd, celery\napp = beatd.App('x')\n@app.task(base=celery.Task)\ndef add(): ...\n"
    (project / "celerys.py").write_text(of_celery)
    worker = start_beatd("worker", *arguments)
    assert worker.wait() in (1, 2)
    assert "internal error" not in worker.text
    assert words in worker.text
    assert "beatd/cli" not in worker.text


def test_builtin_tasks_need_no_app(start_beatd, redis_url, app):
    worker = start_beatd("worker", "--builtin", "command", "-b", redis_url, "--result-backend", redis_url, "-c", "1")
    worker.expect(r"ready\.")
    result = app.send_task("beatd.command", (["echo", "hello"],))
    assert result.get(timeout=10) == {"exit_code": 0, "output": "hello\n", "truncated": False}
    with pytest.raises(NotRegistered):
        app.send_task("beatd.http", ("http://localhost",)).get(timeout=10)


def test_an_app_starts_its_own_worker(project, redis_url, app, wait_until):
    script = project / "proj.py"
    script.write_text(script.read_text() + "\nif __name__ == '__main__':\n    app.worker_main()\n")
    process = subprocess.Popen([sys.executable, "proj.py"], cwd=project, stderr=subprocess.DEVNULL)
    try:
        assert send(app, "add", 1, 2).get(timeout=40) == 3
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_builtin_tasks_may_be_named_one_by_one(beatd):
    done = beatd("worker", "--builtin", "nope", "--builtin", "command", "-b", "redis://127.0.0.1:1/0")
    assert (done.returncode, "no built-in task 'nope'" in done.stderr) == (2, True)
