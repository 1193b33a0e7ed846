"""Configuration of an app that has no ``beat.toml``: a file made from the app's own settings.

The state store is the app's broker if that is a Redis, else its result backend if that is one, else an embedded server.
``$BEATD_BROKER_URL`` and ``$BEATD_RESULT_BACKEND`` replace those of the app. URLs are not written into the file: it
names environment variables of this process, which its children inherit.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from beatd import config
from beatd.app.conf_urls import broker_urls, first_url, with_prefix
from beatd.clock import SystemClock
from beatd.config.environment import celery_urls
from beatd.config.loader import load_settings
from beatd.exceptions import ConfigError, Fault
from beatd.sources.child_process import ask
from beatd.url_keyprefix import OPTION, global_keyprefix, own_prefix, without_keyprefix
from beatd.urls import is_redis, redis_url, shown

APP_VARIABLE = "BEATD_APP"
"""The app whose settings are used when there is no file and no ``-A``."""
OPTION_VARIABLE = "BEATD_APP_OPTION"
"""The option of the command line that only an app without a file takes, if it was given."""
STORE_VARIABLE, BROKER_VARIABLE = "BEATD_APP_STORE_URL", "BEATD_APP_BROKER_URL"
RESULTS_VARIABLE = "BEATD_APP_RESULTS_URL"
TIMEOUT = 30.0
"""Seconds that importing the app may take."""


class AppFile(NamedTuple):
    """A file made for an app; ``origin`` says in words where its settings come from."""

    path: Path
    origin: str = ""


_made: dict[str, AppFile] = {}
_places: dict[str, str] = {}


def find(config_file: str | None, app: str | None = None) -> AppFile:
    """Find the configuration file; without one, make it from the settings of ``app`` or ``$BEATD_APP``.

    Raises ConfigError if there is neither, or if the app cannot be imported.
    """
    try:
        path = config.find(config_file)
    except ConfigError:
        name = app or os.environ.get(APP_VARIABLE)
        if not name:
            raise
    else:
        if option := os.environ.get(OPTION_VARIABLE):
            text = f"{option} has no effect beside this file, which names broker and results; leave it out"
            raise ConfigError([Fault(str(path), None, "", text)])
        return AppFile(path)
    return made_for(name, lambda: app_settings(name))


def made_for(name: str, conf: Callable[[], Mapping[str, Any]]) -> AppFile:
    """Return the file made for an app, the same one each time; ``conf`` reads its settings. Raises ConfigError."""
    if name not in _made:
        _made[name] = _make(name, conf())
    return _made[name]


def places() -> Mapping[str, str]:
    """The places of the URLs, by role, if this process has made a file for an app; empty if it has not."""
    return _places


def url_places(name: str, conf: Mapping[str, Any]) -> dict[str, str]:
    """The places where the URLs of an app are set, by role: its settings, or the environment."""
    of_celery = celery_urls()
    found = {"broker": f"broker_url of {name}", "result backend": f"result_backend of {name}"}
    if of_celery.broker and first_url(conf["broker_url"]) == of_celery.broker:
        found["broker"] = "$CELERY_BROKER_URL"
    if of_celery.results and first_url(conf["result_backend"]) == of_celery.results:
        found["result backend"] = "$CELERY_RESULT_BACKEND"
    return found


def given_places(broker: str | None, results: str | None) -> dict[str, str]:
    """The places of URLs that are given in place of an app's, by role: an option, or a variable of the environment."""
    given = [("broker", broker, "--broker", "BEATD_BROKER_URL")]
    given += [("result backend", results, "--result-backend", "BEATD_RESULT_BACKEND")]
    by_option = bool(os.environ.get(OPTION_VARIABLE))
    return {
        role: f"${variable}" if os.environ.get(variable) == url and not by_option else option
        for role, url, option, variable in given
        if url
    }


def app_settings(name: str) -> dict[str, Any]:
    """Read the settings of an app that say where its broker is, in a process of its own."""
    answer = ask("beatd.sources.app_child", (name, "-A", ""), name=name, where="-A", timeout=TIMEOUT)
    found: dict[str, Any] = answer["conf"]
    return found


def _make(name: str, conf: Mapping[str, Any]) -> AppFile:
    given = os.environ.get("BEATD_BROKER_URL"), os.environ.get("BEATD_RESULT_BACKEND")
    broker = _replaced(broker_urls(conf["broker_url"]), given[0])
    results = _replaced(first_url(conf["result_backend"]), given[1])
    set_at = url_places(name, conf) | given_places(*given)
    document: dict[str, Any] = {"app": name, "state_dir": str(Path.cwd() / ".beatd")}
    if conf["timezone"]:
        document["timezone"] = conf["timezone"]
    where = [("its broker", broker), ("its result backend", results)]
    set_at["state store"] = set_at["broker" if broker and is_redis(broker) else "result backend"]
    place, store = next(((place, url) for place, url in where if url and is_redis(url)), ("", ""))
    if store:
        os.environ[STORE_VARIABLE] = without_keyprefix(redis_url(store))
    prefix = global_keyprefix(broker)
    document["redis"] = {"url": f"${{{STORE_VARIABLE}}}" if store else "embedded", "prefix": own_prefix(broker)}
    document["broker"] = {"default_queue": conf["default_queue"]}
    if broker and (place != "its broker" or prefix):
        os.environ[BROKER_VARIABLE] = broker
        document["broker"]["url"] = f"${{{BROKER_VARIABLE}}}"
    if global_keyprefix(results) and is_redis(results):
        os.environ[RESULTS_VARIABLE] = redis_url(results)
        document["results"] = {"url": f"${{{RESULTS_VARIABLE}}}"}
    path = _folder() / "beat.toml"
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
    try:
        load_settings(path)
    except ConfigError as error:
        wrong = "; ".join(f"{fault.path}: {fault.message}" for fault in error.faults)
        text = f"its settings need a beat.toml ({shown(broker)} is its broker): {wrong}"
        raise ConfigError([Fault("-A", None, name, text)]) from None
    store_text = f"{place}, {shown(store)}" if store else "an embedded server"
    origin = f"no beat.toml: schedule and time zone are those of {name}; the state store is {store_text}"
    _places.update(set_at)
    return AppFile(path, origin)


def _replaced(url: str, given: str | None) -> str:
    """Return the URL that is given in place of the app's, with the prefix of the app's transport options."""
    return with_prefix(given, {OPTION: global_keyprefix(url)}) if given else url


_PREFIX = "beatd-app-"
_YOUNG_S = 60
"""Age of a folder that may not be locked yet."""


def _folder() -> Path:
    """Make a folder that is removed with this process; if it is killed, by the next one that needs a folder."""
    _remove_stale(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)  # open, and so locked, until the end
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder


def _remove_stale(place: Path) -> None:
    """Remove folders of this user's processes that were killed: nobody holds their locks."""
    now_s = SystemClock().now_ms() / 1000
    for folder in place.glob(f"{_PREFIX}*"):
        try:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or now_s - found.st_mtime < _YOUNG_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
        except OSError:  # in use, or gone meanwhile
            continue
