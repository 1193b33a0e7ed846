"""Permission check of the server: each right and command, on keys of its own that expire."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import redis
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from beatd.store.client import IS_CLUSTER, connection_to, is_cluster, subscription, translate_errors
from beatd.store.keys import Keys

_KEEP_MS = 10_000
"""How long a trial key lives at most, should removing it fail."""
_FULL = 0.9
"""From this share of maxmemory on the server is called nearly full."""
_ANSWER_S = 10.0
"""How long the answer to a subscription is waited for: without one, no right is known to be missing."""

Command = tuple[Any, ...]


def missing(client: redis.Redis, keys: Keys, queues: Iterable[str], *, state: bool = True) -> list[str]:
    """Return the missing rights, each with the rule that would grant it. ``state``: it is the state store, too.

    Raises beatd's errors if the server cannot be asked at all.
    """
    found: list[str] = []
    with translate_errors(client):
        if state:
            found += _tried(client, _commands(f"{keys.wake.rpartition(':')[0]}:check:{secrets.token_hex(6)}"))
            found += _channel(client, keys.wake)
        for queue in dict.fromkeys(queues):
            found += _tried(client, [("EVAL", "return 0", 1, queue), ("LLEN", queue)], rule=f"~{queue}*", key=queue)
    return list(dict.fromkeys(found))


def optional(client: redis.Redis, keys: Keys) -> list[str]:
    """Return what works less well for want of a right."""
    channel = keys.present(f"check-{secrets.token_hex(6)}")
    counted = "SHARDNUMSUB" if is_cluster(client) else "NUMSUB"
    with translate_errors(client):
        refused = _tried(client, [("PUBSUB", counted, channel)]) + _listening(client, channel, own=True)
    rules = [reason.rpartition(": add ")[2] for reason in refused]
    return [f"a dead leader is replaced only when its lease ends: add {' '.join(rules)}"] if rules else []


def state_of(info: dict[str, Any], *, in_cluster: bool = False) -> tuple[list[str], list[str]]:
    """From ``INFO``: why it cannot be used, and what is worth knowing."""
    wrong, notes = [], []
    if info.get("cluster_enabled") and not in_cluster:
        wrong.append(IS_CLUSTER)
    if info.get("role") == "slave":
        primary = f"{info.get('master_host')}:{info.get('master_port')}"
        wrong.append(f"it is a read-only replica; give the URL of its primary, {primary}")
    if info.get("aof_last_write_status") == "err":
        wrong.append("it cannot write its append-only file: see its log, and whether its disk is full")
    elif info.get("rdb_last_bgsave_status") == "err":
        notes.append("its last attempt to save its data to disk failed: see its log, and whether its disk is full")
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    policy = info.get("maxmemory_policy", "noeviction")
    if most and used >= most and policy == "noeviction":
        wrong.append(f"its memory is full: {used:,} of {most:,} bytes (maxmemory)")
    elif most and used >= _FULL * most:
        notes.append(f"its memory is nearly full: {used:,} of {most:,} bytes (maxmemory)")
    if text := eviction(info):
        notes.append(text)
    return wrong, notes


def eviction(info: dict[str, Any]) -> str:
    """From ``INFO``: that the server may delete keys; empty if it never does."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return ""
    return f"maxmemory-policy is {policy}: keys of the schedule can vanish when memory is short; set it to noeviction"


def _commands(name: str) -> list[Command]:
    """Every command that a daemon and its scripts use, each on a key of its kind."""
    text, table, ranked, line = (f"{name}:{kind}" for kind in ("text", "hash", "sorted", "list"))
    script = "return redis.call('TIME')[1]"
    return [
        ("TIME",),
        ("SET", text, "1", "PX", _KEEP_MS),
        ("GET", text),
        ("MGET", text),
        ("INCR", text),
        ("INCRBY", text, 1),
        ("APPEND", text, "0"),
        ("GETRANGE", text, 0, 1),
        ("STRLEN", text),
        ("SETRANGE", text, 0, "1"),
        ("EXISTS", text),
        ("TYPE", text),
        ("PTTL", text),
        ("HSET", table, "a", "1"),
        ("PEXPIRE", table, _KEEP_MS),
        ("HSETNX", table, "b", "1"),
        ("HGET", table, "a"),
        ("HMGET", table, "a"),
        ("HEXISTS", table, "a"),
        ("HINCRBY", table, "a", 1),
        ("HLEN", table),
        ("HKEYS", table),
        ("HGETALL", table),
        ("HSCAN", table, 0),
        ("HDEL", table, "b"),
        ("ZADD", ranked, 1, "a"),
        ("PEXPIRE", ranked, _KEEP_MS),
        ("ZRANGE", ranked, 0, -1),
        ("ZRANGEBYSCORE", ranked, 0, 1),
        ("ZREMRANGEBYRANK", ranked, 5, 9),
        ("ZCARD", ranked),
        ("ZREM", ranked, "b"),
        ("LPUSH", line, "a"),
        ("PEXPIRE", line, _KEEP_MS),
        ("LLEN", line),
        ("LRANGE", line, 0, -1),
        ("LTRIM", line, 0, 9),
        ("LMOVE", line, line, "LEFT", "RIGHT"),
        ("EVAL", script, 0),
        ("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0),
        ("MULTI",),
        ("EXEC",),
        ("DEL", text, table, ranked, line),
    ]


def _tried(client: redis.Redis, commands: Sequence[Command], rule: str | None = None, key: str = "") -> list[str]:
    """Return the refused commands, tried one after the other on one connection."""
    found: list[str] = []
    with connection_to(client, key or _key_of(commands)) as connection:
        for command in commands:
            connection.send_command(*command)
            try:
                connection.read_response()
            except ResponseError as error:
                found += _in_words(command, error, rule)
    return found


def _key_of(commands: Sequence[Command]) -> str:
    """The key or channel that commands are about."""
    return next(str(part) for command in commands for part in command[1:] if "{" in str(part))


def _in_words(command: Command, error: RedisError, rule: str | None) -> Iterator[str]:
    name, text = str(command[0]), str(error)
    subcommand = f"|{command[1]}" if name in ("SCRIPT", "PUBSUB") else ""
    if isinstance(error, NoPermissionError):
        key = next((str(part) for part in command[1:] if ":check:" in str(part)), str(command[-1]))
        if "key" in text:
            tag, own, _ = key.partition(":check:")
            named = f"keys that begin with {tag}:" if own else f"the key {key}"
            yield f"the user may not use {named}: add {rule or f'~{tag}:*'}"
        elif "channel" in text:
            allowed = f"{command[1].partition(':present:')[0]}:present:*" if ":present:" in command[1] else command[1]
            yield f"the user may not use the channel {command[1]}: add &{allowed}"
        else:
            yield f"the user may not run {name}{subcommand.replace('|', ' ')}: add +{(name + subcommand).lower()}"
    elif isinstance(error, OutOfMemoryError):
        yield "its memory is full, and it takes no writes (maxmemory)"
    elif isinstance(error, ReadOnlyError):
        yield "it is a read-only replica; give the URL of its primary"
    elif text.startswith(("CROSSSLOT", "MOVED", "CLUSTERDOWN")):
        yield IS_CLUSTER
    elif not isinstance(error, NoScriptError) and "without MULTI" not in text:
        yield f"{name}: {text}"


def _channel(client: redis.Redis, channel: str) -> list[str]:
    """Publishing on the channel, and listening to it. The word that is said is none that a daemon knows."""
    return _tried(client, [("PUBLISH", channel, "check")]) + _listening(client, channel)


def _listening(client: redis.Redis, channel: str, *, own: bool = False) -> list[str]:
    """Listening to a channel; in a cluster ``own`` is one that only a single node has."""
    found: list[str] = []
    sharded = own and is_cluster(client)
    with subscription(client, channel) as listening:
        try:
            (listening.ssubscribe if sharded else listening.subscribe)(channel)
            listening.get_message(timeout=_ANSWER_S)
        except ResponseError as error:
            found += _in_words(("SSUBSCRIBE" if sharded else "SUBSCRIBE", channel), error, None)
    return found
