"""The calls of entries against the tasks of apps, beatd's and Celery's."""

import celery
import pytest
from pydantic import BaseModel

from beatd import App
from beatd.sources.task_check import Call, call_faults, has_tasks


class Order(BaseModel):
    number: int
    customer: str = ""


def made(kind):
    app = kind("proj", set_as_current=False)

    @app.task(name="proj.add")
    def add(x, y=1, *, scale=1):
        return x + y

    @app.task(name="proj.bound", bind=True)
    def bound(self, x):
        return x

    @app.task(name="proj.loose", typing=False)
    def loose(x):
        return x

    @app.task(name="proj.order", pydantic=True)
    def order(order: Order, note: str = ""):
        return order

    class Old(app.Task):
        name = "proj.old"

        def run(self, x):
            return x

    app.register_task(Old())
    app.finalize()
    return app


APPS = {"beatd": made(App), "celery": made(celery.Celery)}


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
@pytest.mark.parametrize(
    ("task", "args", "kwargs", "expected"),
    [
        ("proj.add", [1], {}, None),
        ("proj.add", [1, 2], {"scale": 3}, None),
        ("proj.add", [], {}, ("args", "missing a required argument: 'x'")),
        ("proj.add", [1, 2, 3], {}, ("args", "too many positional arguments")),
        ("proj.add", [], {"x": 1, "scal": 2}, ("kwargs", "unexpected keyword argument 'scal'")),
        ("proj.bound", [1], {}, None),
        ("proj.bound", [1, 2], {}, ("args", "too many positional arguments")),
        ("proj.loose", [], {"z": 1}, None),
        ("proj.old", [1], {}, None),
        ("proj.old", [], {}, ("args", "missing a required argument")),
        ("proj.order", [{"number": 1}], {}, None),
        (
            "proj.order",
            [],
            {"order": {"number": "hunter2"}},
            ("kwargs", "order of proj.order: number: Input should be"),
        ),
        ("proj.ad", [], {}, ("task", "did you mean proj.add")),
        ("beatd.command", [], {}, None),
    ],
)
def test_calls_must_fit(app, task, args, kwargs, expected):
    found = list(call_faults(app, [Call("entry", task, args, kwargs)]))
    if expected is None:
        assert found == []
        return
    [fault] = found
    assert (fault.entry, fault.key) == ("entry", expected[0])
    assert expected[1] in fault.message
    assert "hunter2" not in fault.message


def test_an_app_without_tasks_is_told_apart():
    assert has_tasks(APPS["beatd"])
    empty = App("empty", set_as_current=False)
    empty.finalize()
    for name in [name for name in empty.tasks if not name.startswith("celery.")]:
        del empty.tasks[name]  # shared tasks of other tests
    assert not has_tasks(empty)
