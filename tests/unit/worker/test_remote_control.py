"""Remote control without a broker: what is answered, what is refused, and what a lost connection means."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from beatd import App
from beatd.broker.bus import BusMessage, LamportClock, Names
from beatd.broker.bus.base import check_reply_address
from beatd.exceptions import BrokerError, MessageError, Reject, StoreUnavailable
from beatd.message.protocol import build, envelope
from beatd.redaction import censored
from beatd.states import REJECTED
from beatd.store.keys import Keys
from beatd.store.worker_state import KEPT_MS, LIMIT, RevokedStore
from beatd.worker.admission.rate_limits import RateLimits
from beatd.worker.admission.revoked import Revoked
from beatd.worker.control.node import Node
from beatd.worker.control.panel import COMMANDS, WorkerHandles, WorkerView
from beatd.worker.control.remote_control import RemoteControl
from beatd.worker.control.revoked_states import RevokedStates
from beatd.worker.effects import Ended, Received
from beatd.worker.events import BATCH, BUFFERED, EventStream, TaskEvents
from beatd.worker.messages import Delivery, JobReport, headers_of
from beatd.worker.request import Request
from beatd.worker.settings import WorkerSettings
from tests.fakes import FakeClock

NODE = "celery@here"
TO = {"exchange": "reply.celery.pidbox", "routing_key": "asker"}


class Bus:
    """A bus that remembers what it was given, and is ``away`` or ``defective`` when told to be."""

    place = "nowhere"
    listening = True

    def __init__(self) -> None:
        self.away = False
        self.defective = False
        self.attempts = 0
        self.inbox: list[BusMessage] = []
        self.answers: list[tuple[Any, str]] = []
        self.emitted: list[tuple[str, Any]] = []

    def _check(self) -> None:
        if self.away:
            raise BrokerError("away")

    def connect(self, *, node: str | None = None, oid: str | None = None) -> None:
        self.attempts += 1
        self._check()

    def files(self) -> list[int]:
        return []

    def requests(self, at_most: int) -> list[BusMessage]:
        self._check()
        if self.defective:
            raise ZeroDivisionError
        taken, self.inbox[:at_most] = self.inbox[:at_most], []
        return taken

    def replies(self, at_most: int) -> list[BusMessage]:
        return []

    def broadcast(self, letter: BusMessage) -> None:
        self._check()

    def reply(self, letter: BusMessage, exchange: str, routing_key: str) -> None:
        check_reply_address(exchange, routing_key)
        from beatd.message import json_codec

        self.answers.append((json_codec.loads(json_codec.dumps(letter.body))[NODE], letter.headers["ticket"]))

    def emit(self, routing_key: str, letter: BusMessage) -> None:
        self._check()
        self.emitted.append((routing_key, letter.body))

    def tend(self) -> None:
        self._check()

    def close(self) -> None:
        """Nothing."""


def tools(**more: Any) -> WorkerHandles:
    pool = SimpleNamespace(
        size=1, running_since=dict, pids=lambda: [1], pid_of=lambda _: None, withdraw=lambda _: False, room=lambda: 1
    )
    consumer = SimpleNamespace(queues=lambda: ["celery"], waiting=lambda _: [])
    given: dict[str, Any] = {
        "pool": pool,
        "consumer": consumer,
        "requests": {},
        "stop": lambda: None,
        "drop": lambda _: None,
        "condemn": lambda *_: None,
        "held": list,
        "rates": RateLimits({}, 0.0),
        "autoscaler": None,
    }
    return WorkerHandles(**(given | more))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000, waits=False)


@pytest.fixture
def app(clock: FakeClock) -> App:
    app = App("x", broker="redis://:secret@h/0", clock=clock, set_as_current=False)
    app.task(name="tasks.add")(lambda x, y: x + y)
    app.finalize()
    return app


@pytest.fixture
def settings() -> WorkerSettings:
    return WorkerSettings(hostname=NODE, queues=("celery",), pool="solo", concurrency=1)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def view(app: App, settings: WorkerSettings, clock: FakeClock) -> WorkerView:
    lamport = LamportClock()
    return WorkerView(
        app=app,
        settings=settings,
        tools=tools(),
        lamport=lamport,
        revoked=Revoked(),
        states=RevokedStates(app),
        events=TaskEvents(EventStream(NODE, clock, lamport), on=False),
        totals=Counter(),
        started=0.0,
        remember=lambda _: None,
        beat=lambda: None,
        url="redis://:secret@h/0",
    )


@pytest.fixture
def node(view: WorkerView) -> Node:
    return Node(view, view.lamport)


def order(method: Any, arguments: Any = None, **more: Any) -> BusMessage:
    return BusMessage({"method": method, "arguments": arguments, "ticket": "t", "reply_to": TO, **more}, {"clock": 5})


# -- answering --------------------------------------------------------------------------------------------------------

MALFORMED: list[Any] = [
    None,
    [],
    "ping",
    7,
    {},
    {"method": None},
    {"method": ["ping"]},
    {"method": {"a": 1}},
    {"method": "__class__"},
    {"method": "ping", "arguments": [1, 2]},
    {"method": "ping", "arguments": "x"},
    {"method": "ping", "arguments": {"view": 1}},
    {"method": "ping", "destination": 7},
    {"method": "ping", "destination": {"a": 1}},
    {"method": "ping", "pattern": 7, "matcher": "glob"},
    {"method": "ping", "pattern": "(", "matcher": "pcre"},
    {"method": "ping", "pattern": "*", "matcher": "sql"},
    {"method": "ping", "pattern": "[", "matcher": "glob"},
    {"method": "ping", "reply_to": "somewhere"},
    {"method": "ping", "reply_to": {"exchange": "celery", "routing_key": "celery"}},
    {"method": "ping", "reply_to": {"exchange": "reply.celery.pidbox"}},
    {"method": "ping", "reply_to": {"exchange": ["x"], "routing_key": {}}},
    {"method": "revoke", "arguments": {"task_id": 7}},
    {"method": "revoke", "arguments": {"task_id": [None, {"a": 1}]}},
    {"method": "revoke", "arguments": {"task_id": "x", "terminate": True, "signal": [9]}},
    {"method": "revoke_by_stamped_headers", "arguments": {"headers": ["no-value"]}},
    {"method": "revoke_by_stamped_headers", "arguments": {"headers": 7}},
    {"method": "rate_limit", "arguments": {"task_name": ["a"], "rate_limit": "1/s"}},
    {"method": "time_limit", "arguments": {"task_name": "tasks.add", "soft": "nan"}},
    {"method": "pool_grow", "arguments": {"n": 10**9}},
    {"method": "add_consumer", "arguments": {"queue": {"a": 1}}},
    {"method": "add_consumer", "arguments": {"queue": "q" * 256}},
    {"method": "query_task", "arguments": {"ids": 7}},
    {"method": "registered", "arguments": {"taskinfoitems": {"a": 1}}},
    {"method": "hello", "arguments": {"from_node": 7, "revoked": 7}},
    {"method": "memdump", "arguments": {"samples": "many"}},
]


@pytest.mark.parametrize("body", MALFORMED, ids=repr)
def test_nothing_that_is_sent_hurts(body: Any, node: Node, bus: Bus) -> None:
    node.take(BusMessage(body, {"clock": "noon"}), bus)
    if isinstance(body, dict):
        node.take(BusMessage({"reply_to": TO, "ticket": "t"} | body, {}), bus)
    bus.answers.clear()
    node.take(order("ping"), bus)
    assert bus.answers == [({"ok": "pong"}, "t")]


def test_what_fails_is_answered_as_celerys_workers_do(node: Node, bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    for letter in (order("nonsense"), order("ping", [1]), order("report", {"more": 1})):
        node.take(letter, bus)
    answers = [answer["error"] for answer, _ in bus.answers]
    assert answers[0] == "KeyError('nonsense')"
    assert answers[1].startswith("TypeError(")
    assert answers[2] == "TypeError(\"report() got an unexpected keyword argument 'more'\")"
    assert [getattr(record, "event", "") for record in caplog.records] == ["control_command_failed"] * 3


def test_an_answer_that_json_cannot_carry_is_an_error(node: Node, bus: Bus, monkeypatch: Any) -> None:
    broken = COMMANDS["ping"]._replace(handler=lambda _station: object())
    monkeypatch.setitem(COMMANDS, "ping", broken)
    with pytest.MonkeyPatch.context():
        node.take(order("ping"), bus)
    ((answer, _),) = bus.answers
    assert "JSON cannot carry" in answer["error"]


def test_a_command_whose_answer_has_no_address_is_not_answered(
    node: Node, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    node.take(BusMessage({"method": "ping", "reply_to": "nowhere"}, {}), bus)
    assert bus.answers == []
    assert [getattr(record, "event", "") for record in caplog.records] == ["control_unanswered"]


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({"destination": [NODE]}, True),
        ({"destination": ["celery@there"]}, False),
        ({"destination": []}, True),
        ({"pattern": "celery@*", "matcher": "glob"}, True),
        ({"pattern": "other@*", "matcher": "glob"}, False),
        ({"pattern": r"celery@h.re", "matcher": "pcre"}, True),
        ({"pattern": r"here", "matcher": "pcre"}, False),
        ({"pattern": "other@*"}, True),
    ],
)
def test_only_who_is_meant_answers(fields: dict[str, Any], meant: bool, node: Node, bus: Bus) -> None:
    node.take(order("ping", **fields), bus)
    assert bool(bus.answers) == meant


def test_a_command_without_an_address_is_carried_out_and_not_answered(view: WorkerView, node: Node, bus: Bus) -> None:
    node.take(BusMessage({"method": "enable_events", "arguments": {}}, {}), bus)
    assert (view.events.on, bus.answers) == (True, [])


@pytest.mark.parametrize("name", [each.name for each in COMMANDS.values() if each.kind == "inspect"])
def test_questions_change_nothing_and_are_answered(name: str, node: Node, bus: Bus) -> None:
    needed = {"query_task": {"ids": ["x"]}, "hello": {"from_node": "other@h"}}
    node.take(order(name, needed.get(name, {})), bus)
    ((answer, _),) = bus.answers
    assert name == "objgraph" or "error" not in (answer or {})


def test_the_logical_clock_only_goes_forward_and_believes_no_nonsense() -> None:
    lamport = LamportClock()
    assert lamport.adjust(10) == 11
    for nonsense in (3, None, "x", -5, True, 1 << 80, 1e300):
        before = lamport.value
        assert lamport.adjust(nonsense) == before + 1


def test_secrets_are_not_shown() -> None:
    shown = censored(
        {
            "broker_url": "redis://:hunter2@h/0",
            "result_backend": "redis://me:hunter2@h/0",
            "aws_secret_key": "hunter2",
            "redis_password": "hunter2",
            "broker_transport_options": {"master_name": "a", "sentinel_kwargs": {"password": "hunter2"}},
            "urls": ["amqp://u:hunter2@a//;amqp://u:hunter2@b//", "sentinel://h?password=hunter2"],
            "task_routes": ({"tasks.*": "q"}, print),
            "__private": 1,
            "task_time_limit": 3,
        }
    )
    assert "hunter2" not in repr(shown)
    assert shown["broker_url"] == "redis://:********@h/0"
    assert (shown["task_time_limit"], "__private" in shown) == (3, False)


# -- revoking ---------------------------------------------------------------------------------------------------------


def request(app: App, task_id: str = "an-id", **headers: Any) -> Request:
    raw = envelope(build("tasks.add", task_id, (1, 2), **headers), queue="celery")
    return Request(Delivery(1, "celery", raw), headers_of(raw), app.tasks["tasks.add"])


def test_what_is_revoked_is_bounded_and_is_forgotten_in_the_end(app: App) -> None:
    revoked = Revoked()
    assert not revoked
    revoked.add((f"id-{n}" for n in range(LIMIT + 10)), 0)
    assert len(revoked.ids()) == LIMIT
    assert revoked.ids()[0] == "id-10"
    revoked.add(["new"], KEPT_MS)
    assert revoked.ids() == ["new"]
    assert revoked.covers(request(app, "new"))
    assert not revoked.covers(request(app, "id-20"))


def test_stamps_are_revoked(app: App) -> None:
    revoked = Revoked()
    revoked.add_stamps({"customer": ["a", "7"]})
    stamped: dict[str, Any] = {"stamped_headers": ["customer"], "stamps": {"customer": ["b", 7]}}
    assert revoked.covers(request(app, **stamped))
    assert not revoked.covers(request(app, **{**stamped, "stamps": {"customer": "b"}}))
    assert not revoked.covers(request(app))
    assert not revoked.covers(request(app, stamped_headers=None, stamps="x"))


@pytest.mark.parametrize("names", [[["tenant"]], [{}], [7], [None]])
def test_names_of_stamps_that_are_none_bear_no_stamp(app: App, names: Any) -> None:
    revoked = Revoked()
    revoked.add_stamps({"tenant": ["a"]})
    assert not revoked.covers(request(app, stamped_headers=names, stamps={"tenant": "a"}))


def test_a_run_is_ended_by_the_signal_that_is_asked_for(
    view: WorkerView, node: Node, bus: Bus, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running, waiting = request(app, "running"), request(app, "waiting")
    waiting.delivery = waiting.delivery._replace(tag=2)
    killed: list[tuple[int, int]] = []
    view.tools.pool.running_since = lambda: {1: 0.0}  # type: ignore[method-assign]
    view.tools.pool.kill = lambda tag, number: not killed.append((tag, number))  # type: ignore[assignment,func-returns-value,method-assign]
    view.tools.requests.update({1: running, 2: waiting})  # type: ignore[attr-defined]
    node.take(order("terminate", {"task_id": ["running", "waiting", "unknown"], "signal": "usr1"}), bus)
    assert bus.answers == [({"ok": "terminate: running, waiting"}, "t")]
    assert killed == [(1, signal.SIGUSR1)]
    assert waiting.terminated == signal.SIGUSR1  # ended when it begins
    said = [record for record in caplog.records if getattr(record, "event", "") == "task_terminating"]
    assert [record.running for record in said] == [True, False]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "arguments", "event", "text"),
    [
        ("rate_limit", {"rate_limit": "5/m"}, "rate_limit_changed", "New rate limit for tasks of type tasks.add: 5/m."),
        (
            "time_limit",
            {"soft": 5, "hard": 9},
            "time_limit_changed",
            "New time limits for tasks of type tasks.add: soft=5 hard=9",
        ),
    ],
)
def test_a_changed_limit_is_logged_with_its_task_and_a_wrong_one_is_not(
    command: str, arguments: dict[str, Any], event: str, text: str, node: Node, bus: Bus, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    node.take(order(command, {"task_name": "tasks.add", **arguments}), bus)
    assert [(record.event, record.task, record.getMessage()) for record in caplog.records] == [
        (event, "tasks.add", text)
    ]
    for wrong in ({"task_name": "other", **arguments}, {"task_name": "tasks.add", **dict.fromkeys(arguments, "many")}):
        node.take(order(command, wrong), bus)
    assert [record.event for record in caplog.records].count(event) == 1
    assert [[*answer] for answer, _ in bus.answers] == [["ok"], ["error"], ["error"]]


@pytest.mark.parametrize(
    ("error", "level", "text"),
    [
        (StoreUnavailable("results: away"), logging.WARNING, "done when their messages arrive: results: away"),
        (ZeroDivisionError("a defect"), logging.ERROR, "done when their messages arrive"),
    ],
)
def test_tasks_are_revoked_although_their_results_cannot_be_written(
    error: Exception, level: int, text: str, view: WorkerView, app: App, node: Node, bus: Bus, caplog: Any
) -> None:
    class Away:
        def get(self, _task_id: str) -> None:
            raise error

    app.__dict__["results"] = Away()
    node.take(order("revoke", {"task_id": ["an-id"]}), bus)
    (answer,) = bus.answers
    assert "an-id" in answer[0]["ok"]
    assert view.revoked.covers(request(app))
    (record,) = [one for one in caplog.records if one.event == "revoke_unmarked"]
    assert (record.levelno, bool(record.exc_info)) == (level, level == logging.ERROR)
    assert record.getMessage().endswith(text)


# -- events and the connection ----------------------------------------------------------------------------------------


@pytest.fixture
def remote(app: App, settings: WorkerSettings, bus: Bus) -> RemoteControl:
    remote = RemoteControl(app, settings, lambda: bus, Names(), RevokedStore(None, Keys()))
    remote.attach(tools())
    return remote


def test_a_lost_connection_is_tried_again_ever_more_rarely(remote: RemoteControl, bus: Bus, clock: FakeClock) -> None:
    bus.away = True
    attempts = []
    for second in range(100):
        before = bus.attempts
        assert remote.turn() > 0
        if bus.attempts > before:
            attempts.append(second)
        clock.advance(1)
    assert attempts == [0, 1, 3, 7, 15, 31, 61, 91]
    clock.advance(30)
    bus.away = False
    remote.turn()
    assert [kind for kind, _ in bus.emitted] == ["worker.online"]


def test_a_defect_is_no_more_than_a_lost_connection(
    remote: RemoteControl, bus: Bus, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    remote.turn()
    bus.defective = True
    with caplog.at_level(logging.ERROR):
        assert remote.turn() == 1.0
    assert [getattr(record, "event", "") for record in caplog.records] == ["control_failed"]
    bus.defective = False
    bus.inbox = [order("ping")]
    clock.advance(1)
    remote.turn()
    assert bus.answers == [({"ok": "pong"}, "t")]


def test_an_answer_of_another_worker_that_cannot_be_read_ends_the_mingling_only(
    remote: RemoteControl, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_at_most: int) -> list[BusMessage]:
        raise OverflowError("timestamp out of range for platform time_t")

    monkeypatch.setattr(bus, "replies", unreadable)
    remote.start()
    remote.turn()
    assert remote._mingling is None
    bus.inbox = [order("ping")]
    remote.turn()
    assert bus.answers == [({"ok": "pong"}, "t")]


def test_a_broker_that_is_away_at_the_end_does_not_keep_the_worker(
    remote: RemoteControl, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    remote.turn()
    bus.away = True
    caplog.set_level(logging.DEBUG)
    remote.stop()
    assert [(getattr(record, "event", ""), record.getMessage()) for record in caplog.records] == [
        ("control_goodbye_failed", "The offline event was not sent: away")
    ]


def test_a_broker_that_cannot_broadcast_is_named_once(
    app: App, settings: WorkerSettings, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    remote = RemoteControl(app, settings, lambda: None, Names(), RevokedStore(None, Keys()))
    remote.attach(tools())
    remote.start()
    for _ in range(3):
        assert remote.turn() > 0
        clock.advance(60)
    assert remote.files() == []
    remote.stop()
    assert [(getattr(record, "event", ""), record.getMessage()) for record in caplog.records] == [
        ("control_unavailable", "This broker cannot broadcast: no remote control")
    ]


def test_heartbeats_come_every_two_seconds(remote: RemoteControl, bus: Bus, clock: FakeClock) -> None:
    remote.turn()
    for _ in range(40):
        wait = remote.turn()
        assert 0 <= wait <= 2.0
        clock.advance(min(wait, 0.5))
    beats = [body["timestamp"] for kind, body in bus.emitted if kind == "worker.heartbeat"]
    assert beats == [1002.0, 1004.0, 1006.0, 1008.0, 1010.0, 1012.0, 1014.0, 1016.0, 1018.0]
    assert bus.emitted[1][1]["freq"] == 2.0


def test_names_under_which_runs_are_counted_are_bounded(remote: RemoteControl, app: App) -> None:
    """A sender may give each message a name of its own (``shadow``)."""
    for n in range(1_500):
        remote.on_effects([Ended(request(app, shadow=f"add-{n % 1_200}"), JobReport(1, "SUCCESS"))])
    assert len(remote._totals) == 1_001
    assert remote._totals.total() == 1_500
    assert remote._totals["tasks.add"] == 200
    assert remote._totals["add-0"] == 2


def test_task_events_leave_in_batches_and_are_bounded_while_nobody_takes_them(
    remote: RemoteControl, bus: Bus, clock: FakeClock, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    remote.turn()
    remote.events.on = True
    bus.away = True
    remote.turn()
    for n in range(BUFFERED + 50):
        remote.events.tell([Received(request(app, f"id-{n}"))])
    bus.away = False
    clock.advance(60)
    with caplog.at_level(logging.WARNING):
        for _ in range(BUFFERED // BATCH):
            remote.turn()
    batches = [body for kind, body in bus.emitted if kind == "task.multi"]
    assert {len(batch) for batch in batches} == {BATCH}
    assert [event["uuid"] for batch in batches for event in batch] == [f"id-{n}" for n in range(50, BUFFERED + 50)]
    assert [record.count for record in caplog.records if getattr(record, "event", "") == "events_dropped"] == [50]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("acks_late", "requeue", "kinds"),
    [
        (False, False, ["task-failed"]),
        (True, False, ["task-failed", "task-rejected"]),
        (True, True, ["task-rejected"]),
    ],
)
def test_a_message_that_is_rejected_for_good_is_a_failure_for_monitors(
    remote: RemoteControl, bus: Bus, clock: FakeClock, app: App, acks_late: bool, requeue: bool, kinds: list[str]
) -> None:
    remote.turn()
    remote.events.on = True
    app.tasks["tasks.add"].acks_late = acks_late
    rejected = Reject("no", requeue)
    report = JobReport(1, REJECTED, requeue=requeue, outcome_repr=repr(rejected), traceback="Traceback …")
    remote.events.tell([Ended(request(app), report)])
    clock.advance(1)
    remote.turn()
    (events,) = (body for kind, body in bus.emitted if kind == "task.multi")
    assert [event["type"] for event in events] == kinds
    if not requeue:
        assert events[0]["exception"] == "reject requeue=False: no"
        assert events[0]["traceback"] == "Traceback …"


def test_arguments_of_running_tasks_are_data_or_the_text_for_monitors(view: WorkerView, app: App) -> None:
    view.tools.requests[1] = request(app)
    view.tools.pool.running_since = lambda: {1: 0.0}  # type: ignore[method-assign]
    shown = {safe: COMMANDS["active"].handler(view, safe=safe)[0] for safe in (False, True)}
    assert (shown[False]["args"], shown[False]["kwargs"]) == ([1, 2], {})
    assert (shown[True]["args"], shown[True]["kwargs"]) == ("(1, 2)", "{}")


def test_commands_are_carried_out_some_at_a_time(remote: RemoteControl, bus: Bus) -> None:
    bus.inbox = [order("ping") for _ in range(50)]
    assert remote.turn() == 0.0
    assert 0 < len(bus.answers) < 50
    while remote.turn() == 0.0:
        pass
    assert len(bus.answers) == 50


def test_replies_go_to_mailboxes_only() -> None:
    check_reply_address("reply.celery.pidbox", "an-oid")
    for exchange, key in [
        ("celery", "celery"),
        ("", "{beatd}:parked"),
        ("reply.x.pidbox", ""),
        (None, None),
        ("reply.x.pidbox", 7),
    ]:
        with pytest.raises(MessageError):
            check_reply_address(exchange, key)
