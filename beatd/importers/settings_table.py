"""Connections of a Celery app as tables of ``beat.toml``. URLs with a password become environment variables."""

from __future__ import annotations

from urllib.parse import urlsplit

from beatd.app.conf_urls import broker_urls, first_url
from beatd.config.writer import toml_value
from beatd.sources.app_file import app_settings
from beatd.url_keyprefix import global_keyprefix, own_prefix, without_keyprefix
from beatd.urls import is_redis, redis_url

_PUBLIC = "guest"
"""The password that every new RabbitMQ has."""

_STORE, _BROKER, _RESULTS = "BEATD_REDIS_URL", "BEATD_BROKER_URL", "BEATD_RESULTS_URL"


def connection_tables(app: str) -> tuple[str, dict[str, str]]:
    """Return ``[redis]``, ``[broker]`` and ``[results]`` as text, and the variables that it names with what they are.

    The state store is the app's broker or result backend if that is a Redis, else an embedded server. Raises
    ConfigError.
    """
    conf = app_settings(app)
    broker, results = broker_urls(conf["broker_url"]), first_url(conf["result_backend"] or "")
    variables: dict[str, str] = {}
    store = next((url for url in (broker, results) if url and is_redis(url)), "")
    lines = ["[redis]"]
    if store:
        lines.append(f"url = {_url(without_keyprefix(redis_url(store)), _STORE, 'the state store', variables)}")
    else:
        lines.append(f"url = {toml_value('embedded')}")
    if prefix := global_keyprefix(broker):
        lines.append(f"prefix = {toml_value(own_prefix(broker))}")
    lines += ["", "[broker]"]
    if broker and (prefix or not is_redis(broker)):
        lines.append(f"url = {_url(broker, _BROKER, 'the broker', variables)}")
    lines.append(f"default_queue = {toml_value(conf['default_queue'])}")
    if results and is_redis(results) and (results != store or global_keyprefix(results)):
        lines += ["", "[results]", f"url = {_url(redis_url(results), _RESULTS, 'the result backend', variables)}"]
    return "\n".join([*lines, ""]), variables


def with_connections(toml: str, app: str) -> tuple[str, list[str]]:
    """Return the text of a file with the app's connections before its entries, and what is left to do."""
    tables, variables = connection_tables(app)
    head, mark, entries = toml.partition("\n[beat_schedule.")
    steps = [f"{variable}: set it to the URL of {what}, which has a password" for variable, what in variables.items()]
    return f"{head}\n{tables}{mark}{entries}", steps


def _url(url: str, variable: str, what: str, variables: dict[str, str]) -> str:
    try:
        passwords = {urlsplit(one).password for one in url.split(";")}
        is_secret = not passwords <= {None, _PUBLIC} or "password" in url
    except ValueError:
        is_secret = True
    if is_secret:
        variables[variable] = what
        return toml_value(f"${{{variable}}}")
    return toml_value(url)
