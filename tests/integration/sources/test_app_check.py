"""What celery beat does in its own process and the daemon does not: refused or remarked when the app is read."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from beatd.importers.celery_app import read_celery_app
from beatd.schedules import parse
from beatd.sources import load
from beatd.sources.app import Registered, read_app

Read = Callable[..., Registered]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read the app of a module with these lines, and one entry for each table of ``entries``."""
    monkeypatch.chdir(tmp_path)

    def reader(lines: str, broker: str = "redis://localhost", **entries: str) -> Registered:
        tables = "".join(f"    {name!r}: {{'task': 't', 'schedule': 30, {more}}},\n" for name, more in entries.items())
        head = f"from celery import Celery, Task, chain\napp = Celery('proj', broker={broker!r})\n"
        text = f"{head}{textwrap.dedent(lines)}\napp.conf.beat_schedule = {{\n{tables}}}\n"
        (tmp_path / "proj.py").write_text(text)
        return read_app("proj")

    return reader


def faults(registered: Registered) -> list[str]:
    found = [*(fault for _, fault in registered.refused), *registered.remarks]
    return [f"{fault.path}: {fault.message}" for fault in found]


def test_an_apps_own_apply_async_and_receivers_are_named(read: Read) -> None:
    found = read(
        """
        from celery.signals import before_task_publish

        class Own(Task):
            def apply_async(self, *args, **kwargs):
                return super().apply_async(*args, **kwargs)

        @app.task(name="t", base=Own)
        def t(): ...

        @before_task_publish.connect
        def receiver(**_): ...
        """,
        a="",
        b="",
    )
    why = "the daemon does not call its own apply_async (of proj.Own); give the entry headers and options, 2 entries"
    assert faults(found) == [
        "before_task_publish: the daemon does not call its receivers; give entries headers, or send from a task",
        f"beat_schedule.a.task: {why}",
    ]


def test_settings_with_which_messages_would_not_be_taken_are_named(read: Read) -> None:
    found = read("app.conf.update(accept_content=['pickle'], task_always_eager=True)", a="")
    assert faults(found) == [
        'accept_content: messages of the daemon are JSON, which the app\'s workers refuse; add "json"',
        "task_always_eager: it has no effect on the daemon: it sends messages, and runs no tasks",
    ]
    assert faults(read("app.conf.accept_content = ['application/json']", a="")) == []


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"sep": ":"}, "0"),
        ({"priority_steps": [0, 5]}, "0"),
        ({"priority_steps": [0, 3, 5]}, "0, 3"),
        ({"priority_steps": [1]}, "none"),
    ],
)
def test_priorities_whose_list_no_worker_takes_from_are_refused(read: Read, options: dict, taken: str) -> None:
    found = read(f"app.conf.broker_transport_options = {options}", plain="", seven="'options': {'priority': 7}")
    assert [entry.name for entry in found.entries] == ([] if taken == "none" else ["plain"])
    assert (
        "beat_schedule.seven: priority 7: the app's workers do not take from its list on Redis"
        in faults(found)[0 if taken != "none" else 1]
    )
    assert any(f"they take: {taken}" in fault for fault in faults(found))
    assert any(fault.startswith(f"broker_transport_options.{next(iter(options))}: ") for fault in faults(found))


@pytest.mark.parametrize("options", [{"priority_steps": list(range(10))}, {"queue_order_strategy": "priority"}])
def test_more_steps_than_the_daemons_lose_nothing(read: Read, options: dict) -> None:
    assert faults(read(f"app.conf.broker_transport_options = {options}", a="'options': {'priority': 7}")) == []


def test_rabbitmq_has_no_lists(read: Read) -> None:
    lines = "app.conf.broker_transport_options = {'priority_steps': [0, 5]}"
    assert faults(read(lines, "amqp://localhost", a="'options': {'priority': 7}")) == []


BROADCAST = """
    from kombu.common import Broadcast
    from kombu import Exchange, Queue
    app.conf.task_queues = [Broadcast("all"), Queue("fan", Exchange("e", type="fanout")), Queue("celery")]
"""


def test_broadcasts_are_refused_on_redis_and_go_to_their_exchange_on_rabbitmq(read: Read) -> None:
    entries = {"all": "'options': {'queue': 'all'}", "fan": "'options': {'queue': 'fan'}", "plain": ""}
    found = read(BROADCAST, **entries)
    assert [entry.name for entry in found.entries] == ["plain"]
    assert (
        "beat_schedule.all: queue 'all' has an exchange of the type fanout, for all workers; on Redis"
        in faults(found)[0]
    )
    to = {entry.name: entry.options.exchange for entry in read(BROADCAST, "amqp://localhost", **entries).entries}
    assert to == {"all": "all", "fan": "e", "plain": None}


def test_the_clean_up_of_results_is_an_entry_as_under_celery_beat(read: Read) -> None:
    (entry,) = read("app.conf.result_backend = 'file:///tmp'").entries
    assert (entry.name, entry.task, entry.options.expires) == ("celery.backend_cleanup",) * 2 + (43_200_000,)
    assert entry.schedule == parse("0 4 * * *")
    assert "celery.backend_cleanup" in read_celery_app("proj").entries
    for line in ("app.conf.result_backend = 'redis://localhost'", "app.conf.result_expires = None", ""):
        assert read(line).entries == ()
    assert len(read("app.conf.result_backend = 'missing.package:Backend'").entries) == 1
    both = "app.conf.update(result_backend='file:///tmp', result_expires=None)"
    assert read(both).entries == ()


def test_entries_go_to_the_apps_default_queue_unless_the_file_names_one(read: Read, tmp_path: Path) -> None:
    read("app.conf.task_default_queue = 'proj'", a="", b="'options': {'queue': 'own'}")
    file = '[beat_schedule.f]\ntask = "x"\nschedule = 30\n'

    def loaded(text: str) -> tuple[dict[str, str | None], list[str]]:
        (tmp_path / "beat.toml").write_text(f'app = "proj"\n{text}')
        found = load("beat.toml", env={})
        return {entry.name: entry.options.queue for entry in found.entries}, [str(each) for each in found.remarks]

    queues, remarks = loaded(file)
    assert queues == {"f": None, "a": "proj", "b": "own"}
    assert remarks == [
        f'{tmp_path}/beat.toml: broker.default_queue: entries of files that name no queue go to "celery", and the '
        'tasks of the app to "proj"; set default_queue = "proj"'
    ]
    assert loaded("") == ({"a": "proj", "b": "own"}, [])
    assert loaded(f'[broker]\ndefault_queue = "cron"\n{file}') == ({"f": None, "a": None, "b": "own"}, [])
    assert loaded('[defaults]\nqueue = "slow"\n') == ({"a": "slow", "b": "own"}, [])


def test_options_without_effect_are_left_out_and_named(read: Read) -> None:
    found = read("", a="'options': {'retry': False, 'compression': 'zlib', 'priority': 3}")
    assert [entry.options.priority for entry in found.entries] == [3]
    assert faults(found) == [
        "beat_schedule.a.options.retry: it has no effect: the daemon sends until the broker has the message",
        "beat_schedule.a.options.compression: it has no effect: messages of the daemon are not compressed",
    ]
    assert [str(note) for note in read_celery_app("proj").notes] == [
        "a: options.retry: it has no effect: the daemon sends until the broker has the message",
        "a: options.compression: it has no effect: messages of the daemon are not compressed",
    ]


def test_a_composition_as_an_entry_is_named(read: Read) -> None:
    found = read("app.add_periodic_task(30, chain(app.signature('t'), app.signature('u')), name='c')")
    assert [fault.split(": ")[0] for fault in faults(found)] == ["beat_schedule.c.task"]


def test_an_import_leaves_behind_what_an_app_refuses(read: Read) -> None:
    read("app.conf.task_create_missing_queues = False", good="", lost="'options': {'queue': 'missing'}")
    found = read_celery_app("proj")
    assert list(found.entries) == ["good"]
    assert list(map(str, found.notes)) == ["lost: queue 'missing' is not in task_queues: celery"]
