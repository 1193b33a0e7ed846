"""Permission check on RabbitMQ: find or declare a queue, and publish. It leaves nothing behind."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import kombu as _kombu
from amqp.exceptions import AccessRefused, AMQPError, ChannelError, NotFound
from kombu.exceptions import KombuError

from beatd.broker.publisher import PUBLISH_TIMEOUT
from beatd.exceptions import BrokerError
from beatd.urls import BrokerUrl

kombu: Any = _kombu  # only half of it is typed


def try_rights(url: str, queues: Sequence[str]) -> None:
    """Raise :class:`~beatd.exceptions.BrokerError` that names the missing rights."""
    parsed = BrokerUrl.parse(url)
    with _connection(parsed) as connection:
        wrong = [reason for queue in queues for reason in _queue(connection, queue)]
        wrong += _publishing(connection)
    if wrong:
        raise BrokerError(f"broker {parsed.shown}: {'; '.join(wrong)}")


@contextmanager
def _connection(url: BrokerUrl) -> Iterator[Any]:
    """Open a connection; errors of opening it are explained."""
    connection = kombu.Connection(url.bare, **{"connect_timeout": PUBLISH_TIMEOUT, **url.options})
    try:
        connection.ensure_connection(max_retries=url.bare.count(";"), interval_start=0, reraise_as_library_errors=False)
        yield connection.connection
    except (AMQPError, KombuError, OSError) as error:
        raise BrokerError(f"broker {url.shown}: {explained(error)}") from error
    finally:
        with suppress(AMQPError, KombuError, OSError):
            connection.release()


def explained(error: Exception) -> str:
    """Return the text of an error, with a hint where TLS may be the reason."""
    text = str(error) or type(error).__name__
    if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text or "record layer failure" in text.lower():
        return f"it does not speak TLS on this port; write amqp:// ({text})"
    if "Server unexpectedly closed" in text or isinstance(error, ConnectionResetError):
        return f"{text} (so does a server that expects TLS: amqps://)"
    return text


def _queue(connection: Any, name: str) -> Iterator[str]:
    """Yield the missing rights for a queue: to find it, or to declare one like it."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, passive=True)
            return
    except NotFound:
        pass
    except AccessRefused:
        yield f"the user may not look at the queue {name}: add configure and read rights for it"
        return
    except ChannelError:
        return  # it exists, and others use it
    try:
        with connection.channel() as channel:
            channel.queue_declare(f"{name}.check.{secrets.token_hex(4)}", exclusive=True, auto_delete=True)
    except AccessRefused:
        yield f"there is no queue {name}, and the user may not make it: add configure rights for it"


def _publishing(connection: Any) -> Iterator[str]:
    """Yield the missing right to publish: a message to a missing queue is returned, or refused."""
    try:
        with connection.channel() as channel:
            channel.confirm_select()
            message = channel.prepare_message(b"", properties={})
            channel.basic_publish_confirm(message, "", f"beatd.check.{secrets.token_hex(6)}", timeout=PUBLISH_TIMEOUT)
    except AccessRefused:
        yield "the user may not publish: add write rights for amq.default"
