"""Options of a task in the messages that are sent for it, as Celery has them."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

import beatd
from beatd import App
from beatd.exceptions import Ignore, Retry
from beatd.message import json_codec


class Published:
    """A publisher that keeps messages and routes."""

    batch = 100

    def __init__(self):
        self.messages, self.queues = [], []

    def publish(self, message, **to):
        self.messages.append(message)
        self.queues.append(to["queue"])

    @property
    def last(self):
        return self.messages[-1]


@pytest.fixture
def sent():
    return Published()


@pytest.fixture
def app(sent):
    return App("x", set_as_current=False, publisher=sent)


@contextmanager
def run_of(task, **fields):
    """A run of the task, as in a worker."""
    task.push_request(id="run", called_directly=False, args=(), kwargs={}, **fields)
    try:
        yield
    finally:
        task.pop_request()


def test_a_message_has_the_compression_of_its_task(app, sent):
    task = app.task(name="t", compression="gzip")(lambda: None)
    task.delay()
    app.send_task("t")
    assert [message.headers["compression"] for message in sent.messages] == ["application/x-gzip"] * 2


def test_send_task_uses_the_options_of_a_registered_task(app, sent):
    app.task(name="t", queue="q", priority=7, time_limit=9, expires=60, serializer="pickle")(lambda: None)
    app.send_task("t")
    assert sent.queues == ["q"]
    assert (sent.last.properties["priority"], sent.last.headers["timelimit"]) == (7, [9, None])
    assert (sent.last.properties["expiration"], sent.last.content_type) == ("60000", "application/x-python-serialize")
    app.send_task("t", queue="other", priority=1)
    assert (sent.queues[-1], sent.last.properties["priority"]) == ("other", 1)


def test_the_default_priority_is_that_of_registered_tasks(app, sent):
    app.conf.task_default_priority = 5
    app.task(name="t")(lambda: None).delay()
    app.send_task("elsewhere")
    assert [message.properties["priority"] for message in sent.messages] == [5, 0]


def test_none_does_not_hide_what_routes_and_settings_say(app, sent):
    app.conf.update(task_routes={"t": {"priority": 4}}, task_serializer="pickle")
    app.send_task("t", priority=None, serializer=None)
    assert (sent.last.properties["priority"], sent.last.content_type) == (4, "application/x-python-serialize")


def test_properties_of_a_call_are_in_the_message(app, sent):
    app.send_task("t", correlation_id="c", expiration=2.5)
    assert (sent.last.properties["correlation_id"], sent.last.properties["expiration"]) == ("c", "2500")


def test_a_retry_keeps_parent_queue_and_ignored_result(app, sent):
    task = app.task(name="t", bind=True, priority=6, ignore_result=True)(lambda self: None)
    info = {"exchange": "", "routing_key": "q", "priority": None}
    with run_of(task, parent_id="parent", delivery_info=info), pytest.raises(Retry):
        task.retry(exchange="x")
    assert sent.queues == ["q"]
    headers = sent.last.headers
    assert (headers["parent_id"], headers["ignore_result"]) == ("parent", True)
    assert sent.last.properties["priority"] == 6


def test_children_are_kept_unless_the_task_says_otherwise(app):
    quiet = app.task(name="quiet", trail=False)(lambda: None)
    task = app.task(name="task")(lambda: None)
    for each, count in ((quiet, 0), (task, 1)):
        with run_of(each):
            task.delay()
            assert len(each.request.children) == count


def test_a_group_may_have_the_option_of_its_members(app, sent):
    task = app.task(name="task")(lambda: None)
    beatd.group([task.s()], app=app).set(add_to_parent=False).apply_async()
    assert len(sent.messages) == 1


def test_a_callback_of_an_eager_task_is_sent(app, sent):
    double = app.task(name="double")(lambda x: 2 * x)
    assert double.apply((2,), link=double.s()).get() == 4
    assert json_codec.loads(sent.last.body)[0] == [4]


def test_followers_inherit_the_priority_though_they_have_one(app, sent):
    app.conf.task_inherit_parent_priority = True
    task = app.task(name="t", priority=1)(lambda *_: None)
    task.apply((), link=task.s(), priority=8)
    assert sent.last.properties["priority"] == 8


def test_a_replacement_is_sent_where_its_items_are_routed(app, sent):
    app.conf.task_routes = {"t": "q"}
    task = app.task(name="t")(lambda *_: None)
    with run_of(task), pytest.raises(Ignore):
        task.replace(task.starmap([(1,), (2,)]))
    assert sent.queues == ["q"]


def test_the_steps_of_a_replacement_have_its_nesting(app, sent):
    task = app.task(name="t", typing=False)(lambda *_: None)
    with run_of(task), pytest.raises(Ignore):
        task.replace(beatd.chain(task.s(), task.s()))
    (step,) = json_codec.loads(sent.last.body)[2]["chain"]
    assert step["options"]["replaced_task_nesting"] == 1


def test_an_object_of_kombu_may_name_a_queue_that_is_not_declared(app, sent):
    from kombu import Queue

    app.conf.task_create_missing_queues = False
    app.send_task("t", queue=Queue("q"))
    assert sent.queues == ["q"]


def test_chords_run_inside_the_tasks_of_a_worker(app):
    task = app.task(name="t", typing=False)(lambda *args: list(args))
    with run_of(task):
        assert beatd.chord([task.s(1)], task.s()).apply().get(disable_sync_subtasks=False) == [[[1]]]


def test_an_apply_async_of_ones_own_may_pass_all_its_arguments_by_place(app, sent):
    """As it is written for Celery's task."""

    class Counting(beatd.Task):
        def apply_async(
            self,
            args=None,
            kwargs=None,
            task_id=None,
            producer=None,
            link=None,
            link_error=None,
            shadow=None,
            **options,
        ):
            return super().apply_async(args, kwargs, task_id, producer, link, link_error, shadow, **options)

    task = app.task(name="t", base=Counting)(lambda x: x)
    assert task.apply_async((1,), {}, "an-id", None, task.s(), None, "shown").id == "an-id"
    embed = json_codec.loads(sent.last.body)[2]
    assert (sent.last.headers["shadow"], embed["errbacks"]) == ("shown", None)
    assert [call["task"] for call in embed["callbacks"]] == ["t"]
    seen = []
    note = app.task(name="note")(seen.append)
    app.conf.task_always_eager = True
    task.apply_async((1,), {}, None, None, note.s())
    assert task.apply((2,), {}, note.s(), None, "eager").id == "eager"
    assert seen == [1, 2]


@pytest.mark.parametrize("args", [{"x": 1, "y": 2}, "xy", b"xy"])
def test_positional_arguments_are_a_list(app, sent, args):
    add = app.task(name="add")(lambda x, y: (x, y))
    for send in (add.apply_async, lambda given: app.send_task("elsewhere", given)):
        with pytest.raises(TypeError, match="takes positional arguments as a list or a tuple, not as"):
            send(args)
    assert sent.messages == []


def test_signatures_take_options_by_place_and_another_app(app, sent):
    task, other = app.task(name="t")(lambda *_: None), App("other", set_as_current=False)
    for call in (task.signature((1,), {}, {"priority": 3}), app.signature("t", (1,), {}, {"priority": 3})):
        call.delay()
        assert sent.last.properties["priority"] == 3
    assert task.signature((1,), app=other).app is other
    assert beatd.signature("t", (1,), {}, {"priority": 3}, app=app).options == {"priority": 3}


def test_the_signature_of_a_request_is_that_of_the_running_call(app):
    task = app.task(name="t")(lambda *_: None)
    with run_of(task, retries=2):
        assert task.signature_from_request().options["retries"] == 2
        assert task.subtask_from_request().id == "run"


def test_a_retry_leaves_out_what_rabbitmq_adds_to_dead_letters(app, sent):
    task = app.task(name="t", bind=True)(lambda self: None)
    with run_of(task, headers={"tenant": "a", "x-death": [{"count": 1}], "x-first-death-queue": "q"}):
        assert task.request.headers["x-death"] == [{"count": 1}]
        with pytest.raises(Retry):
            task.retry()
    assert sent.last.headers["tenant"] == "a"
    assert not [name for name in sent.last.headers if name.startswith("x-")]


def test_headers_of_a_request_can_be_set(app):
    task = app.task(name="t")(lambda: None)
    with run_of(task, headers={"tenant": "a"}):
        assert task.request.headers == {"tenant": "a"}
        task.request.update(headers={"tenant": "b"})
        assert task.request.headers == {"tenant": "b"}


class Notified(beatd.Task):
    """A task class with a parameter more than an errback gets."""

    name = "notified"
    seen = ()

    def run(self, task_id, more=None):
        type(self).seen = (*self.seen, (task_id, more))


def test_an_errback_that_is_a_class_gets_the_id_as_in_celery(app):
    errback = app.register_task(Notified)
    boom = app.task(name="boom")(lambda: 1 / 0)
    boom.apply(task_id="it", link_error=errback.s())
    assert errback.seen == (("it", None),)


def test_a_task_class_with_a_call_of_its_own_says_what_it_takes(app, sent):
    class Tenanted(beatd.Task):
        name = "tenanted"

        def __call__(self, *args, tenant=None, **kwargs):
            return super().__call__(*args, **kwargs)

        def run(self, x):
            return x

    task = app.register_task(Tenanted)
    task.delay(1, tenant="a")
    assert json_codec.loads(sent.last.body)[1] == {"tenant": "a"}
    assert task.apply((1,), {"tenant": "a"}).get() == 1


def test_handles_are_those_of_the_task_as_in_celery(app):
    class Named(beatd.AsyncResult):
        pass

    class Base(beatd.Task):
        def AsyncResult(self, task_id, **options):
            return Named(task_id, app=self.app, **options)

    task = app.task(name="t", base=Base, ignore_result=True)(lambda: None)
    for handle in (task.delay(), task.s().freeze(), app.send_task("t", result_cls=Named)):
        assert isinstance(handle, Named)
    assert task.delay().ignored
    assert type(app.send_task("t")) is beatd.AsyncResult
