"""Settings, options and arguments of random client programs (:mod:`tests.call_programs`), as source text."""

from __future__ import annotations

from collections.abc import Sequence

HEAD = """
from __future__ import annotations
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo
from kombu import Exchange, Queue
from celery import Celery, Task, chain, chord, chunks, group, shared_task, signature, xmap, xstarmap
from celery.canvas import StampingVisitor
from celery.exceptions import Ignore, Reject, Retry

NOW = datetime.fromisoformat(MOMENT)


def by_function(name, args, kwargs, options, task=None, **more):
    if name.endswith("plain"):
        return {"queue": "by_function", "priority": 4}
    if name.endswith("bound"):
        return "by_name"


class ByMethod:
    def route_for_task(self, name, args=None, kwargs=None):
        return {"queue": "by_method"} if name.endswith("many") else None


class Annotation:
    def annotate(self, task):
        return {"priority": 2, "rate_limit": "3/s"} if task.name.endswith("bound") else None


class Base(Task):
    abstract = True
    priority = 6
    max_retries = 1

    def shadow_name(self, args, kwargs, options):
        return "shadowed" if args and args[0] == 7 else None


app = Celery("proj", broker=BROKER, backend=BACKEND)
"""

BODIES = {
    "plain": "def plain(x: int, y: int = 0):\n    return [x, y]",
    "many": "def many(*args, **kwargs):\n    return [list(args), kwargs]",
    "bound": "def bound(self, x=1, *, z=None):\n    return [self.request.retries, x, z]",
    "failing": "def failing(x=0):\n    raise KeyError(x)",
    "again": "def again(self, x=0, y=0):\n"
    "    if self.request.retries < 2:\n        raise self.retry((x + 1,), countdown=100)\n    return [x, y]",
    "automatic": "def automatic(x=0):\n    raise ValueError(x)",
}
"""Functions of tasks by name."""
BOUND = frozenset({"bound", "again"})
ARGUMENTS = {
    "plain": ("1", "7", "1, 2", "2, y=3", "x=4"),
    "many": ("", "1", "7, 'ü', None", "a=1, b=[2, {'c': 3}]", "NOW.date()", "Decimal('1.5')"),
    "bound": ("", "1", "7, z=2"),
    "failing": ("", "1"),
    "again": ("", "1", "1, 2", "x=3, y=4"),
    "automatic": ("", "1"),
}
"""Valid arguments."""
INVALID = ("1, 2, 3, 4, 5", "nonsense=1", "object()", "{1: 2}")

TIMES = (
    "100", "NOW + timedelta(minutes=20)",
    "(NOW + timedelta(minutes=20)).isoformat()", "(NOW + timedelta(minutes=20)).astimezone(ZoneInfo('Asia/Baku'))",
    "NOW - timedelta(minutes=20)", "-100", "None",
)  # fmt: skip

QUEUES = ("'a'", "'b'", "'c'", "'other'", "None", "Queue('a')")
EXCHANGES = ("'bx'", "'dx'", "None", "Exchange('bx', type='topic')")
KEYS = ("'b.one'", "'c'", "'a'", "None", "''")

CALL_OPTIONS: dict[str, Sequence[str]] = {
    "countdown": ("100", "100.0", "0", "-100", "None"),
    "eta": [each for each in TIMES if "NOW" in each],
    "expires": TIMES,
    "queue": QUEUES,
    "exchange": EXCHANGES,
    "routing_key": KEYS,
    "priority": ("0", "3", "9", "None", "12", "-1"),
    "serializer": ("'json'", "'pickle'", "None", "'nonsense'"),
    "compression": ("'gzip'", "'zlib'", "None"),
    "task_id": ("'own-id'", "None"),
    "headers": ("{'tenant': 'a'}", "{}", "None", "{'shadow': 'x', 'origin': 'y'}"),
    "shadow": ("'alias'", "None", "''"),
    "time_limit": ("20", "10.5", "None", "0"),
    "soft_time_limit": ("10", "5", "None", "0"),
    "ignore_result": ("True", "False", "None"),
    "link": ("plain.s(1)", "[plain.s(), many.si(2)]", "None", "dict(plain.s())"),
    "link_error": ("many.s()", "[many.s(), many.si(2)]", "None"),
    "retries": ("2", "0"),
    "retry": ("True", "False", "None"),
    "retry_policy": ("{'max_retries': 1}", "None"),
    "argsrepr": ("'(hidden)'", "None", "''"),
    "kwargsrepr": ("'{hidden}'", "None"),
    "root_id": ("'a-root'", "None"),
    "parent_id": ("'a-parent'", "None"),
    "reply_to": ("'an-address'", "None"),
    "group_id": ("'a-group'", "None"),
    "group_index": ("3", "0"),
    "add_to_parent": ("True", "False"),
    "delivery_mode": ("1", "2", "'transient'"),
    "correlation_id": ("'a-correlation'",),
    "message_id": ("'a-message'",),
    "app_id": ("'an-app'",),
    "user_id": ("'guest'",),
    "chain": ("[plain.s(5)]", "[many.s(1), plain.s(5)]"),
    "chord": ("many.s(6)", "None"),
    "replaced_task_nesting": ("2", "0"),
    "route_name": ("'proj.many'", "None"),
    "stamped_headers": ("['tenant'], tenant='a'", "[]"),
    "origin": ("'me'",),
    "timeout": ("5",),
    "mandatory": ("True",),
}  # fmt: skip
"""Options of ``apply_async`` and their values, the first ones the usual ones."""

OF_NO_STEP = "chain chord group_id group_index root_id"
"""Options that a signature in a composition does not have."""
OF_ONE = f"{OF_NO_STEP} task_id parent_id link link_error"
"""Options that a composition does not have; of some docs/celery.md lists the differences."""

TASK_OPTIONS: dict[str, Sequence[str]] = {
    "base": ("Base",),
    "queue": ("'a'", "'c'", "'other'"),
    "exchange": ("'bx'",),
    "routing_key": ("'b.one'", "'c'"),
    "priority": ("0", "5", "None"),
    "expires": ("100", "NOW + timedelta(minutes=20)"),
    "serializer": ("'pickle'", "'json'"),
    "compression": ("'gzip'", "'zlib'"),
    "delivery_mode": ("1",),
    "ignore_result": ("True", "False", "None"),
    "time_limit": ("20", "30"),
    "soft_time_limit": ("10",),
    "rate_limit": ("'10/s'", "5", "None"),
    "max_retries": ("1", "0", "None", "5"),
    "default_retry_delay": ("400", "0"),
    "acks_late": ("True", "False", "None"),
    "acks_on_failure_or_timeout": ("False",),
    "reject_on_worker_lost": ("True",),
    "track_started": ("True", "False"),
    "typing": ("False", "True"),
    "trail": ("False",),
    "throws": ("(KeyError,)",),
    "store_errors_even_if_ignored": ("True",),
    "send_events": ("False",),
    "pydantic": ("True", "False"),
    "shared": ("False",),
    "own_attribute": ("'mine'",),
    "resultrepr_maxsize": ("10",),
}
AUTORETRY_OPTIONS: dict[str, Sequence[str]] = {
    "autoretry_for": ("(ValueError,)", "[ValueError, KeyError]", "(Exception,)"),
    "dont_autoretry_for": ("(KeyError,)", "(ValueError,)"),
    "retry_kwargs": ("{'max_retries': 1}", "{'countdown': 300}", "{'max_retries': 2, 'countdown': 100}"),
    "retry_backoff": ("True", "300", "False"),
    "retry_backoff_max": ("700",),
    "retry_jitter": ("False",),
}

ROUTES = (
    "{'proj.plain': 'a', 'proj.m*': {'queue': 'b'}}",
    "{'proj.plain': {'queue': 'a', 'priority': 7}, '*': {'queue': 'c', 'priority': 3}}",
    "{'proj.*': {'exchange': 'bx', 'routing_key': 'b.two'}}",
    "{'proj.plain': {'routing_key': 'b.three'}, 'proj.many': {'queue': 'b', 'routing_key': 'b.four'}}",
    "([('proj.plain', 'a'), ('*.bound', {'queue': 'b'})],)",
    "([('proj.p*', {'queue': 'a'}), (re.compile(r'.*ny$'), {'queue': 'c'})],)",
    "[{'proj.plain': 'a'}, by_function]",
    "by_function",
    "(by_function, ByMethod())",
    "ByMethod()",
    "{'proj.plain': {'queue': 'a', 'serializer': 'pickle'}, 'proj.many': {'serializer': 'pickle'}}",
    "{'proj.plain': {'compression': 'gzip'}, '*': {'compression': 'zlib', 'priority': 1}}",
    "{'proj.plain': {'queue': 'a', 'headers': {'routed': 1}}}",
    "{'proj.many': {'delivery_mode': 1, 'queue': 'c'}}",
    "{'proj.*': {'queue': Queue('a')}}",
    "{re.compile(r'proj\\.(plain|many)'): {'queue': 'a'}}",
    "[]",
    "{}",
)
ANNOTATIONS = (
    "{'*': {'rate_limit': '7/s', 'priority': 8}}",
    "{'proj.plain': {'time_limit': 50, 'queue': 'c'}, '*': {'expires': 200}}",
    "[{'proj.many': {'serializer': 'pickle'}}, {'*': {'max_retries': 7}}]",
    "Annotation()",
    "[Annotation(), {'proj.*': {'priority': 1}}]",
    "{'*': {'@apply_async': lambda call: lambda *a, **k: call(*a, **{**k, 'shadow': 'annotated'})}}",
    "{'proj.plain': {'ignore_result': True, 'compression': 'zlib', 'typing': False}}",
)
TASK_QUEUES = (
    "[Queue('a'), Queue('b', Exchange('bx', type='topic'), routing_key='b.#'), Queue('c', routing_key='c')]",
    "[Queue('a', Exchange('dx'), routing_key='a'), Queue('b', Exchange('dx'), routing_key='b.one'), Queue('c')]",
    "{'a': {'exchange': 'dx', 'routing_key': 'a'}, 'b': {'exchange': 'bx', 'exchange_type': 'topic', "
    "'routing_key': 'b.#'}, 'c': {}}",
    "{'a': {}, 'c': {'routing_key': 'c'}}",
)
SETTINGS: dict[str, Sequence[str]] = {
    "task_default_queue": ("'work'", "'a'"),
    "task_default_exchange": ("'dx'",),
    "task_default_exchange_type": ("'direct'",),
    "task_default_routing_key": ("'b.one'", "'work.key'"),
    "task_default_priority": ("5", "0"),
    "task_default_rate_limit": ("'20/m'",),
    "task_create_missing_queues": ("False", "True"),
    "task_queue_max_priority": ("10",),
    "task_queues": TASK_QUEUES,
    "task_routes": ROUTES,
    "task_annotations": ANNOTATIONS,
    "task_ignore_result": ("True",),
    "task_store_eager_result": ("True",),
    "task_eager_propagates": ("True",),
    "task_serializer": ("'pickle'", "'json'"),
    "task_compression": ("'gzip'", "'zlib'"),
    "task_time_limit": ("60",),
    "task_soft_time_limit": ("10",),
    "task_acks_late": ("True",),
    "task_track_started": ("True",),
    "task_inherit_parent_priority": ("True",),
    "task_publish_retry": ("False",),
    "task_store_errors_even_if_ignored": ("True",),
    "task_allow_error_cb_on_chord_header": ("True",),
    "result_extended": ("True",),
    "result_expires": ("100", "timedelta(days=2)"),
    "timezone": ("'Asia/Baku'", "'UTC'"),
    "enable_utc": ("False", "True"),
}

REQUEST: dict[str, Sequence[str]] = {
    "args": ("[1]", "[1, 2]", "[]", "(1, 2)"),
    "kwargs": ("{'x': 1}", "{'y': 2}", "{}"),
    "retries": ("0", "1", "3"),
    "root_id": ("'a-root'",),
    "parent_id": ("'a-parent'",),
    "group": ("'a-group'",),
    "group_index": ("1",),
    "chord": ("dict(many.s(8))",),
    "chain": (
        "[dict(many.s(9).set(task_id='next'))]",
        "[dict(plain.s(1).set(task_id='last')), dict(many.s(9).set(task_id='next'))]",
    ),
    "callbacks": ("[dict(plain.s(3))]",),
    "errbacks": ("[dict(many.s(4))]",),
    "expires": ("(NOW + timedelta(minutes=20)).isoformat()",),
    "timelimit": ("[20, 10]", "[None, None]"),
    "headers": ("{'tenant': 'a'}", "None"),
    "shadow": ("'alias'",),
    "reply_to": ("'an-address'",),
    "origin": ("'me'",),
    "ignore_result": ("True", "False"),
    "replaced_task_nesting": ("2",),
    "delivery_info": (
        "{'exchange': '', 'routing_key': 'a', 'priority': 3, 'redelivered': False}",
        "{'exchange': 'bx', 'routing_key': 'b.one', 'priority': 0, 'redelivered': False}",
        "{'exchange': '', 'routing_key': 'other', 'priority': None, 'redelivered': None}",
    ),
    "stamped_headers": ("['stamp'], 'stamps': {'stamp': ['v']}",),
}


RETRY: dict[str, Sequence[str]] = {
    "args": ("(5,)", "()", "None"),
    "kwargs": ("{'y': 6}", "{'x': 6}", "{}", "None"),
    "exc": ("KeyError('k')", "None"),
    "throw": ("False", "True"),
    "eta": ("NOW + timedelta(minutes=20)", "None"),
    "countdown": ("100", "0", "0.0", "None", "-100"),
    "max_retries": ("1", "0", "None", "9"),
    **{
        name: [value for value in CALL_OPTIONS[name] if value != "None"]
        for name in ("queue", "priority", "expires", "headers", "serializer", "routing_key", "exchange", "link",
                     "time_limit", "soft_time_limit", "shadow", "ignore_result", "compression")
    },
}  # fmt: skip


APPLY: dict[str, Sequence[str]] = {
    "throw": ("True", "False"),
    "task_id": ("'own-id'",),
    "link": ("plain.s(1)", "[many.s()]"),
    "link_error": ("many.s()",),
    "retries": ("1", "9"),
    "headers": ("{'tenant': 'a'}",),
    "priority": ("3",),
}
