"""``app.conf``: Celery's settings under their lower-case names, as attributes and as a mapping."""

from __future__ import annotations

import difflib
import importlib
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import Any

from beatd import redaction
from beatd.app.conf_urls import COMPOSED, first_url, reads_settings
from beatd.app.settings import (
    DEFAULTS,
    RESULT_OPTION_WITHOUT_EFFECT,
    RESULT_OPTIONS,
    WITHOUT_EFFECT,
    option_without_effect,
)
from beatd.exceptions import ConfigError, Fault
from beatd.urls import is_amqp, is_redis

_OLD_PREFIXES = (("celeryd_", "worker_"), ("celerybeat_", "beat_"), ("celery_", ""))
_OLD_NAMES = {
    "result_serializer": "result_serializer",
    "ignore_result": "task_ignore_result",
    "acks_late": "task_acks_late",
    "always_eager": "task_always_eager",
    "default_queue": "task_default_queue",
    "routes": "task_routes",
    "queues": "task_queues",
    "send_events": "worker_send_task_events",
    "track_started": "task_track_started",
    "worker_task_time_limit": "task_time_limit",
    "worker_task_soft_time_limit": "task_soft_time_limit",
    "task_result_expires": "result_expires",
}


_TAKING = threading.Lock()
"""Held while the settings of a source that was read become those of an app."""


class Conf(MutableMapping[str, Any]):
    """Settings: the value that was set, else the default. Unknown names are kept for the user's own code.

    ``config_from_object`` is read on first access, so that an app can be created before its configuration module can
    be imported.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.__dict__.update(_values={}, _pending=None, _of_source=frozenset(), _readers=set())
        self.update(values or {})

    def read_later(self, source: Any, namespace: str | None, *, silent: bool = False) -> None:
        """Take the settings of ``source`` (an object, a mapping or ``"module[:attribute]"``) on first use.

        They replace those of an earlier source. Settings on ``conf`` outweigh them.
        """
        self.__dict__["_pending"] = source, namespace, silent

    def _loaded(self) -> dict[str, Any]:
        """Return the values, those of the source as well. Threads that need them at one time all read the source."""
        own, this = self.__dict__, threading.get_ident()
        values: dict[str, Any] = own["_values"]
        while (pending := own["_pending"]) is not None and this not in own["_readers"]:
            own["_readers"].add(this)  # the source may ask for settings while it is imported
            try:
                settings = _settings_or_none(*pending)
            finally:
                own["_readers"].discard(this)
            with _TAKING:
                if own["_pending"] is pending:
                    for name in own["_of_source"]:
                        values.pop(name, None)
                    own["_of_source"] = frozenset(settings.keys() - values.keys())
                    values |= {name: settings[name] for name in own["_of_source"]}
                    own["_pending"] = None
        return values

    def __getitem__(self, name: str) -> Any:
        own = self.__dict__
        values = own["_values"] if own["_pending"] is None else self._loaded()
        if (composed := COMPOSED.get(name)) is not None:
            return composed(values)
        if name in values:
            return values[name]
        if name not in DEFAULTS and (known := _name_of_celery_3(name)) is not None:
            return self[known]
        default = DEFAULTS[name]
        if isinstance(default, dict | list):  # mutable: the caller gets a copy of its own
            default = values[name] = default.copy()
        return default

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a value. A name of Celery 3 (``CELERY_TASK_SERIALIZER``) sets the setting that it is called now, too."""
        for known in (name, _name_of_celery_3(name)):
            if known is not None:
                self._values[known] = value
                self.__dict__["_of_source"] -= {known}

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(DEFAULTS.keys() | self._loaded().keys())

    def __len__(self) -> int:
        return len(DEFAULTS.keys() | self._loaded().keys())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            near = difflib.get_close_matches(name, DEFAULTS, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"no setting {name!r}{hint}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def changes(self) -> dict[str, Any]:
        """Return the settings that were set."""
        return dict(self._loaded())

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Yield each setting that was set and has no effect, with the reason."""
        own_class = reads_settings(self.result_backend)
        for name, value in sorted(self.changes().items()):
            is_read = own_class and name.startswith("result_")
            if name in WITHOUT_EFFECT and value != DEFAULTS[name] and not is_read:
                yield name, WITHOUT_EFFECT[name]
        url = first_url(self.broker_url)
        if is_redis(url) or is_amqp(url):
            for option in self.broker_transport_options or ():
                if reason := option_without_effect(option, redis=is_redis(url)):
                    yield f"broker_transport_options.{option}", reason
        if not own_class:
            for option in (self.result_backend_transport_options or {}).keys() - RESULT_OPTIONS:
                yield f"result_backend_transport_options.{option}", RESULT_OPTION_WITHOUT_EFFECT

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Return the settings that were set, or all; with ``censored`` secrets are masked."""
        settings = {name: self[name] for name in self} if with_defaults else self.changes()
        return redaction.censored(settings) if censored else settings

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return :meth:`table` as text, one setting a line."""
        lines = sorted(self.table(with_defaults, censored).items())
        return "\n".join(f"{name}: {value!r}" for name, value in lines)

    def __repr__(self) -> str:
        return f"<Conf: {len(self._values)} settings>"


def settings_of(source: Any, namespace: str | None) -> dict[str, Any]:
    """Read the settings of an object, a mapping, or a module or ``"module:attribute"`` by name.

    With a ``namespace`` only names with that prefix count, in upper or lower case (``CELERY_BROKER_URL``); without one,
    Celery's names, and the upper-case names of Celery 3 (``CELERYBEAT_SCHEDULE``). Raises :class:`ConfigError` if the
    module cannot be found.
    """
    source = _imported(source) if isinstance(source, str) else source
    names = list(source) if isinstance(source, Mapping) else [name for name in dir(source) if not name.startswith("_")]
    settings = {}
    for name in names:
        if (known := setting_name(str(name), namespace)) is None:
            continue  # it is not asked for its value, which may be computed
        value = source[name] if isinstance(source, Mapping) else getattr(source, name)
        if not isinstance(value, ModuleType):
            settings[known] = value
    return settings


def _settings_or_none(source: Any, namespace: str | None, silent: bool) -> dict[str, Any]:
    """Read the settings; none, if the module cannot be found and ``silent`` says that it need not."""
    try:
        return settings_of(source, namespace)
    except ConfigError:
        if not silent:
            raise
        return {}


def _imported(path: str) -> Any:
    name, _, attribute = path.partition(":")
    try:
        value: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise
        value = None
    if value is None and "." in name and not attribute:
        return _imported(":".join(name.rsplit(".", 1)))
    if value is None:
        raise ConfigError([Fault(path, None, "config_from_object", f"no module named {name!r}")])
    for part in filter(None, attribute.split(".")):
        if not hasattr(value, part):
            raise ConfigError([Fault(path, None, "config_from_object", f"module {name!r} has no {part!r}")])
        value = getattr(value, part)
    return value


def _name_of_celery_3(name: str) -> str | None:
    """Return the present name of a setting of Celery 3; None for any other name."""
    if not name.isupper() or not name.startswith(("CELERY", "BROKER_")):
        return None
    known = setting_name(name, None)
    return known if known in DEFAULTS else None


def setting_name(name: str, namespace: str | None = None) -> str | None:
    """Return the present name of a setting, of Celery 3's as well; None for one that is not known."""
    lower = name.lower()
    if namespace:
        prefix = namespace.lower() + "_"
        return lower.removeprefix(prefix) if lower.startswith(prefix) else None
    if name in DEFAULTS or lower in DEFAULTS:
        return lower
    for old, new in _OLD_PREFIXES:
        if lower.startswith(old):
            rest = new + lower.removeprefix(old)
            rest = _OLD_NAMES.get(rest, rest)
            return rest if rest in DEFAULTS else f"task_{rest}" if f"task_{rest}" in DEFAULTS else None
    return name if name.islower() else None
