"""Generated Celery apps: the source of a module whose entries use what celery beat looks at when it sends one.

The same number gives the same app. What an app may have is in tables of Python expressions, so that a failing case can
be read, cut down and run by hand.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

HEAD = """
import os
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

from celery import Celery, Task, group, signature
from celery.schedules import crontab, schedule
from kombu import Exchange, Queue


class Named(Task):
    def shadow_name(self, args, kwargs, options):
        return f"{self.name}-{len(args)}"


class Router:
    def route_for_task(self, name, args=None, kwargs=None):
        return {"queue": "old-router"} if name == "case.t1" else None


def route(name, args, kwargs, options, task=None, **_):
    if kwargs.get("tenant"):
        return {"queue": f"tenant-{kwargs['tenant']}", "priority": 2}
    return {} if name == "case.t2" else None


app = Celery("case", broker=os.environ["CASE_BROKER"])
media = Exchange("media", type="topic")
"""

TASKS = 6
"""Tasks ``case.t0`` to ``case.t5``; entries also name one that the app does not have."""

TASK_OPTIONS = {
    "queue": ["'own'", "'solo'", "'images'"],
    "exchange": ["'media'"],
    "routing_key": ["'media.image'", "'media.video.new'"],
    "priority": ["0", "3", "7"],
    "expires": ["60", "1.5", "None"],
    "serializer": ["'json'"],
    "compression": ["'gzip'"],
    "delivery_mode": ["1"],
    "ignore_result": ["True", "False"],
    "time_limit": ["80", "60"],
    "soft_time_limit": ["20", "2.5"],
    "base": ["Named"],
    "send_events": ["False"],
    "rate_limit": ["'5/m'"],
    "acks_late": ["True"],
}

OPTIONS = {
    "queue": ["'mine'", "'images'", "'solo'", "None", "Queue('object')"],
    "exchange": ["'media'", "'alone'", "Exchange('media')", "None"],
    "routing_key": ["'media.image'", "'it'", "None"],
    "priority": ["0", "1", "5", "9", "None"],
    "expires": [
        "30",
        "2.25",
        "None",
        "datetime(2031, 1, 2, 3, 4, 5)",
        "datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)",
        "datetime(2031, 1, 2, 3, 4, 5, 678000, tzinfo=timezone(timedelta(hours=2)))",
        "'2031-01-02T03:04:05+00:00'",
    ],
    "countdown": ["10", "1.5", "0", "None"],
    "headers": ["{'tenant': 'a', 'n': [1, None]}", "{}"],
    "shadow": ["'other'", "None"],
    "ignore_result": ["True", "False", "None"],
    "time_limit": ["90", "None"],
    "soft_time_limit": ["15", "None"],
    "serializer": ["'json'", "None"],
    "compression": ["'zlib'"],
    "retry": ["False"],
    "delivery_mode": ["1"],
    "link": ["signature('case.t0', args=(1,))", "[signature('case.t1'), signature('x.y', immutable=True)]"],
    "link_error": ["signature('case.t0', kwargs={'a': 1}, options={'queue': 'errors'})"],
}

NOT_CARRIED = {
    "eta": ["datetime(2031, 1, 1, tzinfo=UTC)"],
    "task_id": ["'one'"],
    "serializer": ["'pickle'"],
    "root_id": ["'root'"],
    "stamped_headers": ["['tenant']"],
    "tenant": ["'a'"],
}
"""Options that beatd refuses: an entry with one is not sent, and that is said."""

ARGUMENTS = [
    "1",
    "-3.5",
    "'text'",
    "'\\u00fc\\n\"'",
    "None",
    "True",
    "[1, [2]]",
    "(1, 2)",
    "{'a': {'b': None}}",
    "datetime(2027, 1, 2, 3, 4, 5, 6)",
    "datetime(2027, 1, 2, tzinfo=UTC)",
    "date(2027, 1, 2)",
    "Decimal('1.50')",
    "UUID(int=7)",
    "b'bytes'",
    "b'\\xff'",
    "2**70",
    "'${HOME}'",
]

SCHEDULES = [
    "30",
    "2.5",
    "timedelta(minutes=5)",
    "crontab()",
    "crontab(minute=0, hour='*/3')",
    "crontab(day_of_week='mon-fri', hour=7, minute=30)",
    "schedule(timedelta(hours=1), relative=True)",
    "schedule(90)",
]

CONF = {
    "task_default_queue": ["'standard'"],
    "task_default_exchange": ["'std'"],
    "task_default_exchange_type": ["'topic'"],
    "task_default_routing_key": ["'std.key'"],
    "task_default_priority": ["4", "0"],
    "task_default_delivery_mode": ["'transient'"],
    "task_create_missing_queues": ["False"],
    "task_ignore_result": ["True"],
    "task_time_limit": ["300"],
    "task_soft_time_limit": ["50.5"],
    "task_compression": ["'gzip'"],
    "task_protocol": ["1"],
    "task_send_sent_event": ["True"],
    "task_annotations": ["{'case.t3': {'queue': 'annotated', 'priority': 8}}", "{'*': {'expires': 99}}"],
    "result_extended": ["True"],
    "timezone": ["'Europe/Berlin'", "'America/New_York'"],
    "enable_utc": ["False"],
    "beat_max_loop_interval": ["5"],
    "task_queue_max_priority": ["10"],
    "task_queues": [
        "[Queue('images', media, routing_key='media.image'), Queue('solo', Exchange('alone'), routing_key='it')]",
        "[Queue('images', media, routing_key='media.image'), Queue('celery'), Queue('own')]",
        "{'images': {'exchange': 'media', 'exchange_type': 'topic', 'routing_key': 'media.image'}, "
        "'own': {'exchange': 'own', 'routing_key': 'own'}}",
    ],
    "task_routes": [
        "{'case.t0': {'queue': 'routed', 'priority': 6}, 'case.*': 'pattern'}",
        "{'case.t0': 'routed'}",
        "[route, {re.compile(r'case\\.t[1-3]'): {'queue': 'regex'}}]",
        "route",
        "[Router(), route]",
        "{'case.t?': 'question', 'case.t1': {'exchange': 'media', 'routing_key': 'media.image'}}",
        "{'case.t2': {}, 'case.*': {'queue': 'rest', 'time_limit': 5}}",
        "([('case.t4', {'queue': 'pair', 'delivery_mode': 1}), ('other.*', {'priority': 9})],)",
        "f'{__name__}.Router'",
        "f'{__name__}.route'",
        "{'elsewhere.task': {'queue': 'elsewhere', 'exchange': 'alone', 'routing_key': 'it'}}",
    ],
    "broker_transport_options": [
        "{'global_keyprefix': 'env1:'}",
        "{'priority_steps': list(range(10))}",
        "{'priority_steps': [0, 5]}",
        "{'sep': ':'}",
        "{'queue_order_strategy': 'priority', 'visibility_timeout': 600}",
    ],
}

OFTEN = ("task_routes", "task_queues", "broker_transport_options")


class AppSource:
    """The source of one app. ``conf`` has the settings as expressions, ``names`` its entries."""

    def __init__(self, number: int, entries: int) -> None:
        self._dice = random.Random(f"celery app {number}")
        self.conf = {
            name: self._one(values)
            for name, values in CONF.items()
            if self._dice.random() < (0.6 if name in OFTEN else 0.2)
        }
        lines = [HEAD, *self._settings()]
        for task in range(TASKS):
            lines += self._task(task)
        lines += ["app.conf.beat_schedule = {", *map(self._entry, range(entries)), "}"]
        lines += ["@app.on_after_finalize.connect", "def periodic(sender, **_):"]
        lines += [self._periodic(place) for place in range(entries // 3)]
        self.text = "\n".join([*lines, ""])

    @property
    def of_beatd(self) -> str:
        """The same app with beatd's imports."""
        app = self.text.replace("from celery import Celery, Task", "from beatd import App as Celery, Task")
        return app.replace("from celery.schedules", "from beatd.schedules")

    def _settings(self) -> Iterable[str]:
        if self._dice.random() < 0.7:
            return [f"app.conf.update({self._keywords(self.conf)})", ""]
        settings = [f"    CELERY_{name.upper()} = {value}" for name, value in self.conf.items()]
        return [
            "class Settings:",
            *settings,
            "    pass",
            "",
            "app.config_from_object(Settings, namespace='CELERY')",
            "",
        ]

    def _one(self, values: list[str]) -> str:
        return self._dice.choice(values)

    @staticmethod
    def _keywords(given: dict[str, str]) -> str:
        return ", ".join(f"{name}={value}" for name, value in given.items())

    @staticmethod
    def _table(given: dict[str, str]) -> str:
        return "{" + ", ".join(f"{name!r}: {value}" for name, value in given.items()) + "}"

    def _some(self, table: dict[str, list[str]], chance: float) -> dict[str, str]:
        return {name: self._one(values) for name, values in table.items() if self._dice.random() < chance}

    def _task(self, number: int) -> Iterable[str]:
        options = self._some(TASK_OPTIONS, 0.15 if number else 0)
        given = {"name": f"'case.t{number}'", "shared": "False", **options}
        return [f"@app.task({self._keywords(given)})", f"def t{number}(*args, **kwargs): ...", ""]

    def _arguments(self) -> str:
        return "[" + ", ".join(self._one(ARGUMENTS) for _ in range(self._dice.randrange(3))) + "]"

    def _keyword_arguments(self) -> str:
        given = {f"k{number}": self._one(ARGUMENTS) for number in range(self._dice.randrange(3))}
        if self._dice.random() < 0.2:
            given["tenant"] = "'a'"
        return self._table(given)

    def _options(self) -> str:
        more = self._some(NOT_CARRIED, 0.5) if self._dice.random() < 0.1 else {}
        return self._table({**self._some(OPTIONS, 0.15), **more})

    def _entry(self, number: int) -> str:
        task = self._one([*(f"'case.t{each}'" for each in range(TASKS)), "'elsewhere.task'", "t1.name"])
        fields = {"task": task, "schedule": self._one(SCHEDULES)}
        for name, make in (("args", self._arguments), ("kwargs", self._keyword_arguments), ("options", self._options)):
            if self._dice.random() < 0.7:
                fields[name] = make()
        return f"    'e{number}': {self._table(fields)},"

    def _periodic(self, number: int) -> str:
        task = f"t{self._dice.randrange(TASKS)}"
        call = f"{task}.s(*{self._arguments()}, **{self._keyword_arguments()}).set(**{self._options()})"
        options = self._some(OPTIONS, 0.05)
        signature = self._one([call, call, f"{call}.set(immutable=True)", f"{task}.si()", f"group([{task}.s()])"])
        keywords = self._keywords({"name": f"'p{number}'", **options})
        return f"    sender.add_periodic_task({self._one(SCHEDULES)}, {signature}, {keywords})"
