"""The app as a client: commands of Celery's that act through the broker and the result backend of an app.

The app may be beatd's or Celery's; without one the broker is that of ``-b`` or of ``beat.toml``.
"""

from __future__ import annotations

from collections.abc import Callable

import click

from beatd import config
from beatd.app.app import App
from beatd.app.conf_urls import first_url
from beatd.app.find_app import find_app
from beatd.cli.errors import name_places
from beatd.config.loader import load_settings
from beatd.exceptions import ConfigError
from beatd.sources.app_file import app_settings, given_places, url_places
from beatd.state_store import running_store
from beatd.urls import check_broker

SETTINGS = {"help_option_names": ["-h", "--help"]}


def client_app(
    app_name: str | None, broker: str | None, config_file: str | None, result_backend: str | None = None
) -> App:
    """Return an app that acts as a client of the workers: the app itself, or one with the same broker and results."""
    if broker:
        check_broker(broker)
    places: dict[str, str] = {}
    if app_name:
        app = _named(app_name)
        places = url_places(app_name, app.conf)
    elif broker:
        app = App("beatd", broker=broker, set_as_current=False)
    else:
        app, places = _of_file(config_file)
    name_places(places | given_places(broker, result_backend))
    if broker:
        app.conf.broker_url = broker
    if result_backend:
        app.conf.result_backend = result_backend
    return app


def _named(name: str) -> App:
    try:
        return find_app(name)
    except ConfigError:
        conf = app_settings(name)  # an app of Celery's has no client of beatd's
    backend = first_url(conf["result_backend"]) or None
    app = App("beatd", broker=first_url(conf["broker_url"]), backend=backend, set_as_current=False)
    app.conf.task_default_queue = conf["default_queue"]
    return app


def _of_file(config_file: str | None) -> tuple[App, dict[str, str]]:
    """The app with the servers of the file, and where the file sets their URLs."""
    try:
        found = config.find(config_file)
    except ConfigError as error:
        raise click.UsageError(f"{error}, or the broker with -b URL, or an app with -A MODULE") from None
    settings = load_settings(found).settings
    store = running_store(settings)
    app = App("beatd", broker=settings.broker.url or store, backend=store, set_as_current=False)
    app.conf.task_default_queue = settings.broker.default_queue
    of_store = "url under [redis]"
    return app, {"result backend": of_store} if settings.broker.url else {
        "result backend": of_store,
        "broker": of_store,
    }


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say which app, broker and result backend."""
    for option in (
        click.option("--result-backend", metavar="URL", help="Result backend."),
        click.option("--broker", "-b", metavar="URL", help="Broker."),
        click.option("--config", "config_file", metavar="FILE", help="Take broker and results of beat.toml."),
        click.option("--app", "-A", "app_name", metavar="MODULE[:APP]", help="Take broker and results of this app."),
    ):
        function = option(function)
    return function
