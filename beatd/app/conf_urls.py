"""URLs of an app's broker and result backend, composed of all settings that say a part of them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from beatd.app.settings import DEFAULTS
from beatd.config.environment import celery_urls
from beatd.exceptions import WrongUrl
from beatd.url_keyprefix import OPTION, with_keyprefix
from beatd.urls import check_broker, is_amqp, is_cluster, is_redis, scheme_of

Values = Mapping[str, Any]

_SECURE = {"redis": "rediss", "redis+cluster": "rediss+cluster", "amqp": "amqps", "pyamqp": "amqps"}
_PARTS = ("broker_transport", "broker_host", "broker_port", "broker_user", "broker_password", "broker_vhost")


def _broker_url(values: Values) -> Any:
    """Return ``broker_url``, else what other settings or ``$CELERY_BROKER_URL`` say; with TLS as ``broker_use_ssl``."""
    given = values.get("broker_url") or values.get("broker_write_url") or values.get("broker_read_url")
    url = given or _of_parts(values) or celery_urls().broker or DEFAULTS["broker_url"]
    return _of_broker(url, values)


def _read_url(values: Values) -> Any:
    """Return ``broker_read_url``, from which workers take, else the broker's."""
    return _of_broker(values.get("broker_read_url"), values) or _broker_url(values)


def _write_url(values: Values) -> Any:
    """Return ``broker_write_url``, to which messages go, else the broker's."""
    return _of_broker(values.get("broker_write_url"), values) or _broker_url(values)


def _of_broker(url: Any, values: Values) -> Any:
    return with_prefix(with_tls(url, values.get("broker_use_ssl")), values.get("broker_transport_options"))


def _result_backend(values: Values) -> Any:
    """Return ``result_backend``, else ``$CELERY_RESULT_BACKEND``; with TLS as ``redis_backend_use_ssl`` says."""
    url = values.get("result_backend") or celery_urls().results
    secured = with_tls(url, values.get("redis_backend_use_ssl")) if is_redis(str(url)) else url
    return with_prefix(secured, values.get("result_backend_transport_options"))


COMPOSED: Mapping[str, Callable[[Values], Any]] = {
    "broker_url": _broker_url,
    "broker_read_url": _read_url,
    "broker_write_url": _write_url,
    "result_backend": _result_backend,
}
"""Settings that others are a part of, by name."""


def first_url(given: Any) -> str:
    """Return the first of the URLs that Celery takes as a list or as one text."""
    text = given if isinstance(given, str) else (given or [""])[0]
    return str(text).split(";")[0]


def broker_urls(given: Any) -> str:
    """Return the URL of an app's broker; of a RabbitMQ with all of its alternatives, if they can be used together."""
    first = first_url(given)
    whole = given if isinstance(given, str) else ";".join(map(str, given or ()))
    if whole == first or not is_amqp(first):
        return first
    try:
        check_broker(whole)
    except WrongUrl:
        return first
    return whole


def reads_settings(result_backend: str | None) -> bool:
    """Return True for a result backend that is a class of Celery's, which reads further settings."""
    url = str(result_backend or "")
    return bool(url) and not (is_redis(url) or is_cluster(url) or url.startswith(("rpc", "disabled")))


def _of_parts(values: Values) -> str | None:
    """Return the URL that ``broker_host`` and the others of its kind give; None without them."""
    transport, host, port, user, password, vhost = (values.get(name) for name in _PARTS)
    if not (transport or host):
        return None
    if "://" in str(host):
        return str(host)
    login = quote(str(user or ""), safe="") + (f":{quote(str(password), safe='')}" if password else "")
    place = f"{host or 'localhost'}{f':{port}' if port else ''}"
    path = f"/{quote(str(vhost), safe='')}" if vhost not in (None, "") else ""
    return f"{transport or 'amqp'}://{f'{login}@' if login else ''}{place}{path}"


def with_tls(url: Any, options: Any) -> Any:
    """Return the URL, or each of several, with TLS and its options: True, or a mapping as of ``broker_use_ssl``."""
    if not options or not url:
        return url
    return _each(url, lambda one: _secure(one, options if isinstance(options, Mapping) else {}))


def with_prefix(url: Any, options: Any) -> Any:
    """Return the URL, or each of several, with the ``global_keyprefix`` of transport options, if it is a Redis's."""
    prefix = (options or {}).get(OPTION)
    if not prefix or not url:
        return url
    return _each(url, lambda one: with_keyprefix(one, str(prefix)) if is_redis(one) or is_cluster(one) else one)


def _each(url: Any, change: Callable[[str], str]) -> Any:
    """Change each URL of a list, or of a text with semicolons."""
    if isinstance(url, list | tuple):
        return [_each(one, change) for one in url]
    return ";".join(map(change, str(url).split(";")))


def _secure(url: str, options: Mapping[str, Any]) -> str:
    scheme = scheme_of(url)
    if scheme not in (*_SECURE, *_SECURE.values()):
        return url
    rest = url[len(scheme) :]
    given = {f"ssl_{str(name).removeprefix('ssl_')}": _word(value) for name, value in options.items()}
    added = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items() if f"{name}=" not in rest)
    mark = "&" if "?" in rest else "?"
    return f"{_SECURE.get(scheme, scheme)}{rest}{mark if added else ''}{added}"


def _word(value: Any) -> str:
    if isinstance(value, ssl.VerifyMode):
        return value.name
    return str(value).lower() if isinstance(value, bool) else str(value)
