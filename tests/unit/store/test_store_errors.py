"""Errors of redis-py as beatd's: their class says if a call is tried again, their word what people read."""

import pytest
import redis
from redis.exceptions import (
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from beatd.exceptions import StoreRefused, StoreUnavailable, StoreUnwritable
from beatd.planning.problems import store_problem
from beatd.store.client import store_error

SERVER = "state store h:1/0"


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (ReadOnlyError("You can't write against a read only replica."), StoreUnwritable, "store_refused"),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), StoreUnwritable, "store_refused"),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), StoreUnwritable, "store_refused"),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), StoreUnwritable, "store_refused"),
        (BusyLoadingError("Redis is loading the dataset in memory"), StoreUnavailable, "store_unavailable"),
        (ResponseError("MASTERDOWN Link with MASTER is down"), StoreUnavailable, "store_unavailable"),
        (
            redis.ConnectionError("Error 111 connecting to h:1. Connection refused."),
            StoreUnavailable,
            "store_unavailable",
        ),
        (redis.TimeoutError("Timeout reading from socket"), StoreUnavailable, "store_unavailable"),
        (ResponseError("WRONGTYPE Operation against a key"), StoreRefused, "store_refused"),
        (NoPermissionError("User a has no permissions to run the 'get' command"), StoreRefused, "store_refused"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_the_word_of_an_error_is_that_of_its_problem(error, kind, word):
    told = store_error(error, SERVER)
    assert (type(told), told.word, store_problem(told).kind) == (kind, word, word)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("this user has no permissions to run the 'evalsha' command", "run EVALSHA: add +evalsha"),
        ("this user has no permissions to run the 'wait' command or its subcommand", "run WAIT: add +wait"),
        ("User low has no permissions to run the 'client|setname' command", "run CLIENT SETNAME: add +client|setname"),
        (
            "ACL failure in script: User low has no permissions to run the 'get' command script: e1, on @u:1.",
            "run GET: add +get",
        ),
        (
            "The user executing the script can't run this command or subcommand script: e1, on @user_script:1.",
            "run a command of beatd's scripts",
        ),
        ("this user has no permissions to access one of the keys used as arguments", "use one of the keys"),
        ("No permissions to access a key", "use one of the keys"),
        ("ACL failure in script: No permissions to access a key script: e1, on @user_script:1.", "use one of the keys"),
        (
            "The user executing the script can't access at least one of the keys mentioned in the command arguments",
            "use one of the keys",
        ),
        ("this user has no permissions to access one of the channels used as arguments", "use one of the channels"),
        ("No permissions to access a channel", "use one of the channels"),
    ],
)
def test_a_missing_right_is_named_with_what_to_do(said, told):
    error = str(store_error(NoPermissionError(said), SERVER))
    advice = "; beatd check --connect names the rights that are missing, docs/managed-stores.md those that are needed"
    assert error == f"{SERVER}: the user may not {told}{advice}"
