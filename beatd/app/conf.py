"""``app.conf``: Celery's settings under their lower-case names, as attributes and as a mapping.

Settings without effect in beatd have Celery's defaults, so code that reads them keeps working.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import Any

from beatd import redaction
from beatd.exceptions import ConfigError, Fault

UNUSED: dict[str, Any] = {
    "beat_enable_remote_control": False,
    "beat_remote_control_max_tick_age": None,
    "beat_scheduler": "celery.beat:PersistentScheduler",
    "broker_channel_error_retry": False,
    "broker_connection_max_retries": 100,
    "broker_connection_retry": True,
    "broker_connection_timeout": 4,
    "broker_failover_strategy": None,
    "broker_heartbeat": 120,
    "broker_heartbeat_checkrate": 3.0,
    "broker_host": None,
    "broker_login_method": None,
    "broker_native_delayed_delivery_queue_type": "quorum",
    "broker_password": None,
    "broker_pool_acquire_timeout": None,
    "broker_pool_limit": 10,
    "broker_port": None,
    "broker_read_url": None,
    "broker_transport": None,
    "broker_use_ssl": False,
    "broker_user": None,
    "broker_vhost": None,
    "broker_write_url": None,
    "control_queue_durable": False,
    "control_queue_exclusive": True,
    "control_queue_expires": 10.0,
    "control_queue_ttl": 300.0,
    "event_queue_durable": False,
    "event_queue_exclusive": True,
    "event_queue_expires": 60.0,
    "event_queue_prefix": "celeryev",
    "event_queue_ttl": 5.0,
    "event_serializer": "json",
    "redis_backend_use_ssl": None,
    "redis_db": None,
    "redis_host": None,
    "redis_max_connections": None,
    "redis_password": None,
    "redis_port": None,
    "redis_retry_on_timeout": False,
    "redis_socket_connect_timeout": None,
    "redis_socket_keepalive": False,
    "redis_socket_timeout": 120.0,
    "redis_username": None,
    "result_accept_content": None,
    "result_backend_always_retry": False,
    "result_backend_base_sleep_between_retries_ms": 10,
    "result_backend_max_retries": math.inf,
    "result_backend_max_sleep_between_retries_ms": 10000,
    "result_backend_transport_options": {},
    "result_cache_max": -1,
    "result_chord_expires": None,
    "result_chord_join_timeout": 3.0,
    "result_chord_retry_interval": 1.0,
    "result_compression": None,
    "result_exchange": "celeryresults",
    "result_exchange_type": "direct",
    "result_failure_expires": None,
    "result_persistent": None,
    "task_acks_on_failure": None,
    "task_acks_on_timeout": None,
    "task_create_missing_queue_exchange_type": None,
    "task_create_missing_queue_type": "classic",
    "task_default_delivery_mode": 2,
    "task_default_exchange_type": "direct",
    "task_inherit_parent_priority": False,
    "task_protocol": 2,
    "task_remote_tracebacks": False,
    "task_repr_maxlevels": 3,
    "task_retry_on_worker_lost": False,
    "task_store_eager_result": False,
    "worker_agent": None,
    "worker_autoscaler": "celery.worker.autoscale:Autoscaler",
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_consumer": "celery.worker.consumer:Consumer",
    "worker_deduplicate_successful_tasks": False,
    "worker_detect_quorum_queues": True,
    "worker_direct": False,
    "worker_disable_prefetch": False,
    "worker_enable_prefetch_count_reduction": True,
    "worker_eta_task_limit": None,
    "worker_log_color": None,
    "worker_log_datefmt": None,
    "worker_lost_wait": 10.0,
    "worker_pool_putlocks": True,
    "worker_pool_restarts": False,
    "worker_pool_start_method": "fork",
    "worker_proc_alive_timeout": 4.0,
    "worker_state_db": None,
    "worker_task_log_datefmt": None,
    "worker_timer": None,
    "worker_timer_precision": 1.0,
}


DEFAULTS: dict[str, Any] = {
    **UNUSED,
    "accept_content": ["json"],
    "beat_cron_starting_deadline": None,
    "beat_max_loop_interval": 0,
    "beat_schedule": {},
    "beat_schedule_filename": "celerybeat-schedule",
    "beat_sync_every": 0,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {},
    "broker_url": "redis://localhost:6379/0",
    "control_exchange": "celery",
    "enable_utc": True,
    "event_exchange": "celeryev",
    "imports": (),
    "include": (),
    "message_max_bytes": 16 * 1024 * 1024,
    "result_backend": None,
    "result_expires": 86_400,
    "result_extended": False,
    "result_max_bytes": 64 * 2**20,
    "result_serializer": "json",
    "state_store": None,
    "task_acks_late": False,
    "task_acks_on_failure_or_timeout": True,
    "task_allow_error_cb_on_chord_header": False,
    "task_always_eager": False,
    "task_annotations": None,
    "task_compression": None,
    "task_create_missing_queues": True,
    "task_default_exchange": None,
    "task_default_priority": None,
    "task_default_queue": "celery",
    "task_default_queue_type": None,
    "task_default_rate_limit": None,
    "task_default_routing_key": None,
    "task_eager_propagates": False,
    "task_ignore_result": False,
    "task_keep_result": False,
    "task_publish_retry": True,
    "task_publish_retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1},
    "task_queue_max_priority": None,
    "task_queues": None,
    "task_reject_on_worker_lost": None,
    "task_routes": None,
    "task_send_sent_event": False,
    "task_serializer": "json",
    "task_soft_time_limit": None,
    "task_store_errors_even_if_ignored": False,
    "task_time_limit": None,
    "task_track_started": False,
    "timezone": None,
    "worker_autoscale_idle": 30.0,
    "worker_concurrency": None,
    "worker_disable_rate_limits": False,
    "worker_enable_soft_shutdown_on_idle": False,
    "worker_enable_remote_control": True,
    "worker_hijack_root_logger": True,
    "worker_log_format": "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
    "worker_max_memory_per_child": None,
    "worker_keep_output": True,
    "worker_max_tasks_per_child": None,
    "worker_pool": "prefork",
    "worker_prefetch_multiplier": 4,
    "worker_redirect_stdouts": True,
    "worker_redirect_stdouts_level": "WARNING",
    "worker_send_task_events": False,
    "worker_shutdown_grace": None,
    "worker_soft_shutdown_timeout": 0.0,
    "worker_task_log_format": ("[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"),
}
"""Celery's names and defaults, except ``broker_url``: beatd's default is a Redis on this host."""

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


class Conf(MutableMapping[str, Any]):
    """Settings: the value that was set, else the default. Unknown names are kept for the user's own code.

    ``config_from_object`` is read on first access, so that an app can be created before its configuration module can
    be imported.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.__dict__["_values"] = {}
        self.__dict__["_pending"] = []
        self.update(values or {})

    def read_later(self, source: Any, namespace: str | None, *, silent: bool = False) -> None:
        """Take the settings of ``source`` (an object, a mapping or ``"module[:attribute]"``) on first use."""
        self._pending.append((source, namespace, silent))

    def _loaded(self) -> dict[str, Any]:
        while self._pending:
            source, namespace, silent = self._pending.pop(0)
            try:
                settings = settings_of(source, namespace)
            except ConfigError:
                if not silent:
                    raise
                continue
            for name, value in settings.items():
                self._values.setdefault(name, value)
        values: dict[str, Any] = self._values
        return values

    def __getitem__(self, name: str) -> Any:
        own = self.__dict__
        values = self._loaded() if own["_pending"] else own["_values"]
        if name in values:
            return values[name]
        if (known := _name_of_celery_3(name)) is not None:
            return self[known]
        default = DEFAULTS[name]
        if isinstance(default, dict | list):  # mutable: the caller gets a copy of its own
            default = values[name] = default.copy()
        return default

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a value. A name of Celery 3 (``CELERY_TASK_SERIALIZER``) sets the setting that it is called now, too."""
        self._values[name] = value
        if (known := _name_of_celery_3(name)) is not None:
            self._values[known] = value

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
        known = setting_name(str(name), namespace)
        value = source[name] if isinstance(source, Mapping) else getattr(source, name)
        if known is not None and not isinstance(value, ModuleType):
            settings[known] = value
    return settings


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
