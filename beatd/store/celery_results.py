"""Results in any of Celery's result backends, by Celery's own classes: databases, caches, files, Django's models.

Celery must be installed. A Celery client reads what beatd stores, and the reverse. These backends do not count the
tasks of a chord's header: the task ``celery.chord_unlock`` waits for them (:mod:`beatd.worker.chord_unlock`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from beatd.clock import sleep
from beatd.exceptions import StoreError, StoreRefused, StoreUnavailable, WrongUrl
from beatd.states import PENDING
from beatd.store.groups import Ends, GroupStore, Part
from beatd.store.results import Meta, Stored, Watch, decode

_BUNDLES = {
    "cache": "memcache",
    "database": "sqlalchemy",
    "db": "sqlalchemy",
    "gs": "gcs",
}
"""Names of Celery's extras that differ from the scheme of the URL."""
_FORMS = "redis://…, rpc://, or one of Celery's, such as db+postgresql://…, cache+memcached://… or file:///…"
_OUTAGES = {"AutoReconnect", "ConnectionFailure", "DBAPIError", "Error", "InterfaceError", "MemcachedError",
            "MemcacheUnexpectedCloseError", "NoHostAvailable", "OperationalError", "ServerSelectionTimeoutError",
            "TimeoutError"}  # fmt: skip
"""Classes of drivers' errors that say that a server is away."""
_LONGEST_PAUSE_S = 0.5


class CeleryResults:
    """Results in the backend that ``url`` names. Each thread of each process has a client of its own."""

    SETTINGS = ("result_", "database_", "cache_", "cassandra_", "couchbase_", "couchdb_", "dynamodb_", "elasticsearch_",
                "mongodb_", "s3_", "azureblockblob_", "arangodb_", "cosmosdbsql_", "gcs_")  # fmt: skip
    """Prefixes of the settings that are Celery's own, for its backends."""

    keeps_runs = True

    def __init__(self, url: str, place: str, conf: Mapping[str, Any]) -> None:
        """Raise :class:`WrongUrl` for an unknown backend, and for one with a package that is not installed."""
        self.groups: GroupStore = CeleryGroups(self._call)
        self._url = url
        self.place = place
        """The backend as it is shown in errors, without secrets."""
        self._settings = {name: conf[name] for name in conf if name.startswith(self.SETTINGS)}
        self._settings["timezone"] = conf["timezone"] or "UTC"
        self._own = threading.local()
        self._backend()

    def expect(self) -> str | None:
        return None

    def store(self, results: Sequence[Stored]) -> None:
        for result in results:
            meta = decode(result.document)
            self._call(
                "store_result",
                result.task_id,
                meta["result"],
                meta["status"],
                traceback=meta.get("traceback"),
                request=_request(meta),
            )

    def get(self, task_id: str) -> Meta | None:
        meta: Meta = self._call("get_task_meta", task_id, cache=False)
        return None if meta["status"] == PENDING else {"result": None, **meta}

    def get_many(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        return {task_id: meta for task_id in task_ids if (meta := self.get(task_id)) is not None}

    def forget(self, task_id: str) -> None:
        self._call("forget", task_id)

    def wait(
        self,
        task_id: str,
        *,
        timeout: float | None = None,
        interval: float = 0.5,
        on_message: Callable[[Meta], None] | None = None,
        on_interval: Callable[[], None] | None = None,
    ) -> Meta:
        """Read the result again and again, with growing pauses up to ``interval``; see :class:`Results`."""
        watch, pause = Watch(timeout, interval, on_message, on_interval), 0.01
        while True:
            meta = self.get(task_id)
            if meta is not None and watch.ends_with(meta):
                return meta
            left = watch.check_time()
            watch.on_interval()
            sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE_S, interval)

    def close(self) -> None:
        self._own = threading.local()

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        backend = self._backend()
        try:
            return getattr(backend, method)(*args, **kwargs)
        except NotImplementedError as error:
            raise StoreRefused(f"result backend {self.place}: {error}") from error
        except StoreError:
            raise
        except Exception as error:
            if not _is_outage(error) and not backend.exception_safe_to_retry(error):
                raise
            self._own = threading.local()
            text = str(error).strip().split("\n")[0] or type(error).__name__
            raise StoreUnavailable(f"result backend {self.place}: {text}") from error

    def _backend(self) -> Any:
        """Return the client of this thread; one that was made before a fork belongs to the parent."""
        if getattr(self._own, "pid", None) != os.getpid():
            self._own.backend, self._own.pid = self._open(), os.getpid()
        return self._own.backend

    def _open(self) -> Any:
        try:
            import celery  # noqa: PLC0415 - optional
            from celery.app.backends import by_url  # noqa: PLC0415
        except ImportError:
            raise self._wrong("this result backend is Celery's: pip install celery") from None
        app = celery.Celery("beatd", set_as_current=False, fixups=[])
        app.conf.update(self._settings, result_backend=self._url)
        scheme = self._url.partition("://")[0].partition("+")[0]
        try:
            kind, url = self._kind(scheme, by_url, app.loader)
            own = type(kind.__name__, (kind,), {"exception_to_python": lambda _self, payload: payload})
            return own(app=app, url=url)
        except ImportError as error:
            raise self._wrong(f"{error}: pip install 'celery[{_BUNDLES.get(scheme, scheme)}]'") from None
        except WrongUrl:
            raise
        except Exception as error:  # noqa: BLE001 - Celery, and drivers, raise errors of many classes
            raise self._wrong(str(error) or type(error).__name__) from None

    def _kind(self, scheme: str, by_url: Callable[..., Any], loader: Any) -> tuple[Any, str | None]:
        """Return the class of the backend, and its URL."""
        try:
            found: tuple[Any, str | None] = by_url(self._url, loader)
        except Exception as error:
            if scheme.startswith("django-"):
                raise self._wrong("this result backend is not installed: pip install django-celery-results") from None
            if isinstance(error, ImportError) and error.name != scheme:
                raise
            raise self._wrong(f"there is no such result backend, expected {_FORMS}") from None
        return found

    def _wrong(self, reason: str) -> WrongUrl:
        return WrongUrl(f"result_backend {self.place}", reason)


class CeleryGroups:
    """Saved groups in a backend of Celery's."""

    is_polled = True

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def begin(self, group: str, size: int | None, shape: Any = None) -> None:
        """Count nothing."""

    def grow(self, group: str) -> None:  # noqa: ARG002
        raise StoreRefused("add_to_chord needs a result backend that counts, for example redis://localhost/1")

    def end(self, parts: Sequence[Part], owner: str) -> Ends:  # noqa: ARG002
        """Count nothing."""
        return Ends([], [])

    def sent(self, group: str, owner: str, *, failed: bool = False) -> None:
        """Count nothing."""

    def save(self, group: str, shape: Any) -> None:
        from celery.result import result_from_tuple  # noqa: PLC0415 - installed, or there is no such object

        self._call("save_group", group, result_from_tuple(shape))

    def restore(self, group: str) -> Any:
        found = self._call("restore_group", group, cache=False)
        return None if found is None else found.as_tuple()

    def delete(self, group: str) -> None:
        self._call("delete_group", group)


class _Child:
    """A child of a task, as Celery's backends ask for it."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def as_tuple(self) -> Any:
        return self._reference


def _request(meta: Meta) -> Any:
    """Make the request from which Celery's backends take the other fields of a result."""
    return SimpleNamespace(
        id=meta.get("task_id"),
        children=[_Child(child) for child in meta.get("children") or ()],
        group=meta.get("group_id"),
        parent_id=meta.get("parent_id"),
        task=meta.get("name"),
        args=meta.get("args"),
        kwargs=meta.get("kwargs"),
        hostname=meta.get("worker"),
        retries=meta.get("retries"),
        delivery_info={"routing_key": meta.get("queue")},
        stamps=None,
        ignore_result=False,
    )


def _is_outage(error: Exception) -> bool:
    return isinstance(error, (OSError, EOFError)) or any(kind.__name__ in _OUTAGES for kind in type(error).__mro__)
