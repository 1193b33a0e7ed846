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
