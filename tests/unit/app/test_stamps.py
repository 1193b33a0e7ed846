"""Stamps: the same composition, stamped in the same way by beatd and by Celery, has the same stamps."""

from __future__ import annotations

import celery
import celery.canvas
import pytest

import beatd
import beatd.canvas
from beatd import App
from tests.fakes import SentMessages


def app_of(package):
    if package is beatd:
        return App("x", set_as_current=False)
    return celery.Celery("x", set_as_current=False)


def compositions(package, canvas):
    """Yield compositions of the same tasks."""
    app = app_of(package)

    def s(name, **options):
        return app.signature(name, **options)

    yield s("a")
    yield s("a", options={"link": [s("callback")], "link_error": [s("errback")]})
    yield canvas.chain(s("a"), s("b"), app=app)
    yield canvas.group(s("a"), canvas.chain(s("b"), s("c"), app=app), app=app)
    yield canvas.chord([s("a"), s("b")], s("c"), app=app)
    yield s("a") | canvas.group(s("b"), s("c"), app=app) | s("d")


def visitor(canvas):
    class Visitor(canvas.StampingVisitor):
        def on_signature(self, sig, **headers):
            return {"task": sig.task, "tags": ["x"], "header": "own"}

        def on_group_start(self, sig, **headers):
            return {"in_group": True, "stamped_headers": ["in_group"]}

        def on_chain_start(self, sig, **headers):
            return {"in_chain": 1}

        def on_chord_body(self, sig, **headers):
            return {"body": "yes"}

        def on_callback(self, sig, **headers):
            return {"callback": True}

        def on_errback(self, sig, **headers):
            return {"errback": True}

    return Visitor()


def stamps(signature):
    """Return ``(task, stamps)`` of each task, callbacks and bodies included."""
    if not isinstance(signature, dict):
        return []
    options, kwargs = signature["options"], signature["kwargs"]
    names = options.get("stamped_headers") or ()
    found = [(signature["task"], {name: options.get(name) for name in names})]
    header = kwargs.get("header") or ()
    nested = [*(kwargs.get("tasks") or ()), *(header["kwargs"]["tasks"] if isinstance(header, dict) else header)]
    nested += [kwargs.get("body"), *(options.get("link") or ()), *(options.get("link_error") or ())]
    return found + [item for each in nested for item in stamps(each)]


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("headers", [{}, {"header": "given"}, {"other": [1, 2]}])
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_stamps_are_those_of_celery(number, headers):
    stamped = []
    for package, canvas in ((beatd, beatd.canvas), (celery, celery.canvas)):
        composition = list(compositions(package, canvas))[number]
        composition.stamp(visitor(canvas), **headers)
        stamped.append(stamps(composition))
    assert stamped[0] == stamped[1]
    assert any(values for _, values in stamped[0])


def test_appended_stamps_of_one_name_become_a_list():
    call = App("x", set_as_current=False).signature("a")
    call.stamp(customer="c1", tags=["x"]).stamp(append_stamps=True, customer="c2", tags=["y"])
    assert (call.options["customer"], call.options["tags"]) == (["c2", "c1"], ["y", "x"])
    peer = celery.Celery("x", set_as_current=False).signature("a")
    peer.stamp(customer="c1", tags=["x"]).stamp(append_stamps=True, customer="c2", tags=["y"])
    assert (call.options["customer"], call.options["tags"]) == (peer.options["customer"], peer.options["tags"])


def test_stamps_are_headers_of_the_message_and_are_not_overridden():
    publisher = SentMessages()
    app = App("x", set_as_current=False, publisher=publisher)

    call = app.signature("a").stamp(customer="c1", region=["eu"])
    call.apply_async(customer="other")
    call.clone().delay()

    assert len(publisher.messages) == 2
    for headers in (message.headers for message in publisher.messages):
        assert sorted(headers["stamped_headers"]) == ["customer", "region"]
        assert headers["stamps"] == {"customer": "c1", "region": ["eu"]}


def test_a_replacement_passes_through_on_replace():
    app = App("x", set_as_current=False)
    add = app.task(name="add")(lambda x, y: x + y)

    class Base(beatd.Task):
        def on_replace(self, sig):
            return super().on_replace(sig.clone((100,)))

    @app.task(name="replaced", bind=True, base=Base)
    def replaced(self):
        return self.replace(add.s(1))

    assert replaced.apply().get() == 101
