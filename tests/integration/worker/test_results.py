"""Results in Redis, and a publisher: beatd and Celery read each other's."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import threading
from datetime import UTC, datetime
from decimal import Decimal

import celery
import celery.app.task
import celery.exceptions
import pytest
import redis as redis_py

from beatd import App
from beatd.app.context import Context
from beatd.exceptions import (
    IncompleteStream,
    NotRegistered,
    StoreRefused,
    TimeoutError,  # noqa: A004 - Celery's name
)
from beatd.states import FAILURE, SUCCESS
from beatd.store.result_document import document, exception_payload
from beatd.store.results import RedisResults, Stored

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")  # Celery's calls of redis-py


@pytest.fixture
def results(redis_url):
    found = RedisResults(redis_url)
    yield found
    found.close()


@pytest.fixture
def app(redis_url):
    app = App("x", broker=redis_url, backend=redis_url)
    yield app
    app.close()


@pytest.fixture
def client(redis_url):
    peer = celery.Celery("x", broker=redis_url, backend=redis_url)
    yield peer
    gc.collect()  # Celery's results unsubscribe when they are collected: the server must still be there
    peer.backend.result_consumer.stop()
    peer.backend.client.close()
    peer.close()


def success(task_id, value):
    return Stored(task_id, document(task_id, SUCCESS, value, date_done=datetime.now(UTC).isoformat()))


def test_a_result_is_kept_for_a_day_and_published(results, redis_url):
    with redis_py.Redis.from_url(redis_url) as server, server.pubsub() as channel:
        channel.subscribe("celery-task-meta-1")
        assert channel.get_message(timeout=5)["type"] == "subscribe"
        results.store([success("1", 5)])
        assert channel.get_message(timeout=5)["data"] == server.get("celery-task-meta-1")
        assert 86_000 < server.ttl("celery-task-meta-1") <= 86_400


def test_a_result_is_waited_for_over_a_lost_connection(results, redis_url, caplog):
    with redis_py.Redis.from_url(redis_url) as admin:

        def interrupt():
            if admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub"):
                results.store([success("1", 5)])

        assert results.wait("1", timeout=20, interval=0.05, on_interval=interrupt)["result"] == 5
    assert [record.event for record in caplog.records] == ["result_wait_retrying"]


def test_a_success_is_never_overwritten(results):
    results.store([success("1", 5)])
    results.store([Stored("1", document("1", FAILURE, exception_payload(ValueError())))])
    assert results.get("1")["status"] == SUCCESS


def test_a_success_that_celery_wrote_is_not_overwritten_either(results, client):
    client.backend.store_result("1", 5, SUCCESS)
    results.store([Stored("1", document("1", FAILURE, None))])
    assert results.get("1")["result"] == 5


def test_a_failure_may_be_followed_by_a_success(results):
    results.store([Stored("1", document("1", FAILURE, exception_payload(ValueError()))), success("1", 2)])
    assert results.get("1")["result"] == 2


def test_waiting_sees_every_change(results, monkeypatch):
    monkeypatch.setattr("beatd.store.results._RECHECK_S", 60.0)  # a look at the key may pass over a change
    seen, waiting = [], threading.Event()

    def on_message(meta):
        seen.append(meta["status"])
        waiting.set()

    results.store([Stored("1", document("1", "STARTED", {"pid": 1}))])

    def work():
        waiting.wait(10)
        results.store([Stored("1", document("1", "PROGRESS", {"done": 50}))])
        results.store([success("1", "end")])

    worker = threading.Thread(target=work)
    worker.start()
    assert results.wait("1", timeout=10, on_message=on_message)["result"] == "end"
    worker.join()
    assert seen == ["STARTED", "PROGRESS", "SUCCESS"]


def test_waiting_ends_after_the_timeout(results):
    with pytest.raises(TimeoutError):
        results.wait("nothing", timeout=0.05)


def listening(redis_url):
    with redis_py.Redis.from_url(redis_url) as admin:
        return admin.client_list("pubsub")


def test_a_connection_is_used_for_one_wait_after_the_other(results, redis_url):
    results.store([success("1", 1), success("2", 2)])
    assert results.wait("1", timeout=5)["result"] == 1
    assert results.wait("2", timeout=5)["result"] == 2
    assert len(listening(redis_url)) == 1


def test_a_connection_that_has_ended_while_nobody_waited_is_replaced(results, redis_url, caplog):
    results.store([success("1", 1), success("2", 2)])
    assert results.wait("1", timeout=5)["result"] == 1
    with redis_py.Redis.from_url(redis_url) as admin:
        assert admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 1
    assert results.wait("2", timeout=5)["result"] == 2
    assert len(listening(redis_url)) == 1
    assert caplog.records == []


def test_what_comes_late_for_an_earlier_wait_is_left_out(results, redis_url):
    results.store([success("1", 1)])
    assert results.wait("1", timeout=5)["result"] == 1
    with redis_py.Redis.from_url(redis_url) as server:
        assert server.publish("celery-task-meta-1", success("1", "again").document) == 1
    with pytest.raises(TimeoutError):
        results.wait("2", timeout=0.05)
    results.store([success("2", 2)])
    assert results.wait("2", timeout=5)["result"] == 2


def test_a_child_process_has_connections_of_its_own(results, redis_url):
    results.store([success("1", 1), success("2", 2)])
    assert results.wait("1", timeout=5)["result"] == 1
    if not (child := os.fork()):
        os._exit(results.wait("2", timeout=5)["result"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert results.wait("2", timeout=5)["result"] == 2
    assert len(listening(redis_url)) == 1


@pytest.mark.parametrize("value", [5, None, [1, "x"], datetime(2026, 1, 1, tzinfo=UTC), Decimal("1.5"), b"raw"])
def test_a_celery_client_reads_results(results, client, value):
    results.store([success("1", value)])
    assert client.AsyncResult("1").get(timeout=5) == value


@pytest.mark.parametrize(
    ("error", "theirs"),
    [
        (ValueError("boom", 7), ValueError),
        (NotRegistered("tasks.x"), celery.exceptions.NotRegistered),
        (TimeoutError("slow"), celery.exceptions.TimeoutError),
    ],
)
def test_a_celery_client_gets_the_exception_that_it_knows(results, client, error, theirs):
    results.store([Stored("1", document("1", FAILURE, exception_payload(error), traceback="trace"))])
    with pytest.raises(theirs) as caught:
        client.AsyncResult("1").get(timeout=5)
    assert caught.value.args == error.args
    assert client.AsyncResult("1").traceback == "trace"


def test_beatd_reads_what_celery_stored(app, client):
    client.backend.store_result("ok", {"a": Decimal("1.5")}, SUCCESS)
    client.backend.mark_as_failure("bad", KeyError("k"), "trace")
    assert app.AsyncResult("ok").get(timeout=5) == {"a": Decimal("1.5")}
    assert app.AsyncResult("bad").failed()
    with pytest.raises(KeyError, match="k"):
        app.AsyncResult("bad").get(timeout=5)
    assert isinstance(app.AsyncResult("bad").get(timeout=5, propagate=False), KeyError)


def test_forgetting_deletes_the_result(app, results):
    results.store([success("1", 5)])
    result = app.AsyncResult("1")
    assert result.get(timeout=5) == 5
    result.forget()
    assert result.state == "PENDING"


def test_update_state_is_seen_by_clients(app, client):
    @app.task(name="t", bind=True)
    def work(self):
        self.update_state(state="PROGRESS", meta={"done": 3})

    work.apply(task_id="1")
    assert app.AsyncResult("1").info == {"done": 3}
    assert client.AsyncResult("1").state == "PROGRESS"


def test_without_a_backend_asking_is_an_error_that_helps():
    with pytest.raises(StoreRefused, match="App\\(backend="):
        App("x").AsyncResult("1").get(timeout=1)


def test_a_celery_consumer_reads_what_beatd_published(app, client):
    app.send_task("t", (1,), {"x": 2}, queue="q", priority=6, task_id="the-id")
    seen = []
    with client.connection_for_read() as connection:
        queue = client.amqp.queues.select_add("q")

        def on_task(body, message):
            seen.append((body, message.headers["id"], message.properties["priority"]))
            message.ack()

        with connection.Consumer([queue], callbacks=[on_task], accept=["json"]):
            connection.drain_events(timeout=10)
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert seen == [([[1], {"x": 2}, embed], "the-id", 6)]


def test_a_message_for_an_exchange_goes_to_the_queues_bound_to_it(app, redis_url):
    with redis_py.Redis.from_url(redis_url) as server:
        server.sadd("_kombu.binding.x", "k\x06\x16\x06\x16one", "other\x06\x16\x06\x16two")
        app.send_task("t", exchange="x", routing_key="k")
        app.send_task("t", exchange="x", routing_key="nobody")
        assert server.llen("one") == 1
        assert server.llen("two") == 0
        assert json.loads(server.lindex("nobody", 0))["properties"]["delivery_info"]["exchange"] == "x"


def test_the_backend_has_celerys_methods(app, client):
    app.backend.store_result("1", {"a": 1}, SUCCESS)
    app.backend.mark_as_failure("2", ValueError("boom"), "trace")
    app.backend.store_result("3", {"done": 5}, "PROGRESS")
    for backend in (app.backend, client.backend):
        assert (backend.get_state("1"), backend.get_result("1")) == (SUCCESS, {"a": 1})
        assert (backend.get_state("2"), repr(backend.get_result("2"))) == (FAILURE, "ValueError('boom')")
        assert backend.get_traceback("2") == "trace"
        assert backend.get_task_meta("3")["result"] == {"done": 5}
    app.backend.forget("1")
    assert app.backend.get_state("1") == "PENDING"


def test_results_in_order_of_completion(app):
    group = app.GroupResult("g", [app.AsyncResult("1"), app.AsyncResult("2")])
    app.backend.store_result("2", 20, SUCCESS)
    iterator = group.iter_native(timeout=10)
    assert next(iterator)[0] == "2"
    app.backend.store_result("1", ValueError("boom"), FAILURE)
    task_id, meta = next(iterator)
    assert (task_id, meta["status"], repr(meta["result"])) == ("1", FAILURE, "ValueError('boom')")
    assert list(iterator) == []
    with pytest.raises(TimeoutError):
        list(app.GroupResult("h", [app.AsyncResult("3")]).iter_native(timeout=0))


def test_a_graph_of_a_finished_task(app):
    children = [[["2", None], None]]
    app.results.store([Stored("1", document("1", SUCCESS, 1, children=children)), success("2", 2)])
    graph = app.AsyncResult("1").graph
    assert [str(node) for node in graph.topsort()] == ["2", "1"]


def test_a_request_is_stored_with_its_children_and_fields(app, client):
    app.conf.result_extended = client.conf.result_extended = True
    fields = {"task": "t", "args": [1, 2], "kwargs": {"a": 3}, "hostname": "w1", "retries": 1}
    for place, (peer, kind) in enumerate([(app, Context), (client, celery.app.task.Context)]):
        request = kind(**fields, delivery_info={"routing_key": "slow"})
        request.children.extend([peer.GroupResult("g", [peer.AsyncResult("c")]), peer.AsyncResult("d")])
        peer.backend.mark_as_done(f"id{place}", 5, request=request)
    for reader in (app, client):
        ours, theirs = (reader.AsyncResult(f"id{place}") for place in (0, 1))
        for result in (ours, theirs):
            assert result.get() == 5
            assert (result.name, result.args, result.kwargs, result.worker) == ("t", [1, 2], {"a": 3}, "w1")
            assert (result.retries, result.queue) == (1, "slow")
            assert [type(child).__name__ for child in result.children] == ["GroupResult", "AsyncResult"]
            assert isinstance(result.children[0], reader.GroupResult)
            assert list(result.children[0]) == [reader.AsyncResult("c")]


def test_what_is_stored_exists(app):
    handle = app.AsyncResult("1")
    assert (handle.exists(), handle.children) == (False, None)
    with pytest.raises(IncompleteStream):
        list(handle.iterdeps())
    app.backend.mark_as_started("1", pid=1)
    assert (handle.exists(), handle.ready(), app.backend.task_result_exists("1")) == (True, False, True)
    app.backend.mark_as_done("1", 5)
    assert (handle.children, list(handle.collect())) == ([], [(handle, 5)])


def test_a_group_is_restored_from_another_backend(app, redis_url):
    app.GroupResult("g", [app.AsyncResult("1")]).save()
    with App("other", set_as_current=False) as other:
        restored = other.GroupResult.restore("g", backend=app.backend)
    assert (type(restored), restored.results) == (app.GroupResult, [app.AsyncResult("1")])
    assert isinstance(app.GroupResult.restore("g"), app.GroupResult)


@pytest.mark.parametrize("how", ["get", "ready", "state", "result", "maybe_throw"])
@pytest.mark.parametrize("value", [5, ValueError("x")])
def test_a_callback_is_called_once_the_result_is_read(app, how, value):
    handle, told = app.AsyncResult("1"), []
    handle.then(told.append, told.append)
    assert not handle.ready()
    app.backend.store_result("1", value, FAILURE if isinstance(value, Exception) else SUCCESS)
    assert told == []
    with contextlib.suppress(ValueError):
        _ = callable(read := getattr(handle, how)) and read()
    expected = [handle] if value == 5 else [handle, "ValueError('x')"]
    assert [each if each is handle else repr(each) for each in told] == expected
    handle.then(told.append)
    assert handle.get(propagate=False) is not None
    assert len(told) == len(expected) + 1


def test_a_callback_of_a_set_waits_for_all(app):
    one, two, late = (app.AsyncResult(task_id) for task_id in ("1", "2", "3"))
    results, told = app.ResultSet([one]), []
    app.ResultSet([]).then(told.append)
    assert len(told.pop()) == 0
    app.backend.mark_as_done("1", 1)
    assert results.ready()
    results.add(two)
    results.then(told.append)
    results.add(app.GroupResult("g", [late]))
    for task_id in ("2", "3"):
        assert (results.ready(), told) == (False, [])
        app.backend.mark_as_done(task_id, 1)
    assert results.get() == [1, 1, [1]]
    assert told == [results]
    failed = []
    app.backend.mark_as_failure("4", ValueError("x"))
    group = app.GroupResult("h", [one, app.AsyncResult("4")])
    group.then(told.append, failed.append)
    assert group.ready()
    assert (told[-1], repr(failed)) == (group, "[ValueError('x')]")


def test_a_result_whose_key_is_of_another_type_holds_up_no_other(app, redis_url, caplog):
    with redis_py.Redis.from_url(redis_url) as client:
        client.hset("celery-task-meta-2", "a", "b")
        app.results.store([Stored(str(n), document(str(n), SUCCESS, n)) for n in (1, 2, 3)])
        assert client.type("celery-task-meta-2") == b"hash"
    assert [app.AsyncResult(task_id).get(timeout=5) for task_id in ("1", "3")] == [1, 3]
    assert "result_refused" in {getattr(record, "event", None) for record in caplog.records}
