"""Check of the state store's server at startup: requirements and recommendations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any

import redis

from beatd.clock import monotonic
from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.store.client import IS_CLUSTER, is_cluster, place_of, server_of, store_error, translate_errors
from beatd.store.keys import SHARDS_MAX, Keys, ShardKeys, type_of
from beatd.store.pipeline import joint_reads
from beatd.store.rights import eviction
from beatd.store.script import Script
from beatd.store.sentinels import service_of

log = logging.getLogger("beatd.store")

MIN_REDIS = (6, 2)
MIN_VALKEY = (7, 2)
MIN_REDIS_CLUSTER = (7, 0)
"""Sharded pub/sub, by which daemons see each other, came with it."""


FORMAT = 1
"""The version of what is stored under the prefix. A store without one was begun by 0.1.0, which wrote format 1.

It grows when an older version would misread what a newer one writes. New keys and fields alone do not change it.
"""


def inspect(client: redis.Redis, keys: Keys | None = None) -> None:
    """Refuse a server that is too old (:class:`StoreRefused`) and warn of settings that can lose state.

    With ``keys``, also refuse a store whose format is newer than :data:`FORMAT`, and note the format of a new store, in
    one round trip; of a cluster likewise the number of shards. Raises :class:`~beatd.exceptions.StoreUnavailable` if
    there is no answer.
    """
    if keys is not None and is_cluster(client):
        _note_shards(client, keys)
    if keys is None:
        info = facts(client)
    else:
        info, stored = _facts_and_format(client, keys)
        _check_format(stored, place_of(client), keys)
    _check_version(info, place_of(client), in_cluster=is_cluster(client))
    if info.get("cluster_enabled") and not is_cluster(client):
        raise StoreRefused(f"{server_of(client)}: {IS_CLUSTER}")
    for event, text in _warnings(info):
        log.warning("%s: %s", place_of(client), text, extra={"event": event})


def facts(client: redis.Redis) -> dict[str, Any]:
    """Return the server's ``INFO``. Raises as :func:`inspect` does."""
    with translate_errors(client):
        found: dict[str, Any] = client.info()
    return found


def _facts_and_format(client: redis.Redis, keys: Keys) -> tuple[dict[str, Any], bytes | None]:
    with translate_errors(client):
        pipeline = client.pipeline(transaction=False)
        pipeline.info()
        pipeline.set(keys.format, FORMAT, nx=True)
        pipeline.get(keys.format)
        info, noted, stored = pipeline.execute(raise_on_error=False)
        if isinstance(stored, redis.ResponseError) and str(stored).startswith("WRONGTYPE"):
            raise StoreRefused(f"{server_of(client)}: {keys.format} is not a string; delete that key")
        for answer in (info, stored):
            if isinstance(answer, Exception):
                raise answer
    if isinstance(noted, Exception):
        log.debug("%s: the format could not be noted: %s", place_of(client), noted)
    return info, stored


def _check_format(stored: bytes | None, place: str, keys: Keys) -> None:
    if stored is None or stored == str(FORMAT).encode():
        return
    shown = stored.decode("utf-8", "replace")
    if not (shown.isascii() and shown.isdigit() and len(shown) < 10):
        raise StoreRefused(f'state store {place}: {keys.format} is "{shown[:50]}", not a number; delete that key')
    if int(shown) > FORMAT:
        raise StoreRefused(
            f"state store {place}: a newer beatd has written it, in format {shown}; "
            f"this version knows format {FORMAT}. Upgrade this daemon, or give it another [redis] prefix"
        )


def check_wait(client: redis.Redis) -> None:
    """Refuse a user who may not wait for replicas (:class:`StoreRefused`), before the first claim would find out."""
    with translate_errors(client):
        client.wait(0, 1)


def _note_shards(client: redis.Redis, keys: Keys) -> None:
    """Refuse another number of shards than the one that the store of a cluster was begun with."""
    with translate_errors(client), client.pipeline(transaction=False) as pipeline:
        pipeline.set(keys.shards, keys.parts, nx=True)
        pipeline.get(keys.shards)
        noted = pipeline.execute()[1]
    _compare_shards(noted, client, keys)


def check_shards(client: redis.Redis, keys: Keys) -> None:
    """Refuse another number of shards as :func:`inspect` does, and write nothing."""
    with translate_errors(client):
        noted: Any = client.get(keys.shards)
    if noted is not None:
        _compare_shards(noted, client, keys)


def _compare_shards(noted: bytes, client: redis.Redis, keys: Keys) -> None:
    if noted != str(keys.parts).encode():
        text = noted.decode("utf-8", "replace")[:20]
        raise StoreRefused(
            f"{server_of(client)}: it was begun with [leader] shards = {text}, which cannot change in a "
            f"cluster, and the file has {keys.parts}: write shards = {text}, or another [redis] prefix"
        )


def keys_in(client: redis.Redis, prefix: str, results: str = "") -> Keys:
    """Return the names of keys under a prefix; of a cluster, as a daemon began it. Raises as :func:`inspect` does.

    ``results`` is the prefix of results.
    """
    if not is_cluster(client):
        return Keys(prefix, results=results)
    with translate_errors(client):
        raw: Any = client.get(Keys(prefix).shards)
    parts = min(int(raw), SHARDS_MAX) if raw is not None and raw.isdigit() and int(raw) else 1
    return Keys(prefix, parts=parts, results=results)


def readable_keys(client: redis.Redis, prefix: str, results: str = "") -> Keys:
    """Return the same for a single read: of a cluster without the shards whose node does not answer now."""
    keys = keys_in(client, prefix, results)
    return keys.without(_away_parts(client, keys))


def _away_parts(client: redis.Redis, keys: Keys) -> dict[int, str]:
    """The parts of a cluster whose node does not answer now, and why."""
    if keys.parts == 1:
        return {}
    with client.pipeline(transaction=False) as pipeline:
        for number in range(keys.parts):
            pipeline.exists(keys.shard(number).lease)
        answers = pipeline.execute(raise_on_error=False)
    failed = ((number, one) for number, one in enumerate(answers) if isinstance(one, redis.RedisError))
    errors = ((number, store_error(one, server_of(client))) for number, one in failed)
    return {number: str(error) for number, error in errors if isinstance(error, StoreUnavailable)}


class NodeCheck:
    """Check of the nodes of a cluster, for repeated reads: each begins with it.

    It leaves parts whose node does not answer out of ``keys``, which are the looker's own. So a look is about the
    others, and tells of an absent part neither that it has something nor that it has not. A node that goes away later
    in the look ends it; the next one is without it.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self.keys = keys

    def __call__(self) -> None:
        """Look which nodes answer. Raises :class:`StoreUnavailable` if none does."""
        self.keys.away = away = _away_parts(self._client, self.keys)
        if len(away) == self.keys.parts:
            raise StoreUnavailable(away[0])


def _check_version(info: dict[str, Any], place: str, *, in_cluster: bool = False) -> None:
    name, minimum = ("Valkey", MIN_VALKEY) if "valkey_version" in info else ("Redis", MIN_REDIS)
    if in_cluster and name == "Redis":
        minimum = MIN_REDIS_CLUSTER
    text = str(info.get("valkey_version") or info.get("redis_version", "0"))
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if version < minimum:
        wanted = ".".join(map(str, minimum))
        raise StoreRefused(f"state store {place} is {name} {text}; beatd needs {name} {wanted} or newer")


def _warnings(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if text := eviction(info):
        yield "store_evicts", text
    if info.get("role") == "slave":
        yield "store_is_replica", "this server is a read-only replica; give the URL of its primary"


def described(info: dict[str, Any]) -> str:
    """Return the server's name and version from its ``INFO``: ``Redis 7.0.15``."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get('valkey_version') or info.get('redis_version', '')}"


BATCH = 1_000
"""Keys asked for in one round trip."""

ENTRIES_CHECKED = 10_000
"""Entries whose own keys have their types checked, by one call of :func:`foreign_by_entry`."""

RARELY_S = 60.0
"""Seconds between two checks of the keys of entries, which ask the server for two keys of each."""


KeyCheck = Callable[["redis.Redis", Keys], dict[str, str]]
"""Finds wrong types of keys; returns them by key."""


class ThrottledCheck:
    """Check of the keys of entries that is made at most once a minute while it finds nothing, for frequent reads."""

    def __init__(self) -> None:
        self._again_at = 0.0

    def __call__(self, client: redis.Redis, keys: Keys) -> dict[str, str]:
        """Return the wrong types of histories and outcomes, by key."""
        if monotonic() < self._again_at:
            return {}
        if not (found := foreign_by_entry(client, keys)):
            self._again_at = monotonic() + RARELY_S
        return found


def foreign_keys(client: redis.Redis, keys: Keys, *, shards: int, by_entry: KeyCheck) -> list[str]:
    """The keys of the daemons that hold a value of another type than beatd's, in words: somebody else wrote them."""
    own = {key for shard in range(shards) if shard not in keys.away for key in keys.shard(shard)}
    names = sorted({*own, *keys.runtime(), keys.daemons, keys.orders})
    with joint_reads() as read:
        kinds, of_entries = read(_types, client, names), read(by_entry, client, keys)
    try:
        found = dict(zip(names, kinds.result(), strict=True)) | of_entries.result()
    except StoreRefused:  # a user without the right to ask
        return []
    return [
        f"the key {name} is a {kind} and should be a {type_of(name)}; rename or delete it"
        for name, kind in found.items()
        if kind not in ("none", type_of(name))
    ]


def foreign_by_entry(client: redis.Redis, keys: Keys) -> dict[str, str]:
    """Return the wrong types of histories and outcomes, by key. Entries run all the same, and their past is lost."""
    with joint_reads() as read:
        parts = [read(_known_entries, client, part) for part in keys.all_parts()]
    known = list(islice(chain.from_iterable(part.result() for part in parts), ENTRIES_CHECKED))
    calls = [
        ([f"{prefix}{name}" for name in own], [type_of(prefix)])
        for start in range(0, len(known), BATCH)
        for part, own in keys.by_part(known[start : start + BATCH])
        for prefix in (part.history, part.outcomes)
    ]
    answers = [[raw.decode() for raw in answer] for answer in Script(client, "key_types").all(calls)]
    return {key: kind for answer in answers for key, kind in zip(answer[::2], answer[1::2], strict=True)}


def _known_entries(client: redis.Redis, part: ShardKeys) -> list[str]:
    """The entries that a leader has seen, the first of them; none if the key has another type."""
    with suppress(StoreRefused), translate_errors(client):
        scanned = client.hscan_iter(part.fingerprints, count=BATCH)
        return [name.decode(errors="replace") for name, _ in islice(scanned, ENTRIES_CHECKED)]
    return []


def _types(client: redis.Redis, names: Sequence[str]) -> list[str]:
    with translate_errors(client), client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.type(name)
        return [raw.decode() for raw in pipeline.execute()]


def same(one: redis.Redis, other: redis.Redis) -> bool:
    """True if two clients reach the same database of the same server, however their URLs spell it.

    One that follows a primary and one with a fixed address do not, even while they meet: a failover parts them.
    """
    if is_cluster(one) or is_cluster(other):
        return False
    if database(one) != database(other) or bool(service_of(one)) != bool(service_of(other)):
        return False
    with translate_errors(one):
        one_run: dict[str, Any] = one.info("server")
    with translate_errors(other):
        other_run: dict[str, Any] = other.info("server")
    return bool(one_run["run_id"] == other_run["run_id"])


def database(client: redis.Redis) -> int:
    """The number of the database that a client selects."""
    return int(client.connection_pool.connection_kwargs.get("db") or 0)
