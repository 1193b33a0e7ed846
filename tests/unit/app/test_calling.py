"""Calling tasks: messages, errors at the caller, publish signals, and results without a server."""

from __future__ import annotations

import asyncio
import pickle
import sys
import types
from typing import ClassVar

import celery
import pytest

from beatd import (
    App,
    AsyncResult,
    GroupResult,
    ResultSet,
    Task,
    current_app,
    current_task,
    exceptions,
    shared_task,
    signals,
)
from beatd.app.context import Context, running
from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.result import allow_join_result, result_from_tuple


class Published:
    """A publisher that records messages and routes."""

    batch = 100

    def __init__(self):
        self.messages, self.routes = [], []

    def publish(self, message, **to):
        self.messages.append(message)
        self.routes.append(to)


@pytest.fixture
def sent():
    return Published()


@pytest.fixture
def app(sent):
    app = App("x", set_as_current=False, publisher=sent)
    app.task(name="add")(lambda x, y: x + y)
    return app


@pytest.fixture
def add(app):
    return app.tasks["add"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"args": (1,)}, TypeError, r"add\(\) missing a required argument: 'y'"),
        ({"args": (1, 2, 3)}, TypeError, r"add\(\) too many positional arguments"),
        ({"args": (1,), "kwargs": {"z": 1}}, TypeError, r"add\(\) missing a required argument"),
        ({"args": (1, object())}, MessageError, "add cannot be sent: JSON cannot carry this value: object"),
        ({"args": (1, 2), "contdown": 5}, TypeError, "unknown options for a task message: contdown"),
        ({"args": (1, 2), "serializer": "xml"}, MessageError, "there is no serializer 'xml', there are: "),
        ({"args": (1, lambda: 0), "serializer": "pickle"}, MessageError, "'pickle' cannot carry this value"),
        ({"args": (1, 2), "compression": "rar"}, MessageError, "unknown compression 'rar'"),
        ({"args": (1, 2), "expires": "soon"}, MessageError, "expires='soon' is not a valid time"),
        ({"args": (1, 2), "eta": object()}, MessageError, "is not a valid time"),
        (
            {"args": (1, 2), "time_limit": 5, "soft_time_limit": 9},
            ValueError,
            "must be less than or equal to time_limit",
        ),
    ],
)
def test_invalid_calls_raise_at_the_caller(add, sent, options, error, words):
    with pytest.raises(error, match=words):
        add.apply_async(**options)
    assert sent.messages == []


def test_each_shape_of_arguments_is_checked(add, sent, monkeypatch):
    for _ in range(2):
        for args, kwargs in (((1, 2), {}), ((1,), {"y": 2}), ((), {"y": 2, "x": 1})):
            add.apply_async(args, kwargs)
        for args, kwargs in (((1,), {}), ((1, 2), {"y": 2}), ((1,), {"x": 2}), ((1,), {"z": 2})):
            with pytest.raises(TypeError, match=r"add\(\) "):
                add.apply_async(args, kwargs)
    assert len(sent.messages) == 6
    monkeypatch.setattr(add, "run", lambda x: x)
    add.delay(1)
    with pytest.raises(TypeError, match="too many positional arguments"):
        add.delay(1, 2)


def test_typing_false_turns_the_argument_check_off(app, sent):
    app.task(name="loose", typing=False)(lambda x: x).delay(1, 2, 3)
    assert len(sent.messages) == 1


def test_an_unknown_queue_is_rejected_without_task_create_missing_queues(app, add, sent):
    app.conf.update(task_create_missing_queues=False, task_queues=["celery", "slow"])
    add.apply_async((1, 2), queue="slow")
    with pytest.raises(MessageError, match="queue 'fast' is not in task_queues: celery, slow"):
        add.apply_async((1, 2), queue="fast")


def test_routes_have_options_and_routers_are_called(app, add, sent):
    class Router:
        def route_for_task(self, task, args=None, kwargs=None):
            return {"queue": "other", "priority": 7} if args == (9, 9) else None

    app.conf.task_routes = [Router(), {"add": {"queue": "slow", "expires": 60}}]
    add.delay(1, 2)
    add.delay(9, 9)
    app.conf.task_routes = [lambda name, args, kwargs, options, task=None: f"q-{name}-{args[0]}"]
    add.delay(4, 4)
    assert [each["queue"] for each in sent.routes] == ["slow", "other", "q-add-4"]
    assert sent.messages[0].headers["expires"] is not None
    assert sent.messages[1].properties["priority"] == 7


def test_routers_get_the_task_and_maps_are_routed_by_the_task_that_they_call(app, add, sent):
    asked = []

    def router(name, args, kwargs, options, task=None):
        asked.append((name, task.name))
        return {"queue": name}

    app.conf.task_routes = router
    add.delay(1, 2)
    add.starmap([(1, 2)]).delay()
    add.chunks([(1, 2)], 1).delay()
    assert asked == [("add", "add"), *[("add", "celery.starmap")] * 2]


def test_defaults_come_from_the_configuration_and_the_task(app, sent):
    app.conf.update(task_default_priority=4, task_compression="zlib")
    task = app.task(name="t", queue="slow", expires=60, time_limit=9)(lambda: None)
    task.delay()
    (message,) = sent.messages
    assert (sent.routes[0]["queue"], message.properties["priority"]) == ("slow", 4)
    assert message.headers["compression"] == "application/x-gzip"
    assert message.headers["timelimit"] == [9, None]


@pytest.mark.parametrize("option", ["ignore_result", "track_started", "acks_late"])
def test_the_options_of_a_task_are_complete_before_its_first_use(sent, option):
    app = App("x", set_as_current=False, publisher=sent)
    task = app.task(name="add")(lambda x, y: x + y)
    app.conf[f"task_{option}"] = True
    task.delay(1, 2)
    task.delay(1, 2)
    assert [message.headers["ignore_result"] for message in sent.messages] == [option == "ignore_result"] * 2
    assert getattr(task, option) is True


def test_annotations_change_tasks_once(app):
    app.conf.task_annotations = {
        "*": {"rate_limit": "5/s"},
        "add": {"max_retries": 9, "@run": lambda run: lambda *a: run(*a) + 1},
    }
    app.finalize()
    late = app.task(name="late")(lambda: 1)
    assert (app.tasks["add"].rate_limit, app.tasks["add"].max_retries, app.tasks["add"](1, 2)) == ("5/s", 9, 4)
    assert (late.rate_limit, late.max_retries) == ("5/s", 3)


def test_functions_in_annotations_are_methods_as_in_celery(app):
    seen = []

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        seen.append((self.name, task_id))

    def around(call):
        def called(self, *args):
            seen.append(self.name)
            return call(self, *args)

        return called

    def divide():
        return 1 / 0

    for each in (app, celery.Celery("x", set_as_current=False)):
        each.conf.task_annotations = {"*": {"on_failure": on_failure}, "boom": {"@__call__": around}}
        boom = each.task(name="boom", shared=False)(divide)
        each.finalize()
        assert boom.apply(task_id="it").state == "FAILURE"
    assert seen == ["boom", ("boom", "it")] * 2
    assert app.tasks["add"](1, 2) == 3


class Annotations:
    """An item of ``task_annotations``."""

    def annotate(self, task):
        return {"priority": 3} if task.name == "t" else None

    def annotate_any(self):
        return {"max_retries": 8}


def nothing():
    """Return nothing: a task of both makes."""


def test_annotations_may_be_the_name_of_a_class_as_in_celery(monkeypatch):
    module = types.ModuleType("annotating")
    module.Annotations = Annotations
    monkeypatch.setitem(sys.modules, "annotating", module)
    for each in (App("x", set_as_current=False), celery.Celery("x", set_as_current=False)):
        each.conf.task_annotations = ["annotating.Annotations", {"t": {"rate_limit": "1/s"}}]
        task = each.task(name="t", shared=False)(nothing)
        each.finalize()
        assert (task.priority, task.max_retries) == (3, 8)


def test_a_hook_may_be_set_on_the_task_itself(app, monkeypatch):
    told = []
    boom = app.task(name="boom")(lambda: 1 / 0)
    for name in ("on_failure", "after_return"):
        monkeypatch.setattr(boom, name, lambda *args, name=name: told.append(name))
    boom.apply()
    assert told == ["on_failure", "after_return"]


def test_an_eager_coroutine_may_be_called_in_an_event_loop(app):
    app.conf.task_always_eager = True

    @app.task(name="who", bind=True)
    async def who(self, x):
        await asyncio.sleep(0)
        return self.request.id, x

    async def calls():
        return who.apply_async((3,), task_id="it").get()

    assert asyncio.run(calls()) == ("it", 3)


def test_shadow_name_names_the_runs(app, sent):
    class Shadowed(Task):
        def shadow_name(self, args, kwargs, options):
            return f"run of {args[0]}"

    task = app.task(name="t", base=Shadowed)(lambda x: x)
    task.delay(5)
    task.apply_async((5,), shadow="given")
    assert [message.headers["shadow"] for message in sent.messages] == ["run of 5", "given"]


def test_receivers_of_before_task_publish_change_the_message(app, add, sent):
    seen = []

    def before(sender, body, headers, properties, routing_key, **_):
        body[0][0] = 10
        headers["tenant"] = "a"
        properties["priority"] = 9
        seen.append(("before", sender, routing_key))

    def after(sender, headers, body, **_):
        seen.append(("after", sender, headers["tenant"], body[0]))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        add.apply_async((1, 2), queue="q")
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    (message,) = sent.messages
    assert json_codec.loads(message.body)[0] == [10, 2]
    assert (message.headers["tenant"], message.properties["priority"]) == ("a", 9)
    assert seen == [("before", "add", "q"), ("after", "add", "a", [10, 2])]


def test_a_task_sent_by_a_task_is_its_child(app, add, sent):
    context = Context(id="parent", root_id="root", called_directly=False)
    with running(app.tasks["add"], context):
        child = add.delay(1, 2)
        add.apply_async((1, 2), add_to_parent=False)
    headers = [(each.headers["root_id"], each.headers["parent_id"]) for each in sent.messages]
    assert headers == [("root", "parent")] * 2
    assert context.children == [child]


def test_stamps_of_a_message_are_passed_on(app, sent):
    app.signature("add", (1, 2), stamped_headers=["who"], who="me").apply_async()
    headers = sent.messages[0].headers
    assert (headers["stamped_headers"], headers["stamps"]) == (["who"], {"who": "me"})


def test_errbacks_are_called_as_celery_calls_them(app):
    seen = []
    app.task(name="old")(lambda task_id: seen.append(("old", task_id)))
    app.task(name="new")(lambda request, exc, traceback: seen.append(("new", request.id, repr(exc))))
    app.task(name="partial")(lambda task_id, key: seen.append(("partial", task_id, key)))

    @app.task(name="bound", bind=True)
    def bound(self, task_id, more=None):
        seen.append(("bound", task_id, self.name))

    boom = app.task(name="boom")(lambda: 1 / 0)
    links = [app.tasks["old"].s(), app.tasks["new"].s(), app.tasks["partial"].s(key="k"), bound.s()]
    boom.apply(task_id="it", link_error=links)
    assert seen == [
        ("old", "it"),
        ("new", "it", "ZeroDivisionError('division by zero')"),
        ("partial", "it", "k"),
        ("bound", "it", "bound"),
    ]


def test_an_errback_that_raises_is_logged_and_the_others_run(app, caplog):
    seen = []
    app.task(name="bad")(lambda request, exc, traceback: 1 / 0)
    app.task(name="good")(seen.append)
    app.task(name="boom")(lambda: 1 / 0).apply(task_id="it", link_error=[app.signature("bad"), app.signature("good")])
    assert seen == ["it"]
    assert [record.event for record in caplog.records] == ["errback_failed"]


def test_eager_runs_raise_with_throw_or_task_eager_propagates(app):
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    boom = app.task(name="boom")(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        boom.delay()
    app.conf.task_eager_propagates = False
    result = boom.delay()
    assert (result.state, result.failed(), result.ready(), result.name) == ("FAILURE", True, True, "boom")
    assert "ZeroDivisionError" in result.traceback
    assert result.revoke() is None


def test_an_eager_replaced_task_returns_the_value_of_its_replacement(app, add):
    @app.task(name="replaced", bind=True)
    def replaced(self, n):
        return self.replace(add.s(n, 1) | add.s(10))

    assert replaced.apply((1,)).get() == 12
    with pytest.raises(ValueError, match="must not be part of a chord"):
        replaced.replace(add.s(1, 2).set(chord={}))


def test_retry_without_throw_returns_the_exception(app):
    @app.task(name="t", bind=True)
    def quiet(self):
        if self.request.retries:
            return "again"
        reason = self.retry(countdown=1, throw=False)
        raise reason

    assert quiet.apply().get() == "again"


def test_task_classes_are_registered(app):
    class Greet(Task):
        name = "greet"
        cache: ClassVar[dict] = {}

        def run(self, who):
            return f"hello {who}"

        @classmethod
        def on_bound(cls, app):
            cls.cache["app"] = app

    greet = app.register_task(Greet())
    assert greet.apply(("you",)).get() == "hello you"
    assert greet.cache["app"] is app
    assert app.tasks["greet"].backend is app.backend


def test_current_app_and_current_task():
    app = App("mine")
    assert (current_app.main, current_app()) == ("mine", app)
    assert not current_task
    seen = []
    task = app.task(name="t")(lambda: seen.append((current_task.name, bool(current_task), app.current_task.name)))
    task.apply()
    assert seen == [("t", True, "t")]
    with App("other", set_as_current=False) as other:
        other.set_default()
        assert current_app.main == "other"


def test_proxies_give_what_they_stand_for_as_in_celery():
    app, seen = App("mine"), []
    shared = shared_task(name="shared.whole")(lambda: seen.append(current_task._get_current_object()))
    shared.apply()
    assert current_app._get_current_object() is app
    assert seen == [shared._get_current_object()] == [app.tasks["shared.whole"]]


def test_allow_join_result_allows_waiting_inside_a_task(app):
    result = app.AsyncResult("1")
    result.learn({"status": "SUCCESS", "result": 5})
    with running(app.tasks["add"], Context(id="2", called_directly=False)):
        with pytest.raises(RuntimeError, match="deadlock"):
            result.get()
        assert result.get(disable_sync_subtasks=False) == 5
        with allow_join_result():
            assert result.get() == 5


def test_handles_convert_to_tuples_and_back(app):
    group = GroupResult("g", [AsyncResult("a", app=app), AsyncResult("b", app=app)], AsyncResult("p"), app)
    assert group.as_tuple() == (("g", (("p", None), None)), [(("a", None), None), (("b", None), None)])
    restored = result_from_tuple(group.as_tuple(), app)
    assert (restored, restored.parent.id, str(restored), len(restored)) == (group, "p", "g", 2)
    assert restored[1].id == "b"
    assert AsyncResult("a", parent=AsyncResult("p")).as_list() == ["a", "p"]


def test_revoking_several_tasks_can_wait_for_answers(app):
    asked = []

    class Control:
        def revoke(self, ids, **options):
            asked.append((ids, options))
            return ["answer"]

    app.__dict__["control"] = Control()
    both = ResultSet([app.AsyncResult("a"), GroupResult("g", [app.AsyncResult("b")])], app=app)
    assert both.revoke(wait=True, terminate=True, timeout=3) == ["answer"]
    both[0].revoke(connection=None, wait=True)
    assert asked[0] == (["a", "b"], {"reply": True, "terminate": True, "timeout": 3})
    assert (asked[1][0], asked[1][1]["reply"]) == ("a", True)


def test_result_sets(app):
    one, two = (app.AsyncResult(name) for name in "ab")
    one.learn({"status": "SUCCESS", "result": 1})
    two.learn({"status": "FAILURE", "result": {"exc_type": "KeyError", "exc_message": ["k"], "exc_module": "builtins"}})
    both = ResultSet([one, two], app=app)
    assert (both.ready(), both.successful(), both.failed(), both.waiting(), both.completed_count()) == (
        True,
        False,
        True,
        False,
        1,
    )
    with pytest.raises(KeyError):
        both.get()
    assert [type(each) for each in both.get(propagate=False)] == [int, KeyError]
    with pytest.raises(KeyError):
        both.maybe_throw()
    both.remove(two)
    both.discard(two)
    assert both.join() == [1]
    assert list(both.iterate()) == [1]
    with pytest.raises(KeyError):
        both.remove("b")
    both.update([two, one])
    assert len(both) == 2


def test_tasks_and_signatures_can_be_pickled():
    app = App("x")
    task = app.task(name="add")(lambda x, y: x + y)
    assert pickle.loads(pickle.dumps(task)) is task
    call = pickle.loads(pickle.dumps(task.s(1) | task.s(2)))
    assert repr(call) == "add(1) | add(2)"


def test_celerys_names_of_errors():
    assert issubclass(exceptions.OperationalError, exceptions.BeatdError)
    assert exceptions.EncodeError is MessageError


def test_celerys_settings_can_be_read_and_set(app):
    assert app.conf.broker_pool_limit == 10
    app.conf.broker_pool_limit = 5
    app.add_defaults({"broker_pool_limit": 7, "timezone": "Asia/Baku"})
    assert (app.conf.broker_pool_limit, app.conf.timezone) == (5, "Asia/Baku")


def test_config_from_envvar_reads_the_named_module(app, monkeypatch):
    monkeypatch.setenv("MY_CONFIG", "tests.unit.app.test_calling")
    app.config_from_envvar("MY_CONFIG", force=True)
    with pytest.raises(exceptions.ConfigError, match="NOT_SET: it is not set"):
        app.config_from_envvar("NOT_SET")


class Part:
    """A connection that remembers being closed."""

    closed = False

    def close(self):
        self.closed = True


def test_parts_that_are_handed_in_are_used_and_left_open():
    publisher, results = Part(), Part()
    app = App("x", set_as_current=False, publisher=publisher, results=results)
    app.close()
    assert (app.publisher, app.results) == (publisher, results)
    assert not (publisher.closed)
    assert not (results.closed)


def test_parts_that_the_app_opened_are_closed_and_opened_again():
    app = App("x", broker="redis://127.0.0.1:1", backend="redis://127.0.0.1:1", set_as_current=False)
    publisher, results = app.publisher, app.results
    app.close()
    assert (app.publisher is publisher, app.results is results) == (False, False)
    app.close()
