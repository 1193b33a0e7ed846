"""What Celery's guides show of tasks and of calling them: sent by either make, run by either make."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from tests.acceptance.celery_pairs import MIXED, PREFIXED, WAIT, WARNINGS, assert_all_prefixed, paired, workers
from tests.conftest import wait_for

pytestmark = WARNINGS


@pytest.fixture(
    scope="module", params=["redis", *(pytest.param(name, marks=pytest.mark.soak) for name in ("prefix", "rabbitmq"))]
)
def place(request, redis_server, tmp_path_factory):
    """Broker and backend, with a worker of each make."""
    redis_server.start().flush()
    broker = redis_server.url
    if request.param == "rabbitmq":
        broker = request.getfixturevalue("rabbitmq_node").start().url
    directory = tmp_path_factory.mktemp("tasks")
    settings = PREFIXED if request.param == "prefix" else {}
    with workers(directory, broker, redis_server.url, settings=settings):
        yield broker, redis_server.url, settings, directory
    if settings:
        assert_all_prefixed(redis_server.url)


@pytest.fixture(scope="module", params=MIXED)
def pair(request, place):
    *connections, directory = place
    with paired(request.param, *connections) as pair:
        pair.log = directory / ("beatd.log" if pair.queue == "ours" else "theirs/celery.log")
        yield pair


VALUES = [
    None,
    "ü",
    [1, {"a": 2.5}],
    datetime(2026, 1, 1, tzinfo=UTC),
    date(2026, 1, 1),
    Decimal("1.5"),
    b"\xff",
    uuid.UUID(int=7),
]


def test_values_arrive_as_they_were(pair):
    for value in VALUES:
        assert pair.run("echo", value) == value


def test_the_request(pair):
    facts = pair.run(
        "who",
        task_id=(task_id := str(uuid.uuid4())),
        headers={"tenant": "a"},
        time_limit=20,
        soft_time_limit=10,
        shadow="alias",
        expires=60,
        countdown=0.1,
    )
    assert facts == {
        "id": task_id,
        "root": task_id,
        "parent": None,
        "queue": pair.queue,
        "tenant": "a",
        "limits": [20, 10],
        "retries": 0,
        "direct": False,
        "eager": False,
        "eta": True,
        "expires": True,
        "shadow": "alias",
        "args": [],
        "kwargs": {},
        "group": None,
        "correlation": task_id,
    }


def test_times(pair):
    now = datetime.now(UTC)
    assert pair.run("add", 1, 2, countdown=0.2) == 3
    assert pair.run("add", 1, 2, eta=now + timedelta(seconds=0.2)) == 3
    assert pair.run("add", 1, 2, expires=60) == 3
    assert pair.run("add", 1, 2, expires=now + timedelta(hours=1)) == 3
    with pytest.raises(pair.errors.TaskRevokedError, match="expired"):
        pair.run("add", 1, 2, expires=now - timedelta(seconds=5))
    with pytest.raises(pair.errors.TimeoutError):
        pair.call("add", 1, 2, countdown=60).get(timeout=0.2)


@pytest.mark.parametrize("method", ["gzip", "zlib", "bzip2"])
def test_compressed_messages(pair, method):
    assert pair.run("echo", "x" * 5000, compression=method) == "x" * 5000
    assert pair.run("flaky", 1, compression=method) == 1


def test_priorities_and_names(pair):
    assert pair.run("add", 1, 2, priority=9) == 3
    assert pair.run("named", 1, kwargs={"a": 2}) == ["proj.named", [1], {"a": 2}]
    assert pair.run("shared", 1) == [1, "proj.shared", "proj"]


def test_retries(pair):
    assert pair.run("flaky", 2) == 2
    assert pair.run("shrinking", 2) == 2
    assert pair.run("quietly") == "again"
    with pytest.raises(pair.errors.MaxRetriesExceededError):
        pair.run("hopeless")
    with pytest.raises(KeyError, match="first cause"):
        pair.run("in_vain")
    key = f"tries-{uuid.uuid4()}"
    with pytest.raises(OSError, match="still away"):
        pair.run("auto", key)
    assert pair.noted(key, 3) == [0, 1, 2]
    with pytest.raises(FileNotFoundError):
        pair.run("not_auto")


def test_exceptions(pair):
    failed = pair.call("boom")
    with pytest.raises(ValueError, match="boom") as caught:
        failed.get(timeout=WAIT)
    assert caught.value.args == ("boom", 7)
    assert (failed.state, failed.failed(), failed.successful()) == ("FAILURE", True, False)
    assert "boom" in failed.traceback
    assert isinstance(failed.get(propagate=False), ValueError)
    with pytest.raises(Exception, match="apple") as caught:
        pair.run("own_error")
    assert (type(caught.value).__name__, caught.value.args) == ("ShopError", ("apple", 3))
    with pytest.raises(KeyError, match="known"):
        pair.run("expected")
    with pytest.raises(pair.errors.NotRegistered):
        pair.run("nobody")
    with pytest.raises(pair.errors.Reject):
        pair.run("reject")


def test_states(pair):
    seen, key = [], f"go-{uuid.uuid4()}"
    result = pair.call("stages", key)
    done = result.get(timeout=WAIT, on_message=seen.append, on_interval=lambda: pair.store.rpush(key, 1))
    assert done == "done"
    assert [(m["status"], m["result"]) for m in seen][-2:] == [("HALFWAY", {"done": 50}), ("SUCCESS", "done")]
    left = pair.call("left_in_state")
    wait_for(lambda: left.state == "MINE", WAIT, "the state that the task has set")
    with pytest.raises(pair.errors.TimeoutError):
        left.get(timeout=0.5)
    assert (left.state, left.info, left.ready()) == ("MINE", {"left": 1}, False)


def test_revoking(pair):
    result = pair.call("add", 1, 1, countdown=300)
    pair.await_line(rf"Task proj.add\[{result.id}\] received")
    result.revoke()
    with pytest.raises(pair.errors.TaskRevokedError, match="revoked"):
        result.get(timeout=WAIT)
    assert result.state == "REVOKED"


def test_results_that_nobody_wants(pair):
    key = f"ran-{uuid.uuid4()}"
    result = pair.call("ignored", key)
    assert pair.noted(key) == ["ran"]
    pair.run("add", 1, 1)
    assert result.state == "PENDING"
    assert pair.call("add", 1, 1, ignore_result=True).get(timeout=WAIT) is None


def test_handles(pair):
    result = pair.call("add", 2, 3)
    seen, beats = [], []
    assert result.get(timeout=WAIT, callback=lambda *args: seen.append(args), on_interval=lambda: beats.append(1)) == 5
    assert seen == [(result.id, 5)]
    again = pair.app.AsyncResult(result.id)
    assert (again.state, again.status, again.result, again.info, again.traceback) == ("SUCCESS", "SUCCESS", 5, 5, None)
    assert (again.ready(), again.successful(), again.failed()) == (True, True, False)
    assert (again == result, str(again), again.as_tuple()) == (True, result.id, ((result.id, None), None))
    assert again.date_done is not None
    assert again.exists()
    again.forget()
    assert not pair.app.AsyncResult(result.id).exists()
    assert pair.app.AsyncResult(result.id).children is None
    assert pair.app.AsyncResult(result.id).state == "PENDING"


def test_children(pair):
    key = f"children-{uuid.uuid4()}"
    result = pair.call("spawner", key)
    child = result.get(timeout=WAIT)
    assert [each.id for each in result.children] == [child]
    assert result.children[0].get(timeout=WAIT) == 2
    assert [value for _, value in result.collect()] == [child, 2]
    assert pair.noted(key) == [[child, result.id, result.id]]
    assert pair.run("waits").startswith("Never call result.get()")


def test_many_threads_wait_at_once(pair):
    found = {}

    def ask(n):
        found[n] = pair.run("add", n, n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert found == {n: 2 * n for n in range(12)}


def test_hooks_of_a_base_class(pair):
    result = pair.call("divide", 4, 2)
    assert result.get(timeout=WAIT) == [True, 2.0]
    key = f"hooks-{result.id}"
    assert pair.noted(key, 3) == [["before_start", [4, 2]], ["on_success", [True, 2.0]], ["after_return", "SUCCESS"]]
    result = pair.call("divide", 4, None)
    with pytest.raises(ZeroDivisionError):
        result.get(timeout=WAIT)
    assert pair.noted(f"hooks-{result.id}", 5) == [
        ["before_start", [4, None]],
        ["on_retry", "KeyError('no y')"],
        ["before_start", [4, 0]],
        ["on_failure", "ZeroDivisionError('division by zero')", True],
        ["after_return", "FAILURE"],
    ]


def test_signals(pair):
    result = pair.call("watched", 5)
    assert result.get(timeout=WAIT) == 5
    assert pair.noted(f"signals-{result.id}", 2) == [["prerun", [5]], ["postrun", 5, "SUCCESS"]]
    failed = pair.call("boom")
    assert pair.noted(f"signals-{failed.id}") == [["failure", "ValueError('boom', 7)"]]


def test_log_lines(pair):
    """Monitoring that reads Celery's log reads beatd's."""
    result = pair.call("logs")
    assert result.get(timeout=WAIT) == pair.queue
    lines = [
        rf"INFO/[\w-]+\] Task proj.logs\[{result.id}\] received",
        rf"INFO/[\w-]+\] proj.logs\[{result.id}\]: from the task",
        rf"WARNING/[\w-]+\] proj.logs\[{result.id}\]: a warning",
        rf"INFO/[\w-]+\] Task proj.logs\[{result.id}\] succeeded in [\d.e-]+s: '{pair.queue}'",
    ]
    for line in lines:
        pair.await_line(line)
    failed = pair.call("boom")
    pair.await_line(rf"ERROR/[\w-]+\] Task proj.boom\[{failed.id}\] raised unexpected: ValueError\('boom', 7\)")
    known = pair.call("expected")
    pair.await_line(rf"INFO/[\w-]+\] Task proj.expected\[{known.id}\] raised expected: KeyError\('known'\)")
    retried = pair.call("flaky", 1)
    pair.await_line(rf"INFO/[\w-]+\] Task proj.flaky\[{retried.id}\] retry: Retry in 0.1s")
