"""Random compositions, made with Celery and with beatd: as written, frozen, and sent, they are the same."""

from __future__ import annotations

import celery
import pytest
from celery.signals import before_task_publish

import beatd
from beatd import App
from beatd.message import json_codec
from tests.compositions import build, recipes

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")


class Sent:
    """A publisher that keeps messages."""

    batch = 100

    def __init__(self):
        self.messages = []

    def publish(self, message, **_):
        self.messages.append(message)

    def publish_many(self, parcels):
        self.messages += [parcel.message for parcel in parcels]
        return []


class Results:
    """A result backend that takes headers of chords."""

    groups = type("Groups", (), {"is_polled": False, "begin": lambda *_: None})()


class Client:
    """One make: its compositions, a task, and the messages that its app sends."""

    def __init__(self, package, app, messages):
        self.package, self.app, self.messages = package, app, messages

        def task(*args):
            return args

        self.task = app.task(name="task", typing=False)(task)

    def build(self, recipe):
        return build(recipe, self.package, self.app, self.task.s)


@pytest.fixture(scope="module")
def celerys():
    messages = []

    def keep(body=None, headers=None, **_):
        messages.append((headers, body))

    before_task_publish.connect(keep)
    app = celery.Celery("x", broker="memory://", backend="cache+memory://", set_as_current=False)
    with app:
        yield Client(celery, app, lambda: messages)
    before_task_publish.disconnect(keep)


@pytest.fixture(scope="module")
def ours():
    sent = Sent()
    app = App("x", set_as_current=False, publisher=sent, results=Results())
    yield Client(beatd, app, lambda: [(message.headers, json_codec.loads(message.body)) for message in sent.messages])
    app.close()


def shape(signature):
    """The composition as text."""
    if signature is None:
        return ""
    kwargs = signature["kwargs"]
    match signature.get("subtask_type"):
        case "chain":
            return f"({' | '.join(map(shape, kwargs['tasks']))})"
        case "group":
            return f"{{{', '.join(map(shape, kwargs['tasks']))}}}"
        case "chord":
            header = kwargs["header"]
            header = header["kwargs"]["tasks"] if isinstance(header, dict) else header
            return f"[{', '.join(map(shape, header))}] -> {shape(kwargs['body'])}"
    return str(signature["args"][-1])


def ids(signature, found):
    """Add the ids of all tasks in a signature, and what the tasks are called in :func:`shape`."""
    kwargs, options = signature["kwargs"], signature["options"]
    match signature.get("subtask_type"):
        case "chain" | "group":
            parts = kwargs["tasks"]
        case "chord":
            header = kwargs["header"]
            parts = [*([header] if isinstance(header, dict) else header), kwargs["body"]]
        case _:
            parts = ()
            found[options.get("task_id")] = str(signature["args"][-1])
    for part in [*parts, *(options.get("chain") or ()), options.get("chord")]:
        if part:
            ids(part, found)
    return found


def tree(result, names):
    """A result with its members and parents as text."""
    if result is None:
        return ""
    text = names.get(result.id, "?")
    if hasattr(result, "results"):
        text = f"[{', '.join(tree(each, names) for each in result.results)}]"
    return f"{text} < {tree(result.parent, names)}" if result.parent else text


def outcome(client, recipe):
    """The composition as it is written, the result of freezing it, and of sending it, with the messages."""
    frozen = client.build(recipe)
    written = shape(frozen)
    result = frozen.freeze()
    client.messages().clear() if client.package is celery else client.app.publisher.messages.clear()
    handle = client.build(recipe).apply_async()
    names, messages = {}, []
    for headers, (args, _, embed) in client.messages():
        names[headers["id"]] = str(args[-1])
        following = [*(embed["chain"] or ()), *([embed["chord"]] if embed["chord"] else [])]
        for each in following:
            ids(each, names)
        messages.append((str(args[-1]), *map(shape, following)))
    return written, tree(result, ids(frozen, {})), tree(handle, names), sorted(messages)


@pytest.mark.parametrize("seed", range(4))
def test_random_compositions_are_those_of_celery(celerys, ours, seed):
    differences = []
    for recipe in recipes(seed, 100):
        try:
            expected = outcome(celerys, recipe)
        except IndexError:
            continue  # Celery does not freeze an empty chain
        if (found := outcome(ours, recipe)) != expected:
            differences.append((recipe, expected, found))
    assert differences == []
