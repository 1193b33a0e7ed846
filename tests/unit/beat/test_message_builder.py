"""What leaves: the message of a run, as a Celery worker reads it."""

import json
import uuid
from datetime import UTC, datetime

import pytest
from celery import Celery

from beatd.beat.message_builder import MessageBuilder
from beatd.exceptions import MessageError
from beatd.message.protocol import open_envelope
from beatd.model import RUN_NAMESPACE, Entry, Options, Policies, Run
from beatd.planning.policies import expires_at_ms
from beatd.schedules import parse

DUE = 1_790_000_000_123
DUE_ISO = "2026-09-21T14:13:20.123+00:00"


def make(schedule=30.0, **fields):
    return Entry(name=fields.pop("name", "add"), task="tasks.add", schedule=parse(schedule), **fields)


def sent(entry, messages=None, fire_ms=DUE):
    run = Run(entry, DUE, fire_ms, entry.schedule)
    return open_envelope((messages or MessageBuilder("celery", origin="gen1@host")).render(run, expires_at_ms(run)))


def test_the_run_id_is_the_uuid5_of_entry_and_due_time():
    assert Run(make(), DUE, DUE, make().schedule).id == str(uuid.uuid5(RUN_NAMESPACE, f"add@{DUE}"))


def test_the_message_is_celery_beats_own_but_for_the_extra_headers():
    """Made side by side with Celery's own builder: same headers, same properties, same body."""
    entry = make(args=(16, 16), kwargs={"z": "ü"}, options=Options(headers={"tenant": "a"}, priority=3))
    ours = sent(entry)
    theirs = Celery(set_as_current=False).amqp.as_task_v2(
        ours.id, "tasks.add", args=[16, 16], kwargs={"z": "ü"}, origin="gen1@host", ignore_result=None
    )
    extra = {
        "tenant": "a",
        "celery_beat_task": True,
        "periodic_task_name": "add",
        "beatd-entry": "add",
        "beatd-due-at": DUE_ISO,
        "beatd-after": None,
    }
    assert ours.headers == {**theirs.headers, **extra}
    assert json.loads(ours.body) == json.loads(json.dumps(theirs.body))
    assert ours.properties["correlation_id"] == ours.id
    assert ours.properties["priority"] == 3
    assert ours.properties["delivery_info"] == {"exchange": "", "routing_key": "celery"}
    assert (ours.content_type, ours.content_encoding) == ("application/json", "utf-8")


@pytest.mark.parametrize("text", ["100%", "%(id)b", '"quoted" \\ back', "näme\n", "%%d"])
def test_names_and_arguments_may_look_like_anything(text):
    messages = MessageBuilder("celery")
    entry = make(name=text, args=(text,), kwargs={text: text}, options=Options(headers={"x": text}))
    for _ in range(2):  # fresh, and from the prepared form
        message = sent(entry, messages)
        assert message.headers["beatd-entry"] == message.headers["periodic_task_name"] == text
        assert message.headers["x"] == text
        assert message.headers["argsrepr"] == repr([text])
        assert json.loads(message.body)[:2] == [[text], {text: text}]


def test_times():
    options = Options(expires=5_000, countdown_ms=1_000, time_limit=30, soft_time_limit=20)
    message = sent(make(options=options))
    assert message.headers["expires"] == "2026-09-21T14:13:25.123+00:00"
    assert message.headers["eta"] == "2026-09-21T14:13:21.123+00:00"
    assert message.headers["timelimit"] == [30, 20]
    assert message.properties["expiration"] == "5000"


def test_a_jittered_run_expires_after_it_leaves_and_keeps_its_nominal_time():
    message = sent(make(options=Options(expires=5_000), policies=Policies(jitter_ms=60_000)), fire_ms=DUE + 20_000)
    assert message.headers["beatd-due-at"] == DUE_ISO
    assert message.headers["expires"] == "2026-09-21T14:13:45.123+00:00"


def test_expires_auto_is_one_period():
    assert sent(make(30.0, options=Options(expires="auto"))).headers["expires"] == "2026-09-21T14:13:50.123+00:00"


def test_expires_auto_of_a_last_run_is_never():
    entry = make({"at": datetime(2026, 9, 21, tzinfo=UTC)}, options=Options(expires="auto"))
    assert sent(entry).headers["expires"] is None


def test_an_entry_that_changed_gets_a_form_of_its_own():
    messages = MessageBuilder("celery")
    assert json.loads(sent(make(args=(1,)), messages).body)[0] == [1]
    assert json.loads(sent(make(args=(2,), options=Options(queue="other")), messages).body)[0] == [2]


def test_dates_arrive_as_celerys_json_marks_them():
    body = sent(make(args=(datetime(2026, 1, 1, tzinfo=UTC),))).body
    assert json.loads(body)[0] == [{"__type__": "datetime", "__value__": "2026-01-01T00:00:00+00:00"}]


def test_what_json_cannot_carry_is_refused_in_words():
    with pytest.raises(MessageError, match="object is not serializable"):
        sent(make(args=(object(),)))
