"""What programs written for Celery use beside tasks and compositions: exceptions, settings, eager runs, handles."""

from __future__ import annotations

import inspect
import io
import pickle
from datetime import UTC, datetime, timedelta

import celery.exceptions
import pytest

import beatd
from beatd import App, exceptions, signals
from beatd.app.graph import DependencyGraph
from beatd.config.writer import plain_table
from beatd.exceptions import MessageError
from beatd.result import AsyncResult, EagerResult
from beatd.schedules import BaseSchedule, parse
from tests.fakes import SentMessages


@pytest.fixture
def publisher():
    return SentMessages()


@pytest.fixture
def app(publisher):
    return App("x", set_as_current=False, publisher=publisher)


@pytest.fixture
def sent(publisher):
    return publisher.messages


@pytest.mark.parametrize("name", sorted(set(celery.exceptions.__all__) - {"CeleryCommandException", "reraise"}))
def test_celerys_exceptions_exist(name):
    ours, theirs = getattr(exceptions, name), getattr(celery.exceptions, name)
    assert inspect.isclass(ours)
    for base in (SystemExit, KeyError, Warning, celery.exceptions.TaskPredicate):
        if issubclass(theirs, base):
            assert issubclass(ours, getattr(exceptions, base.__name__, base))


def test_a_retry_is_no_task_error():
    assert not issubclass(exceptions.Retry, exceptions.TaskError)


def test_settings_as_text_have_no_secrets(app):
    app.conf.update(broker_url="redis://:s3cret@h/0", my_password="s3cret", timezone="Asia/Baku")
    text = app.conf.humanize()
    assert "timezone: 'Asia/Baku'" in text
    assert "s3cret" not in text
    assert "worker_concurrency" not in text
    assert "worker_concurrency: None" in app.conf.humanize(with_defaults=True)
    assert "s3cret" in app.conf.humanize(censored=False)


def test_an_app_class_sets_the_class_of_its_tasks():
    class Base(beatd.Task):
        marked = True

    class Sub(App):
        task_cls = Base

    assert Sub("x", set_as_current=False).task(name="add")(lambda: 1).marked


def test_the_function_of_a_task_can_be_called(app):
    add = app.task(name="add")(lambda x, y: x + y)
    bound = app.task(name="bound", bind=True)(lambda self, x: (self.name, x))
    assert add.__wrapped__(1, 2) == 3
    assert bound.__wrapped__(1) == ("bound", 1)


def test_a_handle_equals_its_id(app):
    assert AsyncResult("a", app=app) == "a"
    assert AsyncResult("a", app=app) != "b"
    assert {"a": 1}[AsyncResult("a", app=app)] == 1


def test_eager_tasks_get_and_give_what_json_carries(app):
    app.conf.task_always_eager = True
    seen = app.task(name="seen")(lambda value: value)
    assert seen.delay((1, 2)).get() == [1, 2]
    assert seen.delay({1: "a"}).get() == {"1": "a"}
    with pytest.raises(MessageError, match="object"):
        seen.delay(object())


def test_eager_runs_inside_a_run_have_its_root(app):
    ids = app.task(name="ids", bind=True)(lambda self: (self.request.root_id, self.request.parent_id))
    outer = app.task(name="outer", bind=True)(lambda self: ids.apply().get())
    assert outer.apply(task_id="outer").get() == ("outer", "outer")
    assert ids.apply(task_id="alone").get() == ("alone", None)


def test_the_signal_of_a_success_has_the_run_time(app):
    times = []

    def note(sender, result, runtime, **_):
        times.append(runtime)

    signals.task_success.connect(note)
    try:
        app.task(name="add")(lambda: 1).apply()
    finally:
        signals.task_success.disconnect(note)
    assert len(times) == 1
    assert 0 <= times[0] < 60


def test_a_message_that_workers_refuse_is_not_sent(app, sent):
    app.conf.message_max_bytes = 1_000
    with pytest.raises(
        MessageError, match=r"add cannot be sent: its message has \d+ bytes, more than message_max_bytes"
    ):
        app.send_task("add", ["x" * 1_000], compression="gzip")
    assert sent == []
    app.send_task("add", ["x" * 100])
    assert len(sent) == 1


def test_errbacks_on_the_header_of_a_chord(app):
    boom, total = app.signature("boom"), app.signature("total")
    chord = beatd.chord([boom], total, app=app)
    chord.link_error(app.signature("errback"))
    assert "link_error" not in chord.tasks[0].options
    app.conf.task_allow_error_cb_on_chord_header = True
    chord = beatd.chord([boom], total, app=app)
    chord.link_error(app.signature("errback"))
    assert [call["immutable"] for call in chord.tasks[0].options["link_error"]] == [False], "it gets the task's id"
    assert len(chord.body.options["link_error"]) == 1
    assert boom.options == {}, "the header has copies of its tasks"


def test_a_retry_with_positional_arguments_replaces_those_of_the_same_name(app):
    seen = []

    @app.task(name="task", bind=True)
    def task(self, a, b, label=None):
        seen.append((a, b, label))
        if len(seen) == 1:
            raise self.retry(args=(a + 1, b + 1), countdown=0)
        if len(seen) == 2:
            raise self.retry(kwargs={"a": 10}, countdown=0)

    task.apply(kwargs={"a": 1, "b": 2, "label": "x"})
    assert seen[:2] == [(1, 2, "x"), (2, 3, "x")]
    seen.clear()
    task.apply((1, 2))
    assert seen == [(1, 2, None), (2, 3, None), (10, 3, None)]


def test_a_graph_is_sorted_and_written():
    graph = DependencyGraph()
    for node in "abc":
        graph.add_arc(node)
    graph.add_edge("a", "b")
    graph.add_edge("b", "c")
    assert graph.topsort() == ["c", "b", "a"]
    assert (graph.edges(), graph.valency_of("a"), len(graph), "a" in graph) == (["a", "b"], 2, 3, True)
    text = io.StringIO()
    graph.to_dot(text)
    assert '"a" -> "b"' in text.getvalue()


def test_an_app_without_a_result_backend_has_no_chords(app):
    with pytest.raises(NotImplementedError, match="result backend"):
        app.backend.ensure_chords_allowed()


def test_other_serializers(app, sent):
    call = app.signature("add", [{1, 2}], serializer="pickle", link=app.signature("callback"))
    call.delay()
    app.conf.task_serializer = "pickle"
    app.send_task("add", [{1, 2}])
    for message in sent:
        assert (message.content_type, message.content_encoding) == ("application/x-python-serialize", "binary")
        assert b"beatd" not in message.body, "signatures are plain in a pickle"
        assert pickle.loads(message.body)[0] == [{1, 2}]
    app.conf.task_always_eager = True
    assert app.task(name="seen", serializer="pickle")(lambda value: value).delay((1, 2)).get() == (1, 2)


def test_signals_of_a_publish_see_the_body_of_other_serializers(app, sent):
    def change(sender, body, **_):
        body[0].append("added")

    signals.before_task_publish.connect(change)
    try:
        app.send_task("add", [{1}], serializer="pickle")
    finally:
        signals.before_task_publish.disconnect(change)
    assert pickle.loads(sent[0].body)[0] == [{1}, "added"]


def test_a_bug_report_has_versions_and_hides_passwords():
    text = App("x", broker="redis://:tail9zq@h/0", set_as_current=False).bugreport()
    assert text.startswith("software -> beatd:")
    assert "tail9zq" not in text


def test_a_request_is_pushed_for_tests_of_a_task(app):
    seen = app.task(name="seen", bind=True)(lambda self: (self.request.retries, self.request.called_directly))
    seen.push_request(id="1", retries=3, called_directly=False)
    try:
        assert seen.run() == (3, False)
        assert seen.request.id == seen.request_stack.top.id == "1"
        seen.push_request(retries=4)
        assert (seen.request.retries, len(seen.request_stack)) == (4, 2)
        seen.pop_request()
        assert seen() == (3, False), "a call uses the pushed request once, as Celery's"
    finally:
        seen.pop_request()
    assert (seen.request.id, seen.request_stack.top, len(seen.request_stack)) == (None, None, 0)
    seen.pop_request()


def test_a_pushed_request_that_has_been_retried_enough_gives_up(app):
    @app.task(name="flaky", bind=True, max_retries=3)
    def flaky(self):
        raise self.retry(countdown=0)

    flaky.push_request(id="1", retries=3, called_directly=False)
    try:
        with pytest.raises(flaky.MaxRetriesExceededError):
            flaky.run()
    finally:
        flaky.pop_request()


def test_celerys_names_of_schedules():
    assert beatd.schedule(30) == beatd.every(30)
    assert beatd.crontab.from_string("30 7 1 * mon") == beatd.crontab(30, 7, "mon", 1)
    with pytest.raises(beatd.exceptions.ScheduleError, match="expected minute"):
        beatd.crontab.from_string("30 7")


@pytest.mark.parametrize(
    ("made", "kind", "fields"),
    [
        (beatd.crontab(30, 7, "mon"), beatd.crontab, {"hour": {7}, "day_of_week": {1}}),
        (beatd.crontab.from_string("30 7 * * mon"), beatd.crontab, {"minute": {30}}),
        (beatd.schedule(90), beatd.schedule, {"seconds": 90, "relative": False}),
        (beatd.schedule(3600, True), beatd.schedule, {"seconds": 3600, "relative": True}),
        (beatd.solar("sunset", 40.4, 49.9), beatd.solar, {"event": "sunset", "lat": 40.4, "lon": 49.9}),
    ],
    ids=str,
)
def test_schedules_are_of_celerys_classes(made, kind, fields):
    kinds = (beatd.crontab, beatd.schedule, beatd.solar)
    assert [isinstance(made, each) for each in kinds] == [each is kind for each in kinds]
    assert isinstance(made, BaseSchedule)
    assert {name: getattr(made, name) for name in fields} == fields
    again = pickle.loads(pickle.dumps(made))
    assert (type(again), again, hash(again), repr(again)) == (kind, made, hash(made), repr(made))
    assert parse(made, timezone="Asia/Baku") == parse(made.notation, timezone="Asia/Baku")


class Workdays(beatd.crontab):
    """A class of the user's that gives arguments and has attributes."""

    def __init__(self, hour, label=""):
        super().__init__(0, hour, "mon-fri")
        self.label = label


class Changing(beatd.schedule):
    """A class of the user's that decides itself when it is due."""

    def is_due(self, last_run_at):
        return super().is_due(last_run_at)._replace(next=5.0)


class Own(BaseSchedule):
    """The same, of nothing that is known."""

    def __init__(self, days, **options):
        super().__init__(**options)
        self.days = days

    def remaining_estimate(self, last_run_at):
        return last_run_at + timedelta(days=self.days) - self.now()


def test_a_class_of_the_users_is_scheduled_as_the_one_that_it_derives_from():
    made = Workdays(9, label="office")
    assert (made, made.label) == (beatd.crontab(0, 9, "mon-fri"), "office")
    assert pickle.loads(pickle.dumps(made)).label == "office"
    assert parse(made, timezone="Asia/Baku") == parse(beatd.crontab(0, 9, "mon-fri"), timezone="Asia/Baku")
    made.nowfun = lambda: datetime(2026, 11, 27, 8, 59, tzinfo=UTC)
    assert made.is_due(datetime(2026, 11, 27, tzinfo=UTC)) == (False, 60)


@pytest.mark.parametrize("kind", [Changing, Own])
def test_a_class_that_decides_itself_can_be_asked_but_not_scheduled(kind):
    last = datetime(2026, 11, 27, tzinfo=UTC)
    made = kind(1, nowfun=lambda: last + timedelta(days=3))
    assert made.is_due(last)[0]
    assert {made: 1}[made] == 1
    with pytest.raises(beatd.exceptions.ScheduleError, match=r"with its own .*cannot be scheduled.*write its times as"):
        parse(made)
    with pytest.raises(beatd.exceptions.ScheduleError, match=f"test_celery_names.{kind.__name__}"):
        plain_table({"schedule": [beatd.crontab(0), made]})


def test_a_schedule_of_no_kind_is_refused():
    class Empty(BaseSchedule):
        pass

    words = r"Empty has no times: .*; derive it from crontab"
    for read in (
        parse,
        lambda made: parse([beatd.crontab(0), made]),
        lambda made: plain_table({"schedule": made}),
        lambda made: beatd.config.entry("x", {"task": "t", "schedule": made}, timezone="UTC"),
    ):
        with pytest.raises(beatd.exceptions.BeatdError, match=words):
            read(Empty())
    with pytest.raises(NotImplementedError, match=words):
        Empty().is_due(datetime(2026, 11, 27, tzinfo=UTC))

    class Seven(beatd.crontab):
        def __init__(self):
            super().__init__(minute=0, hour=7)

    assert parse(Seven()) == beatd.crontab(0, 7), "what the error says to write"


def test_a_list_may_have_schedules_of_python():
    baku = beatd.crontab(30, 12, timezone="Asia/Baku")
    table = plain_table({"schedule": [beatd.crontab(0, 9, timezone="Asia/Baku"), baku]})
    assert table == {"schedule": [{"minute": 0, "hour": 9}, {"minute": 30, "hour": 12}], "timezone": "Asia/Baku"}
    with pytest.raises(beatd.exceptions.ScheduleError, match="need one timezone and one dst"):
        plain_table({"schedule": [beatd.crontab(0, 9), baku]})


def test_a_clock_of_the_schedules_own_is_named_when_it_is_registered(app, caplog):
    task = app.task(name="add")(lambda: 1)
    app.add_periodic_task(beatd.crontab(0, 7), task.s(), name="plain")
    app.add_periodic_task(beatd.crontab(0, 7, nowfun=datetime.now), task.s(), name="morning")
    assert [record.entry for record in caplog.records if record.event == "nowfun_ignored"] == ["morning"]
    assert "the daemon ignores the nowfun" in caplog.text


def test_the_time_zone_of_an_app_is_a_zone():
    app = App("x", timezone="Asia/Baku", set_as_current=False)
    assert datetime(2026, 1, 1, tzinfo=app.timezone).utcoffset() == timedelta(hours=4)
    assert app.now().tzinfo is app.timezone


def test_handles_can_be_pickled(app):
    group = app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")], parent=app.AsyncResult("p"))
    for handle in (app.AsyncResult("a"), group):
        assert pickle.loads(pickle.dumps(handle)) == handle
    again = pickle.loads(pickle.dumps(EagerResult("a", 4, "SUCCESS", app=app)))
    assert (again.get(), again.state) == (4, "SUCCESS")
    assert pickle.loads(pickle.dumps(beatd.crontab(0, 7, app=app))) == beatd.crontab(0, 7)


def test_groups_with_different_parents_differ(app):
    members = [app.AsyncResult("a")]
    group = app.GroupResult("g", members, parent=app.AsyncResult("p"))
    assert group != app.GroupResult("g", members)
    assert group == app.GroupResult("g", members, parent=app.AsyncResult("p"))


def test_an_eager_result_can_be_revoked(app):
    handle = EagerResult("a", 4, "SUCCESS", app=app)
    handle.revoke()
    assert handle.state == "REVOKED"
    with pytest.raises(exceptions.TaskRevokedError, match="revoked"):
        handle.get()


def test_an_eager_task_that_is_ignored_has_no_result(app):
    @app.task(name="quiet")
    def quiet():
        raise exceptions.Ignore

    done = quiet.apply()
    assert (done.state, done.get()) == ("IGNORED", None)


def test_a_handle_needs_an_id(app):
    with pytest.raises(ValueError, match="needs an id"):
        AsyncResult(None, app=app)


def test_compositions_are_shown_as_celery_shows_them(app):
    a, b = (app.signature(f"shop.tasks.{name}", args=(1,)) for name in "ab")
    assert repr(a | b) == "shop.tasks.a(1) | b(1)"
    assert repr(beatd.group(a, b)) == "group([shop.tasks.a(1), b(1)])"
    assert repr(beatd.group()) == "group(<empty>)"
    assert repr(beatd.chord([a], b)) == "%shop.tasks.b([a(1)], 1)"
    assert repr(beatd.chord([a], b | a)) == "%(shop.tasks.b([a(1)], 1) | a(1))"
    assert "without body" in repr(beatd.chord([a]))
    assert repr(a | app.signature("webshop.tasks.c")) == "shop.tasks.a(1) | webshop.tasks.c()"


def test_a_step_that_is_no_signature_is_refused(app):
    with pytest.raises(TypeError, match="expected a signature or a task, got 5"):
        beatd.chain(app.signature("a"), 5)


def test_settings_have_their_names_of_celery_3():
    app = App("x", BROKER_URL="redis://h/3", set_as_current=False)
    app.conf.update(CELERY_ALWAYS_EAGER=True, CELERYD_CONCURRENCY=3, SECRET_KEY="a", TIMEZONE="Asia/Baku")
    app.conf["CELERY_RESULT_SERIALIZER"] = "yaml"
    assert (app.conf.broker_url, app.conf.task_always_eager, app.conf.worker_concurrency) == ("redis://h/3", True, 3)
    assert (app.conf.CELERY_TASK_SERIALIZER, app.conf.result_serializer) == ("json", "yaml")
    assert (app.conf.timezone, app.conf.SECRET_KEY) == (None, "a"), "settings of the web application are its own"
    app.conf.task_always_eager = False
    assert app.conf.task_always_eager is False


def test_hooks_run_before_the_signals_of_the_same_event(app):
    told = []

    class Telling(beatd.Task):
        def on_success(self, *_):
            told.append("on_success")

        def after_return(self, *_):
            told.append("after_return")

    def note(sender, **_):
        told.append("task_success")

    signals.task_success.connect(note)
    try:
        app.task(name="add", base=Telling)(lambda: 1).apply()
    finally:
        signals.task_success.disconnect(note)
    assert told == ["on_success", "task_success", "after_return"]


def test_an_eager_task_has_ended_whatever_became_of_it(app):
    for reason in (exceptions.Ignore, exceptions.Reject("no"), exceptions.Retry("later")):

        @app.task(name=f"quiet-{type(reason).__name__}")
        def quiet(reason=reason):
            raise reason

        done = quiet.apply()
        assert (done.ready(), done.get()) == (True, None)
        assert [node for _, node in done.iterdeps()] == [done]


def test_an_eager_run_has_a_host(app):
    assert app.task(name="t", bind=True)(lambda self: self.request.hostname).apply().get()
