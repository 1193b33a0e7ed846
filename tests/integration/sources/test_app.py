"""Registrations of real modules, imported by a real child process; good ones, and all the ways to be bad."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from beatd import config
from beatd.exceptions import ConfigError
from beatd.planning.lint import find_warnings
from beatd.schedules import parse
from beatd.sources import load, load_app
from beatd.sources.app import read_app

Module = Callable[[str], Path]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Write ``tasks.py`` into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        (tmp_path / "tasks.py").write_text(textwrap.dedent(text))
        return tmp_path / "tasks.py"

    return write


GOOD = """
    from datetime import timedelta
    from beatd import App
    from beatd.schedules import crontab

    print("hello from the module")
    app = App("tasks", broker="redis://localhost")

    @app.on_after_configure.connect
    def setup_periodic_tasks(sender, **kwargs):
        sender.add_periodic_task(10.0, test.s("hello"), name="add every 10")
        sender.add_periodic_task(30.0, test.s("world"), expires=10)
        sender.add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), test.s("Happy Mondays!"))

    app.conf.beat_schedule = {
        "add-every-30-seconds": {"task": "tasks.add", "schedule": timedelta(seconds=30), "args": (16, 16),
            "options": {"expires": timedelta(minutes=1), "queue": "sums"}},
    }

    @app.task
    def test(arg):
        print(arg)
"""


def test_both_classic_ways_of_registering_are_read(module: Module) -> None:
    module(GOOD)
    entries = {entry.name: entry for entry in load_app("tasks", timezone="Europe/Berlin")}
    assert set(entries) == {
        "add every 10",
        "tasks.test('world')",
        "tasks.test('Happy Mondays!')",
        "add-every-30-seconds",
    }
    assert entries["add every 10"].schedule == parse(10.0)
    assert entries["add every 10"].args == ("hello",)
    assert entries["tasks.test('world')"].options.expires == 10_000
    monday = entries["tasks.test('Happy Mondays!')"]
    assert monday.schedule == parse("30 7 * * 1", timezone="Europe/Berlin")
    sums = entries["add-every-30-seconds"]
    assert (sums.task, sums.args, sums.options.queue, sums.options.expires) == ("tasks.add", (16, 16), "sums", 60_000)
    assert sums.schedule == parse(30)
    assert {entry.source for entry in entries.values()} == {"tasks.py"}


def test_the_zone_is_the_schedules_else_the_apps_else_the_files(module: Module) -> None:
    module("""
        from beatd import App
        from beatd.schedules import crontab
        app = App("tasks", timezone="Asia/Baku")
        app.conf.beat_schedule = {
            "a": {"task": "t", "schedule": crontab(hour=7, minute=0)},
            "b": {"task": "t", "schedule": crontab(hour=7, minute=0, timezone="Asia/Tokyo", dst="skip")},
        }
    """)
    a, b = load_app("tasks:app", timezone="Europe/Berlin")
    assert a.schedule == parse("0 7 * * *", timezone="Asia/Baku")
    assert b.schedule == parse("0 7 * * *", timezone="Asia/Tokyo", dst="skip")
    assert (a.timezone, b.timezone) == ("Asia/Baku", "Asia/Tokyo")


@pytest.mark.parametrize("imports", ["from celery import Celery as App", "from beatd import App"])
def test_zones_are_objects_with_a_name_and_others_are_named_with_the_entry(module: Module, imports: str) -> None:
    text = f"""
        {imports}
        from dateutil import tz

        app = App("tasks")
        app.conf.timezone = ZONE
        app.conf.beat_schedule = {{
            "a": {{"task": "x", "schedule": 60}},
            "b": {{"task": "x", "schedule": 60, "timezone": tz.gettz("Asia/Tokyo")}},
            "c": {{"task": "x", "schedule": 60, "timezone": tz.tzoffset(None, 7200)}},
        }}
    """
    module(text.replace("ZONE", 'tz.gettz("America/New_York")'))
    found = read_app("tasks")
    assert [entry.timezone for entry in found.entries] == ["America/New_York", "Asia/Tokyo"]
    [fault] = found.refused
    assert "beat_schedule.c: timezone = tzoffset(None, 7200): it has no IANA name; write" in str(fault)
    module(text.replace("ZONE", "tz.tzoffset(None, 3600)"))
    with pytest.raises(ConfigError, match=r"tasks: timezone = tzoffset\(None, 3600\): it has no IANA name; write"):
        read_app("tasks")


def test_the_files_defaults_hold_for_registrations_too(module: Module, tmp_path: Path) -> None:
    module(GOOD)
    (tmp_path / "beat.toml").write_text(
        'app = "tasks"\n[defaults]\nqueue = "slow"\n[beat_schedule."add every 10"]\ntask = "mine"\nschedule = 60\n'
    )
    found = load("beat.toml", env={})
    entries = {entry.name: entry for entry in found.entries}
    assert entries["tasks.test('world')"].options.queue == "slow"
    assert entries["add-every-30-seconds"].options.queue == "sums"
    assert entries["add every 10"].task == "mine", "the file overrules"
    assert len(entries) == 4
    assert found.digest == config.digest(found.entries)
    assert found.digest != config.load("beat.toml", env={}).digest


OFF = """
    {imports}
    app = App("tasks", broker="redis://localhost")
    app.conf.task_default_queue = {default!r}

    @app.task(queue="of-task", expires=10, priority=3, time_limit=60)
    def busy():
        pass

    @app.task
    def plain():
        pass

    off = dict.fromkeys(["queue", "expires", "priority", "time_limit", "shadow"], False)

    @app.on_after_configure.connect
    def setup_periodic_tasks(sender, **kwargs):
        sender.add_periodic_task(30.0, busy.s(), name="inherits")
        sender.add_periodic_task(30.0, busy.s(), name="none", **dict.fromkeys(off))
        sender.add_periodic_task(30.0, busy.s(), name="off", **off)
        sender.add_periodic_task(30.0, plain.s(), name="plain", **off)

    app.conf.beat_schedule = {{
        "conf": {{"task": "tasks.busy", "schedule": 30, "blackout": False, "options": off}},
        "beside": {{"task": "tasks.busy", "schedule": 30, "blackout": False, **off}},
    }}
"""
OF_FILE = """
app = "tasks"
[defaults]
queue = "of-file"
expires = "1h"
priority = 9
time_limit = 300
shadow = "of-file"
blackout = "22:00-06:00"
"""


@pytest.mark.parametrize("default", ["celery", "of-app"])
@pytest.mark.parametrize("imports", ["from celery import Celery as App", "from beatd import App"])
def test_false_turns_off_what_the_task_and_the_file_say(
    module: Module, tmp_path: Path, imports: str, default: str
) -> None:
    module(OFF.format(imports=imports, default=default))
    (tmp_path / "beat.toml").write_text(OF_FILE)
    found = load("beat.toml", env={})
    assert found.refused == ()
    entries = {entry.name: entry for entry in found.entries}
    seen = {
        name: (made.queue, made.expires, made.priority, made.time_limit, made.shadow)
        for name, made in ((entry.name, entry.options) for entry in found.entries)
    }
    queue = None if default == "celery" else "of-app"
    nothing = (queue, None, None, None, None)
    assert seen == {
        "inherits": ("of-task", 10_000, 3, 60, "of-file"),
        "none": ("of-file", 3_600_000, 9, 300, "of-file"),
        "off": nothing,
        "plain": nothing,
        "conf": nothing,
        "beside": nothing,
    }
    assert entries["off"].policies.blackout is not None
    assert entries["conf"].policies.blackout is entries["beside"].policies.blackout is None


@pytest.mark.parametrize("own", [{}, {"exchange": False}, {"queue": False}])
def test_the_default_queue_of_the_app_is_taken_where_nothing_else_is_named(
    module: Module, own: dict[str, bool]
) -> None:
    module(f"""
        from beatd import App
        app = App("tasks", broker="redis://localhost")
        app.conf.task_default_queue = "of-app"
        app.conf.beat_schedule = {{"a": {{"task": "t", "schedule": 30, "options": {own}}}}}
    """)
    for defaults, named in (({}, None), ({"exchange": "e"}, "exchange"), ({"queue": "q"}, "queue")):
        (entry,) = load_app("tasks", defaults=defaults)
        is_default = named is None or named in own
        assert entry.options.queue == ("of-app" if is_default else defaults.get("queue"))
        assert entry.options.exchange == (None if is_default else defaults.get("exchange"))


def test_a_file_without_an_app_is_just_the_file(module: Module, tmp_path: Path) -> None:
    module(GOOD)
    (tmp_path / "beat.toml").write_text('[beat_schedule.mine]\ntask = "mine"\nschedule = 60\n')
    assert [entry.name for entry in load("beat.toml", env={}).entries] == ["mine"]
    assert len(load("beat.toml", app="tasks", env={}).entries) == 5


def test_the_module_may_be_beside_the_file(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(GOOD)
    (tmp_path / "beat.toml").write_text('app = "tasks"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(load("../beat.toml", env={}).entries) == 4


def faults_of(name: str = "tasks", timeout: float = 30.0) -> str:
    with pytest.raises(ConfigError) as caught:
        load_app(name, where="beat.toml", timeout=timeout)
    text = str(caught.value)
    assert text.startswith(("beat.toml: ", "tasks.py: "))
    assert "beatd/sources" not in text, "a user's mistake shows no frames of ours"
    assert "beatd/app" not in text
    return text


def test_an_error_in_the_module_is_shown_with_its_line(module: Module) -> None:
    module("import os\nnumber = 1 / 0\n")
    text = faults_of()
    assert 'tasks.py", line 2' in text
    assert text.endswith("ZeroDivisionError: division by zero")


def test_an_error_in_a_receiver_is_shown_with_its_line(module: Module) -> None:
    module("""
        from beatd import App
        app = App("tasks")
        @app.on_after_configure.connect
        def setup(sender, **kwargs):
            raise LookupError("no database")
    """)
    text = faults_of()
    assert 'tasks.py", line 6, in setup' in text
    assert text.endswith("LookupError: no database")


def test_a_syntax_error_is_shown(module: Module) -> None:
    module("def broken(:\n")
    assert "SyntaxError" in faults_of()


def test_a_missing_module_is_named(module: Module) -> None:
    module("")
    assert "no module named 'missing'" in faults_of("missing")


def test_a_module_without_an_app_says_what_is_expected(module: Module) -> None:
    module("x = 1")
    assert "no beatd App found" in faults_of()


def test_a_module_that_exits_is_named(module: Module) -> None:
    module("import sys; sys.exit('bye')")
    assert "sys.exit('bye')" in faults_of()


def test_a_module_that_dies_is_named_with_what_it_said(module: Module) -> None:
    module("import os; print('last words', flush=True); os.kill(os.getpid(), 11)")
    text = faults_of()
    assert "killed its process (SIGSEGV)" in text
    assert "last words" in text
    module("import os; os._exit(3)")
    assert "exit code 3" in faults_of()


def test_a_module_that_hangs_is_given_up_with_all_its_processes(
    module: Module, tmp_path: Path, wait_until: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    module("""
        import subprocess, time
        child = subprocess.Popen(["sleep", "600"])
        open("pid", "w").write(str(child.pid))
        time.sleep(600)
    """)
    written = tmp_path / "pid"

    class Patient(subprocess.Popen):  # type: ignore[type-arg]
        """A child whose time begins when its module has written the file."""

        def wait(self, timeout: float | None = None) -> int:
            wait_until(lambda: written.exists() and written.read_text(), 60, "the module to be under way")
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Patient)
    assert "took longer than 0.5 s" in faults_of(timeout=0.5)
    pid = int(written.read_text())
    state = Path(f"/proc/{pid}/stat")

    def is_gone() -> bool:
        """A signal takes effect when its receiver is given a turn."""
        try:
            return state.read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(is_gone, 10, "the child's child to be gone")


def test_threads_of_the_module_do_not_keep_it(module: Module) -> None:
    module(GOOD + "\n    import threading\n    threading.Thread(target=threading.Event().wait).start()\n")
    assert len(load_app("tasks")) == 4


def test_what_the_module_prints_cannot_spoil_the_answer(module: Module) -> None:
    module(GOOD + "\n    import os\n    os.write(1, b'{}')\n    print('\\x00' * 100000)\n")
    assert len(load_app("tasks")) == 4


def test_all_bad_registrations_are_named_at_once(module: Module) -> None:
    module("""
        from beatd import App
        app = App("tasks")
        app.conf.beat_schedule = {
            "one": {"task": "t", "schedule": "61 * * * *"},
            "two": {"schedule": 30},
            "good": {"task": "t", "schedule": 30},
        }
    """)
    text = faults_of()
    assert "tasks.py: beat_schedule.one" in text
    assert "tasks.py: beat_schedule.two" in text
    assert "good" not in text


def test_arguments_that_json_cannot_carry_are_named(module: Module) -> None:
    module("""
        from beatd import App
        app = App("tasks")
        app.conf.beat_schedule = {"one": {"task": "t", "schedule": 30, "args": (object(),)}}
    """)
    assert "tasks.py: beat_schedule.one: JSON cannot carry" in faults_of()


CELERY = """
    from datetime import timedelta
    from celery import Celery
    from celery.schedules import crontab, schedule

    app = Celery("tasks", broker="redis://localhost")
    app.conf.timezone = "Asia/Baku"
    app.conf.beat_schedule = {
        "often": {"task": "tasks.add", "schedule": 30.0, "args": (1, 2), "options": {"queue": "q"}},
        "dawn": {"task": "tasks.add", "schedule": crontab(minute=0, hour=4, day_of_week={1, 3})},
        "hourly": {"task": "tasks.add", "schedule": schedule(timedelta(hours=1), relative=True)},
    }

    @app.task
    def add(x, y): ...

    @app.on_after_configure.connect
    def setup_periodic_tasks(sender, **kwargs):
        sender.add_periodic_task(10.0, add.s(3, 4), name="add every 10")
"""


def test_an_app_of_celery_is_as_good(module: Module) -> None:
    module(CELERY)
    entries = {entry.name: entry for entry in load_app("tasks")}
    assert set(entries) == {"often", "dawn", "hourly", "add every 10"}
    assert (entries["often"].args, entries["often"].options.queue) == ((1, 2), "q")
    assert entries["dawn"].schedule == parse({"minute": 0, "hour": 4, "day_of_week": [1, 3]}, timezone="Asia/Baku")
    assert entries["hourly"].schedule == parse({"every": "1h", "relative": True}, timezone="Asia/Baku")
    assert entries["add every 10"].task == "tasks.add"
    assert entries["add every 10"].source == "tasks.py"


def test_celerys_schedules_in_an_app_of_ours(module: Module) -> None:
    module("""
        from beatd import App
        from celery.schedules import crontab
        app = App("tasks")
        app.conf.beat_schedule = {"one": {"task": "t", "schedule": crontab(minute="*/5")}}
        app.add_periodic_task(crontab(hour=7), app.signature("t"), name="two")
    """)
    one, two = load_app("tasks")
    assert one.schedule == parse({"minute": "*/5"})
    assert two.schedule == parse({"minute": "*", "hour": 7})


def test_a_schedule_that_has_no_counterpart_is_named(module: Module) -> None:
    module("""
        from celery import Celery
        from redbeat.schedules import rrule
        app = Celery("tasks")
        app.conf.beat_schedule = {"rule": {"task": "t", "schedule": rrule("DAILY")}}
    """)
    assert "beat_schedule.rule: a schedule of the class redbeat.schedules.rrule has no counterpart" in faults_of()


def test_the_files_of_its_own_code_are_known(module: Module, tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("EVERY = 30\n")
    (tmp_path / "beat.toml").write_text('app = "tasks"\n')
    module("""
        import email.message
        from beatd import App
        from helpers import EVERY
        app = App("tasks")
        app.conf.beat_schedule = {"a": {"task": "t", "schedule": EVERY}}
    """)
    assert set(load("beat.toml", env={}).beside) == {str(tmp_path / "tasks.py"), str(tmp_path / "helpers.py")}


def test_the_files_of_code_that_fails_are_known(module: Module, tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("EVERY = = 30\n")
    module("from helpers import EVERY\n")
    with pytest.raises(ConfigError) as caught:
        load_app("tasks")
    assert set(caught.value.files) == {str(tmp_path / "tasks.py"), str(tmp_path / "helpers.py")}


@pytest.mark.parametrize("maker", ["from beatd import App", "from celery import Celery as App"])
def test_settings_of_celery_beat_that_have_no_effect_are_remarked(module: Module, tmp_path: Path, maker: str) -> None:
    module(f"""
        {maker}
        app = App("tasks", broker="redis://localhost")
        app.conf.beat_max_loop_interval = 5
        app.conf.task_default_queue = "q"
    """)
    (tmp_path / "beat.toml").write_text('app = "tasks"\n')
    found = load("beat.toml", env={})
    assert list(map(str, find_warnings(found, 0))) == [
        "tasks.py: beat_max_loop_interval: it has no effect: the daemon sleeps until the next run is due"
    ]


def test_a_bad_registration_costs_only_itself(module: Module, tmp_path: Path) -> None:
    module("""
        from datetime import datetime
        from celery import Celery
        from celery.schedules import crontab, schedule
        class Odd(crontab):
            def is_due(self, last_run_at):
                return False, 60
        class Named(schedule):
            pass
        app = Celery("tasks")
        app.conf.beat_schedule = {
            "good": {"task": "t", "schedule": 30},
            "odd": {"task": "t", "schedule": Odd(minute=0)},
            "named": {"task": "t", "schedule": Named(60)},
            "clock": {"task": "t", "schedule": crontab(minute=0, nowfun=datetime.now), "relative": True},
            "nothing": None,
            "words": {"task": "t", "schedule": "nonsense"},
            "object": {"task": "t", "schedule": 1, "args": [object()]},
            "number": {"task": "t", "schedule": 1, "args": 7},
        }
    """)
    (tmp_path / "beat.toml").write_text("")
    found = load("beat.toml", app="tasks", env={})
    assert [entry.name for entry in found.entries] == ["good", "named", "clock"]
    assert {fault.path.split(".")[1] for fault in found.refused} == {"nothing", "number", "object", "odd", "words"}
    assert any("its own is_due (tasks.Odd)" in str(fault) for fault in found.refused)
    assert [fault.path for fault in found.remarks if "nowfun" in fault.path] == ["beat_schedule.clock.schedule.nowfun"]


def test_tasks_and_arguments_of_file_and_app_are_checked_when_asked(module, tmp_path):
    module("""
        from celery import Celery
        app = Celery("tasks", broker="redis://localhost")
        app.conf.beat_schedule = {"own": {"task": "tasks.add", "schedule": 30, "args": [1, 2, 3]},
                                  "overruled": {"task": "tasks.add", "schedule": 30}}

        @app.task(name="tasks.add")
        def add(x, y):
            return x + y
    """)
    table = '[beat_schedule.{}]\ntask = "{}"\nschedule = 30\nargs = [1, 2]\n'
    calls = {"good": "tasks.add", "unknown": "tasks.ad", "overruled": "tasks.add", "built": "beatd.http"}
    (tmp_path / "beat.toml").write_text('app = "tasks"\n' + "".join(table.format(*call) for call in calls.items()))
    assert load("beat.toml").task_faults == ()
    found = load("beat.toml", check_tasks=True)
    assert [fault.path for fault in found.task_faults] == [
        "beat_schedule.built.args",
        "beat_schedule.built.args",
        "beat_schedule.unknown.task",
        "beat_schedule.own.args",
    ]
    lines = [str(warning) for warning in find_warnings(found, 0) if "unknown.task" in warning.path]
    assert lines == [
        'beat.toml:7:1: beat_schedule.unknown.task: the app has no task "tasks.ad"; did you mean tasks.add?',
    ]
    alone = load("beat.toml", check_tasks=True, with_app=False)
    assert [fault.path for fault in alone.task_faults] == ["beat_schedule.built.args"] * 2
    module("from beatd import App\napp = App('tasks', broker='redis://localhost')")
    without = load("beat.toml", check_tasks=True)
    assert len(without.task_faults) == 2
    assert any("could not be checked" in remark.message for remark in without.remarks)


ROUTED = """
    from IMPORT as App
    from kombu import Exchange, Queue

    class Router:
        def route_for_task(self, name, args, kwargs, options, task=None, **_):
            return {"queue": "tenant-" + kwargs["tenant"]} if "tenant" in kwargs else None

    app = App("tasks", broker="redis://localhost")
    app.conf.task_queues = [
        Queue("video", Exchange("media", type="topic"), routing_key="media.#"),
        Queue("images", Exchange("media", type="topic"), routing_key="media.image"),
        Queue("solo", Exchange("alone"), routing_key="it"),
    ]
    app.conf.task_routes = [
        Router(),
        {"tasks.report": {"queue": "reports", "priority": 3}, "tasks.own": "lost"},
        {"tasks.image": {"exchange": "media", "routing_key": "media.image"}},
        {"tasks.alone": {"exchange": "alone", "routing_key": "it"}},
    ]
    every = {"schedule": 30}
    app.conf.beat_schedule = {
        "plain": {"task": "tasks.plain", **every},
        "unknown": {"task": "elsewhere.task", **every},
        "route": {"task": "tasks.report", **every},
        "task": {"task": "tasks.own", **every},
        "entry": {"task": "tasks.own", **every, "options": {"queue": "mine", "priority": 9, "expires": 5}},
        "exchange": {"task": "tasks.image", **every},
        "one queue": {"task": "tasks.alone", **every},
        "router": {"task": "tasks.plain", **every, "kwargs": {"tenant": "7"}},
    }

    @app.task
    def plain(tenant=None): ...

    @app.task
    def report(): ...

    @app.task(queue="own", priority=6, expires=60)
    def own(): ...
"""


@pytest.mark.parametrize("kind", ["celery import Celery", "beatd import App"])
def test_options_of_tasks_and_routes_of_the_app_count_as_under_celery_beat(module: Module, kind: str) -> None:
    module(ROUTED.replace("IMPORT", kind))
    options = {entry.name: entry.options for entry in load_app("tasks")}
    assert {name: one.queue for name, one in options.items()} == {
        "plain": None,
        "unknown": None,
        "route": "reports",
        "task": "own",
        "entry": "mine",
        "exchange": None,
        "one queue": "solo",
        "router": "tenant-7",
    }
    assert (options["exchange"].exchange, options["exchange"].routing_key) == ("media", "media.image")
    assert [options[name].priority for name in ("plain", "route", "task", "entry")] == [None, 3, 6, 9]
    assert [options[name].expires for name in ("route", "task", "entry")] == [None, 60_000, 5_000]


@pytest.mark.parametrize("kind", ["celery import Celery", "beatd import App"])
def test_a_queue_that_the_app_does_not_allow_costs_the_entry_alone(module: Module, kind: str) -> None:
    module(ROUTED.replace("IMPORT", kind) + "\n    app.conf.task_create_missing_queues = False\n")
    found = read_app("tasks")
    assert {entry.name for entry in found.entries} == {"one queue", "exchange"}
    assert any("beat_schedule.route: queue 'reports' is not in task_queues" in str(fault) for fault in found.refused)


@pytest.mark.parametrize("kind", ["celery import Celery", "beatd import App"])
def test_an_entry_of_the_file_that_goes_elsewhere_than_the_app_sends_its_task_is_named(
    module: Module, tmp_path: Path, kind: str
) -> None:
    module(ROUTED.replace("IMPORT", kind))
    table = '[beat_schedule.{}]\ntask = "tasks.{}"\nschedule = 30\n{}\n'
    calls = [("plain", ""), ("own", ""), ("report", 'queue = "x"'), ("alone", ""), ("image", "")]
    text = "".join(table.format(f"f-{task}", task, more) for task, more in calls)
    (tmp_path / "beat.toml").write_text(f'app = "tasks"\n[broker]\ndefault_queue = "solo"\n{text}')
    warnings = [str(each) for each in load("beat.toml", check_tasks=True).task_faults if each.path.endswith("queue")]
    text = 'it goes to the queue "solo", but the app sends'
    assert warnings == [
        f'beat.toml:8: beat_schedule.f-own.queue: {text} tasks.own elsewhere; set queue = "own"',
        f"beat.toml:20: beat_schedule.f-image.queue: {text} tasks.image elsewhere; "
        'set exchange = "media", routing_key = "media.image"',
    ]


def test_an_unknown_target_of_an_entry_of_the_app_is_a_warning(module: Module, tmp_path: Path) -> None:
    module("""
        from beatd import App

        app = App("tasks")
        app.conf.beat_schedule = {
            name: {"task": "t", "schedule": 30, "notify": [target]} for name, target in (("a", "ops"), ("b", "opps"))
        }
    """)
    (tmp_path / "beat.toml").write_text('app = "tasks"\n[notify.ops]\ncommand = ["x"]\n')
    loaded = load(tmp_path / "beat.toml", env={})
    assert [entry.name for entry in loaded.entries] == ["a", "b"]
    [remark] = loaded.remarks
    assert remark.path == "beat_schedule.b.notify"
    assert remark.message == 'there is no target "opps"; did you mean "ops"?'
