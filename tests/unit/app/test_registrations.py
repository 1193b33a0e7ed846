"""Periodic entries of an app, its signals and its configuration."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
import types
from datetime import timedelta

import celery
import pytest

from beatd import App, group
from beatd.app.find_app import find_app
from beatd.exceptions import ConfigError
from beatd.signals import Signal
from tests.fakes import SentMessages


@pytest.fixture
def app() -> App:
    app = App("tasks")

    @app.task(name="tasks.test")
    def test(arg):
        return arg

    return app


def test_an_unnamed_entry_is_called_after_the_call(app):
    name = app.add_periodic_task(10.0, app.tasks["tasks.test"].s("world"))
    assert name == "tasks.test('world')"
    assert app.registrations() == {
        name: {"task": "tasks.test", "schedule": 10.0, "args": ["world"], "kwargs": {}, "options": {}}
    }


def test_options_of_the_entry_and_of_the_signature_are_merged(app):
    signature = app.tasks["tasks.test"].s("x").set(queue="slow", priority=3)
    app.add_periodic_task(timedelta(minutes=1), signature, name="n", expires=10, priority=6)
    assert app.registrations()["n"]["options"] == {"queue": "slow", "priority": 6, "expires": 10}


def test_arguments_may_be_given_beside_the_task(app):
    app.add_periodic_task(1, app.tasks["tasks.test"], ("a",), {"arg": 1}, name="n")
    entry = app.registrations()["n"]
    assert (entry["args"], entry["kwargs"]) == (["a"], {"arg": 1})


def test_the_configured_schedule_is_completed_and_keeps_its_own_fields(app):
    app.conf.beat_schedule = {"n": {"task": app.tasks["tasks.test"], "schedule": 30.0, "timezone": "Asia/Baku"}}
    assert app.registrations() == {
        "n": {
            "task": "tasks.test",
            "schedule": 30.0,
            "args": [],
            "kwargs": {},
            "options": {},
            "timezone": "Asia/Baku",
        }
    }


def test_receivers_are_called_once_with_the_app(app):
    calls = []

    @app.on_after_configure.connect
    def configured(sender, **kwargs):
        calls.append(("configure", sender))

    @app.on_after_finalize.connect
    def finalized(sender, **kwargs):
        calls.append(("finalize", sender))

    app.registrations()
    app.registrations()
    assert calls == [("configure", app), ("finalize", app)]


def test_errors_of_receivers_are_raised(app):
    @app.on_after_configure.connect
    def broken(sender, **kwargs):
        raise NameError("test")

    with pytest.raises(NameError):
        app.registrations()


def test_receivers_are_held_weakly():
    signal, calls = Signal("s"), []

    def receiver(**kwargs):
        calls.append(1)

    signal.connect(receiver)
    signal.send()
    del receiver
    gc.collect()
    signal.send()
    assert calls == [1]


def test_a_receiver_with_weak_false_stays():
    signal, calls = Signal("s"), []
    signal.connect(lambda **kwargs: calls.append(1), weak=False)
    gc.collect()
    signal.send()
    assert calls == [1]


def test_errors_of_receivers_of_a_careful_signal_are_logged(caplog):
    signal, calls = Signal("s"), []

    def broken(**kwargs):
        raise ValueError

    def fine(**kwargs):
        calls.append(1)

    signal.connect(broken)
    signal.connect(fine)
    signal.send()
    assert calls == [1]
    assert [record.event for record in caplog.records] == ["signal_handler_failed"]


def test_a_receiver_is_called_for_its_sender_only():
    signal, calls = Signal("s"), []

    @signal.connect(sender="a")
    def receiver(sender, **kwargs):
        calls.append(sender)

    signal.send(sender="a")
    signal.send(sender="b")
    assert calls == ["a"]
    assert signal.disconnect(receiver)
    assert signal.receivers == []


def test_settings_are_attributes_and_items(app):
    app.conf.timezone = "Asia/Baku"
    assert app.conf["timezone"] == "Asia/Baku"
    app.conf.update(result_expires=60, mine=1)
    assert (app.conf.result_expires, app.conf.mine) == (60, 1)
    assert app.conf.task_default_queue == "celery"
    assert app.conf.get("nothing") is None


def test_the_error_for_a_misspelt_setting_suggests_a_name(app):
    with pytest.raises(AttributeError, match="did you mean 'timezone'"):
        _ = app.conf.timezon


def test_mutable_defaults_are_not_shared_between_apps(app):
    app.conf.beat_schedule["a"] = {"task": "t", "schedule": 1}
    assert App("other").conf.beat_schedule == {}
    assert list(app.registrations()) == ["a"]


@pytest.fixture
def settings_module(monkeypatch):
    module = types.ModuleType("my_settings")
    monkeypatch.setitem(sys.modules, "my_settings", module)
    return module


def test_settings_of_a_module_by_namespace(app, settings_module):
    settings_module.CELERY_BROKER_URL = "redis://elsewhere/3"
    settings_module.CELERY_TIMEZONE = "Asia/Baku"
    settings_module.TIME_ZONE = "Europe/Berlin"
    app.config_from_object("my_settings", namespace="CELERY")
    assert app.conf.broker_url == "redis://elsewhere/3"
    assert app.conf.timezone == "Asia/Baku"
    assert "time_zone" not in app.conf


def test_settings_of_a_module_in_old_and_new_names(app, settings_module):
    settings_module.result_expires = 5
    settings_module.BROKER_URL = "redis://elsewhere/3"
    settings_module.CELERYBEAT_SCHEDULE = {"a": {"task": "t", "schedule": 1}}
    settings_module.CELERY_TIMEZONE = "Asia/Baku"
    app.config_from_object("my_settings")
    assert app.conf.result_expires == 5
    assert app.conf.broker_url == "redis://elsewhere/3"
    assert app.conf.timezone == "Asia/Baku"
    assert list(app.registrations()) == ["a"]


def test_settings_on_conf_override_the_module(app, settings_module):
    settings_module.timezone = "Asia/Baku"
    app.conf.timezone = "Europe/Berlin"
    app.config_from_object("my_settings")
    assert app.conf.timezone == "Europe/Berlin"


def test_another_thread_can_register_tasks_while_the_app_is_finalized(app):
    """Both may be importing the same module: each would wait for what the other one holds."""
    waiting = []

    def importing(sender, **_):
        other = threading.Thread(target=lambda: app.task(name="late")(lambda: 1), daemon=True)
        other.start()
        other.join(20)
        waiting.append(other.is_alive())

    app.on_import_modules.connect(importing)
    app.conf.task_ignore_result = True
    app.import_tasks()
    assert waiting == [False]
    assert app.tasks["late"].ignore_result is True


def test_a_forked_process_finalizes_anew_what_a_thread_of_its_parent_had_begun(app, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def importing(sender, **_):
        begun.set()
        go_on.wait(30)

    app.on_import_modules.connect(importing)
    parents = threading.Thread(target=app.import_tasks)
    parents.start()
    assert begun.wait(30)
    app.on_import_modules.disconnect(importing)
    childs = threading.Thread(target=app.finalize, daemon=True)
    try:
        with monkeypatch.context() as forked:
            forked.setattr("os.getpid", lambda: -1)
            childs.start()
            childs.join(20)
        assert not childs.is_alive()
        assert "celery.accumulate" in app.tasks
    finally:
        go_on.set()
        parents.join()


def test_events_of_a_forked_process_do_not_wait_for_a_thread_of_its_parent(app, monkeypatch):
    app.conf.broker_url = "memory://"
    events = app.sent_events
    sends = threading.Thread(target=lambda: events.send("task-halfway", {}), daemon=True)
    with events._lock, monkeypatch.context() as forked:
        forked.setattr("os.getpid", lambda: -1)
        sends.start()
        sends.join(20)
        assert not sends.is_alive()


def test_a_name_that_is_taken_is_logged_once(app, caplog):
    for _ in range(2):
        app.task(name="tasks.test")(lambda: 2)
    assert [record.event for record in caplog.records] == ["task_name_taken"]


def test_settings_on_conf_override_the_module_also_later(app, settings_module):
    settings_module.timezone = settings_module.worker_pool = "solo"
    app.config_from_object("my_settings")
    app.conf.timezone = "Europe/Berlin"
    app.config_from_object({"timezone": "Asia/Baku"})
    assert (app.conf.timezone, app.conf.worker_pool) == ("Europe/Berlin", "prefork")


def test_a_later_source_of_settings_replaces_an_earlier_one_as_in_celery(app):
    theirs = celery.Celery("x", set_as_current=False)
    for each in (app, theirs):
        each.config_from_object({"result_expires": 1, "task_default_queue": "a"})
        assert each.conf.result_expires == 1
        each.config_from_object({"result_expires": 2})
        assert (each.conf.result_expires, each.conf.task_default_queue) == (2, "celery")
        each.config_from_object({"result_expires": 3})
        each.config_from_object({"worker_pool": "solo"})
        assert (each.conf.result_expires == 3, each.conf.worker_pool) == (False, "solo")


def test_a_configuration_that_cannot_be_read_is_an_error_each_time(app):
    app.config_from_object("no_such_module")
    for _ in range(2):
        with pytest.raises(ConfigError, match="no_such_module"):
            _ = app.conf.broker_url


def test_no_thread_sees_settings_without_those_of_a_source_that_another_reads(app):
    reading, read = threading.Event(), threading.Event()

    class Slow:
        @property
        def task_default_queue(self):
            (read if reading.is_set() else reading).set()  # the second thread lets the first one go on
            read.wait(30)
            return "slow"

    app.config_from_object(Slow())
    first = threading.Thread(target=lambda: app.conf.task_default_queue)
    first.start()
    try:
        assert reading.wait(30)
        assert app.conf.task_default_queue == "slow"
    finally:
        read.set()
        first.join()


def test_a_configuration_module_that_is_missing_is_named(app):
    app.config_from_object("no_such_module")
    with pytest.raises(ConfigError, match="no_such_module"):
        _ = app.conf.timezone


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"findone.py": "from beatd import App\napp = App('x')"}, "findone"),
        ({"findtwo.py": "from beatd import App\ncelery = App('x')"}, "findtwo"),
        ({"findthree.py": "from beatd import App\nmine = App('x')"}, "findthree:mine"),
        ({"findfour.py": "from beatd import App\nonly = App('x')"}, "findfour"),
        ({"findfive/__init__.py": "", "findfive/celery.py": "from beatd import App\napp = App('x')"}, "findfive"),
    ],
)
def test_an_app_is_found_by_celerys_rules(project, files, name):
    for path, text in files.items():
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text(text)
    assert find_app(name).main == "x"


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (None, "missing", "no module named 'missing'"),
        ("", "brokn", r'the Python path\); did you mean "broken"\?; start beatd'),
        ("", "broken.py", r'; did you mean "broken"\?'),
        ("", "./broken", r'not the name of a module; .* did you mean "broken"\?'),
        ("", "shop/tasks.py:app", r'not the name of a module; .* did you mean "shop\.tasks"\?'),
        (None, ":app", "not the name of a module; expected MODULE or MODULE:APP"),
        (
            "from beatd import App\nmain = App('x')",
            "broken:mian",
            r"no attribute 'mian'; did you mean \"broken:main\"\?",
        ),
        (
            "from beatd import App\napp = App('x')\n@app.task\ndef add(): ...",
            "broken:add",
            r'did you mean "broken:app"\?',
        ),
        ("", "broken", "no beatd App"),
        ("x = 1", "broken:y", "no attribute 'y'"),
        ("import nothing_here", "broken", "nothing_here"),
        ("1 / 0", "broken", "ZeroDivisionError"),
        ("app = 3", "broken", "builtins.int is not a beatd App"),
    ],
)
def test_the_error_for_a_missing_app_says_where_it_was_searched(project, text, name, words):
    if text is not None:
        (project / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        find_app(name)
    assert "loading.py" not in str(caught.value)


def test_autodiscovery_imports_the_modules_that_exist(project, app):
    (project / "disco").mkdir()
    (project / "disco/__init__.py").write_text("")
    (project / "disco/tasks.py").write_text("from beatd import shared_task\n@shared_task\ndef found(): return 1")
    sys.path.insert(0, str(project))
    app.autodiscover_tasks(["disco", "json"])
    app.finalize()
    assert app.tasks["disco.tasks.found"].apply().get() == 1


def test_autodiscovery_takes_names_of_classes_and_no_package_that_does_not_exist(project):
    for name in ("classes", "classes/orders"):
        (project / name).mkdir()
        (project / name / "__init__.py").write_text("")
    (project / "classes/orders/apps.py").write_text("class OrdersConfig: pass")
    sys.path.insert(0, str(project))
    for each in (App("x", set_as_current=False), celery.Celery("x", set_as_current=False)):
        each.autodiscover_tasks(["classes.orders.apps.OrdersConfig", "classes"], force=True)
        for name in ("tasks", None):
            with pytest.raises(ModuleNotFoundError, match="no_such_package"):
                each.autodiscover_tasks(["no_such_package"], related_name=name, force=True)


@pytest.mark.parametrize("place", ["imports", "include", "argument"])
def test_one_module_of_tasks_may_be_a_text_as_in_celery(project, place):
    (project / "lonely.py").write_text("from beatd import shared_task\n@shared_task\ndef found(): return 1")
    sys.path.insert(0, str(project))
    app = App("x", set_as_current=False, include="lonely" if place == "argument" else None)
    if place != "argument":
        app.conf[place] = "lonely"
    app.finalize()
    assert app.tasks["lonely.found"].apply().get() == 1


def test_an_app_takes_changes_and_strict_typing_as_in_celery():
    for kind in (App, celery.Celery):
        app = kind("x", set_as_current=False, include=None, changes={"task_default_queue": "q"}, strict_typing=False)
        assert (app.conf.task_default_queue, app.strict_typing) == ("q", False)
    task = App("x", set_as_current=False, publisher=SentMessages(), strict_typing=False).task(lambda x: x)
    assert task.delay(1, 2, 3).id


MODULE = """
from beatd import shared_task
@shared_task(queue="slow")
def found(x): return x + 1
"""


class Routes(SentMessages):
    """A publisher that also keeps the queues."""

    def __init__(self):
        super().__init__()
        self.queues = []

    def publish(self, message, *, queue, **_to):
        super().publish(message)
        self.queues.append(queue)

    def publish_many(self, messages):
        self.queues += [outgoing.to.key for outgoing in messages]
        return super().publish_many(messages)


@pytest.fixture(params=["imports", "include", "discovered"])
def client(request, project):
    """An app whose task module is not imported yet; its messages are in ``publisher.messages``."""
    (project / "modular").mkdir()
    (project / "modular/__init__.py").write_text("")
    (project / "modular/tasks.py").write_text(MODULE)
    sys.path.insert(0, str(project))
    made = App("client", set_as_current=False, publisher=Routes())
    made.task(name="own", shared=False)(lambda: 1)
    if request.param == "discovered":
        made.autodiscover_tasks(["modular"])
    else:
        made.conf[request.param] = ["modular.tasks"]
    return made


SENT_BY_CLIENTS = {
    "delay": lambda app: app.tasks["own"].delay(),
    "name": lambda app: app.send_task("modular.tasks.found", [1]),
    "signature": lambda app: app.signature("modular.tasks.found", (1,)).delay(),
    "group": lambda app: group(app.signature("modular.tasks.found", (n,)) for n in (1, 2)).delay(),
    "chain": lambda app: (app.tasks["own"].s() | app.signature("modular.tasks.found")).delay(),
}


@pytest.mark.parametrize("way", SENT_BY_CLIENTS)
def test_a_client_sends_without_the_task_modules(client, way):
    told = []
    client.on_import_modules.connect(lambda **_: told.append("imported"), weak=False)
    client.conf.task_routes = {"modular.*": {"queue": "routed"}}
    SENT_BY_CLIENTS[way](client)
    assert "modular.tasks" not in sys.modules
    assert told == []
    assert client.publisher.messages
    assert set(client.publisher.queues) == {"celery" if way in {"delay", "chain"} else "routed"}


def test_a_task_that_a_client_asks_for_is_there_with_its_options(client):
    client.tasks["own"].delay()
    assert client.tasks["modular.tasks.found"](1) == 2
    client.send_task("modular.tasks.found", [1])
    assert client.publisher.queues[-1] == "slow"


def test_a_client_that_runs_its_tasks_itself_imports_their_modules(client):
    client.conf.task_always_eager = True
    assert client.tasks["own"].delay().get() == 1
    assert client.signature("modular.tasks.found", (1,)).delay().get() == 2


def test_what_needs_all_tasks_imports_the_modules_also_after_a_message(client):
    client.tasks["own"].delay()
    client.import_tasks()
    assert "modular.tasks.found" in client.tasks


def test_an_app_gets_the_shared_tasks_of_modules_that_are_imported_after_its_first_message(client):
    client.tasks["own"].delay()
    importlib.import_module("modular.tasks")
    client.signature("modular.tasks.found", (1,)).delay()
    assert client.publisher.queues[-1] == "slow"
    assert client.tasks["modular.tasks.found"].max_retries == 3


def test_errors_of_task_modules_are_raised_each_time(client):
    client.conf.imports = ["no_such_module"]
    client.tasks["own"].delay()
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            client.import_tasks()
