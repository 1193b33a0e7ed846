"""Messages of every kind that nobody can run, and some odd ones that can be: for tests over each broker."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import pickle
import zlib
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

LIMIT = 1 << 20
"""``message_max_bytes`` of the app that gets these."""
TASK = "proj.mark"
PICKLE = "application/x-python-serialize"


class Parts(NamedTuple):
    """A message in its parts, for any broker."""

    headers: dict[str, Any]
    body: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"

    def on_redis(self) -> bytes:
        """As kombu writes it into a list."""
        return json.dumps(
            {
                "body": base64.b64encode(self.body).decode(),
                "content-type": self.content_type,
                "content-encoding": self.content_encoding,
                "headers": self.headers,
                "properties": {
                    "body_encoding": "base64",
                    "delivery_info": {"exchange": "", "routing_key": "celery"},
                    "delivery_tag": "1",
                },
            }
        ).encode()


def call(*args: Any, **embed: Any) -> bytes:
    empty = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return json.dumps([list(args), {}, {**empty, **embed}]).encode()


def nested(levels: int) -> bytes:
    """A call with a callback that has a callback, and so on."""
    text = '{"task": "x", "options": {"link": [' * levels + '{"task": "x"}' + "]}}" * levels
    return b'[[], {}, {"callbacks": [' + text.encode() + b"]}]"


def with_body(body: bytes, **more: Any) -> Parts:
    return Parts({"task": TASK, "id": "an-id"}, body, **more)


def with_headers(**headers: Any) -> Parts:
    return Parts({"task": TASK, "id": "an-id", **headers}, call("never"))


def packed(method: Any, body: bytes) -> Parts:
    return Parts({"task": TASK, "id": "an-id", "compression": method}, body)


def without(name: str) -> Parts:
    parts = with_headers()
    del parts.headers[name]
    return parts


NO_CALL = r"the body is not \[args, kwargs, embed\]"
NO_JSON = "not a JSON document"
BAD_HEADER = r"not a task message: .*\$\.headers\."

KINDS: dict[str, tuple[str, Parts]] = {
    "two elements": (NO_CALL, with_body(b"[[], {}]")),
    "four elements": (NO_CALL, with_body(b"[[], {}, {}, {}]")),
    "a string": (NO_CALL, with_body(b'"text"')),
    "null": (NO_CALL, with_body(b"null")),
    "a number": (NO_CALL, with_body(b"7")),
    "an object": (NO_CALL, with_body(b"{}")),
    "nothing": (NO_JSON, with_body(b"")),
    "args an object": (NO_CALL, with_body(b"[{}, {}, {}]")),
    "args a string": (NO_CALL, with_body(b'["ab", {}, {}]')),
    "kwargs a list": (NO_CALL, with_body(b"[[], [], {}]")),
    "embed a list": (NO_CALL, with_body(b"[[], {}, []]")),
    "callbacks a string": ("callbacks are no list of signatures", with_body(call(callbacks="x"))),
    "errbacks of strings": ("errbacks are no list of signatures", with_body(call(errbacks=["x"]))),
    "a chain that is an object": ("chain are no list of signatures", with_body(call(chain={"task": "x"}))),
    "a chain of nameless calls": ("chain are no list of signatures", with_body(call(chain=[{"args": []}]))),
    "a chord that is a list": ("chord is no signature", with_body(call(chord=[1]))),
    "a chord of a nameless call": ("chord is no signature", with_body(call(chord={"task": 7}))),
    "callbacks whose options are a list": ("at `.*options`", with_body(call(callbacks=[{"task": "x", "options": []}]))),
    "a callback of a callback that is a text": (
        "callbacks are no list of signatures",
        with_body(call(callbacks=[{"task": "x", "options": {"link": ["y"]}}])),
    ),
    "an errback with an id that is a list": (
        "errbacks are no list of signatures: .*task_id",
        with_body(call(errbacks=[{"task": "x", "options": {"task_id": []}}])),
    ),
    "a chain with a group of a number": (
        "chain are no list of signatures",
        with_body(call(chain=[{"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [7]}}])),
    ),
    "a chord whose body is a text": (
        "chord is no signature: .*body",
        with_body(call(chord={"task": "celery.chord", "subtask_type": "chord", "kwargs": {"body": "x"}})),
    ),
    "callbacks 1,000 levels deep": (NO_JSON, with_body(nested(1_000))),
    "truncated": (NO_JSON, with_body(call("never")[:-3])),
    "trailing garbage": (NO_JSON, with_body(call("never") + b"]]")),
    "invalid UTF-8": (NO_JSON, with_body(b'[["\xff\xfe"], {}, {}]')),
    "deep nesting": (NO_JSON, with_body(b"[" * 100_000)),
    "a mark of nothing": (NO_JSON, with_body(b'[[{"__type__": "datetime", "__value__": "soon"}], {}, {}]')),
    "a mark of an unknown type": (NO_JSON, with_body(b'[[{"__type__": "os.system", "__value__": "id"}], {}, {}]')),
    "no id": (r"missing required field `id`", without("id")),
    "id null": (BAD_HEADER + "id", with_headers(id=None)),
    "id a number": (BAD_HEADER + "id", with_headers(id=7)),
    "id a list": (BAD_HEADER + "id", with_headers(id=["a"])),
    "id empty": (BAD_HEADER + "id", with_headers(id="")),
    "no task": (r"missing required field `task`", without("task")),
    "task a number": (BAD_HEADER + "task", with_headers(task=7)),
    "task empty": (BAD_HEADER + "task", with_headers(task="")),
    "eta a number": (BAD_HEADER + "eta", with_headers(eta=1_700_000_000)),
    "eta a word": ("eta 'soon' is no ISO 8601 time", with_headers(eta="soon")),
    "eta no date": ("eta '2026-02-30T00:00:00' is no ISO 8601 time", with_headers(eta="2026-02-30T00:00:00")),
    "expires a number": (BAD_HEADER + "expires", with_headers(expires=60.5)),
    "expires a word": ("expires 'never' is no ISO 8601 time", with_headers(expires="never")),
    "expires a list": (BAD_HEADER + "expires", with_headers(expires=[1])),
    "timelimit a number": (BAD_HEADER + "timelimit", with_headers(timelimit=10)),
    "timelimit of one": (BAD_HEADER + "timelimit", with_headers(timelimit=[10])),
    "timelimit of three": (BAD_HEADER + "timelimit", with_headers(timelimit=[10, 10, 10])),
    "timelimit of strings": (BAD_HEADER + "timelimit", with_headers(timelimit=["10", "5"])),
    "timelimit negative": (BAD_HEADER + "timelimit", with_headers(timelimit=[-1, None])),
    "retries a string": (BAD_HEADER + "retries", with_headers(retries="many")),
    "retries negative": (BAD_HEADER + "retries", with_headers(retries=-1)),
    "group a number": (BAD_HEADER + "group", with_headers(group=1)),
    "group_index a string": (BAD_HEADER + "group_index", with_headers(group_index="first")),
    "shadow a number": (BAD_HEADER + "shadow", with_headers(shadow=1)),
    "ignore_result a string": (BAD_HEADER + "ignore_result", with_headers(ignore_result="yes")),
    "pickle": ("content type 'application/x-python", with_body(pickle.dumps([1]), content_type=PICKLE)),
    "yaml": ("content type 'application/x-yaml'", with_body(b"- []", content_type="application/x-yaml")),
    "no content type": ("content type ''", with_body(call(), content_type="")),
    "an unknown character set": ("character set 'klingon'", with_body(call(), content_encoding="klingon")),
    "not in its character set": ("character set 'utf-16'", with_body(b"abc", content_encoding="utf-16")),
    "no character set": ("character set 'zlib'", with_body(zlib.compress(call()), content_encoding="zlib")),
    "an unknown compression": ("compression 'application/x-rar' is not known", packed("application/x-rar", call())),
    "a compression that is a number": ("its compression is 7", packed(7, call())),
    "broken zlib": ("cannot be unpacked", packed("application/x-gzip", b"no zlib")),
    "truncated zlib": ("ends too early", packed("application/x-gzip", zlib.compress(call("never"))[:-6])),
    "a zlib bomb": ("unpacks to more than", packed("application/x-gzip", zlib.compress(b" " * (LIMIT + 1)))),
    "a bzip2 bomb": ("unpacks to more than", packed("application/x-bz2", bz2.compress(b" " * (LIMIT + 1)))),
    "an lzma bomb": ("unpacks to more than", packed("application/x-lzma", lzma.compress(b" " * (LIMIT + 1)))),
    "broken bzip2": ("cannot be unpacked", packed("application/x-bz2", b"no bzip2")),
    "broken lzma": ("cannot be unpacked", packed("application/x-lzma", b"no lzma")),
    "too large": ("message_max_bytes allows", with_body(call("x" * LIMIT))),
    "protocol 1 without an id": ("protocol 1 without an id", Parts({}, json.dumps({"task": TASK}).encode())),
    "protocol 1, bad eta": (BAD_HEADER + "eta", Parts({}, json.dumps({"task": TASK, "id": "1", "eta": 5}).encode())),
    "protocol 1 with wrong args": (NO_CALL, Parts({}, json.dumps({"task": TASK, "id": "1", "args": "x"}).encode())),
    "protocol 1 in pickle": ("content type", Parts({}, pickle.dumps({}), PICKLE)),
}  # fmt: skip
"""Its name → what the reason must match, and the message."""


def _raw(**changes: Any) -> bytes:
    return json.dumps({**json.loads(with_headers().on_redis()), **changes}).encode()


NO_MESSAGE = "not a task message"
REDIS_KINDS: dict[str, tuple[str, bytes]] = {
    "no JSON": (NO_MESSAGE, b"nonsense"),
    "an empty element": (NO_MESSAGE, b""),
    "bytes": (NO_MESSAGE, b"\xff\xfe\x00"),
    "a list": (NO_MESSAGE, b"[]"),
    "a string": (NO_MESSAGE, b'"text"'),
    "a truncated envelope": (NO_MESSAGE, with_headers().on_redis()[:-1]),
    "a deep envelope": (NO_MESSAGE, b'{"headers":' * 50_000),
    "headers a list": (NO_MESSAGE, _raw(headers=[])),
    "headers null": (NO_MESSAGE, _raw(headers=None)),
    "NaN for retries": (NO_MESSAGE, _raw(headers={"task": TASK, "id": "1", "retries": float("nan")})),
    "properties a list": (NO_MESSAGE, _raw(properties=[])),
    "delivery_info a string": (NO_MESSAGE, _raw(properties={"delivery_info": "celery"})),
    "priority a string": (NO_MESSAGE, _raw(properties={"priority": "high"})),
    "content-type a number": (NO_MESSAGE, _raw(**{"content-type": 7})),
    "body missing": ("not a message envelope", b'{"headers": {"task": "proj.mark", "id": "1"}}'),
    "body a number": ("not a message envelope", _raw(body=7)),
    "bad base64": ("not a message envelope", _raw(body="§§§")),
    "an unknown body_encoding": ("unknown body_encoding 'rot13'", _raw(properties={"body_encoding": "rot13"})),
    "no properties, yet base64": (NO_JSON, _raw(properties={})),
    "an id with a lone surrogate": ("header id is no text", _raw(headers={"task": TASK, "id": "a\udcff"})),
    "a root with a lone surrogate": (
        "header root_id is no text",
        _raw(headers={"task": TASK, "id": "1", "root_id": "a\udcff"}),
    ),
    "huge headers": ("message_max_bytes allows", _raw(headers={"task": TASK, "id": "1", "x": "y" * 2 * LIMIT})),
}
"""The same for what only Redis can carry: envelopes that are broken themselves."""


_JUNK: list[Any] = [
    *(None, 0, -1, 1.5, True, "", "junk", "9" * 400, 10**400),
    *([], ["x"], [[]], [None], {}, {"a": 1}, {"task": TASK}, [{"task": TASK}], [{"task": 7}]),
    *({"task": TASK, "options": "junk"}, {"task": TASK, "kwargs": []}),
]
_FIELDS = ("args", "kwargs", "options", "subtask_type", "immutable", "chord_size")
_OPTIONS = """
    chain chord compression correlation_id countdown eta exchange expires group_id group_index headers ignore_result
    link link_error parent_id priority queue reply_to retries root_id routing_key serializer shadow soft_time_limit
    stamped_headers task_id time_limit unknown
""".split()  # noqa: SIM905
_HEADERS = """
    args argsrepr callbacks chain children chord correlation_id delivery_info errbacks group group_index headers
    hostname is_eager kwargs kwargsrepr lang origin parent_id properties replaced_task_nesting reply_to retries root_id
    shadow stamped_headers stamps timelimit x
""".split()  # noqa: SIM905


def odd_signature(random: Random, tasks: Sequence[str], depth: int = 0) -> dict[str, Any]:
    """A signature of any kind, nested, in which some value is junk now and then."""
    kind = random.choice([None, None, None, "chain", "group", "chord", "junk"])
    name = f"celery.{kind}" if kind else random.choice(tasks)
    kwargs: Any = {}
    options: Any = {}

    def parts(most: int) -> list[Any]:
        return [odd_signature(random, tasks, depth + 1) for _ in range(random.randrange(most))]

    if depth < 3 and kind in ("chain", "group"):
        kwargs["tasks"] = parts(4)
    if depth < 3 and kind == "chord":
        kwargs = {"header": random.choice([parts(3), *parts(2)]), "body": random.choice([*parts(2), None])}
    for option in ("link", "link_error", "chain", "chord"):
        if depth < 3 and random.random() < 0.15:
            links = parts(3)
            options[option] = links if option != "chord" else (links or [None])[0]
    if random.random() < 0.3:
        options["task_id"] = f"odd-{random.getrandbits(64)}"
    if random.random() < 0.2:
        options["group_id"] = f"g{random.randrange(5)}"
    if random.random() < 0.1:
        options[random.choice(_OPTIONS)] = random.choice(_JUNK)
    signature = {"task": name, "args": [], "kwargs": kwargs, "options": options, "subtask_type": kind}
    if random.random() < 0.1:
        signature[random.choice(_FIELDS)] = random.choice(_JUNK)
    return signature


def odd_message(random: Random, name: str, tasks: Sequence[str]) -> Parts:
    """A message with such callbacks, errbacks, chain and chord, and junk in one header of four."""
    headers: dict[str, Any] = {"task": random.choice(tasks), "id": name}
    if random.random() < 0.5:
        headers |= {"group": f"group-{random.randrange(7)}", "group_index": random.randrange(3)}
    if random.random() < 0.25:
        headers[random.choice(_HEADERS)] = random.choice(_JUNK)
    embed: dict[str, Any] = {}
    for field in ("callbacks", "errbacks", "chain"):
        if random.random() < 0.4:
            embed[field] = [odd_signature(random, tasks) for _ in range(random.randrange(1, 3))]
    if random.random() < 0.5:
        embed["chord"] = odd_signature(random, tasks)
    return Parts(headers, call(name, **embed))


def deep_messages(levels: int, tasks: Sequence[str]) -> Iterator[Parts]:
    """Messages with signatures that are nested so many levels in each way, in each place."""

    def around(inner: dict[str, Any], way: str) -> dict[str, Any]:
        match way:
            case "link" | "link_error" | "chain":
                return {"task": tasks[0], "options": {way: [inner]}}
            case "body":
                return {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": [], "body": inner}}
        return {"task": f"celery.{way}", "subtask_type": way.rstrip("s"), "kwargs": {"tasks": [inner]}}

    for way in ("link", "link_error", "chain", "body", "group", "chains"):
        signature: dict[str, Any] = {"task": tasks[0]}
        for _ in range(levels):
            signature = around(signature, way)
        for task in tasks:
            for field in ("callbacks", "errbacks", "chain", "chord"):
                embed = {field: signature if field == "chord" else [signature]}
                name = f"{way}-{levels}-{task}-{field}"
                yield Parts({"task": task, "id": name, "group": name}, call(name, **embed))


def first_protocol(name: str) -> Parts:
    body = {"task": TASK, "id": name, "args": [name], "kwargs": {}, "retries": 0, "eta": None, "utc": True}
    return Parts({}, json.dumps(body).encode())


def _odd(name: str, **changes: Any) -> bytes:
    whole = json.loads(Parts({"task": TASK, "id": name}, call(name)).on_redis())
    return json.dumps({**whole, **changes}).encode()


RUNNABLE: dict[str, Parts] = {
    "protocol-1": first_protocol("protocol-1"),
    "zlib": packed("application/x-gzip", zlib.compress(call("zlib"))),
    "gzip": packed("gzip", gzip.compress(call("gzip"))),
    "bzip2": packed("application/x-bz2", bz2.compress(call("bzip2"))),
    "lzma": packed("application/x-lzma", lzma.compress(call("lzma"))),
    "latin-1": with_body(call("latin-1"), content_encoding="iso-8859-1"),
    "utf-16": with_body(call("utf-16").decode().encode("utf-16"), content_encoding="utf-16"),
    "of-another-language": Parts({"task": TASK, "id": "an-id", "lang": "js"}, call("of-another-language")),
    "no-embed": with_body(b'[["no-embed"], {}, null]'),
    "not-a-number": with_body(b'[["not-a-number", NaN], {}, {}]'),
    "duplicate-keys": with_body(b'[["duplicate-keys"], {"x": 1, "x": 2}, {}]'),
    "unknown-headers": Parts({"task": TASK, "id": "an-id", "tenant": {"a": [1, None]}}, call("unknown-headers")),
}
"""Odd and all the same to be run; each calls the task with its name."""
REDIS_RUNNABLE: dict[str, bytes] = {
    "no-delivery-info": _odd("no-delivery-info", properties={"body_encoding": "base64"}),
    "lone-surrogates": Parts(
        {"task": TASK, "id": "an-id", "path": "f\udcff"}, call("lone-surrogates", "f\udcff", {"f\udcff": 1})
    ).on_redis(),
    "no-properties": _odd("no-properties", properties={}, body=call("no-properties").decode()),
}
