"""Settings of an app, for a start without a file: its broker, a state store and its time zone as a ``beat.toml``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import tomli_w

from beatd import config
from beatd.broker import is_redis, place_of, redis_url
from beatd.config.environment import escaped
from beatd.exceptions import ConfigError
from beatd.sources.app import Registered, read_app

APP_VARIABLE = "BEATD_APP"
BROKER_VARIABLE = "BEATD_BROKER_URL"
RESULTS_VARIABLE = "BEATD_RESULT_BACKEND"

_notes: dict[Path, str] = {}


class StateStore(NamedTuple):
    """The state store of an app: a URL or ``"embedded"``, and its role in words."""

    url: str
    role: str


def find(path: str | Path | None = None, *, app: str | None = None, env: Mapping[str, str] | None = None) -> Path:
    """The file to load, as :func:`beatd.config.find`; where there is none, the settings of an app as one.

    The app is ``app``, else ``$BEATD_APP``. Its broker and its result backend give way to ``$BEATD_BROKER_URL`` and
    ``$BEATD_RESULT_BACKEND``. Raises ConfigError.
    """
    env = os.environ if env is None else env
    try:
        return config.find(path, env)
    except ConfigError:
        name = app or env.get(APP_VARIABLE)
        if not name:
            raise
    derived = Path(f"<app {name}>")
    config.keep_text(derived, _settings(name, read_app(name), env, derived))
    return derived


def note_of(path: Path) -> str | None:
    """Say in one line what :func:`find` has made for want of a file; None for a file."""
    return _notes.get(path)


def choose_store(broker: str, results: str | None, store: str | None = None) -> StateStore:
    """Choose the state store of an app: its own setting, else a Redis that it has, else an embedded one."""
    if store:
        return StateStore(store, "the app's state_store")
    for url, role in ((broker, "the app's broker"), (results, "the app's result backend")):
        first = (url or "").split(";")[0]
        if first and is_redis(first):
            return StateStore(redis_url(first), role)
    return StateStore("embedded", "embedded, because the app has no Redis")


def _settings(name: str, registered: Registered, env: Mapping[str, str], derived: Path) -> str:
    """The settings as TOML."""
    servers = registered.servers
    broker = _first_redis(env.get(BROKER_VARIABLE) or servers["broker"] or "")
    store = choose_store(broker, env.get(RESULTS_VARIABLE) or servers["results"], servers["store"])
    place = "" if store.url == "embedded" else f"{place_of(store.url)} "
    _notes[derived] = f"No beat.toml: the broker is {place_of(broker)}, the state store {place}({store.role})"
    tables = {
        "app": name,
        "timezone": registered.timezone or "UTC",
        "redis": {"url": escaped(store.url)},
        "broker": {"url": escaped(broker), "default_queue": servers["queue"] or "celery"},
    }
    return tomli_w.dumps(tables)


def _first_redis(urls: str) -> str:
    """The first of several Redis servers, which is the one that the app publishes to; other URLs as they are."""
    first = urls.split(";", maxsplit=1)[0]
    return redis_url(first) if is_redis(first) else urls
