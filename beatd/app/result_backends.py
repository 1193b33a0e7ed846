"""Choice of the result backend: by the URL in ``result_backend``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beatd import broker
from beatd.app.conf import Conf
from beatd.broker import is_redis
from beatd.store.celery_results import CeleryResults
from beatd.store.results import NoResults, RedisResults, Results
from beatd.urls import is_cluster, shown


def open_results(conf: Conf, address: str, connect: Callable[..., Any]) -> Results:
    """Return the client of the result backend: a Redis, a Redis Cluster and ``rpc://``, all others through Celery.

    ``address`` is the queue for results by ``rpc://``, ``connect`` makes a connection to the broker. Raises
    :class:`~beatd.exceptions.WrongUrl` for what is no backend, or needs a package that is not installed.
    """
    url, keep_s = conf.result_backend, _seconds(conf.result_expires)
    if not url or url.startswith("disabled"):
        return NoResults()
    if is_redis(url) or is_cluster(url):
        ordered = (conf.result_backend_transport_options or {}).get("result_chord_ordered")
        return RedisResults(broker.redis_url(url), keep_s=keep_s, ordered=ordered)
    if is_by_reply(url):
        from beatd.broker.rpc import RpcResults  # noqa: PLC0415 - loads kombu

        urls = conf.broker_url if isinstance(conf.broker_url, str) else ";".join(conf.broker_url)
        place = "rpc:// over " + shown(urls)
        return RpcResults(lambda: connect(connect_timeout=_TIMEOUT_S), address, keep_s=keep_s, place=place)
    return CeleryResults(url, shown(url), conf)


def is_by_reply(url: str | None) -> bool:
    """True for results that are messages to the client: a task's message must name the queue for them."""
    return bool(url) and str(url).split(":", maxsplit=1)[0] == "rpc"


_TIMEOUT_S = 5.0


def _seconds(expires: Any) -> int:
    return int(expires.total_seconds() if hasattr(expires, "total_seconds") else expires or 0)
