"""From a job to a report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import signal
import tracemalloc

import kombu.serialization
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd import App, Task, signals
from beatd.app.context import outlet
from beatd.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from beatd.message import json_codec
from beatd.message.protocol import TaskMessage, build, envelope
from beatd.worker.builtin.command import command
from beatd.worker.execution.executor import EncodeError, Executor
from beatd.worker.messages import LOST, MEANWHILE, NO_JOB, Job, JobReport
from beatd.worker.pools.base import PrefetchWindow
from beatd.worker.pools.prefork_child import Batch, Frames, add_frame, decode_reports


@pytest.fixture
def app() -> App:
    return App("x")


def run(app, task, *args, embed=None, **fields):
    app.finalize()
    message = build(task.name, "the-id", args, embed=embed, **fields)
    return Executor(app, "me@here")(Job(1, envelope(message, queue="q"), "q"), print)


def test_success(app, caplog):
    caplog.set_level(logging.INFO)

    @app.task(name="t")
    def add(x, y):
        return x + y

    report = run(app, add, 2, 3)
    assert (report.tag, report.state) == (1, "SUCCESS")
    stored = json.loads(report.document)
    assert stored.pop("date_done")
    assert stored == {"status": "SUCCESS", "result": 5, "traceback": None, "children": [], "task_id": "the-id"}
    assert re.fullmatch(r"Task t\[the-id\] succeeded in \d+\.\d{6}s: 5", caplog.records[0].getMessage())


def test_failure_has_the_users_traceback_only(app, caplog):
    @app.task(name="t")
    def boom():
        raise ValueError("boom", 7)

    stored = json.loads(run(app, boom).document)
    assert stored["status"] == "FAILURE"
    assert stored["result"] == {"exc_type": "ValueError", "exc_message": ["boom", 7], "exc_module": "builtins"}
    assert "in boom" in stored["traceback"]
    assert "beatd/app" not in stored["traceback"]
    assert "beatd/worker" not in stored["traceback"]
    assert "Task t[the-id] raised unexpected: ValueError('boom', 7)" in caplog.text
    assert caplog.records[0].getMessage().splitlines()[-1] == "ValueError: ('boom', 7)"
    assert not caplog.records[0].getMessage().endswith("\n"), "a log has no empty lines"


def test_the_failure_of_a_builtin_task_is_one_line(app, caplog):
    task = app.task(name="t", typing=False)(command)
    stored = json.loads(run(app, task, "/bin/false").document)
    assert stored["status"] == "FAILURE"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "Task t[the-id] raised unexpected: CommandFailed('/bin/false ended with exit code 1. It wrote nothing.')"
    ]


def test_expected_errors_are_logged_without_traceback(app, caplog):
    caplog.set_level(logging.INFO)

    @app.task(name="t", throws=(KeyError,))
    def miss():
        raise KeyError("x")

    assert run(app, miss).state == "FAILURE"
    assert caplog.messages == ["Task t[the-id] raised expected: KeyError('x')"]
    assert caplog.records[0].levelno == logging.INFO


def test_a_result_that_json_cannot_carry_is_a_failure(app, caplog):
    @app.task(name="t")
    def strange():
        return object()

    stored = json.loads(run(app, strange).document)
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "EncodeError")
    assert stored["result"]["exc_module"] == "kombu.exceptions"
    assert "Task t[the-id] raised unexpected: EncodeError('the result cannot be stored: JSON cannot" in caplog.text


@pytest.mark.parametrize("strange", [object(), {"k": object()}, "x" * 200])
def test_hooks_and_signals_are_told_that_a_result_cannot_be_stored(app, strange):
    told = []

    class Told(Task):
        def on_success(self, *_):
            told.append("success")

        def on_failure(self, exc, *_):
            told.append(exc)

    def fails(sender, exception, **_):
        told.append(exception)

    app.conf.result_max_bytes = 150
    task = app.task(name="t", base=Told)(lambda: strange)
    signals.task_failure.connect(fails)
    try:
        report = run(app, task)
    finally:
        signals.task_failure.disconnect(fails)
    first, second = told
    assert first is second
    assert isinstance(first, EncodeError)
    assert json.loads(report.document)["result"]["exc_message"] == list(first.args)
    assert report.state == "FAILURE"


def test_no_header_of_a_message_is_a_field_of_the_attempt(app):
    @app.task(name="t", bind=True)
    def given(self):
        return self.request.headers, self.request.override_max_retries

    app.finalize()
    headers = {"encoded": [0, "text"], "override_max_retries": 9, "stored_state": True}
    raw = envelope(build("t", "the-id", (), headers=headers), queue="q")
    report = Executor(app, "me@here")(Job(1, raw, "q", document=True), print)
    assert json.loads(report.document)["result"] == [headers, None]


@pytest.mark.parametrize(
    ("own", "message", "stored"),
    [(False, None, True), (True, None, False), (True, False, True), (False, True, False)],
)
def test_the_message_decides_before_the_task_whether_a_result_is_stored(app, own, message, stored):
    @app.task(name="t", ignore_result=own)
    def one():
        return 1

    report = run(app, one, ignore_result=message)
    assert (report.document is not None) is stored


def test_errors_may_be_stored_all_the_same(app):
    @app.task(name="t", ignore_result=True, store_errors_even_if_ignored=True)
    def boom():
        raise ValueError

    assert run(app, boom).document is not None


def test_ignore_stores_nothing(app):
    @app.task(name="t")
    def skip():
        raise Ignore

    report = run(app, skip)
    assert (report.state, report.document) == ("IGNORED", None)


def test_a_retry_is_left_to_the_worker_which_stores_its_state_before(app):
    @app.task(name="t", bind=True)
    def again(self, x):
        raise self.retry(countdown=0, exc=KeyError(x))

    report = run(app, again, 7)  # publishing it here would fail: there is no broker
    assert (report.state, json.loads(report.document)["status"]) == ("RETRY", "RETRY")
    (message,) = report.follow_ups
    headers = message.unpack().message.headers
    assert (headers["id"], headers["task"], headers["retries"]) == ("the-id", "t", 1)


def retried(app, to=None, **fields):
    """The message of a retry, and its route, for a message that came ``to`` (exchange, routing key)."""

    @app.task(name="t", bind=True)
    def again(self, changes):
        raise self.retry(countdown=0, **changes)

    app.finalize()
    message = build("t", "the-id", (fields.pop("changes", {}),), reply_to="client", **fields)
    raw = envelope(message, queue=to[1], exchange=to[0]) if to else envelope(message, queue="q")
    (follow_up,) = Executor(app, "me@here")(Job(1, raw, "q"), print).follow_ups
    return follow_up.unpack()


@pytest.mark.parametrize(
    ("to", "changes", "route"),
    [
        (None, {}, ("q", "", None)),
        (("events", "report.daily"), {}, ("report.daily", "events", "report.daily")),
        (("events", "report.daily"), {"queue": "slow"}, ("slow", "", None)),
        (None, {"exchange": "events", "routing_key": "report.daily"}, ("report.daily", "events", "report.daily")),
    ],
)
def test_a_retry_goes_where_its_message_came_from_or_is_told_to_go(app, to, changes, route):
    assert retried(app, to, changes=changes).route[:3] == route


def test_a_retry_keeps_what_the_sender_has_written_on_the_message(app):
    stamps = {"stamped_headers": ["tenant"], "stamps": {"tenant": 7}}
    message = retried(app, origin="gen1@client", headers={"mine": 1}, **stamps).message
    kept = {name: message.headers[name] for name in ("origin", "mine", "stamped_headers", "stamps")}
    assert kept == {"origin": "gen1@client", "mine": 1, **stamps}
    assert message.properties["reply_to"] == "client"


@pytest.mark.parametrize(("requeue", "stored"), [(True, False), (False, True)])
def test_reject_gives_the_message_back_or_fails(app, requeue, stored):
    @app.task(name="t", acks_late=True)
    def refuse():
        raise Reject("not today", requeue=requeue)

    report = run(app, refuse)
    assert report.requeue is requeue
    assert (report.document is not None) is stored


def test_an_acknowledged_message_cannot_be_requeued(app):
    @app.task(name="t")
    def refuse():
        raise Reject("not yet", requeue=True)

    report = run(app, refuse)
    assert not report.requeue
    stored = json.loads(report.document)
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "Reject")
    assert "without acks_late" in stored["result"]["exc_message"][0]


def test_a_task_says_how_much_of_its_result_monitors_show(app):
    @app.task(name="t", resultrepr_maxsize=8)
    def long():
        return "x" * 100

    app.finalize()
    job = Job(1, envelope(build("t", "the-id"), queue="q"), "q", describe=True)
    assert Executor(app, "me@here")(job, print).outcome_repr == "'xxxx..."


def test_the_request_knows_its_message(app):
    @app.task(name="t", bind=True)
    def who(self):
        request = self.request
        return [request.retries, request.hostname, request.delivery_info["routing_key"], request.headers]

    stored = json.loads(run(app, who, retries=2, headers={"tenant": "a"}).document)
    assert stored["result"] == [2, "me@here", "q", {"tenant": "a"}]


BODIES = {
    "two elements": [[], {}],
    "text": "x",
    "null": None,
    "args no list": [{}, {}, {}],
    "kwargs no dict": [[], [], {}],
    "embed no dict": [[], {}, []],
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_not_one_is_reported_as_malformed(app, body):
    app.task(name="t")(lambda: None)
    app.finalize()
    headers = build("t", "the-id").headers
    message = TaskMessage(headers=headers, body=json_codec.dumps(body))
    report = Executor(app, "me")(Job(1, envelope(message, queue="q"), "q"), print)
    assert (report.state, report.document) == ("MALFORMED", None)
    assert report.text


def test_bytes_that_are_no_base64_are_malformed(app):
    app.task(name="t")(lambda: None)
    app.finalize()
    outer = json.loads(envelope(build("t", "the-id"), queue="q"))
    outer["body"] = "%%%"
    assert Executor(app, "me")(Job(1, json.dumps(outer).encode(), "q"), print).state == "MALFORMED"


@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(1, 64))
def test_frames_come_out_as_they_went_in_however_they_are_cut(payloads, size):
    stream, frames = bytearray(), Frames()
    for payload in payloads:
        add_frame(stream, [JobReport(1, "SUCCESS", document=payload)])
    pieces = [bytes(stream[start : start + size]) for start in range(0, len(stream), size)]
    found = [payload for piece in pieces for payload in frames.feed(piece)]
    assert [decode_reports(payload)[0].document for payload in found] == payloads


def test_a_large_frame_is_not_copied_on_its_way():
    size = 10_000_000
    job, stream, frames = Job(1, bytes(size), "q"), bytearray(), Frames()
    tracemalloc.start()
    try:
        add_frame(stream, Batch(1, [job]))
        assert tracemalloc.get_traced_memory()[1] < 2 * size
        data = bytes(stream)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert [len(payload) for payload in frames.feed(data)] == [len(stream) - 4]
        assert tracemalloc.get_traced_memory()[1] < before + size / 10
    finally:
        tracemalloc.stop()


def test_the_window_is_deep_for_short_tasks_and_one_for_long_ones():
    window = PrefetchWindow()
    assert window.depth == 1
    for _ in range(200):
        window.observe(0.0001)
    assert window.depth == 64
    window.observe(1.0)
    assert window.depth == 1


def test_a_task_in_a_thread_of_its_worker_writes_through_the_worker(app):
    @app.task(name="t", bind=True, track_started=True)
    def steps(self):
        self.update_state(state="PROGRESS", meta={"done": 1})
        return "over"

    app.finalize()
    executor, reports = Executor(app, "me@here"), []
    executor.say = reports.append
    report = executor(Job(1, envelope(build("t", "the-id", ()), queue="q"), "q"), print)
    assert [each.state for each in reports] == [MEANWHILE] * 2
    states = [json.loads(stored.document)["status"] for each in reports for stored in each.results]
    assert states == ["STARTED", "PROGRESS"]
    assert report.state == "SUCCESS"
    assert outlet.get() is None


def test_a_coroutine_leaves_its_messages_to_the_worker(app):
    @app.task(name="t", bind=True)
    async def sends(self):
        sent = app.send_task("other", (1,), task_id="child")
        with app.publishing_together():
            app.send_task("other", (2,), task_id="second")
        return sent.id

    app.finalize()
    executor, reports = Executor(app, "me@here"), []
    executor.say = reports.append
    attempt = executor.prepare(Job(1, envelope(build("t", "the-id", ()), queue="q"), "q"))
    report = asyncio.run(executor.run_async(attempt))
    messages = [message.unpack().message for each in reports for message in each.follow_ups]
    assert [message.id for message in messages] == ["child", "second"]
    assert messages[0].headers["parent_id"] == "the-id"
    assert json.loads(report.document)["children"] == [[["child", None], None], [["second", None], None]]


class Opaque:
    """A value that a pickle carries and JSON does not."""

    def __repr__(self):
        return "<opaque>"


def pickled(task, *args, **headers):
    content_type, encoding, body = kombu.serialization.dumps((args, {}, {}), serializer="pickle")
    message = build(task.name, "the-id", (), headers=headers)
    return msgspec.structs.replace(message, body=body, content_type=content_type, content_encoding=encoding)


@pytest.fixture
def extended(app):
    app.conf.update(result_extended=True, accept_content=["json", "pickle"])
    return app


@pytest.mark.parametrize("fails", [False, True])
def test_extended_results_carry_arguments_that_json_cannot_as_text(extended, fails):
    @extended.task(name="t", track_started=True)
    def takes(value):
        if fails:
            raise ValueError("no")
        return 7

    extended.finalize()
    executor, reports = Executor(extended, "me@here"), []
    executor.say = reports.append
    report = executor(Job(1, envelope(pickled(takes, Opaque()), queue="q"), "q"), print)
    stored = json.loads(report.document)
    assert (stored["status"], stored["args"]) == ("FAILURE" if fails else "SUCCESS", ["<opaque>"])
    (started,) = [json.loads(each.document) for one in reports for each in one.results]
    assert (started["status"], started["args"]) == ("STARTED", ["<opaque>"])


def test_a_result_that_json_cannot_carry_beside_such_arguments_is_a_failure(extended):
    @extended.task(name="t")
    def returns(value):
        return value

    extended.finalize()
    report = Executor(extended, "me@here")(Job(1, envelope(pickled(returns, Opaque()), queue="q"), "q"), print)
    stored = json.loads(report.document)
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "EncodeError")


@pytest.mark.parametrize("stamps", ["text", [1], 7])
def test_stamps_that_are_none_hurt_no_extended_result(extended, stamps):
    @extended.task(name="t", track_started=True)
    def add(x, y):
        return x + y

    assert run(extended, add, 2, 3, headers={"stamps": stamps}).state == "SUCCESS"


def test_a_child_that_is_no_result_is_left_out(app):
    @app.task(name="t", bind=True)
    def trails(self):
        self.add_trail("text")

    assert json.loads(run(app, trails).document)["children"] == []


def test_an_end_that_cannot_be_reported_is_that_of_a_lost_process(app, monkeypatch):
    @app.task(name="t")
    def add(x, y):
        return x + y

    app.finalize()
    executor = Executor(app, "me@here")

    def broken(*_args):
        raise RuntimeError("a defect")

    monkeypatch.setattr(executor._documents, "of", broken)
    report = executor(Job(1, envelope(build("t", "the-id", (1, 2)), queue="q"), "q"), print)
    assert (report.tag, report.state) == (1, LOST)
    assert "a defect" in report.text


def test_an_end_that_cannot_be_reported_is_counted_in_its_chord_and_ends_its_chain(app):
    defects = [RuntimeError("a defect")]

    def tidy():
        if defects:
            raise defects.pop()

    app.task(lambda: 7, name="t")
    app.finalize()
    executor = Executor(app, "me@here")
    executor.tidy = tidy
    following = {"task": "next", "options": {"task_id": "next-id"}}
    message = build("t", "the-id", embed={"chord": {"task": "body"}, "chain": [following]}, group="g", group_index=0)
    report = executor(Job(1, envelope(message, queue="q"), "q"), print)
    assert report.state == "FAILURE"
    assert [part.task_id for part in report.parts] == ["the-id"]
    assert [stored.task_id for stored in report.results] == ["next-id"]


def test_what_a_coroutine_leaves_running_can_send_messages_when_its_job_is_over(app):
    later = []

    @app.task(name="t")
    async def leaves():
        async def send():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            app.send_task("other", (1,), task_id="late")

        later.append(asyncio.ensure_future(send()))

    app.finalize()
    executor, reports = Executor(app, "me@here"), []
    executor.say = reports.append
    attempt = executor.prepare(Job(1, envelope(build("t", "the-id", ()), queue="q"), "q"))

    async def run_all():
        await executor.run_async(attempt)
        await asyncio.gather(*later)

    asyncio.run(run_all())
    (report,) = reports
    assert (report.tag, report.state) == (NO_JOB, MEANWHILE)
    assert [message.unpack().message.id for message in report.follow_ups] == ["late"]


@pytest.mark.parametrize("caught", [True, False])
def test_an_exceeded_soft_limit_is_logged_also_if_the_task_goes_on(app, caplog, caught):
    @app.task(name="t")
    def slow():
        with contextlib.suppress(SoftTimeLimitExceeded if caught else ()):
            signal.pause()
        return "done"

    app.finalize()
    raw = envelope(build(slow.name, "the-id", ()), queue="q")
    report = Executor(app, "me@here")(Job(1, raw, "q", soft_limit=0.01), print)
    assert report.state == ("SUCCESS" if caught else "FAILURE")
    assert "Soft time limit (0.01s) exceeded for t[the-id]" in caplog.messages
