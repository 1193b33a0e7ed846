"""Tasks that call others as functions: the request of each, and the children of the one that a worker runs."""

from __future__ import annotations

import celery
import pytest

from beatd import App, group
from beatd.app.context import Context, running
from beatd.message import json_codec
from tests.fakes import SentMessages


class Results:
    """A result backend that keeps the documents it is given."""

    def __init__(self):
        self.documents = {}

    def store(self, results):
        self.documents |= {each.task_id: json_codec.loads(each.document) for each in results}


@pytest.fixture
def sent():
    return SentMessages()


@pytest.fixture
def stored():
    return Results()


@pytest.fixture
def app(sent, stored):
    app = App("x", set_as_current=False, publisher=sent, results=stored)
    app.task(name="leaf")(lambda *_: None)
    return app


def worker_run(task, **fields):
    """A run of the task by a worker."""
    return running(task, Context({"id": "outer", "root_id": "root", "called_directly": False, **fields}))


def test_what_a_called_task_sends_is_a_child_of_the_run_of_the_worker(app, sent):
    leaf = app.tasks["leaf"]

    @app.task(name="inner")
    def inner():
        assert app.current_task.name == "inner"
        assert app.current_worker_task.name == "outer"
        return leaf.delay(), group(leaf.s(1), leaf.s(2)).delay()

    outer = app.task(name="outer")(inner.__call__)
    with worker_run(outer):
        single, several = outer.run()
        assert outer.request.children == [single, several]
    assert {(each.headers["root_id"], each.headers["parent_id"]) for each in sent.messages} == {("root", "outer")}
    assert app.current_worker_task is None


def test_a_task_has_its_request_while_another_runs_that_it_calls(app, stored):
    inner = app.task(name="inner")(lambda step: step())

    @app.task(name="outer", bind=True)
    def outer(self):
        inner(lambda: self.update_state(state="HALFWAY", meta=50))
        return inner(lambda: (self.request.id, inner.request.id, len(self.request_stack)))

    assert outer.apply(task_id="it").get() == ("it", None, 1)
    assert stored.documents["it"]["result"] == 50


def test_waiting_is_refused_in_all_that_a_task_of_a_worker_calls(app):
    wait = app.task(name="wait")(lambda: app.AsyncResult("1").get(timeout=0))
    outer = app.task(name="outer")(lambda: None)
    with worker_run(outer):
        with pytest.raises(RuntimeError, match="deadlock"):
            wait()
        with pytest.raises(RuntimeError, match="deadlock"):
            wait.apply(throw=True)


def test_a_state_of_its_own_has_the_children_and_the_place_of_the_run(app, stored):
    app.conf.result_extended = True
    outer = app.task(name="outer")(lambda: None)
    with worker_run(outer, parent_id="before", group="g", args=[object()], kwargs={}):
        child = app.tasks["leaf"].delay()
        outer.update_state(state="HALFWAY", meta=50)
        outer.update_state("another", "HALFWAY", 51)
    document = stored.documents["outer"]
    assert (document["status"], document["result"], document["retries"]) == ("HALFWAY", 50, 0)
    assert (document["parent_id"], document["group_id"]) == ("before", "g")
    assert document["children"] == [[[child.id, None], None]]
    assert "object object at" in document["args"][0]
    assert (stored.documents["another"]["result"], stored.documents["another"]["children"]) == (51, [])


def test_an_exception_and_its_traceback_may_be_a_state_of_its_own(app, stored):
    outer = app.task(name="outer")(lambda: None)
    with worker_run(outer):
        outer.update_state(state="FAILURE", meta=ValueError("no", 7), traceback="line 1")
    document = stored.documents["outer"]
    assert document["result"] == {"exc_type": "ValueError", "exc_message": ["no", 7], "exc_module": "builtins"}
    assert (document["traceback"], document["date_done"] is not None) == ("line 1", True)


def test_a_task_that_calls_itself_goes_on_with_its_run_as_in_celery(app, stored):
    def walk(self, n):
        self.update_state(state="HALFWAY", meta=n)
        seen.append((self.request.id, self.request.called_directly))
        return self(n - 1) if n else "there"

    seen, theirs = [], celery.Celery("x", set_as_current=False, backend="cache+memory://")
    for each in (app, theirs):
        assert each.task(name="walk", bind=True, shared=False)(walk).apply((2,), task_id="it").get() == "there"
    assert seen == [("it", False)] * 6
    assert stored.documents["it"]["result"] == 0
