"""Compositions, sent and run by either make, also when the parts of one are run by both."""

from __future__ import annotations

import contextlib
import os
import uuid

import celery
import pytest
from kombu.utils import json

from beatd import App
from tests.acceptance.celery_pairs import MIXED, PREFIXED, WAIT, WARNINGS, assert_all_prefixed, paired, workers
from tests.compositions import build, recipes
from tests.conftest import wait_for

pytestmark = WARNINGS


class Money:
    """A type that a program registers with kombu, once and for good: clients read a result when they please."""

    cents = 4


json.register_type(Money, "Money", lambda money: money.cents, lambda cents: ("Money", cents))


@pytest.fixture(
    scope="module", params=["redis", *(pytest.param(name, marks=pytest.mark.soak) for name in ("prefix", "rabbitmq"))]
)
def place(request, redis_server, tmp_path_factory):
    """Broker and backend, with a worker of each make."""
    redis_server.start().flush()
    broker = redis_server.url
    if request.param == "rabbitmq":
        broker = request.getfixturevalue("rabbitmq_node").start().url
    settings = PREFIXED if request.param == "prefix" else {}
    with workers(tmp_path_factory.mktemp("canvas"), broker, redis_server.url, settings=settings):
        yield broker, redis_server.url, settings
    if settings:
        assert_all_prefixed(redis_server.url)


@pytest.fixture(scope="module", params=MIXED)
def pair(request, place):
    with paired(request.param, *place) as pair:
        yield pair


def get(result):
    return result.get(timeout=WAIT)


def test_chains(pair):
    s, chain = pair.s, pair.canvas.chain
    result = (s("add", 2, 2) | s("add", 4) | s("mul", 8)).apply_async()
    assert get(result) == 64
    assert (get(result.parent), get(result.parent.parent)) == (8, 4)
    assert get(chain(s("add", 1), s("mul", 3))(4)) == 15
    assert get(chain(s("add", 1, 1), pair.si("mul", 5, 5)).delay()) == 25
    assert get(chain(chain(s("add", 1, 1), s("add", 1)), s("add", 1))()) == 4


def test_groups(pair):
    s, group = pair.s, pair.canvas.group
    result = group(s("add", i, i) for i in range(5)).apply_async()
    assert get(result) == [0, 2, 4, 6, 8]
    assert result.ready()
    assert result.successful()
    assert not result.failed()
    assert result.completed_count() == len(result) == 5
    assert get(group([s("add", 1), s("mul", 2)])(10)) == [11, 20]
    assert get(group(group(s("add", 1, 1)), s("add", 2, 2))()) == [2, 4]


def test_groups_are_remembered(pair):
    result = pair.canvas.group(pair.s("echo", 1), pair.s("echo", 2))()
    result.save()
    restored = pair.app.GroupResult.restore(result.id)
    assert (restored.id, get(restored)) == (result.id, [1, 2])
    with contextlib.closing(App("other", backend=pair.backend, set_as_current=False)) as ours:
        ours.conf.result_backend_transport_options = pair.app.conf.result_backend_transport_options
        assert get(ours.GroupResult.restore(result.id)) == [1, 2]
    result.delete()
    assert pair.app.GroupResult.restore(result.id) is None


def test_retries_inside(pair):
    s, canvas = pair.s, pair.canvas
    assert get((s("flaky", 1) | s("add", 1)).delay()) == 2
    assert get(canvas.chord([s("flaky", 2), s("echo", 1)], s("total"))()) == 3


def test_chords(pair):
    s, canvas = pair.s, pair.canvas
    assert get(canvas.chord([s("add", i, i) for i in range(6)])(s("total"))) == 30
    assert get((canvas.group(s("add", 1, 1), s("add", 2, 2)) | s("total")).delay()) == 6
    result = canvas.chord([s("add", 1, 1), s("add", 2, 2)], s("total")).apply_async()
    assert get(result) == 6
    assert get(result.parent) == [2, 4]
    assert get(canvas.chord([s("echo", 7)], pair.si("add", 1, 1))()) == 2
    assert get(canvas.chord([], s("total"))()) == 0


def test_groups_and_chords_inside_chains(pair):
    s, canvas = pair.s, pair.canvas
    pair_of = canvas.group(s("add", 1), s("add", 2))
    assert get((s("add", 1, 1) | pair_of).apply_async()) == [3, 4]
    assert get((s("add", 1, 1) | pair_of | s("total")).apply_async()) == 7
    assert get((s("add", 1, 1) | pair_of | s("total") | s("mul", 10)).apply_async()) == 70
    assert get((pair_of | s("total") | s("add", 1) | pair_of).apply_async((1,))) == [7, 8]
    assert get((s("add", 1, 1) | canvas.chord([s("add", 1), s("add", 2)], s("total")) | s("mul", 2)).delay()) == 14


def test_chains_inside_groups_and_chords(pair):
    s, canvas = pair.s, pair.canvas
    chains = [s("add", 1, 1) | s("mul", 10), s("add", 2, 2)]
    assert get(canvas.group(chains)()) == [20, 4]
    assert get(canvas.chord(chains)(s("total"))) == 24
    assert get(canvas.chord(chains, s("total") | s("add", 1))()) == 25
    assert get(canvas.chord([s("add", 1, 1), s("add", 2, 2)], canvas.group(s("total"), s("listed")))()) == [6, [[2, 4]]]


def test_chords_inside_chords(pair):
    s, canvas = pair.s, pair.canvas
    inner = canvas.chord([s("add", 1, 1), s("add", 2, 2)], s("total"))
    assert get(canvas.chord([inner, s("add", 3, 3)], s("total"))()) == 12
    ends_in_a_group = s("add", 1, 1) | canvas.group(s("add", 1), s("add", 2))
    assert get(canvas.chord([ends_in_a_group, s("echo", 5)], s("listed"))()) == [[[3, 4], 5]]
    two_groups = canvas.group(s("echo", 1), s("echo", 2)) | canvas.group(s("total"), s("listed"))
    assert get((two_groups | s("listed"))()) == [[3, [[1, 2]]]]


def parents(result):
    """Values of a result and of all before it, the last one first."""
    values = []
    while result is not None:
        values.append(get(result))
        result = result.parent
    return values


def test_parents_of_compositions(pair):
    s, chord = pair.s, pair.canvas.chord
    first = chord([s("add", 1, 1), s("add", 2, 2)], s("total"))
    second = chord([s("add", 1), s("add", 2)], s("total"))
    assert parents((first | second | s("add", 1)).delay()) == [16, [2, 4]]  # the rest of a chord is its body
    in_a_chain = pair.s("add", 0, 0) | chord([s("add", 1), s("add", 2)], s("total")) | second | s("add", 1)
    assert parents(in_a_chain.delay()) == [10, 9, [4, 5], 3, [1, 2], 0]
    alternating = s("add", 0, 1) | pair.canvas.group(s("add", 1), s("add", 2)) | s("total") | s("add", 1)
    assert parents(alternating.delay()) == [6, 5, [2, 3], 1]
    two_groups = pair.canvas.chain(pair.canvas.group(s("echo", 1), s("echo", 2)), pair.canvas.group(s("total")))
    assert parents(two_groups.delay()) == [[3], [1, 2]]
    assert get(pair.canvas.chain(pair.canvas.group([], app=pair.app), app=pair.app).delay()) == []


@pytest.fixture(scope="module")
def eagerly():
    """Run a recipe in this process, by Celery."""
    app = celery.Celery("eager", set_as_current=False)
    app.conf.task_always_eager = True

    def listed(*args):
        return list(args)

    task = app.task(name="listed", typing=False)(listed)
    return lambda recipe: build(recipe, celery, app, task.s).apply_async().get()


def test_random_compositions(pair, eagerly):
    results = {}
    for recipe in recipes(7, 30, empty=False):
        composition = build(recipe, pair.canvas, pair.app, lambda number: pair.s("listed", number))
        results[recipe] = composition.apply_async()
    assert {recipe: get(result) for recipe, result in results.items()} == {each: eagerly(each) for each in results}


def test_maps_and_chunks(pair):
    task = pair.s("add")
    maps = pair.canvas.xmap, pair.canvas.xstarmap, pair.canvas.chunks
    xmap, xstarmap, chunks = maps
    assert get(xmap(pair.s("echo"), [1, 2], app=pair.app).apply_async()) == [1, 2]
    assert get(xstarmap(task, [(1, 2), (3, 4)], app=pair.app).apply_async()) == [3, 7]
    assert get(chunks(task, [(i, i) for i in range(5)], 2, app=pair.app).apply_async()) == [[0, 2], [4, 6], [8]]


def test_callbacks(pair):
    key = f"seen-{uuid.uuid4()}"
    callback = pair.s("after", key=key)
    assert pair.run("add", 1, 2, link=callback) == 3
    assert pair.run("add", 2, 2, link=[callback, callback.clone().set(countdown=0.1)]) == 4
    chained = (pair.s("add", 1, 1) | pair.s("add", 1)).apply_async(link=callback)
    assert get(chained) == 3
    assert sorted(pair.noted(key, 4)) == [3, 3, 4, 4]


def test_several_callbacks_are_one_group_of_the_children(pair):
    s = pair.s
    links = [s("add", 1), pair.canvas.group(s("add", 10), s("add", 20)), s("add", 2)]
    result = pair.call("add", 1, 1, link=links)
    assert get(result) == 2
    assert [get(child) for child in result.children] == [[12, 22], [3, 4]]


def test_an_empty_group_before_a_task(pair):
    s, group = pair.s, pair.canvas.group
    assert get((s("add", 1, 1) | group([], app=pair.app) | s("listed")).delay()) == [[]]
    assert get((s("add", 1, 1) | group([], app=pair.app)).delay()) == 2


def test_a_failed_chord_raises_the_exception_of_its_header(pair):
    s, canvas = pair.s, pair.canvas
    failed = canvas.chord([pair.si("boom"), s("add", 1, 1)], s("total"))()
    with pytest.raises(ValueError, match="boom"):
        get(failed.parent)
    with pytest.raises(ValueError, match="boom"):
        get(failed)  # Celery's client looks at the header first, and from then on from time to time
    with pytest.raises(canvas.exceptions.ChordError):
        failed.get(timeout=WAIT, follow_parents=False)


def test_the_group_after_a_failed_header_gets_the_cause(pair):
    s, canvas = pair.s, pair.canvas
    key = f"seen-{uuid.uuid4()}"
    body = canvas.group(s("echo"), s("total"))
    call = canvas.chord([pair.si("boom"), s("add", 1, 1)], body)
    call.link_error(s("on_error_details", key=key))
    sent = call()
    members = sent.results
    for member in members:
        with pytest.raises(ValueError, match="boom"):
            member.get(timeout=WAIT, follow_parents=False)
    noted = pair.noted(key, 2)
    assert sorted(task_id for _, task_id, *_ in noted) == sorted(member.id for member in members)
    assert {exception for *_, exception, _ in noted} == {"ValueError('boom', 7)"}
    with pytest.raises(ValueError, match="boom"):
        get(pair.app.AsyncResult(sent.id))  # the group's own


def test_the_errback_of_a_chord_in_a_chord_is_called_once(pair):
    s, canvas = pair.s, pair.canvas
    key = f"seen-{uuid.uuid4()}"
    inner = canvas.chord([pair.si("boom"), s("add", 1, 1)], s("total"))
    outer = canvas.chord([inner, s("add", 2, 2)], s("total"))
    outer.link_error(s("on_error_details", key=key))
    sent = outer()
    with pytest.raises(canvas.exceptions.ChordError):
        get(sent)
    assert len(pair.noted(key)) == 1
    pair.run("add", 1, 1)  # whatever the failure has sent is behind this
    assert len(pair.noted(key)) == 1


def test_handles_and_own_types_as_results(pair):
    (task_id, _), members = pair.run("handle_of_a_task")
    assert (get(pair.app.AsyncResult(task_id)), members) == (3, None)
    _, members = pair.run("handle_of_a_group")
    assert [get(pair.app.AsyncResult(member[0][0])) for member in members] == [3, 7]
    assert pair.run("lazy_text") == {"text": "hello"}


def test_types_that_are_registered_at_kombu(pair):
    assert pair.run("doubled", Money()) == ("Money", 8)


def test_lone_surrogates(pair):
    text = os.fsdecode(b"f\xff")
    assert pair.run("echo", text) == text


def test_errbacks(pair):
    key, details = f"seen-{uuid.uuid4()}", f"seen-{uuid.uuid4()}"
    failed = pair.call("boom", link_error=pair.s("on_error_id", key=key))
    assert pair.noted(key) == [["id", failed.id]]
    failed = pair.call("boom", link_error=[pair.s("on_error_details", key=details)])
    assert pair.noted(details) == [["details", failed.id, "ValueError('boom', 7)", True]]
    first = pair.s("boom")
    result = (first | pair.s("add", 1)).apply_async(link_error=pair.s("on_error_id", key=key))
    assert pair.noted(key, 2)[1] == ["id", result.parent.id]


def test_what_follows_a_failure_fails_with_it(pair):
    s, canvas = pair.s, pair.canvas
    result = (s("boom") | s("add", 1) | s("add", 2)).apply_async()
    with pytest.raises(ValueError, match="boom"):
        get(result)
    with pytest.raises(ValueError, match="boom"):
        get(result.parent)
    result = canvas.group(s("echo", 1), s("boom"))()
    with pytest.raises(ValueError, match="boom"):
        get(result)
    assert result.failed()


def test_errors_in_headers(pair):
    s, canvas = pair.s, pair.canvas
    key = f"seen-{uuid.uuid4()}"
    body = s("total").on_error(s("on_error_id", key=key))
    result = canvas.chord([s("add", 1, 1), s("boom")], body)()
    with pytest.raises(pair.errors.ChordError, match="boom"):
        result.get(timeout=WAIT, follow_parents=False)
    assert pair.noted(key) == [["id", result.id]]
    result = canvas.chord([s("boom") | s("add", 1), s("echo", 1)], s("total") | s("add", 1))()
    with pytest.raises((pair.errors.ChordError, ValueError), match="boom"):
        get(result)


def test_replaced_tasks(pair):
    s, canvas = pair.s, pair.canvas
    assert pair.run("replaced_by_task", 1) == 101
    assert pair.run("replaced_by_chain", 1) == 202
    assert pair.run("replaced_by_group", 1) == [2, 3]
    assert get((s("replaced_by_chain", 1) | s("add", 1)).delay()) == 203
    assert get(canvas.chord([s("replaced_by_chain", 1), s("echo", 1)], s("total"))()) == 203
    assert get(canvas.chord([s("replaced_by_group", 1), s("echo", 1)], s("listed"))()) == [[[2, 3], 1]]


def test_parts_of_one_composition_on_both_workers(pair):
    s, canvas = pair.s, pair.canvas

    def on(queue, name, *args):
        return s(name, *args).set(queue=queue)

    queues = [("ours", "theirs")[i % 2] for i in range(6)]
    chain = on("ours", "add", 1, 1) | on("theirs", "add", 1) | on("ours", "mul", 3)
    assert get(chain.apply_async()) == 9
    header = [on(queue, "add", i, i) for i, queue in enumerate(queues)]
    assert get(canvas.chord(header)(on("ours", "total"))) == 30
    assert get(canvas.chord(header)(on("theirs", "total"))) == 30
    chord = canvas.chord([on("theirs", "add", 1), on("ours", "add", 2)], on("theirs", "total"))
    assert get((on("ours", "add", 1, 1) | chord | on("ours", "mul", 2)).delay()) == 14
    failing = canvas.chord([on("theirs", "boom"), on("ours", "echo", 2)], on("ours", "total"))()
    with pytest.raises(pair.errors.ChordError):
        failing.get(timeout=WAIT, follow_parents=False)


def test_nothing_is_left_behind(pair):
    result = pair.canvas.chord([pair.s("echo", 1), pair.s("echo", 2)], pair.s("total"))()
    assert get(result) == 3
    group = result.parent.id

    def left():
        return {key.rpartition("celery")[2] for key in pair.store.scan_iter(f"*celery-taskset-meta-{group}*")}

    wait_for(lambda: left() <= {f"-taskset-meta-{group}.c"}, WAIT, "the keys to be deleted, after the body is sent")


def test_chains_of_chords(pair):
    s, canvas = pair.s, pair.canvas
    first = canvas.chord([s("add", 1, 1), s("add", 2, 2)], s("total"))
    second = canvas.chord([s("add", 1), s("add", 2)], s("total"))
    result = (first | second | s("mul", 10)).apply_async()
    assert get(result) == 150
    result = canvas.chord([s("add", 1, 1), s("add", 2, 2)], s("total") | s("add", 1))()
    assert (get(result), get(result.parent)) == (7, [2, 4])
    result = (s("add", 1, 1) | second | second)()
    assert get(result) == 17
    header = result.parent
    assert [get(header), get(header.parent), get(header.parent.parent)] == [[8, 9], 7, [3, 4]]
