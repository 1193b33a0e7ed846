"""Opening messages: every kind that nobody can run is named, and what is only odd is run."""

from __future__ import annotations

import ast
import bz2
import functools
import gzip
import json
import lzma
import re
import zlib

import kombu.serialization
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beatd import App
from beatd.exceptions import MessageError
from beatd.message.compression import decompress
from beatd.message.protocol import open_envelope
from beatd.worker.admission.revoked import Revoked
from beatd.worker.admission.strategy import Strategy
from beatd.worker.execution.decode import accepted_types, decode_body
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import MALFORMED, Delivery, Job, headers_of
from tests.malformed import KINDS, LIMIT, PICKLE, REDIS_KINDS, REDIS_RUNNABLE, RUNNABLE, Parts

quickly = settings(max_examples=60, deadline=None)

ALL = {f"{name} (Redis)": kind for name, kind in REDIS_KINDS.items()} | {
    name: (reason, message.on_redis()) for name, (reason, message) in KINDS.items()
}


@functools.cache
def app() -> App:
    made = App("x")
    made.conf.message_max_bytes = LIMIT
    made.task(name="proj.mark")(lambda name, *rest, **more: name)
    made.finalize()
    return made


def judge(raw: bytes, now_ms: int = 1_700_000_000_000):
    return Strategy(app(), Revoked()).decide([Delivery(1, "celery", raw)], now_ms)


def opened(raw: bytes) -> str | list:
    """Why it cannot be run, or the arguments that it runs with."""
    verdicts = judge(raw)
    if verdicts.bury:
        assert verdicts.bury[0][0].original == raw
        return verdicts.bury[0][1]
    (request,) = verdicts.run
    prepared = Executor(app(), "me@here").prepare(Job(1, request.delivery.raw, "celery"))
    if getattr(prepared, "state", "") == MALFORMED:
        assert request.delivery.original == raw
        return prepared.text
    return prepared.context.args


@pytest.mark.parametrize("name", ALL)
def test_what_nobody_can_run_is_named(name):
    reason, raw = ALL[name]
    found = opened(raw)
    assert isinstance(found, str)
    assert re.search(reason, found), found


@pytest.mark.parametrize("name", [*RUNNABLE, *REDIS_RUNNABLE])
def test_what_is_only_odd_is_run(name):
    raw = REDIS_RUNNABLE[name] if name in REDIS_RUNNABLE else RUNNABLE[name].on_redis()
    assert opened(raw)[0] == name


@quickly
@given(st.binary(max_size=300))
def test_no_bytes_end_the_worker(raw):
    assert len(judge(raw).bury) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


ODD = ("eta", "expires", "timelimit", "retries", "group", "root_id", "parent_id", "stamps", "shadow", "compression")
OURS = ("children", "args", "headers", "get", "update", "origin", "lang", "redelivered", "beatd-entry")


@quickly
@given(st.dictionaries(st.sampled_from([*ODD, *OURS]), JSON, max_size=4), JSON)
def test_no_header_and_no_body_end_the_worker(headers, body):
    whole = {"headers": {**headers, "task": "proj.mark", "id": "1"}, "body": json.dumps(body)}
    raw = json.dumps({**whole, "content-type": "application/json"}).encode()
    verdicts = judge(raw)
    ends = [*verdicts.run, *verdicts.bury, *verdicts.park, *verdicts.drop]
    assert len(ends) == 1, "it runs, waits, or is put away: never nothing, and never twice"
    for request in verdicts.run:
        prepared = Executor(app(), "me@here").prepare(Job(1, request.delivery.raw, "celery"))
        if getattr(prepared, "state", "") == MALFORMED:
            assert prepared.text
        else:
            assert prepared.context.task == "proj.mark"
    for parts in verdicts.bury:
        assert parts[0].original == raw
        assert parts[1]


def test_times_of_protocol_1_are_in_utc_when_it_says_so():
    body = {"task": "proj.mark", "id": "1", "eta": "2030-01-01T00:00:00", "utc": True}
    raw = json.dumps({"headers": {}, "body": json.dumps(body), "content-type": "application/json"}).encode()
    assert [due for _, due in judge(raw, 0).park] == [1_893_456_000_000]


@pytest.mark.parametrize(
    ("method", "pack"),
    [("zlib", zlib.compress), ("gzip", gzip.compress), ("bzip2", bz2.compress), ("lzma", lzma.compress)],
)
class TestCompression:
    @quickly
    @given(content=st.binary(max_size=2_000))
    def test_what_was_packed_comes_out(self, method, pack, content):
        assert decompress(pack(content), method, 2_000) == content

    def test_the_bound_is_exact(self, method, pack):
        assert len(decompress(pack(b"x" * 1_000), method, 1_000)) == 1_000
        with pytest.raises(MessageError, match="unpacks to more than 999 bytes"):
            decompress(pack(b"x" * 1_000), method, 999)

    @quickly
    @given(cut=st.integers(1, 10))
    def test_what_is_cut_off_is_noticed(self, method, pack, cut):
        with pytest.raises(MessageError):
            decompress(pack(b"some content " * 20)[:-cut], method, 10_000)


def packed_by_kombu(name, *args):
    """A message as Celery's client sends it with ``serializer=name``."""
    content_type, encoding, body = kombu.serialization.dumps((args, {}, {}), serializer=name)
    body = body if isinstance(body, bytes) else body.encode()
    return Parts({"task": "proj.mark", "id": "1"}, body, content_type, encoding)


@pytest.fixture
def own_serializer():
    kombu.serialization.register(
        "own",
        lambda value: repr(value).encode(),
        lambda body: ast.literal_eval(bytes(body).decode()),
        "application/x-own",
    )
    yield
    kombu.serialization.unregister("own")


@pytest.mark.usefixtures("own_serializer")
@pytest.mark.parametrize("name", ["pickle", "own"])
def test_other_serializers_are_read_where_accept_content_names_them(name):
    raw = packed_by_kombu(name, "a name", {"x": [1, 2]}).on_redis()
    message = open_envelope(raw)
    accepted = accepted_types(["json", name])
    assert headers_of(raw, accepted).task == "proj.mark"
    assert decode_body(message, 1_000, accepted).args == ["a name", {"x": [1, 2]}]
    with pytest.raises(MessageError, match="is not accepted, only JSON is"):
        headers_of(raw)
    with pytest.raises(MessageError, match="is not accepted, only JSON is"):
        decode_body(message, 1_000)


def test_a_pickle_of_something_that_is_not_here_is_malformed():
    body = b"cno_such_module\nNothing\n."
    message = open_envelope(Parts({"task": "proj.mark", "id": "1"}, body, PICKLE, "binary").on_redis())
    with pytest.raises(MessageError, match=r"cannot be read as application/x-python-serialize: .*no_such_module"):
        decode_body(message, 1_000, accepted_types(["pickle"]))


def test_an_unknown_serializer_is_named():
    with pytest.raises(MessageError, match=r"no serializer 'rot13', there are: .*json"):
        accepted_types(["json", "rot13"])


def test_padding_behind_the_end_of_base64_is_taken():
    raw = Parts({"task": "proj.mark", "id": "1"}, b"[[12],{},{}]").on_redis()
    assert raw.count(b"W1sxMl0se30se31d") == 1
    assert open_envelope(raw.replace(b"W1sxMl0se30se31d", b"W1sxMl0se30se31d=")).body == b"[[12],{},{}]"
