"""Lua scripts: run on the server, one by one or as a stream, with the wait for replicas.

The wait for replicas confirms a claim, so that a failover cannot take back what was said to be done.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoScriptError, ResponseError

from beatd.exceptions import StoreRefused
from beatd.store.client import connection_to, is_cluster, place_of, store_error, translate_errors
from beatd.store.keys import type_of

log = logging.getLogger("beatd.store")


class Replicas:
    """Replication: number of replicas that must confirm each batch of claims, and the time to wait for them.

    A claim that fewer confirm stays claimed: it is at the primary, and on its way. That is logged when it begins and
    when it ends, not for each batch. One object serves all shards of a daemon.
    """

    def __init__(self, wanted: int, timeout_ms: int) -> None:
        self._wanted = wanted
        self._timeout_ms = timeout_ms
        self._unreplicated = 0
        """Batches since so many replicas last confirmed."""

    @property
    def command(self) -> tuple[str | int, ...]:
        """Return the command after each write, on its connection: the server counts the writes of a connection."""
        return ("WAIT", self._wanted, self._timeout_ms) if self._wanted else ()

    def confirmed(self, count: int) -> None:
        """Take note of how many replicas had confirmed a batch when the waiting ended."""
        if count < self._wanted:
            self._unreplicated += 1
            if self._unreplicated == 1:
                text = "Claims are at the primary only: %d of %d replicas confirmed within %d ms"
                extra = {"event": "store_unreplicated", "confirmed": count, "wanted": self._wanted}
                log.warning(text, count, self._wanted, self._timeout_ms, extra=extra)
        elif self._unreplicated:
            batches, self._unreplicated = self._unreplicated, 0
            extra = {"event": "store_unreplicated_over", "batches": batches}
            log.info("Replicas confirm claims again, after %d batches that they did not", batches, extra=extra)


class BulkStrings(NamedTuple):
    """Arguments of a command as bytes of the Redis protocol, and their number."""

    number: int
    data: bytes


def bulk_strings(*values: str | int | bytes) -> BulkStrings:
    """Encode arguments, each as ``$<length>\\r\\n<bytes>\\r\\n``."""
    raws = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return BulkStrings(len(raws), b"".join([b"$%d\r\n%b\r\n" % (len(raw), raw) for raw in raws]))


Call = tuple[Sequence[str], Sequence[Any]]
"""The keys and the other arguments of a call of a script."""


class Script:
    """One ``lua/*.lua`` file, with ``lua/_prelude.lua`` in front: the functions that scripts share.

    Sent with the first call, so that this takes one round trip whatever the server knows; then called with the server's
    copy, and sent again when the server has lost it.
    """

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client = client
        self._text = _source("_prelude") + _source(name)
        self._digest = sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        self._eval = bulk_strings("EVAL", self._text)
        self._is_sent = False

    def __call__(self, keys: Sequence[str | bytes], args: Sequence[Any]) -> Any:
        """Run it; raises :class:`TermLost`, :class:`StoreUnavailable` or :class:`StoreRefused`."""
        with translate_script_errors(self._client, keys):
            if self._is_sent:
                with suppress(NoScriptError):
                    return self._client.evalsha(self._digest, len(keys), *keys, *args)
            answer: Any = self._client.eval(self._text, len(keys), *keys, *args)
            self._is_sent = True
            return answer

    def each(self, calls: Iterable[Call]) -> list[Any]:
        """The answers to many calls, each about keys of another slot of a cluster, in one round trip. The errors of
        those that failed, as a single call raises them, are among the answers."""
        several = list(calls)
        answers = self._pipelined(several, known=self._is_sent)
        unknown = [place for place, one in enumerate(answers) if isinstance(one, NoScriptError)]
        for place, answer in zip(unknown, self._pipelined([several[place] for place in unknown]), strict=True):
            answers[place] = answer
        self._is_sent = True
        place_of_all = place_of(self._client)
        return [store_error(one, place_of_all) if isinstance(one, redis.RedisError) else one for one in answers]

    def _pipelined(self, calls: Sequence[Call], *, known: bool = False) -> list[Any]:
        """The answers and errors of calls in one round trip; ``known``: by the servers' copies of the script."""
        if not calls:
            return []
        with self._client.pipeline(transaction=False) as pipeline:
            for keys, args in calls:
                if known:
                    pipeline.evalsha(self._digest, len(keys), *keys, *args)
                else:
                    pipeline.eval(self._text, len(keys), *keys, *args)
            return pipeline.execute(raise_on_error=False)

    def stream(
        self, calls: Iterable[tuple[Sequence[str], BulkStrings]], replicas: Replicas | None = None
    ) -> Iterator[Any]:
        """The answers to many calls, in order. The next call is made ready while the server works on the one before.

        Each call has its keys, and its other arguments as bytes of the protocol: they may be thousands.
        With ``replicas`` an answer is handed out when these have confirmed what the call wrote, or did not in time.
        Raises as a single call does; what became of the calls under way is then unknown.
        """
        touched: set[str] = set()
        replicas = replicas if replicas and replicas.command else None
        # while a slot moves, a cluster may refuse a call and take the next one: then runs would be out of order
        ahead = 0 if is_cluster(self._client) else 1
        with translate_script_errors(self._client, touched), ExitStack() as stack:
            connection: Any = None
            under_way = 0
            try:
                for keys, args in calls:
                    touched.update(keys)
                    if connection is None:
                        connection = stack.enter_context(connection_to(self._client, keys[0]))
                    # EVAL, not EVALSHA: a server that has lost the script must not stop a stream half way
                    connection.send_packed_command([self._packed(keys, args)])
                    if replicas:
                        connection.send_command(*replicas.command)
                    under_way += 1
                    if under_way > ahead:
                        answer = _read(connection, replicas)
                        under_way -= 1
                        yield answer
                while under_way:
                    answer = _read(connection, replicas)
                    under_way -= 1
                    yield answer
            finally:
                if under_way:
                    connection.disconnect()  # an answer that nobody read would be taken for the next one's

    def _packed(self, keys: Sequence[str], args: BulkStrings) -> bytes:
        """The bytes of a call; in one piece, as each piece would be a packet of its own."""
        first = bulk_strings(len(keys), *keys)
        number = self._eval.number + first.number + args.number
        return b"".join((b"*%d\r\n" % number, self._eval.data, first.data, args.data))


def _read(connection: Any, replicas: Replicas | None) -> Any:
    """The answer to a call, and what replicas say of it."""
    answer = connection.read_response()
    if replicas:
        try:
            replicas.confirmed(connection.read_response())
        except ResponseError:  # the right to wait was taken; what was claimed stays claimed
            replicas.confirmed(0)
    return answer


@contextmanager
def translate_script_errors(client: redis.Redis, keys: Iterable[str | bytes]) -> Iterator[None]:
    """A :func:`translate_errors` that names the key when one of them is of another type than beatd's."""
    try:
        with translate_errors(client):
            yield
    except StoreRefused as error:
        if "WRONGTYPE" in str(error) and (foreign := _foreign(client, keys)):
            raise StoreRefused(f"{error} ({foreign})") from error
        raise


def _foreign(client: redis.Redis, keys: Iterable[str | bytes]) -> str:
    """Which of the keys are not beatd's own, in words; empty if that cannot be found out."""
    names = [key.decode() if isinstance(key, bytes) else key for key in keys]
    try:
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.type(name)
            found = [raw.decode() for raw in pipeline.execute()]
    except redis.RedisError:
        return ""
    there = {name: kind for name, kind in zip(names, found, strict=True) if kind != "none"}
    wrong = [
        f"the key {name} is a {kind} and should be a {wanted}"
        for name, kind in there.items()
        if (wanted := type_of(name)) is not None and kind != wanted
    ]
    return "; ".join(wrong or [f"the key {name} is a {kind}" for name, kind in there.items() if type_of(name) is None])


@functools.cache
def _source(name: str) -> str:
    return files("beatd.store").joinpath("lua", f"{name}.lua").read_text()
