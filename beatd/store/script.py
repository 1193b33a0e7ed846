"""Lua scripts: run on the server, one by one or as a stream, with the wait for replicas.

The wait for replicas confirms a claim, so that a failover cannot take back what was said to be done.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from beatd.clock import monotonic
from beatd.exceptions import StoreRefused
from beatd.store.client import connection_to, translate_errors, translated
from beatd.store.keys import type_of

log = logging.getLogger("beatd.store")


PATIENCE = 3
"""Batches in a row for which replicas are waited for in vain, before that is done only now and then."""

RETRY_WAIT_S = 5.0
"""Seconds between two waits for replicas that do not confirm; the batches between wait a millisecond."""

FORGOTTEN_AFTER_S = 60.0
"""Seconds without a batch after which a server is no problem any more: a leader has one at least every ten seconds. A
failover has made another one the primary, or another daemon leads."""


class _Lag(NamedTuple):
    """Batches that replicas of one server have not confirmed."""

    batches: int
    """Batches since they last confirmed one."""
    wait_at: float
    """Monotonic time of the next wait in full."""
    seen_at: float
    """That of the last batch."""


class Replicas:
    """Replication: number of replicas that must confirm each batch of claims, and the time to wait for them.

    A claim that fewer confirm stays claimed: it is at the primary, and on its way. That is logged when it begins and
    when it ends, not for each batch; and such a server is not waited for all the time, or its runs, and those of other
    shards, would be late by more and more. One object serves all shards of a daemon; servers are told apart.
    """

    def __init__(self, wanted: int, timeout_ms: int) -> None:
        self.wanted = wanted
        self._timeout_ms = timeout_ms
        self._lags: dict[str, _Lag] = {}

    @property
    def unreplicated(self) -> str:
        """The servers whose replicas do not confirm claims, as one line. May be read from any thread."""
        now = monotonic()
        behind = ", ".join(sorted(server for server, lag in self._lags.copy().items() if not _is_past(lag, now)))
        return behind and f"replicas of {behind} do not confirm (wait_replicas = {self.wanted}, {self._timeout_ms} ms)"

    def command(self, server: str) -> tuple[str | int, ...]:
        """Return the command after each write, on its connection: a server counts the writes of a connection."""
        lag = self._lags.get(server)
        is_short = lag is not None and lag.batches >= PATIENCE and monotonic() < lag.wait_at
        return "WAIT", self.wanted, 1 if is_short else self._timeout_ms

    def confirmed(self, server: str, count: int) -> None:
        """Take note of how many replicas of a server had confirmed a batch when the waiting ended."""
        now = monotonic()
        for other in [other for other, lag in self._lags.items() if _is_past(lag, now)]:
            del self._lags[other]
        lag = self._lags.pop(server, None)
        if count < self.wanted:
            if lag is None:
                text = "Claims are at the primary %s only: %d of %d replicas confirmed within %d ms"
                extra = {"event": "store_unreplicated", "server": server, "confirmed": count, "wanted": self.wanted}
                log.warning(text, server, count, self.wanted, self._timeout_ms, extra=extra)
                lag = _Lag(0, 0.0, now)
            wait_at = now + RETRY_WAIT_S if lag.wait_at <= now else lag.wait_at
            self._lags[server] = _Lag(lag.batches + 1, wait_at, now)
        elif lag is not None:
            text = "Replicas of %s confirm claims again, after %d batches that they did not"
            extra = {"event": "store_unreplicated_over", "server": server, "batches": lag.batches}
            log.info(text, server, lag.batches, extra=extra)


def _is_past(lag: _Lag, now: float) -> bool:
    return now - lag.seen_at > FORGOTTEN_AFTER_S


class BulkStrings(NamedTuple):
    """Arguments of a command as bytes of the Redis protocol, and their number."""

    number: int
    data: bytes


def bulk_strings(*raws: bytes) -> BulkStrings:
    """Encode arguments, each as ``$<length>\\r\\n<bytes>\\r\\n``."""
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
        self._eval = bulk_strings(b"EVAL", self._text.encode())
        self._evalsha = bulk_strings(b"EVALSHA", self._digest.encode())
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
        those that failed, as a single call raises them, are among the answers. Raises :class:`StoreUnavailable`."""
        several = list(calls)
        answers = self._pipelined(several, known=self._is_sent)
        unknown = [place for place, one in enumerate(answers) if isinstance(one, NoScriptError)]
        for place, answer in zip(unknown, self._pipelined([several[place] for place in unknown]), strict=True):
            answers[place] = answer
        self._is_sent = True
        return [translated(one, self._client) if isinstance(one, redis.RedisError) else one for one in answers]

    def all(self, calls: Iterable[Call]) -> list[Any]:
        """The answers to many calls, see :meth:`each`; raises the first error, when all have been made."""
        answers = self.each(calls)
        if error := next((one for one in answers if isinstance(one, Exception)), None):
            raise error
        return answers

    def _pipelined(self, calls: Sequence[Call], *, known: bool = False) -> list[Any]:
        """The answers and errors of calls in one round trip; ``known``: by the servers' copies of the script."""
        if not calls:
            return []
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
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

        It is sent when that is done: a server that refuses one call, or has lost the script, has done none after it.

        Each call has its keys, and its other arguments as bytes of the protocol: they may be thousands. All keys are of
        one slot. With ``replicas`` an answer is handed out when these have confirmed what the call wrote, or did not in
        time. Raises as a single call does; what became of the call under way is then unknown.
        """
        calls = iter(calls)
        call = next(calls, None)
        if call is None:
            return
        touched = set(call[0])
        replicas = replicas if replicas and replicas.wanted else None
        try:
            with connection_to(self._client, call[0][0]) as connection:
                try:
                    self._send(connection, call, replicas, known=self._is_sent)
                    for following in calls:
                        touched.update(following[0])
                        answer = self._answer(connection, call, replicas)
                        call = following
                        self._send(connection, call, replicas, known=True)
                        yield answer
                    yield self._answer(connection, call, replicas)
                except BaseException:
                    connection.disconnect()  # an answer that nobody read would be taken for the next one's
                    raise
        except (redis.RedisError, OSError) as error:
            raise _translated(error, self._client, touched) from error

    def _send(
        self, connection: Any, call: tuple[Sequence[str], BulkStrings], replicas: Replicas | None, *, known: bool
    ) -> None:
        connection.send_packed_command([self.packed(call, known=known)])
        if replicas:
            # no health check: the answer to the call would be taken for that to its PING
            connection.send_command(*replicas.command(_address(connection)), check_health=False)

    def _answer(self, connection: Any, call: tuple[Sequence[str], BulkStrings], replicas: Replicas | None) -> Any:
        """The answer to the call under way, which is sent again with the script if the server has lost that."""
        try:
            answer = _read(connection, replicas)
        except NoScriptError:
            self._send(connection, call, replicas, known=False)
            answer = _read(connection, replicas)
        self._is_sent = True
        return answer

    def packed(self, call: tuple[Sequence[str], BulkStrings], *, known: bool) -> bytes:
        """The bytes of a call, with the script or, if it is ``known``, its digest. In one piece, as each piece would be
        a packet of its own."""
        keys, args = call
        first, others = self._evalsha if known else self._eval, _packed_keys(tuple(keys))
        return b"*%d\r\n%b%b%b" % (first.number + others.number + args.number, first.data, others.data, args.data)


def _read(connection: Any, replicas: Replicas | None) -> Any:
    """The answer to a call, and what replicas say of it."""
    try:
        answer = connection.read_response()
    except NoScriptError:
        if replicas:
            connection.read_response()  # nothing was written that they could confirm
        raise
    if replicas:
        try:
            replicas.confirmed(_address(connection), connection.read_response())
        except ResponseError:  # the right to wait was taken; what was claimed stays claimed
            replicas.confirmed(_address(connection), 0)
    return answer


@functools.lru_cache(maxsize=256)
def _packed_keys(keys: tuple[str, ...]) -> BulkStrings:
    """The keys of a call and their number: the same ones for most calls."""
    return bulk_strings(b"%d" % len(keys), *map(str.encode, keys))


def _address(connection: Any) -> str:
    """The server at the other end of a connection, as people name it."""
    return f"{connection.host}:{connection.port}" if hasattr(connection, "host") else str(connection.path)


@contextmanager
def translate_script_errors(client: redis.Redis, keys: Iterable[str | bytes]) -> Iterator[None]:
    """A :func:`~beatd.store.client.translate_errors` that names keys of another type, or that the user may not use."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise _translated(error, client, keys) from error


def _translated(error: redis.RedisError | OSError, client: redis.Redis, keys: Iterable[str | bytes]) -> Exception:
    """beatd's error in place of redis-py's; see :func:`translate_script_errors`."""
    told = translated(error, client)
    if isinstance(told, StoreRefused) and "WRONGTYPE" in str(told) and (foreign := _foreign(client, keys)):
        return StoreRefused(f"{told} ({foreign})")
    if isinstance(told, StoreRefused) and "may not use one of the keys" in str(told):
        return StoreRefused(str(told).replace("one of the keys", _denied(client, keys) or "one of the keys"))
    return told


def _denied(client: redis.Redis, keys: Iterable[str | bytes]) -> str:
    """Keys that the user may not use, in words; empty if that cannot be found out."""
    types = _types(client, keys)  # a user without TYPE is refused that command, whatever the key
    refused = [name for name, kind in types.items() if isinstance(kind, NoPermissionError) and "key" in str(kind)]
    return f"the key{'s'[: len(refused) - 1]} {', '.join(refused)}" if refused else ""


def _types(client: redis.Redis, keys: Iterable[str | bytes]) -> dict[str, Any]:
    """Types of keys as the server says them, errors among them; none if it does not answer."""
    names = [key.decode() if isinstance(key, bytes) else key for key in keys]
    try:
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.type(name)
            return dict(zip(names, pipeline.execute(raise_on_error=False), strict=True))
    except redis.RedisError:
        return {}


def _foreign(client: redis.Redis, keys: Iterable[str | bytes]) -> str:
    """Keys that are not beatd's own, in words; empty if that cannot be found out."""
    found = {name: raw.decode() for name, raw in _types(client, keys).items() if isinstance(raw, bytes)}
    there = {name: kind for name, kind in found.items() if kind != "none"}
    wrong = [
        f"the key {name} is a {kind} and should be a {wanted}: rename or delete it"
        for name, kind in there.items()
        if (wanted := type_of(name)) is not None and kind != wanted
    ]
    return "; ".join(wrong or [f"the key {name} is a {kind}" for name, kind in there.items() if type_of(name) is None])


@functools.cache
def _source(name: str) -> str:
    """A script without comments and indents. The numbers of its lines stay, for the errors of the server."""
    lines = files("beatd.store").joinpath("lua", f"{name}.lua").read_text().splitlines()
    return "".join(["\n" if line.lstrip().startswith("--") else f"{line.strip()}\n" for line in lines])
