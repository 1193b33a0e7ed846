"""Random programs of a client: an app with settings, tasks with options, and calls, as source text.

The text imports ``celery``; :func:`run` runs it with the imports of either make, and returns what each call did: the
result, or the type of the exception, and the messages that are on the broker. So the two can be compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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

NOW = datetime.now(UTC)


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
    "plain": "def plain(x, y=0):\n    return [x, y]",
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

_CALL_OPTIONS: dict[str, Sequence[str]] = {
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

_TASK_OPTIONS: dict[str, Sequence[str]] = {
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
    "default_retry_delay": ("200", "0"),
    "acks_late": ("True", "False", "None"),
    "acks_on_failure_or_timeout": ("False",),
    "reject_on_worker_lost": ("True",),
    "track_started": ("True", "False"),
    "typing": ("False", "True"),
    "trail": ("False",),
    "throws": ("(KeyError,)",),
    "store_errors_even_if_ignored": ("True",),
    "send_events": ("False",),
    "pydantic": ("False",),
    "shared": ("False",),
    "own_attribute": ("'mine'",),
    "resultrepr_maxsize": ("10",),
}
_AUTORETRY_OPTIONS: dict[str, Sequence[str]] = {
    "autoretry_for": ("(ValueError,)", "[ValueError, KeyError]", "(Exception,)"),
    "dont_autoretry_for": ("(KeyError,)", "(ValueError,)"),
    "retry_kwargs": ("{'max_retries': 1}", "{'countdown': 300}", "{'max_retries': 2, 'countdown': 100}"),
    "retry_backoff": ("True", "300", "False"),
    "retry_backoff_max": ("700",),
    "retry_jitter": ("False",),
}

_ROUTES = (
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
_ANNOTATIONS = (
    "{'*': {'rate_limit': '7/s', 'priority': 8}}",
    "{'proj.plain': {'time_limit': 50, 'queue': 'c'}, '*': {'expires': 200}}",
    "[{'proj.many': {'serializer': 'pickle'}}, {'*': {'max_retries': 7}}]",
    "Annotation()",
    "[Annotation(), {'proj.*': {'priority': 1}}]",
    "{'*': {'@apply_async': lambda call: lambda *a, **k: call(*a, **{**k, 'shadow': 'annotated'})}}",
    "{'proj.plain': {'ignore_result': True, 'compression': 'zlib', 'typing': False}}",
)
_TASK_QUEUES = (
    "[Queue('a'), Queue('b', Exchange('bx', type='topic'), routing_key='b.#'), Queue('c', routing_key='c')]",
    "[Queue('a', Exchange('dx'), routing_key='a'), Queue('b', Exchange('dx'), routing_key='b.one'), Queue('c')]",
    "{'a': {'exchange': 'dx', 'routing_key': 'a'}, 'b': {'exchange': 'bx', 'exchange_type': 'topic', "
    "'routing_key': 'b.#'}, 'c': {}}",
    "{'a': {}, 'c': {'routing_key': 'c'}}",
)
_SETTINGS: dict[str, Sequence[str]] = {
    "task_default_queue": ("'work'", "'a'"),
    "task_default_exchange": ("'dx'",),
    "task_default_exchange_type": ("'direct'",),
    "task_default_routing_key": ("'b.one'", "'work.key'"),
    "task_default_priority": ("5", "0"),
    "task_default_rate_limit": ("'20/m'",),
    "task_create_missing_queues": ("False", "True"),
    "task_queue_max_priority": ("10",),
    "task_queues": _TASK_QUEUES,
    "task_routes": _ROUTES,
    "task_annotations": _ANNOTATIONS,
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


class Program(NamedTuple):
    """A program: its text, and the calls that follow, which are expressions."""

    text: str
    calls: list[str]


def program(seed: int, calls: int = 12) -> Program:
    """Return the program of a seed."""
    chance = random.Random(seed)
    return Program(HEAD + _settings(chance) + _tasks(chance), [_call(chance) for _ in range(calls)])


def _some(chance: random.Random, options: dict[str, Sequence[str]], most: int) -> dict[str, str]:
    """Choose some options and a value of each; the first values are more frequent."""
    names = chance.sample(sorted(options), min(len(options), chance.choice([0, 1, 1, 2, most])))
    return {name: chance.choice([*options[name][:2], *options[name]]) for name in names}


def _words(options: dict[str, str]) -> str:
    return "".join(f", {name}={value}" for name, value in options.items())


def _settings(chance: random.Random) -> str:
    chosen = _some(chance, _SETTINGS, 6)
    if chance.random() < 0.15:
        chosen["task_always_eager"] = "True"
    return "".join(f"app.conf.{name} = {value}\n" for name, value in chosen.items())


def _tasks(chance: random.Random) -> str:
    text = ""
    for name, body in BODIES.items():
        options = _some(chance, _TASK_OPTIONS, 4)
        if name == "automatic":
            options = {"autoretry_for": "(ValueError,)", "retry_jitter": "False", **options}
            options |= {**_some(chance, _AUTORETRY_OPTIONS, 3), "retry_jitter": "False"}
        if name in BOUND:
            options["bind"] = "True"
        options["name"] = f"'proj.{name}'"
        decorator = chance.choice(["app.task", "app.task", "shared_task"])
        text += f"\n\n@{decorator}({_words(options)[2:]})\n{body}\n"
    return text


def _arguments(chance: random.Random, name: str) -> str:
    return chance.choice(INVALID) if chance.random() < 0.04 else chance.choice(ARGUMENTS[name])


def _call_options(chance: random.Random, most: int = 4, without: str = "") -> str:
    chosen = _some(chance, _CALL_OPTIONS, most)
    return _words({name: value for name, value in chosen.items() if name not in without.split()})


def _signature(chance: random.Random) -> str:
    name = chance.choice(["plain", "many", "many", "bound", "failing"])
    text = f"{name}.{chance.choice(['s', 's', 'si'])}({chance.choice(ARGUMENTS[name])})"
    if name == "plain" and chance.random() < 0.5:
        text = "plain.s()"
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        text += chance.choice(
            [
                f".set({_call_options(chance, 2, 'chain chord group_id group_index root_id')[2:]})",
                ".on_error(many.s())",
                ".clone()",
                ".clone((9,))",
                ".clone(kwargs={'z': 9})",
                ".set(immutable=True)",
                f".clone((){_call_options(chance, 1, 'chain chord group_id group_index root_id')})",
            ]
        )
    return text


def composition(chance: random.Random, depth: int) -> str:
    """Return a composition, at most so deep."""
    if depth == 0:
        return _signature(chance)

    def parts(*, without_groups: bool = False) -> str:
        found: list[str] = []
        for _ in range(chance.randint(1, 3)):
            text = composition(chance, depth - 1)
            while without_groups and text.startswith(("group(", "plain.chunks(")):  # Celery reverses their members
                text = composition(chance, depth - 1)
            found.append(text)
        return ", ".join(found)

    kind = chance.choice(["task", "chain", "or", "group", "chord", "chord_call", "chunks", "map", "starmap", "merged"])
    text = {
        "task": lambda: _signature(chance),
        "chain": lambda: f"chain({_signature(chance)}, {parts()})",
        "or": lambda: f"({composition(chance, depth - 1)} | {composition(chance, depth - 1)})",
        "group": lambda: chance.choice(["group({})", "group([{}])"]).format(parts(without_groups=True)),
        "chord": lambda: f"chord([{parts(without_groups=True)}], {composition(chance, depth - 1)})",
        "chord_call": lambda: f"chord([{parts(without_groups=True)}], body=many.s())",
        "chunks": lambda: "plain.chunks([(1, 2), (3, 4), (5, 6)], 2).group()",
        "map": lambda: "many.map([1, 2])",
        "starmap": lambda: "plain.starmap([(1, 2), (3, 4)])",
        "merged": lambda: f"group({parts(without_groups=True)}) | {composition(chance, depth - 1)}",
    }[kind]()
    if kind == "merged":
        text = f"({text})"
    if chance.random() < 0.15:
        text += chance.choice(
            [
                f".set({_call_options(chance, 2, 'task_id chain chord group_id group_index parent_id root_id link link_error')[2:]})",
                ".clone()",
            ]
        )
    return text


def _request(chance: random.Random, without: str = "") -> str:
    chosen = {name: value for name, value in _some(chance, _REQUEST, 5).items() if name not in without.split()}
    return "{" + ", ".join(f"{name!r}: {value}" for name, value in chosen.items()) + "}"


_REQUEST: dict[str, Sequence[str]] = {
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

_RETRY: dict[str, Sequence[str]] = {
    "args": ("(5,)", "()", "None"),
    "kwargs": ("{'y': 6}", "{'x': 6}", "{}", "None"),
    "exc": ("KeyError('k')", "None"),
    "throw": ("False", "True"),
    "eta": ("NOW + timedelta(minutes=20)", "None"),
    "countdown": ("100", "0", "0.0", "None", "-100"),
    "max_retries": ("1", "0", "None", "9"),
    **{
        name: [value for value in _CALL_OPTIONS[name] if value != "None"]
        for name in ("queue", "priority", "expires", "headers", "serializer", "routing_key", "exchange", "link",
                     "time_limit", "soft_time_limit", "shadow", "ignore_result", "compression")
    },
}  # fmt: skip


def _call(chance: random.Random) -> str:
    """Return one call, as an expression."""
    name = chance.choice(sorted(BODIES))
    arguments = _arguments(chance, name)
    deep = chance.choice([1, 1, 2, 2, 3])
    further = chance.choice(["", "", "", "(1,)", "(1, 2)", "None, None", *(["(), {'z': 1}"] if deep == 1 else [])])

    forms: dict[str, Callable[[], str]] = {
        "delay": lambda: f"{name}.delay({arguments})",
        "apply_async": lambda: f"{name}.apply_async(*given({arguments}){_call_options(chance)})",
        "send_task": lambda: f"app.send_task('proj.{name}', *given({arguments}){_call_options(chance)})",
        "send_unknown": lambda: f"app.send_task('elsewhere.task', *given({arguments}){_call_options(chance)})",
        "signature": lambda: f"{_signature(chance)}.apply_async({further}{_call_options(chance, 2)})".replace(
            "(, ", "("
        ),
        "named": lambda: f"signature('proj.{name}', args=(1,), app=app{_call_options(chance, 2)}).apply_async()",
        "built": lambda: composition(chance, deep),
        "sent": lambda: (
            f"{composition(chance, deep)}.apply_async({further}{_call_options(chance, 1, 'task_id chain chord parent_id')})".replace(
                "(, ", "("
            )
        ),
        "errors": lambda: f"{composition(chance, 1)}.on_error(many.s('error')).apply_async()",
        "delayed": lambda: f"{composition(chance, deep)}.delay({chance.choice(['', '', '1'])})",
        "frozen": lambda: f"{composition(chance, deep)}.freeze()",
        "stamped": lambda: f"stamped({composition(chance, deep)}).apply_async()",
        "apply": lambda: f"{name}.apply(*given({arguments}){_words(_some(chance, _APPLY, 2))})",
        "eager": lambda: f"{composition(chance, deep)}.apply({further})",
        "retry": lambda: (
            f"inside(again, {_request(chance)}, lambda: again.retry({_words(_some(chance, _RETRY, 3))[2:]}))"
        ),
        "child": lambda: (
            f"inside(bound, {_request(chance)}, "
            f"lambda: {name}.apply_async(*given({arguments}){_call_options(chance, 1)}))"
        ),
        "children": lambda: f"inside(bound, {_request(chance)}, lambda: {composition(chance, deep)}.apply_async())",
        "replace": lambda: f"inside(bound, {_request(chance)}, lambda: bound.replace({_signature(chance)}))",
        "replace_by_several": lambda: (
            f"inside(bound, {_request(chance, 'chain')}, lambda: bound.replace({composition(chance, 1)}))"
        ),
        "add_to_chord": lambda: (
            f"inside(bound, {_request(chance)}, lambda: bound.add_to_chord({_signature(chance)}, "
            f"lazy={chance.choice(['True', 'False'])}))"
        ),
        "failed": lambda: f"inside(automatic, {_request(chance)}, lambda: automatic.run(1))",
        "attributes": lambda: f"attributes({name})",
    }
    return forms[chance.choice(sorted(forms))]()


_APPLY: dict[str, Sequence[str]] = {
    "throw": ("True", "False"),
    "task_id": ("'own-id'",),
    "link": ("plain.s(1)", "[many.s()]"),
    "link_error": ("many.s()",),
    "retries": ("1", "9"),
    "headers": ("{'tenant': 'a'}",),
    "priority": ("3",),
}
