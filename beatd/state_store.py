"""The state store of a daemon or command: found, or started, opened and checked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from beatd import broker
from beatd.clock import Backoff
from beatd.exceptions import StoreError, StoreUnavailable
from beatd.model import Settings
from beatd.store import server_check
from beatd.store.client import connect
from beatd.store.daemon_registry import FleetView, Registry
from beatd.store.embedded import find_embedded, open_embedded
from beatd.store.keys import Keys
from beatd.store.runtime_replica import RuntimeChanges, RuntimeReplica
from beatd.url_keyprefix import result_prefix
from beatd.urls import is_cluster

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger("beatd")

METRICS_TIMEOUT_MS = 1_000
"""Who scrapes metrics or probes health waits for a few seconds at most."""

RETRY_MIN, RETRY_MAX = 0.1, 5.0
"""Seconds between attempts to reach the state store at the start."""


@contextmanager
def state_store(settings: Settings) -> Iterator[str]:
    """The URL of the state store; ``"embedded"`` becomes one that is started here, or shared, and stopped last."""
    if settings.redis.url != "embedded":
        yield settings.redis.url
        return
    with open_embedded(settings.state_dir) as embedded:
        yield embedded.url


def with_patience(settings: Settings, at_most_ms: int) -> Settings:
    """The settings with a timeout of the store of ``at_most_ms``: for commands whose user waits for the answer."""
    redis = msgspec.structs.replace(settings.redis, timeout_ms=min(settings.redis.timeout_ms, at_most_ms))
    return msgspec.structs.replace(settings, redis=redis)


def running_store(settings: Settings) -> str:
    """The URL of the state store for a read-only command: an embedded store is not started for it.

    Raises :class:`~beatd.exceptions.StoreUnavailable` if the store is an embedded one that does not run.
    """
    url = find_embedded(settings.state_dir) if settings.redis.url == "embedded" else settings.redis.url
    if url is None:
        raise StoreUnavailable(f"no daemon is alive: the embedded state store in {settings.state_dir} does not run")
    return url


def store_keys(settings: Settings) -> Keys:
    """Return the names of a daemon's keys: in a cluster each shard has its own slot."""
    parts = settings.leader.shards if is_cluster(settings.redis.url) else 1
    return Keys(settings.redis.prefix, parts=parts, results=result_prefix(settings.results.url))


class Store:
    """The state store as it was found: reachable, fit, and whether it is the broker, too.

    Its connections are opened together, and what a start needs to know is read while the server is checked, so that
    over a slow link a start does not wait for one after the other. Nothing is written before the server is found fit.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""
        self.url = url
        timeout_ms = settings.redis.timeout_ms
        self.client = connect(url, timeout_ms=timeout_ms)
        elector_timeout_ms = min(timeout_ms, settings.leader.ttl_ms // 3)
        self.elector_client = connect(url, timeout_ms=elector_timeout_ms, name="beatd-elector")
        """A connection of its own, with a timeout short enough for a second attempt before trust ends."""
        self.runtime_client = connect(url, timeout_ms=timeout_ms, name="beatd-runtime")
        """A connection of its own for runtime entries and orders."""
        self.metrics_client = connect(url, timeout_ms=min(timeout_ms, METRICS_TIMEOUT_MS), name="beatd-metrics")
        """A connection of its own, opened when it is needed; its timeout is shorter than that of a scrape or probe."""
        keys = store_keys(settings)
        self.runtime = RuntimeReplica(self.runtime_client, keys)
        self.runtime_changes: RuntimeChanges | None = None
        """What the replica has read; ``None`` if it could not."""
        self.fleet: FleetView | None = None
        """The daemons and leases that are there already; ``None`` if they could not be read."""
        with ThreadPoolExecutor(2, "connect") as pool:
            pool.submit(self._read_runtime)
            pool.submit(self._read_fleet, Registry(self.elector_client, keys), settings.leader.shards)
            server_check.inspect(self.client, keys)
        if settings.redis.wait_replicas:
            server_check.check_wait(self.client)
        self.is_broker = is_broker(self.client, settings)

    def _read_runtime(self) -> None:
        with suppress(StoreError):  # the runtime source meets it again
            self.runtime_changes = self.runtime.refresh()

    def _read_fleet(self, registry: Registry, shards: int) -> None:
        with suppress(StoreError):  # the elector meets it again
            self.fleet = registry.look(shards=shards)


def is_broker(client: Redis, settings: Settings) -> bool:
    """True if the server of ``client``, the state store, is the broker, too."""
    url = settings.broker.url
    if url is None:
        return True
    if is_cluster(settings.redis.url):
        return False
    if not broker.is_redis(url):
        return False
    with connect(broker.redis_url(url), timeout_ms=settings.redis.timeout_ms, role="broker") as other:
        return server_check.same(client, other)


def await_store(
    settings: Settings,
    url: str,
    stopping: threading.Event,
    *,
    fail_fast: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Store | None:
    """Wait for the store and return it; ``None`` if ``stopping`` was set before that.

    ``on_wait`` is called after each attempt that failed, with the reason.

    Raises :class:`~beatd.exceptions.StoreRefused`, and with ``fail_fast`` :class:`~beatd.exceptions.StoreUnavailable`.
    """
    backoff = Backoff(RETRY_MIN, RETRY_MAX)
    while not stopping.is_set():
        try:
            return Store(settings, url)
        except StoreUnavailable as error:
            if fail_fast:
                raise
            pause = backoff.failed()
            reason = f"{error}{backoff.since_text}"
            extra = {"event": error.word, "since": backoff.since}
            log.log(backoff.level, "%s; trying again in %.1f s", reason, pause, extra=extra)
            on_wait(reason)
            stopping.wait(pause)
    return None


def result_urls(settings: Settings) -> list[str]:
    """The servers beside the state store on which results of Celery's workers may be."""
    urls = (settings.results.url, settings.broker.url)
    return [broker.redis_url(url) for url in urls if url and broker.is_redis(url)]
