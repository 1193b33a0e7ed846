"""TLS of the page: the certificate and key of ``[web]``, checked at the start."""

from __future__ import annotations

import ssl

from beatd.exceptions import ConfigError, Fault
from beatd.model import WebSettings


def context_of(settings: WebSettings) -> ssl.SSLContext | None:
    """The context of the server; None without a certificate. Raises ConfigError for files that cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    for name, file in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        try:
            with open(file, "rb"):  # noqa: PTH123 - only to see that it can be read
                pass
        except OSError as error:
            raise ConfigError([Fault(file, None, f"web.{name}", f"cannot be read: {error.strerror}")]) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # a key with a passphrase is refused instead of asked for on a terminal
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_passphrase)
    except (ssl.SSLError, ValueError) as error:
        text = getattr(error, "reason", None) or str(error)
        raise ConfigError(
            [Fault(settings.tls_cert, None, "web.tls_cert", f"certificate and key cannot be used: {text}")]
        ) from None
    return context


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")
