"""Canvas: compositions in JSON, the messages that are sent, and eager runs."""

from __future__ import annotations

import copy
import json

import celery
import pytest
from celery.canvas import Signature as CelerySignature

from beatd import App, Signature, chain, chord, chunks, group, signature
from beatd.app.callbacks import errbacks_of, never_run
from beatd.app.canvas.chords import size_of
from beatd.exceptions import MessageError, StoreRefused
from beatd.message import json_codec
from beatd.store.result_document import exception_payload


class Groups:
    """Records the chord headers that are announced to the result backend."""

    is_polled = False

    def __init__(self):
        self.begun = []

    def begin(self, group, size, shape=None):
        self.begun.append((group, size, shape))


class Results:
    """A result backend that has groups only."""

    def __init__(self):
        self.groups = Groups()


class Published:
    """A publisher that records messages."""

    batch = 100

    def __init__(self):
        self.messages = []

    def publish(self, message, **to):
        self.messages.append(message)

    def publish_many(self, parcels):
        self.messages += [parcel.message for parcel in parcels]
        return []

    def calls(self):
        """``(task, args, embed)`` of each message."""
        return [(each.headers["task"], *json_codec.loads(each.body)[::2]) for each in self.messages]


@pytest.fixture
def sent():
    return Published()


@pytest.fixture
def app(sent):
    app = App("x", set_as_current=False, publisher=sent, results=Results())
    app.task(name="add")(lambda x, y: x + y)
    app.task(name="total", typing=False)(sum)
    app.task(name="boom", typing=False)(lambda *_: 1 / 0)
    app.task(name="double")(lambda x: 2 * x)
    return app


@pytest.fixture
def add(app):
    return app.tasks["add"]


@pytest.fixture
def total(app):
    return app.tasks["total"]


def as_json(signature):
    return json.loads(json.dumps(signature))


def test_a_chain_sends_its_first_task_with_the_others_in_reverse(app, add, sent):
    result = (add.s(1, 2) | add.s(3) | add.s(4)).apply_async()
    ((task, args, embed),) = sent.calls()
    assert (task, args) == ("add", [1, 2])
    assert [step["args"] for step in embed["chain"]] == [[4], [3]]
    assert embed["chain"][0]["options"]["task_id"] == result.id
    assert result.parent.parent.id == sent.messages[0].id
    assert {step["subtask_type"] for step in embed["chain"]} == {None}


def test_nested_chains_are_flattened(add):
    steps = chain(add.s(1, 1), chain(add.s(2), add.s(3))) | (add.s(4) | add.s(5))
    assert [step.args for step in steps.tasks] == [(1, 1), (2,), (3,), (4,), (5,)]
    assert chain([add.s(1, 1), add.s(2)]) == chain(add.s(1, 1), add.s(2))
    assert len(chain(add.s(1, 1), group(add.s(2)), group()).tasks) == 2
    assert chain([]).tasks == chain().tasks == []


def test_a_group_with_a_following_step_is_a_chord(add, total):
    steps = add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | add.s(3)
    assert [step["subtask_type"] for step in steps.tasks] == [None, "chord"]
    assert [step.args for step in steps.tasks[1].body.tasks] == [(), (3,)]
    assert isinstance(group(add.s(1), add.s(2)) | total.s(), chord)
    two = chain(group(add.s(1), add.s(2)), group(total.s(), total.s()), total.s())
    assert isinstance(two, chord)
    assert isinstance(two.body, chord)


def test_options_of_a_chain_go_to_its_first_or_last_task(app, add, sent):
    chain(add.s(1, 1), add.s(2)).apply_async(queue="slow", link=add.s(9), link_error=add.s(8), priority=5)
    message = sent.messages[0]
    _, _, embed = sent.calls()[0]
    assert message.properties["priority"] == 5
    assert embed["callbacks"] is None
    assert [each["args"] for each in embed["chain"][0]["options"]["link"]] == [[9]]
    assert [each["args"] for each in embed["errbacks"]] == [[8]]
    assert [each["args"] for each in embed["chain"][0]["options"]["link_error"]] == [[8]]
    assert "queue" not in embed["chain"][0]["options"]


def test_a_callback_of_a_chain_that_ends_in_a_group_is_linked_once(app, add, sent):
    (add.s(1, 1) | group(add.s(2), add.s(3))).apply_async(link=add.s(9))
    ((_, _, embed),) = sent.calls()
    assert [len(task["options"].get("link", ())) for task in embed["chain"][0]["kwargs"]["tasks"]] == [1, 0]
    chain(add.s(1, 1)).apply_async()
    assert sent.calls()[-1][2]["callbacks"] is None


def test_a_groups_members_share_its_id(app, add, sent):
    result = group(add.s(i, i) for i in range(3)).apply_async()
    headers = [message.headers for message in sent.messages]
    assert [(each["group"], each["group_index"]) for each in headers] == [(result.id, i) for i in range(3)]
    assert [each["id"] for each in headers] == [each.id for each in result]
    assert as_json(result.as_tuple()) == [[result.id, None], [[[each.id, None], None] for each in result]]


def test_a_group_is_sent_whole_or_not_at_all(app, add, sent):
    with pytest.raises(TypeError, match="missing a required argument"):
        group(add.s(1, 1), add.s(1)).apply_async()
    assert sent.messages == []


def test_a_group_does_not_take_link(add):
    with pytest.raises(TypeError, match="a group does not take link: set it on its tasks, or use a chord"):
        group(add.s(1, 1)).apply_async(link=add.s(1))


@pytest.mark.parametrize("option", ["link", "link_error"])
@pytest.mark.parametrize("way", ["alone", "copied", "two", "chain", "group", "chord"])
def test_a_signature_that_is_its_own_callback_is_refused_when_it_is_sent(add, total, sent, option, way):
    own, other = add.s(1, 1), add.s(2, 2)
    getattr(own, option)(own)
    if way == "two":
        own.options[option] = [other]
        getattr(other, option)(own)
    compositions = {
        "copied": copy.deepcopy(own),
        "chain": chain(own, add.s(1)),
        "group": group(own, other),
        "chord": chord([own, other], total.s()),
    }
    with pytest.raises(MessageError, match="Circular reference"):
        compositions.get(way, own).apply_async()
    assert sent.messages == []


def test_callbacks_1000_levels_deep_are_refused(add):
    signature = add.s(1, 1)
    for _ in range(1000):
        outer = add.s(1, 1)
        outer.options["link"] = [signature]
        signature = outer
    with pytest.raises(MessageError, match="recursion"):
        signature.apply_async()


def test_a_chords_tasks_have_its_body(app, add, total, sent):
    result = chord([add.s(1, 1), add.s(2, 2)])(total.s())
    ((header, size, shape),) = app.results.groups.begun[-1:]
    assert (size, shape) == (2, None)
    assert header == result.parent.id
    for (_, _, embed), message in zip(sent.calls(), sent.messages, strict=True):
        assert message.headers["group"] == header
        assert embed["chord"]["options"]["task_id"] == result.id
        assert embed["chord"]["task"] == "total"


def test_headers_may_be_generators_and_tasks(app, add, total):
    assert [each.args for each in chord(add.s(i, i) for i in range(3)).tasks] == [(0, 0), (1, 1), (2, 2)]
    assert [each.task for each in group(total, total).tasks] == ["total", "total"]
    assert [each.args for each in chord(add.s(1, 1)).tasks] == [(1, 1)]
    assert len(chord(group(add.s(1, 1), add.s(2, 2))).tasks) == 2


def test_the_id_of_a_chord_is_that_of_its_result(app, add, total):
    assert chord([add.s(1, 1)], total.s()).set(task_id="a").apply_async().id == "a"
    assert chord([add.s(1, 1)], total.s()).apply_async(task_id="b").id == "b"


def test_a_chord_with_an_empty_header_is_its_body(app, total, sent):
    chord([])(total.s())
    assert sent.calls() == [("total", [[]], {"callbacks": None, "errbacks": None, "chain": None, "chord": None})]


def test_a_chord_with_an_empty_header_is_sent_by_the_app_of_its_body(monkeypatch, total, sent):
    eager = App("eager", set_as_current=False, task_always_eager=True)
    monkeypatch.setattr("beatd.app.current._apps", [eager])
    chord([])(total.s())
    assert [name for name, *_ in sent.calls()] == ["total"]


def test_a_chord_without_a_body_is_refused(add):
    with pytest.raises(TypeError, match="needs a body"):
        chord([add.s(1, 1)]).apply_async()


def test_the_size_of_a_header_counts_the_last_tasks(app, add, total):
    assert size_of(group(add.s(1, 1), add.s(2, 2) | add.s(3), chord([add.s(1, 1)] * 5, total.s()))) == 3
    assert size_of(group(add.s(1, 1) | group(add.s(1), add.s(2)))) == 2


def test_the_shape_of_a_header_with_groups_inside_is_kept(app, add, total):
    chord([add.s(1, 1) | group(add.s(1), add.s(2)), add.s(3, 3)])(total.s())
    _, size, shape = app.results.groups.begun[-1]
    assert size == 3
    (_, (inner, single)) = shape
    assert len(inner[1]) == 2
    assert single[1] is None


def test_chords_need_a_result_backend():
    app = App("none", set_as_current=False)
    with pytest.raises(StoreRefused, match="need a result backend"):
        chord([app.signature("add", (1, 1))], app=app)(app.signature("total"))


COMPOSITIONS = {
    "chain": lambda s: s("add", 1, 1) | s("add", 2),
    "group": lambda s: group(s("add", 1, 1), s("add", 2, 2)),
    "chord": lambda s: group(s("add", 1, 1), s("add", 2, 2)) | s("total"),
    "deep": lambda s: s("add", 1, 1) | group(s("add", 1) | s("double"), s("add", 2)) | s("total") | s("double"),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_compositions_survive_json_and_celery_reads_them(app, name):
    made = COMPOSITIONS[name](lambda task, *args: app.signature(task, args))
    restored = Signature.from_dict(as_json(made), app)
    assert (type(restored), as_json(restored)) == (type(made), as_json(made))
    theirs = CelerySignature.from_dict(as_json(made), app=celery.Celery("y", set_as_current=False))
    assert type(theirs).__name__.strip("_") == made["subtask_type"]


def test_a_chain_is_in_json_what_celerys_is(app, add):
    celerys = celery.Celery("y", set_as_current=False)
    theirs = celerys.signature("add", (1, 1)) | celerys.signature("add", (2,))
    assert as_json(add.s(1, 1) | add.s(2)) == as_json(theirs)


def test_compositions_run_eagerly(app, add, total):
    app.conf.task_always_eager = True
    assert (add.s(1, 1) | add.s(2)).delay().get() == 4
    assert group(add.s(1, 1), add.s(2, 2)).delay().get() == [2, 4]
    assert (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | add.s(1)).delay().get() == 8
    assert chord([add.s(1, 1), add.s(2, 2)], total.s()).delay().get() == 6
    assert (~(add.s(1, 1) | add.s(1))) == 3
    assert chunks(add, [(i, i) for i in range(5)], 2, app=app)().get() == [[0, 2], [4, 6], [8]]
    assert add.starmap([(1, 2), (3, 4)]).apply().get() == [3, 7]
    assert app.tasks["double"].map([1, 2]).delay().get() == [2, 4]


def test_eager_compositions_raise_the_errors_of_their_tasks(app, add):
    boom = app.tasks["boom"]
    app.conf.task_always_eager = True
    with pytest.raises(ZeroDivisionError):
        (boom.s() | add.s(1)).delay().get()


def test_the_rest_of_a_chain_fails_with_a_step(app, add, total):
    steps = (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s()).clone()
    steps.freeze(chord=total.s(), group_id="outer", group_index=4)
    ids = [steps.tasks[0].id, steps.tasks[1].body.id]
    after = never_run(app, as_json(steps.tasks), exception_payload(ValueError()))
    assert [stored.task_id for stored in after.results] == ids
    (part,) = after.parts
    assert (part.group, part.place, part.task_id) == ("outer", 4, ids[1])
    assert json.loads(part.ended)[2] == "FAILURE"


def test_errbacks_of_a_body_that_is_never_sent(add):
    assert [each["args"] for each in errbacks_of(add.s(1).on_error(add.s(7)))] == [(7,)]
    both = group(add.s(1).on_error(add.s(7)), add.s(2).on_error(add.s(8)), add.s(3).on_error(add.s(7)))
    assert [each["args"] for each in errbacks_of(both)] == [(7,), (8,)]


def test_signatures_can_be_changed(add):
    call = add.s(2).set(queue="a", priority=3)
    assert call.clone((1,), countdown=5).options == {"queue": "a", "priority": 3, "countdown": 5}
    assert call.options == {"queue": "a", "priority": 3}
    assert call.replace(args=(5, 5)).args == (5, 5)
    call.link(add.s(1))
    copy = call.clone()
    copy.options["link"].append(add.s(2))
    assert len(call.options["link"]) == 1
    assert add.si(1, 2).clone((9,)).args == (1, 2)
    assert signature("add", args=(1,), app=add.app, queue="q").options == {"queue": "q"}
    assert repr(add.s(1) | add.s(2)) == "add(1) | add(2)"
    assert group(add.s(1, 1), add.s(2, 2)).skew(1, 5, 2).tasks[1].options == {"countdown": 3}


@pytest.mark.parametrize("bounds", [(), (1, 2.5), (2, 5, 2), (0, None, 0.5)])
def test_starts_are_spread_as_celerys(add, bounds):
    ours = group([add.s(1, 1) for _ in range(5)]).skew(*bounds)
    theirs = celery.group([celery.signature("add") for _ in range(5)]).skew(*bounds)
    assert [task.options for task in ours.tasks] == [task.options for task in theirs.tasks]


def test_fields_of_signatures_can_be_set(add, total):
    call = add.s(1)
    call.args, call.kwargs, call.options, call.id = (2, 3), {"z": 1}, {"queue": "a"}, "own"
    call.immutable = True
    assert dict(call) == dict(add.si(2, 3, z=1).set(queue="a", task_id="own"))
    both = chord([add.s(1, 1)], total.s())
    both.tasks, both.body = [add.s(2, 2)], add.s(4)
    assert repr(both) == "%add([add(2, 2)], 4)"
    many = group(add.s(1))
    many.tasks = [add.s(2)]
    assert many.apply_async.__self__.tasks[0].args == (2,)
    call.link([add.s(1)][0])
    call.extend_list_option("link", [add.s(2), add.s(3)])
    assert [each.args for each in call.flatten_links()] == [(2, 3), (1,), (2,), (3,)]


def test_none_does_not_override_an_option(add, sent):
    add.s(1, 2).set(priority=3).apply_async(priority=None)
    assert sent.messages[0].properties["priority"] == 3


def test_a_signature_of_a_signature_is_a_copy(add):
    call = add.s(1)
    assert signature(call) == call
    assert signature(call) is not call
    call.link(call)  # a task that calls itself again
    assert call.clone().options["link"][0].args == (1,)


def test_types_of_compositions_can_be_added(add, sent):
    @Signature.register_type()
    class loud(chain):
        def __init__(self, *tasks, **options):
            super().__init__(*tasks, **options)
            self.subtask_type = "loud"

    made = loud(add.s(1, 1), add.s(2))
    restored = Signature.from_dict(as_json(made), add.app)
    assert (type(made), type(restored), type(made.clone())) == (loud, loud, loud)
    restored.apply_async()
    assert len(sent.messages) == 1


def test_the_same_signature_twice_in_a_group_is_two_tasks(add):
    result = group([add.s(1)] * 3).freeze()
    assert len({each.id for each in result}) == 3


def test_the_app_of_a_chord_is_that_of_its_body_if_the_header_is_empty(app, total):
    assert chord([], total.s()).app is app
    assert (chord([], total.s()) | total.s()).app is app


def test_a_chord_in_this_process_may_take_errors(app, add):
    boom = app.tasks["boom"]
    listed = app.task(name="listed", typing=False)(lambda values: [type(value).__name__ for value in values])
    assert chord([boom.s(), add.s(1, 1)], listed.s()).apply(propagate=False).get() == ["ZeroDivisionError", "int"]
    with pytest.raises(ZeroDivisionError):
        chord([boom.s()], listed.s()).apply()


def test_a_member_of_a_group_keeps_its_group(add):
    call = add.s(1).set(group_id="first")
    assert call.merged(options={"group_id": "second"})[2]["group_id"] == "first"
