"""The two makes that run programs of :mod:`tests.call_programs`, and what their calls did, in a form to compare."""

from __future__ import annotations

import base64
import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import celery
import celery.app.builtins
import kombu.compression
import kombu.serialization
import redis
from celery import _state
from kombu import Exchange, Queue

import beatd
import beatd.result
from beatd.app import current
from beatd.app.context import Context
from beatd.app.routing import Queues
from beatd.broker.redis import bind
from beatd.broker.redis_keys import RedisKeys
from beatd.message.protocol import HEADER_NAMES
from tests.call_programs import Program

IMPORTS = (
    ("from celery import Celery", "from beatd import App as Celery"),
    ("from celery", "from beatd"),
)

ATTRIBUTES = """
    name queue exchange routing_key priority expires serializer compression ignore_result time_limit soft_time_limit
    rate_limit max_retries default_retry_delay acks_late acks_on_failure_or_timeout reject_on_worker_lost track_started
    typing trail throws store_errors_even_if_ignored send_events own_attribute
""".split()  # noqa: SIM905 - a list of 25 lines would be no easier to read
"""Options of a task that are compared."""

PROPERTIES = frozenset({
    "app_id", "correlation_id", "expiration", "message_id", "priority", "reply_to", "timestamp", "type", "user_id",
})  # fmt: skip
"""Properties that a receiver reads. Celery adds keywords of ``apply_async`` that are headers, too."""

ERRORS = dict.fromkeys(
    (
        "AttributeError",
        "EncodeError",
        "KeyError",
        "MessageError",
        "SerializerNotInstalled",
        "TypeError",
        "ValueError",
    ),
    "bad input",
)
"""Errors of calls that cannot be sent: beatd has words and a class of its own for them."""

BOUND = (
    Queue("b", Exchange("bx", type="topic"), routing_key="b.#"),
    Queue("a", Exchange("dx"), routing_key="a"),
    Queue("c", Exchange("dx"), routing_key="c"),
)
"""Queues that workers have bound to the exchanges of the programs."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Make:
    """A make: its app on databases of its own, and the names that the program has defined."""

    def __init__(
        self,
        program: Program,
        url: str,
        database: int,
        replaced: tuple[tuple[str, str], ...],
        moment: datetime,
    ) -> None:
        self.program = program
        self.broker, self.backend = (f"{url.rpartition('/')[0]}/{database + number}" for number in range(2))
        self.store = redis.Redis.from_url(self.broker)
        self.results = redis.Redis.from_url(self.backend)
        self.store.flushdb()
        self.results.flushdb()
        text = program.text.replace("BROKER", repr(self.broker)).replace("BACKEND", repr(self.backend))
        text = text.replace("MOMENT", repr(moment.isoformat()))
        for theirs, ours in replaced:
            text = text.replace(theirs, ours)
        self.names: dict[str, Any] = {
            "__name__": "proj",
            "inside": self._inside,
            "given": lambda *args, **kwargs: (args, kwargs),
            "attributes": lambda task: {name: getattr(task, name, None) for name in ATTRIBUTES},
            "stamped": self._stamped,
        }
        exec(compile(text, "<program>", "exec"), self.names)
        self.app = self.names["app"]
        self.app.finalize()
        self._bind()

    def _bind(self) -> None:
        raise NotImplementedError

    def _push(self, task: Any, request: dict[str, Any]) -> None:
        raise NotImplementedError

    def _pop(self, task: Any) -> None:
        raise NotImplementedError

    def _inside(self, task: Any, request: dict[str, Any], call: Callable[[], Any]) -> Any:
        """Call it inside a run of the task, as a worker does."""
        task = self.app.tasks[task.name]
        info = {"exchange": "", "routing_key": "work", "priority": 0, "redelivered": False}
        if is_eager := bool(self.app.conf.task_always_eager):
            request = {name: value for name, value in request.items() if name not in {"chain", "chord"}}
        fields = {
            "is_eager": is_eager,
            "id": "the-run",
            "root_id": "the-run",
            "args": [],
            "kwargs": {},
            "delivery_info": info,
            **request,
        }
        self._push(task, {**fields, "task": task.name, "called_directly": False})
        try:
            result = call()
            children = [child for child in task.request.children or () if child.id != "the-run"]  # a retry
            return {"result": result, "children": children}
        finally:
            self._pop(task)

    def _stamped(self, signature: Any) -> Any:
        class Visitor(self.names["StampingVisitor"]):  # type: ignore[name-defined]
            def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
                return {"tenant": "a"}

        signature.stamp(Visitor())
        return signature

    def outcomes(self) -> Iterator[str]:
        """Yield what each call did, as text."""
        for call in self.program.calls:
            try:
                result = eval(call, self.names)
            except Exception as error:  # noqa: BLE001 - it is compared
                name = type(error).__name__
                if (name := ERRORS.get(name, name)) == "bad input":
                    self._messages()  # of a group, Celery has sent the calls before the wrong one
                    yield "raised bad input"
                    continue
                result = {"raised": name}
            yield normalised({"messages": self._messages(), "result": shape(result)})

    def _messages(self) -> list[Any]:
        """Take the messages from the broker, by list, in the order in which they were sent."""
        found: list[Any] = []
        for key in sorted(key for key in self.store.scan_iter() if self.store.type(key) == b"list"):
            raw = reversed(self.store.lrange(key, 0, -1))
            found += ([key.decode(), *parts_of(json.loads(envelope))] for envelope in raw)
            self.store.delete(key)
        return found

    def close(self) -> None:
        self.app.close()
        self.store.close()
        self.results.close()


class Celerys(Make):
    def close(self) -> None:
        gc.collect()  # results unsubscribe when they are collected: the server must still be there
        if (consumer := getattr(self.app.backend, "result_consumer", None)) is not None:
            consumer.stop()
            consumer.cancel_for = lambda *_: None
        self.app.backend.client.close()
        super().close()

    def _bind(self) -> None:
        with self.app.producer_or_acquire() as producer:
            for queue in (*self.app.amqp.queues.values(), *BOUND):
                queue(producer.channel).declare()

    def _push(self, task: Any, request: dict[str, Any]) -> None:
        task.push_request(**request)
        _state._task_stack.push(task)

    def _pop(self, task: Any) -> None:
        _state._task_stack.pop()
        task.pop_request()


class Beatds(Make):
    def _bind(self) -> None:
        bindings = [*Queues(self.app.conf).bindings(), *Queues({"task_queues": BOUND}).bindings()]
        bind(self.store, bindings, RedisKeys.of(self.broker))

    def _push(self, task: Any, request: dict[str, Any]) -> None:
        of_message = {name: value for name, value in request.items() if name in HEADER_NAMES}
        rest = {name: value for name, value in request.items() if name not in HEADER_NAMES and name != "headers"}
        task.request_stack.push(Context({**(request.get("headers") or {}), **of_message}, **rest))

    def _pop(self, task: Any) -> None:
        task.request_stack.pop()


@contextmanager
def makes(program: Program, url: str) -> Iterator[tuple[Make, Make]]:
    """Both makes of a program, on the databases 0 to 3 of a Redis; current apps and shared tasks stay as they were."""
    finalizers, apps, factories = set(_state._on_app_finalizers), list(current._apps), list(current._factories)
    theirs_before = _state.default_app, getattr(_state._tls, "current_app", None)
    opened: list[Make] = []
    moment = datetime.now(UTC)  # for both: a day or a minute may end between them
    builtins = {each for each in finalizers if each.__module__ == celery.app.builtins.__name__}
    _state._on_app_finalizers.intersection_update(builtins)
    current._factories.clear()
    try:
        opened.append(Celerys(program, url, 0, (), moment))
        opened.append(Beatds(program, url, 2, IMPORTS, moment))
        yield opened[0], opened[1]
    finally:
        for make in opened:
            make.close()
        _state._on_app_finalizers.clear()
        _state._on_app_finalizers.update(finalizers)
        _state.default_app, _state._tls.current_app = theirs_before
        current._apps[:], current._factories[:] = apps, factories


def parts_of(envelope: dict[str, Any]) -> list[Any]:
    """Properties, headers and body of a message on Redis."""
    headers, properties = envelope["headers"], envelope["properties"]
    body = base64.b64decode(envelope["body"])
    if method := headers.get("compression"):
        body = kombu.compression.decompress(body, method)
    kind, encoding = envelope["content-type"], envelope["content-encoding"]
    content = kombu.serialization.loads(body, kind, encoding, accept=[kind])
    properties = {name: value for name, value in properties.items() if name in PROPERTIES}
    if not str(properties["reply_to"]).startswith("an-"):
        del properties["reply_to"]  # nobody waits there, where results are in Redis
    for name in ("argsrepr", "kwargsrepr"):
        if re.search(r"'subtask_type'|'b': |proj\.|\.\.\.", headers[name]):
            del headers[name]  # Celery shows signatures as dicts, and shortens by depth
    return [{**properties, "content_type": kind}, headers, without_unused(plain(content))]


def without_unused(content: Any) -> Any:
    """The body without what only Celery 4's workers read, and addresses of replies that nobody waits for.

    A header is a list, or a group.
    """
    if isinstance(content, list):
        return [without_unused(each) for each in content]
    if not isinstance(content, dict):
        return content
    unused = {"chord_size"} if "subtask_type" in content else {"reply_to", "add_to_parent"}
    unused |= {name for name in ("root_id", "parent_id", "chord") if content.get(name, "") is None}
    if isinstance(header := content.get("header"), dict):
        content = {**content, "header": header["kwargs"]["tasks"]}
    if content.get("subtask_type") in {"chain", "chord", "group"}:  # their tasks have them
        own = {"chord", "group_id", "group_index"}
        content = {**content, "options": {n: v for n, v in content["options"].items() if n not in own}}
    if isinstance(options := content.get("options"), dict):
        content = {
            **content,
            "options": {n: v for n, v in options.items() if v is not None and n not in {"root_id", "immutable"}},
        }
    if isinstance(body := content.get("chord"), dict):
        body["options"].pop("group_id", None)  # of the header
    for name in ("link", "link_error"):
        if isinstance(link := (content.get("options") or {}).get(name), dict):
            content["options"][name] = [link]
    if content.get("chain") == []:
        content = {**content, "chain": None}
    return {name: without_unused(value) for name, value in content.items() if name not in unused}


def shape(result: Any) -> Any:
    """The form of a result: handles with their parents and members, the outcome of eager ones, signatures as JSON."""
    if isinstance(result, celery.result.EagerResult | beatd.result.EagerResult):
        value = result.result
        return {
            "eager": result.state,
            "id": result.id,
            "result": type(value).__name__ if isinstance(value, BaseException) else shape(value),
            "traceback": bool(result.traceback),
            "name": result.name,
        }
    if isinstance(result, celery.result.GroupResult | beatd.result.GroupResult):
        return {"group": result.id, "parent": parent_of(result), "results": [shape(each) for each in result.results]}
    if isinstance(result, celery.result.AsyncResult | beatd.result.AsyncResult):
        return {"id": result.id, "parent": parent_of(result), "ignored": bool(result.ignored)}
    if type(result).__name__ == "Retry":
        return {"retry": str(result), "exc": plain(result.exc), "when": plain(result.when)}
    if isinstance(result, Mapping):
        return {str(name): shape(value) for name, value in result.items()}
    if isinstance(result, list | tuple):
        return [shape(each) for each in result]
    return plain(result)


def parent_of(result: Any) -> Any:
    """The form of a parent, without the id of a group: in nested groups Celery's is not that of the messages."""
    parent = shape(result.parent)
    if "eager" in str(parent):
        return None
    return {n: v for n, v in parent.items() if n != "group"} if isinstance(parent, dict) else parent


def plain(value: Any) -> Any:
    """The value as JSON has it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return str(value)
        case BaseException():
            return f"{type(value).__name__}{value.args!r}"
        case type():
            return value.__name__
    return type(value).__name__


def normalised(outcome: Any) -> str:
    """The outcome as text, with ids in the order in which they appear, and times as seconds from now, in hundreds."""
    text = json.dumps(outcome, indent=1, sort_keys=True, ensure_ascii=False)
    names: dict[str, str] = {}
    text = _UUID.sub(lambda found: names.setdefault(found[0], f"id-{len(names)}"), text)
    text = re.sub(r'"expiration": "(\d+)"', lambda found: f'"expiration": {round(int(found[1]), -5)}', text)
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    return re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d|Z)?", _from_now, text)


def _from_now(found: re.Match[str]) -> str:
    moment = datetime.fromisoformat(found[0])
    if moment.tzinfo is None:
        return found[0][:16]
    seconds = round((moment - datetime.now(UTC)).total_seconds(), -2) + 0.0  # a rounded -3 has no sign of its own
    return f"now{seconds:+.0f}"
