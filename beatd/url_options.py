"""Options in the queries of URLs: their names, and the types of their values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Read = Callable[[str], Any]


class WrongOption(ValueError):
    """A value that an option cannot have; the text says what would be right, and never repeats the value."""


def option_value(read: Read, value: str) -> Any:
    """The value with its type; raises :class:`WrongOption`."""
    return read(value)


def _seconds(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,6})?", value) or float(value) <= 0:
        raise WrongOption("is a number of seconds, more than 0")
    return float(value)


def _whole(least: int, most: int) -> Read:
    def read(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise WrongOption(f"is a whole number from {least} to {most}")
        return int(value)

    return read


def _flag(value: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if value.lower() not in words:
        raise WrongOption("is true or false")
    return words[value.lower()]


def _text(value: str) -> str:
    if not value:
        raise WrongOption("is empty")
    return value


def _keyprefix(value: str) -> str:
    if not value or not value.isprintable():
        raise WrongOption("is a text without control characters")
    return value


def _command(value: str) -> tuple[str, ...]:
    """A program, or a JSON array of a program and its arguments."""
    words = [value]
    if value.startswith("["):
        try:
            words = json.loads(value)
        except (ValueError, RecursionError):
            words = []
    if not words or not all(isinstance(word, str) for word in words) or not words[0] or "\0" in "".join(words):
        raise WrongOption("is a program, or a JSON array of a program and its arguments")
    return tuple(words)


def _verification(value: str) -> str:
    """redis-py's words; Celery's are the same with ``CERT_`` before them."""
    word = value.lower().removeprefix("cert_")
    if word not in {"required", "optional", "none"}:
        raise WrongOption("is required, optional or none (or Celery's CERT_REQUIRED, CERT_OPTIONAL, CERT_NONE)")
    return word


def _tls_version(value: str) -> int:
    known = {"tlsv1.2": 771, "tlsv1.3": 772, "771": 771, "772": 772}
    if value.lower() not in known:
        raise WrongOption("is TLSv1.2 or TLSv1.3")
    return known[value.lower()]


def _login_method(value: str) -> str:
    if value not in {"PLAIN", "AMQPLAIN", "EXTERNAL"}:
        raise WrongOption("is PLAIN, AMQPLAIN or EXTERNAL")
    return value


_LARGEST = 2**31 - 1

REDIS: Mapping[str, Read] = {
    "db": _whole(0, 999_999_999),
    "virtual_host": _whole(0, 999_999_999),
    "username": _text,
    "password": _text,
    "password_command": _command,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _flag,
    "health_check_interval": _whole(0, 86_400),
    "max_connections": _whole(1, _LARGEST // 4),
    "protocol": _whole(2, 3),
    "client_name": _text,
    "global_keyprefix": _keyprefix,
    "lib_name": str,
    "lib_version": str,
    "ssl": _flag,
    "sentinel_username": _text,
    "sentinel_password": _text,
}
"""Of Redis, beside those about TLS."""

TLS: Mapping[str, Read] = {
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_ca_data": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_password": _text,
    "ssl_cert_reqs": _verification,
    "ssl_check_hostname": _flag,
    "ssl_min_version": _tls_version,
    "ssl_ciphers": _text,
    "ssl_validate_ocsp": _flag,
    "ssl_validate_ocsp_stapled": _flag,
}

AMQP: Mapping[str, Read] = {
    "heartbeat": _whole(0, 65_535),
    "connect_timeout": _seconds,
    "login_method": _login_method,
}
"""Of RabbitMQ, beside those about TLS."""
