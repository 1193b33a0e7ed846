"""Result backends other than Redis: by messages (``rpc://``), and Celery's own. beatd and Celery read each other's."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import celery
import pytest
import redis

from beatd import App, chord
from beatd.exceptions import StoreRefused, WrongUrl
from beatd.states import FAILURE, STARTED, SUCCESS
from beatd.store.result_document import document, exception_payload
from beatd.store.results import Stored
from beatd.worker import chord_unlock
from tests.conftest import needed

pytestmark = [
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),  # Celery's calls of redis-py
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def stored(task_id, value, state=SUCCESS, reply_to="", **more):
    payload = exception_payload(value) if isinstance(value, Exception) else value
    return Stored(task_id, document(task_id, state, payload, date_done=datetime.now(UTC).isoformat(), **more), reply_to)


# -- by messages ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["redis", pytest.param("rabbitmq", marks=pytest.mark.slow)])
def url(request):
    if request.param == "redis":
        return request.getfixturevalue("redis_url")
    return request.getfixturevalue("rabbitmq").url


@pytest.fixture
def app(url):
    with App("x", broker=url, backend="rpc://", set_as_current=False) as app:
        yield app


@pytest.fixture
def worker(url):
    """The results of another process."""
    with App("worker", broker=url, backend="rpc://", set_as_current=False) as app:
        yield app.results


@pytest.fixture
def peer(url):
    peer = celery.Celery("x", broker=url, backend="rpc://", set_as_current=False)
    yield peer
    receiver = peer.backend.result_consumer
    if receiver._connection is not None:
        receiver.stop()  # Celery's close() leaves this connection open
    peer.close()


def test_a_result_comes_to_the_client_that_has_asked(app, worker):
    address = app.results.expect()
    worker.store([stored("1", 5, reply_to=address), stored("2", "x", reply_to=address), stored("3", 0)])
    assert app.AsyncResult("2").get(timeout=10) == "x"
    assert app.AsyncResult("1").get(timeout=10) == 5
    assert app.results.get("3") is None


def test_a_reply_to_what_is_no_queue_holds_up_no_other(redis_url, caplog):
    with (
        App("x", broker=redis_url, backend="rpc://", set_as_current=False) as app,
        App("worker", broker=redis_url, backend="rpc://", set_as_current=False) as worker,
        redis.Redis.from_url(redis_url) as client,
    ):
        client.hset("odd", "a", "b")
        worker.results.store([stored("1", 5, reply_to="odd"), stored("2", "x", reply_to=app.results.expect())])
        assert app.AsyncResult("2").get(timeout=10) == "x"
    assert "result_refused" in {getattr(record, "event", None) for record in caplog.records}


def test_states_come_in_order_and_none_after_the_last(app, worker):
    address, seen = app.results.expect(), []
    worker.store([stored("1", {"done": n}, "PROGRESS", address) for n in range(3)])
    worker.store([stored("1", ValueError("no"), FAILURE, address), stored("1", {}, STARTED, address)])
    worker.store([stored("2", 0, reply_to=address)])
    with pytest.raises(ValueError, match="no"):
        app.AsyncResult("1").get(timeout=10, on_message=lambda meta: seen.append(meta["status"]))
    assert seen == ["PROGRESS"] * 3 + [FAILURE]
    assert app.AsyncResult("2").get(timeout=10) == 0
    assert app.AsyncResult("1").state == FAILURE


def test_a_celery_client_reads_beatds_results(peer, worker):
    sent = peer.send_task("nowhere", queue="rpc-nowhere")
    worker.store([stored(sent.id, {"answer": 42}, reply_to=peer.thread_oid)])
    assert sent.get(timeout=10) == {"answer": 42}


def test_beatd_reads_the_results_of_a_celery_worker(app, peer):
    sent = app.send_task("nowhere", queue="rpc-nowhere")
    request = SimpleNamespace(
        reply_to=app.reply_address(), correlation_id=sent.id, children=[], group=None, parent_id=None
    )
    peer.backend.store_result(sent.id, KeyError("k"), FAILURE, request=request)
    with pytest.raises(KeyError):
        sent.get(timeout=10)


def test_messages_by_rpc_carry_no_chords(app):
    call = app.signature("a", (1,))
    with pytest.raises(StoreRefused, match="chords and saved groups need a store"):
        chord([call, call])(app.signature("b"))


def test_an_unreadable_result_is_a_failure(app, peer):
    peer.conf.result_serializer = "pickle"
    sent = app.send_task("nowhere", queue="rpc-nowhere")
    request = SimpleNamespace(
        reply_to=app.reply_address(), correlation_id=sent.id, children=[], group=None, parent_id=None
    )
    peer.backend.store_result(sent.id, 1, SUCCESS, request=request)
    with pytest.raises(Exception, match="only application/json is read"):
        sent.get(timeout=10)


def test_a_forked_process_has_a_queue_of_its_own(app):
    assert app.results.expect() == app.oid
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writer, (app.results.expect() or "").encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 100).decode() == f"{app.oid}.{pid}"
    os.close(reader)
    os.close(writer)


# -- Celery's ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["file", "database"])
def place(request, tmp_path):
    if request.param == "database":
        needed("sqlalchemy")
        return f"db+sqlite:///{tmp_path}/results.db"
    return f"file://{tmp_path}"


def test_celery_and_beatd_read_each_others_results(place):
    app = App("x", backend=place, set_as_current=False)
    peer = celery.Celery("x", backend=place, set_as_current=False)
    assert app.AsyncResult("none").state == "PENDING"
    app.results.store([stored("1", {"a": [1, None]}), stored("2", ValueError("no"), FAILURE, traceback="tb")])
    assert peer.AsyncResult("1").get(timeout=10) == app.AsyncResult("1").get(timeout=10) == {"a": [1, None]}
    for make in (peer, app):
        with pytest.raises(ValueError, match="no"):
            make.AsyncResult("2").get(timeout=10)
        assert make.AsyncResult("2").traceback == "tb"
    peer.backend.store_result("3", {"done": 1}, "PROGRESS")
    peer.backend.store_result("4", KeyError("k"), FAILURE)
    assert (app.AsyncResult("3").state, app.AsyncResult("3").info) == ("PROGRESS", {"done": 1})
    with pytest.raises(KeyError):
        app.AsyncResult("4").get(timeout=10)


def test_a_success_stays(place):
    app = App("x", backend=place, set_as_current=False)
    app.results.store([stored("1", 5), stored("1", ValueError("again"), FAILURE)])
    assert app.AsyncResult("1").get(timeout=10) == 5
    app.AsyncResult("1").forget()
    assert app.AsyncResult("1").state == "PENDING"


def test_a_group_is_saved_and_restored(place):
    app = App("x", backend=place, set_as_current=False)
    app.results.store([stored("1", 1), stored("2", 2)])
    app.GroupResult("g", [app.AsyncResult("1"), app.AsyncResult("2")]).save()
    assert app.GroupResult.restore("g").get(timeout=10) == [1, 2]
    app.GroupResult.restore("g").delete()
    assert app.GroupResult.restore("g") is None


def test_the_task_that_waits_for_a_header_sends_the_body(tmp_path, redis_url):
    app = App("x", broker=redis_url, backend=f"file://{tmp_path}", set_as_current=False)
    chord_unlock.register(app)
    total = app.task(name="total")(sum)
    header = [app.signature("add", (n, n), task_id=str(n)) for n in range(2)]
    result = chord(header)(total.s())
    assert {app.publisher.depth("celery")} == {3}  # the header's tasks, and the one that waits
    unlock = app.tasks[chord_unlock.NAME]
    members = [[[str(n), None], None] for n in range(2)]
    waiting = unlock.apply(("g", total.s().set(task_id=result.id)), {"result": members, "max_retries": 0})
    assert waiting.state == FAILURE  # not over, and no attempt is left
    app.results.store([stored("0", 1), stored("1", 2)])
    unlock.apply(("g", total.s().set(task_id=result.id)), {"result": members}).get()
    assert app.publisher.depth("celery") == 4
    app.results.store([stored("1-bad", ValueError("no"), FAILURE)])
    unlock.apply(("g", total.s().set(task_id="body")), {"result": [[["0", None], None], [["1-bad", None], None]]})
    assert "ValueError('no')" in str(app.AsyncResult("body").result)
    app.close()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nosuch://u:secret@h/1", "no such result backend"),
        ("amqp://u:secret@h//", "no such result backend"),
        ("django-nosuch", "pip install django-celery-results"),
        ("db+nodialect://u:secret@h/x", "nodialect"),
    ],
)
def test_a_result_backend_that_is_not_there_is_named_without_secrets(url, text):
    with pytest.raises(WrongUrl, match=text) as raised:
        App("x", backend=url, set_as_current=False).AsyncResult("1").ready()
    assert "secret" not in str(raised.value)


def test_without_celery_its_backends_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "celery", None)
    with pytest.raises(WrongUrl, match="pip install celery"):
        App("x", backend="db+sqlite:///x.db", set_as_current=False).AsyncResult("1").ready()
