"""Tasks: decorator, names, calls, retries, argument checks."""

from __future__ import annotations

import copy
import functools
from unittest import mock

import celery
import pytest

from beatd import App, Task, current_app, shared_task
from beatd.app.context import Context, running
from beatd.exceptions import Ignore, MaxRetriesExceededError, NotRegistered, Reject, Retry


@pytest.fixture
def app() -> App:
    return App("main")


def test_a_bare_decorator_makes_a_task_that_is_still_a_function(app):
    @app.task
    def add(x, y):
        """Adds."""
        return x + y

    assert add(2, 3) == 5
    assert add.name == f"{__name__}.add"
    assert add.__doc__ == "Adds."
    assert app.tasks[add.name] is add


def test_a_name_may_be_given(app):
    @app.task(name="sum")
    def add(x, y):
        return x + y

    assert add.name == "sum"


def test_a_task_of_the_running_script_is_named_after_main(app):
    assert app.gen_task_name("add", "__main__") == "main.add"
    assert app.gen_task_name("add", "tasks") == "tasks.add"


def test_other_decorators_may_be_below_it(app):
    def twice(fun):
        @functools.wraps(fun)
        def wrapper(*args):
            return 2 * fun(*args)

        return wrapper

    @app.task
    @twice
    def one():
        return 1

    assert one() == 2
    assert one.name.endswith(".one")


def test_a_bound_task_gets_itself_and_its_request(app):
    @app.task(bind=True)
    def who(self, x):
        return self.name, self.request.id, self.request.retries, x

    assert who.apply((7,), task_id="an-id").get() == (who.name, "an-id", 0, 7)


def test_a_request_outside_a_run_is_empty(app):
    @app.task
    def nothing():
        return None

    assert nothing.request.id is None
    assert nothing.request.called_directly


def test_headers_of_the_request_are_those_that_the_sender_added():
    fields = {
        "id": "1",
        "task": "t",
        "retries": 0,
        "tenant": "a",
        "compression": "x",
        "timelimit": [9, 5],
        "group": "g",
    }
    context = Context(fields)
    assert context.headers == {"tenant": "a"}
    assert (context.time_limit, context.soft_time_limit, context.taskset) == (9, 5, "g")


def test_arguments_are_checked_where_the_task_is_called(app):
    @app.task
    def add(x, y):
        return x + y

    with pytest.raises(TypeError, match=r"add.*missing a required argument: 'y'"):
        add.delay(1)


def test_misspelt_options_are_refused(app):
    @app.task
    def nothing():
        return None

    with pytest.raises(TypeError, match="contdown"):
        nothing.apply_async(contdown=3)


def test_options_become_attributes_and_raises_means_throws(app):
    @app.task(raises=(KeyError,), rate_limit="10/m", colour="red")
    def nothing():
        return None

    assert nothing.throws == (KeyError,)
    assert nothing.rate_limit == "10/m"
    assert nothing.colour == "red"


def test_options_come_from_the_configuration_unless_the_task_has_its_own(app):
    app.conf.task_acks_late = True
    app.conf.task_time_limit = 30

    @app.task
    def late():
        return None

    @app.task(acks_late=False, time_limit=5)
    def early():
        return None

    app.finalize()
    assert (late.acks_late, late.time_limit) == (True, 30)
    assert (early.acks_late, early.time_limit) == (False, 5)


def test_a_retry_runs_again_with_one_more_retry(app):
    @app.task(bind=True, max_retries=3)
    def flaky(self, wanted):
        if self.request.retries < wanted:
            raise self.retry(countdown=60)
        return self.request.retries

    assert flaky.apply((2,)).get() == 2


def test_a_retry_may_change_the_arguments(app):
    @app.task(bind=True)
    def shrink(self, n, seen=0):
        if n:
            raise self.retry((n - 1,), {"seen": seen + 1})
        return seen

    assert shrink.apply((2,)).get() == 2


def test_after_the_last_retry_the_cause_is_raised(app):
    @app.task(bind=True, max_retries=1)
    def hopeless(self):
        raise self.retry(exc=KeyError("first cause"))

    result = hopeless.apply()
    assert result.state == "FAILURE"
    assert isinstance(result.result, KeyError)


def test_after_the_last_retry_without_a_cause_max_retries_exceeded_is_raised(app):
    @app.task(bind=True, max_retries=0)
    def hopeless(self):
        self.retry()

    with pytest.raises(MaxRetriesExceededError, match="Can't retry"):
        hopeless.apply().get()


def test_autoretry_retries_for_the_named_errors_only(app):
    attempts = []

    @app.task(bind=True, autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,), max_retries=2)
    def flaky(self, error):
        attempts.append(self.request.retries)
        raise error

    assert isinstance(flaky.apply((ConnectionError("away"),)).result, ConnectionError)
    assert attempts == [0, 1, 2]
    attempts.clear()
    assert isinstance(flaky.apply((FileNotFoundError("gone"),)).result, FileNotFoundError)
    assert attempts == [0]


@pytest.mark.parametrize(("backoff", "first"), [(True, 1), (0.5, 1), (1.9, 1), (3, 3), (False, None)])
def test_a_backoff_counts_from_one_second(app, backoff, first):
    asked = []

    @app.task(bind=True, autoretry_for=(OSError,), retry_backoff=backoff, retry_jitter=False, max_retries=1)
    def flaky(self):
        raise OSError

    retry = flaky.retry
    flaky.retry = lambda **options: asked.append(options.get("countdown")) or retry(**options)
    flaky.apply()
    assert asked[0] == first


def test_a_retry_that_is_raised_by_hand_has_no_next_attempt(app):
    @app.task
    def flaky():
        raise Retry("later")

    assert flaky.apply().state == "RETRY"


def test_a_retry_of_a_function_called_directly_raises_the_error_itself(app):
    @app.task(bind=True)
    def flaky(self):
        raise self.retry(exc=ValueError("plain"))

    with pytest.raises(ValueError, match="plain"):
        flaky()


def test_retries_end_as_celerys_do_in_the_handler_of_an_error(app):
    """A task that catches the end of its retries: the error that it handles is no ``exc``."""
    theirs = celery.Celery("x", set_as_current=False)
    theirs.conf.task_eager_propagates = False

    def gives_up(self):
        try:
            {}["away"]
        except KeyError:
            try:
                self.retry(countdown=0)
            except self.MaxRetriesExceededError as error:
                return "gave up", list(error.task_args), self.request.retries

    kinds = [each.task(name="t", bind=True, max_retries=1, shared=False)(gives_up) for each in (app, theirs)]
    assert [task.apply().get() for task in kinds] == [("gave up", [], 1)] * 2
    for task, predicate in zip(kinds, (Retry, celery.exceptions.Retry), strict=True):
        with pytest.raises(predicate, match="Task can be retried"):
            task()


def test_a_limit_of_the_tasks_own_counts_for_autoretry_as_in_celery(app):
    theirs, attempts = celery.Celery("x", set_as_current=False), []

    def flaky(self):
        attempts.append(self.request.retries)
        raise self.retry(exc=OSError("away"), countdown=0, max_retries=1)

    for each in (app, theirs):
        task = each.task(name="t", bind=True, autoretry_for=(OSError,), max_retries=5, shared=False)(flaky)
        assert isinstance(task.apply().result, OSError)
    assert attempts == [0, 1] * 2


def test_an_eager_retry_has_the_options_that_it_was_given(app):
    @app.task(bind=True)
    def flaky(self):
        if self.request.retries == 0:
            raise self.retry(countdown=0, headers={"tenant": "a"})
        return self.request.headers

    assert flaky.apply(headers={"tenant": "b"}).get() == {"tenant": "a"}


def test_a_retry_may_name_its_reason_as_text():
    ours, theirs = (kind(exc="the broker is away", when=3) for kind in (Retry, celery.exceptions.Retry))
    assert str(ours) == str(theirs) == "Retry in 3s: the broker is away"
    assert (ours.exc, ours.excs) == (theirs.exc, theirs.excs) == (None, "the broker is away")


def test_hooks_are_called_around_a_run():
    app, calls = App("hooks"), []

    class Told(Task):
        def before_start(self, task_id, args, kwargs):
            calls.append(("before_start", task_id))

        def on_success(self, retval, task_id, args, kwargs):
            calls.append(("on_success", retval))

        def on_failure(self, exc, task_id, args, kwargs, einfo):
            calls.append(("on_failure", repr(exc), "ZeroDivisionError" in str(einfo)))
            assert einfo.exc_info == (type(exc), exc, einfo.tb)
            assert einfo.tb is exc.__traceback__ is not None

        def after_return(self, status, retval, task_id, args, kwargs, einfo):
            calls.append(("after_return", status))

    @app.task(base=Told)
    def divide(x, y):
        return x / y

    divide.apply((4, 2), task_id="a")
    divide.apply((1, 0), task_id="b")
    assert calls == [
        ("before_start", "a"),
        ("on_success", 2.0),
        ("after_return", "SUCCESS"),
        ("before_start", "b"),
        ("on_failure", "ZeroDivisionError('division by zero')", True),
        ("after_return", "FAILURE"),
    ]


def test_a_hook_that_raises_is_logged_and_the_outcome_stays(app, caplog):
    class Clumsy(Task):
        def on_success(self, retval, task_id, args, kwargs):
            raise RuntimeError("oops")

    @app.task(base=Clumsy)
    def one():
        return 1

    assert one.apply().get() == 1
    assert [record.event for record in caplog.records] == ["task_hook_failed"]


def test_a_base_class_may_wrap_the_call(app):
    class Loud(Task):
        def __call__(self, *args, **kwargs):
            return f"{self.run(*args, **kwargs)}!"

    @app.task(base=Loud)
    def greet(name):
        return f"hello {name}"

    assert greet.apply(("world",)).get() == "hello world!"


def test_classes_of_celerys_tasks_are_refused_by_name(app):
    class QueueOnce(celery.Task):
        abstract = True

    with pytest.raises(
        TypeError,
        match=r"print: base: .*QueueOnce cannot be the class of a task: it does not inherit from beatd\.Task",
    ):
        app.task(base=QueueOnce)(print)
    with pytest.raises(TypeError, match="QueueOnce"):
        app.register_task(QueueOnce)
    with pytest.raises(TypeError, match="QueueOnce"):
        App(task_cls=QueueOnce, set_as_current=False).Task  # noqa: B018


def test_what_celerys_app_has_and_this_one_has_not_is_said_with_advice(app):
    with pytest.raises(AttributeError, match=r"no 'steps': .*use the signals worker_init"):
        app.steps["worker"].add(print)
    with pytest.raises(AttributeError, match="has no 'stps'"):
        app.stps  # noqa: B018
    assert not hasattr(app, "user_options")


@pytest.mark.parametrize(("error", "state"), [(Ignore(), "IGNORED"), (Reject("no"), "REJECTED")])
def test_ignore_and_reject_are_outcomes_of_their_own(app, error, state):
    @app.task
    def refuse():
        raise error

    assert refuse.apply().state == state


def test_sys_exit_ends_the_task_and_nothing_else(app):
    @app.task
    def leave():
        raise SystemExit(3)

    assert leave.apply().state == "FAILURE"


def test_coroutines_are_run(app):
    @app.task
    async def soon(x):
        return x * 2

    assert soon.apply((4,)).get() == 8


def test_an_unknown_task_is_an_error_with_its_name(app):
    with pytest.raises(NotRegistered, match="nobody"):
        app.tasks["nobody"]


def test_near_names_are_found_by_spelling_and_by_function(app):
    app.task(name="proj.tasks.add")(lambda: None)
    app.task(name="other.multiply")(lambda: None)
    assert app.tasks.near("tasks.add")[0] == "proj.tasks.add"
    assert app.tasks.near("other.multply") == ["other.multiply"]


def test_a_shared_task_can_be_used_in_place_of_the_task_itself():
    @shared_task(name="shared.stands_in")
    def stands_in(x, y=2):
        """Add."""
        return x + y

    app = App("x")
    task = app.tasks["shared.stands_in"]
    assert isinstance(stands_in, Task)
    assert stands_in == task
    assert task == stands_in
    assert {stands_in: 1}[task] == 1
    assert copy.copy(stands_in) is task
    assert (stands_in.__doc__, stands_in.__module__, "delay" in dir(stands_in)) == ("Add.", __name__, True)
    assert current_app == app
    for name in ("delay", "apply_async", "run"):
        with mock.patch.object(stands_in, name, return_value="patched") as patched:
            assert getattr(task, name)(1) == "patched"
        patched.assert_called_once_with(1)
        assert name not in vars(task)
    assert stands_in(1) == 3


def test_a_shared_task_belongs_to_the_current_app():
    @shared_task(name="shared.add")
    def add(x, y):
        return x + y

    first = App("first")
    first.finalize()
    assert first.tasks["shared.add"].apply((1, 2)).get() == 3
    second = App("second")
    assert add.app is second
    assert add(1, 2) == 3


def test_a_task_inside_a_task_has_a_request_of_its_own(app):
    @app.task(bind=True)
    def inner(self):
        return self.request.called_directly

    @app.task(bind=True)
    def outer(self):
        return inner(), self.request.id

    assert outer.apply(task_id="outer").get() == (True, "outer")


def test_waiting_for_a_result_inside_a_task_is_refused(app):
    @app.task
    def nothing():
        return None

    with running(nothing, Context(id="1", called_directly=False)), pytest.raises(RuntimeError, match="deadlock"):
        app.AsyncResult("2").get()


def test_task_always_eager_runs_the_task_in_this_process(app):
    app.conf.task_always_eager = True

    @app.task
    def add(x, y):
        return x + y

    assert add.delay(1, 2).get() == 3


def test_links_run_after_success(app):
    seen = []

    @app.task
    def note(x):
        seen.append(x)

    @app.task
    def add(x, y):
        return x + y

    app.conf.task_always_eager = True
    add.apply((1, 2), link=note.s())
    assert seen == [3]
