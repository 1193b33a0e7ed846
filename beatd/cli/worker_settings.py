"""Settings of ``beatd worker``: values of its command line, in Celery's notations, and the settings of the app."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click

from beatd import config
from beatd.app.app import App
from beatd.app.routing import Queues, direct_queue
from beatd.app.settings import DEFAULTS
from beatd.cli.output import split_names
from beatd.exceptions import ConfigError, Fault
from beatd.model import Settings
from beatd.worker.bootstrap import pool_for
from beatd.worker.settings import AUTO, COROUTINES, WorkerSettings, cpu_count, node_name, usable_cpus


class Concurrency(click.ParamType):  # type: ignore[type-arg]
    """Option that is a number of processes, 0 for the default, or ``auto``."""

    name = "concurrency"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or ``auto``; fails as click's own types do."""
        try:
            return _number_of_processes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _number_of_processes(value: Any) -> int | str:
    """Return a number, or ``auto``; raises ValueError for anything else."""
    text = str(value).strip().lower()
    if text == AUTO:
        return AUTO
    if not text.isdecimal():
        raise ValueError(f"{value!r}: expected a number or {AUTO}")
    return int(text)


def worker_settings(
    app: App, options: dict[str, Any], settings: Settings | None, store_url: str | None
) -> WorkerSettings:
    """Return the settings of a worker: those of the command line, else the app's. Raises :class:`ConfigError`."""
    conf = app.conf
    pool = pool_for(options["pool"] or conf.worker_pool)
    autoscale = _autoscale(options["autoscale"], pool)
    hostname = node_name(options["hostname"])
    return WorkerSettings(
        hostname=hostname,
        queues=_queues(options, conf, hostname),
        pool=pool,
        concurrency=autoscale[1]
        if autoscale
        else _concurrency(pool, options["concurrency"] or conf.worker_concurrency),
        prefix=settings.redis.prefix if settings is not None else "beatd",
        store_url=store_url,
        task_events=options["task_events"] or bool(conf.worker_send_task_events),
        remote_control=bool(conf.worker_enable_remote_control),
        max_tasks_per_child=_given(options["max_tasks_per_child"], conf.worker_max_tasks_per_child) or None,
        max_memory_per_child=_given(options["max_memory_per_child"], conf.worker_max_memory_per_child) or None,
        autoscale=autoscale,
        autoscale_idle_s=float(conf.worker_autoscale_idle),
        grace_s=_given(options["grace"], conf.worker_shutdown_grace),
        soft_shutdown_s=float(conf.worker_soft_shutdown_timeout or 0),
        soft_shutdown_on_idle=bool(conf.worker_enable_soft_shutdown_on_idle),
        metrics_listen=options["metrics"].address(settings.metrics if settings is not None else None),
        sigterm_quits=config.environment().remap_sigterm == "SIGQUIT",
    )


def _queues(options: dict[str, Any], conf: Any, hostname: str) -> tuple[str, ...]:
    declared = Queues(conf)
    queues = (
        tuple(map(declared.name_of, split_names(options["queues"]))) or declared.names or (conf.task_default_queue,)
    )
    if conf.worker_direct:
        queues = (*queues, direct_queue(hostname))
    left = tuple(name for name in queues if name not in split_names(options["exclude_queues"]))
    if not left:
        raise ConfigError([Fault("beatd worker", None, "--exclude-queues", "no queue is left to consume")])
    return left


def _given(option: Any, setting: Any) -> Any:
    """Return the value of the command line, if it has one, else the app's."""
    return setting if option is None else option


def _concurrency(pool: str, wanted: Any) -> int:
    if pool == "solo":
        return 1
    try:
        number = _number_of_processes(wanted or 0)
    except ValueError as error:
        raise ConfigError([Fault("beatd worker", None, "worker_concurrency", str(error))]) from None
    if number == AUTO:
        return COROUTINES if pool == "asyncio" else usable_cpus(quota=pool == "prefork")
    return int(number) or (COROUTINES if pool == "asyncio" else cpu_count())


def _autoscale(text: str | None, pool: str) -> tuple[int, int] | None:
    """Return the maximum and the minimum, in whichever order they are written: ``10,3``, ``3,10``. No minimum is 1."""
    if not text:
        return None
    first, _, second = text.partition(",")
    wrong = "expected MAX,MIN such as 10,3"
    if pool == "solo":
        wrong = "the solo pool runs one task at a time"
    elif first.strip().isdigit() and (second.strip() or "0").isdigit():
        least, most = sorted((int(first), int(second.strip() or "0")))
        if most:
            return most, max(1, least)
        wrong = "MAX must not be less than 1"
    raise ConfigError([Fault("beatd worker", None, "--autoscale", f"{text!r}: {wrong}")])


def settings_of_words(words: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield the settings that words behind ``--`` name: ``task_time_limit=30``, ``broker.url=…``, ``.concurrency=4``.

    A name with a dot at its beginning is one of the worker. Source: ``celery/loaders/base.py``. Raises
    :class:`ConfigError` for a word that is no setting.
    """
    for word in words:
        written, equals, text = word.partition("=")
        name = written.lower().replace(".", "_")
        name = f"worker{name}" if name.startswith("_") else name
        if not equals or name not in DEFAULTS:
            wrong = f"{word!r}: expected SETTING=VALUE" if not equals else f"there is no setting {name!r}"
            raise ConfigError([Fault("beatd worker", None, written, wrong)])
        yield name, _value(DEFAULTS[name], text)


def _value(default: Any, text: str) -> Any:
    """Return the value that a text means for a setting with this default."""
    if text.startswith("("):
        text = text.partition(")")[2]  # a type of Celery's: (list)["a"]
    if isinstance(default, str):
        return text
    if isinstance(default, bool) and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return text


_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
