"""TLS of the page: the certificate and key of ``[web]``, checked at the start, and read again when they are renewed."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from beatd.exceptions import ConfigError, Fault
from beatd.model import WebSettings

log = logging.getLogger("beatd.web")

LOOK_S = 60
"""Seconds between two looks for a renewed certificate."""


class Certificate:
    """Certificate and key of the page: those of the files, or the last that could be used. ``context`` is the server's.

    Raises ConfigError for files that cannot be used at the start.
    """

    def __init__(self, file: str, key: str) -> None:
        self._file, self._key = file, key
        self._seen = self._state()
        self.context = self._current = _context(file, key)
        self.context.sni_callback = self._hand_out  # called for each handshake, with a name or without

    async def look(self) -> None:
        """Use a renewed certificate for new connections. One that cannot be used is logged, and changes nothing."""
        if (state := self._state()) == self._seen:
            return
        self._seen = state
        try:
            self._current = _context(self._file, self._key)
        except ConfigError as error:
            text = "The renewed certificate cannot be used, the one before stays: %s"
            reason = " ".join(str(error).split())
            log.error(text, reason, extra={"event": "web_certificate_refused"})  # noqa: TRY400 - the reason says it all
        else:
            log.info("A renewed certificate is in use", extra={"event": "web_certificate_renewed"})

    def _hand_out(self, connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        connection.context = self._current

    def _state(self) -> list[tuple[int, ...]]:
        return [_state_of(Path(file)) for file in (self._file, self._key)]


def certificate_of(settings: WebSettings) -> Certificate | None:
    """The certificate of the page; None without one. Raises ConfigError for files that cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)


def _context(file: str, key: str) -> ssl.SSLContext:
    for name, path in (("tls_cert", file), ("tls_key", key)):
        try:
            with open(path, "rb"):  # noqa: PTH123 - only to see that it can be read
                pass
        except OSError as error:
            raise ConfigError([Fault(path, None, f"web.{name}", f"cannot be read: {error.strerror}")]) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # a key with a passphrase is refused instead of asked for on a terminal
        context.load_cert_chain(file, key, password=_no_passphrase)
    except (ssl.SSLError, ValueError) as error:
        text = getattr(error, "reason", None) or str(error)
        raise ConfigError([Fault(file, None, "web.tls_cert", f"certificate and key cannot be used: {text}")]) from None
    return context


def _state_of(file: Path) -> tuple[int, ...]:
    """The state of a file by which a change is seen; empty for one that is not there."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")
