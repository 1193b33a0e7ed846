"""What is needed of a RabbitMQ, tried: to find a queue or make one, and to publish. Nothing of it remains."""

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
    """Raises :class:`~beatd.exceptions.BrokerError` that names what is missing."""
    parsed = BrokerUrl.parse(url)
    with _connection(parsed) as connection:
        wrong = [reason for queue in queues for reason in _queue(connection, queue)]
        wrong += _publishing(connection)
    if wrong:
        raise BrokerError(f"broker {parsed.shown}: {'; '.join(wrong)}")


@contextmanager
def _connection(url: BrokerUrl) -> Iterator[Any]:
    """A connection; the errors of opening it are told in words."""
    one = kombu.Connection(url.bare, **{"connect_timeout": PUBLISH_TIMEOUT, **url.options})
    try:
        one.ensure_connection(max_retries=url.bare.count(";"), interval_start=0, reraise_as_library_errors=False)
        yield one.connection
    except (AMQPError, KombuError, OSError) as error:
        raise BrokerError(f"broker {url.shown}: {explained(error)}") from error
    finally:
        with suppress(AMQPError, KombuError, OSError):
            one.release()


def explained(error: Exception) -> str:
    """The words of an error, and of TLS where that may be the reason."""
    text = str(error) or type(error).__name__
    if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text or "record layer failure" in text.lower():
        return f"it does not speak TLS on this port; write amqp:// ({text})"
    if "Server unexpectedly closed" in text or isinstance(error, ConnectionResetError):
        return f"{text} (so does a server that expects TLS: amqps://)"
    return text


def _queue(connection: Any, name: str) -> Iterator[str]:
    """Whether the queue is there, or one like it may be made."""
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
        return  # it is there, and others use it
    try:
        with connection.channel() as channel:
            channel.queue_declare(f"{name}.check.{secrets.token_hex(4)}", exclusive=True, auto_delete=True)
    except AccessRefused:
        yield f"there is no queue {name}, and the user may not make it: add configure rights for it"


def _publishing(connection: Any) -> Iterator[str]:
    """A message to a queue that is not there comes back, or the right to publish is missing."""
    try:
        with connection.channel() as channel:
            channel.confirm_select()
            message = channel.prepare_message(b"", properties={})
            channel.basic_publish_confirm(message, "", f"beatd.check.{secrets.token_hex(6)}", timeout=PUBLISH_TIMEOUT)
    except AccessRefused:
        yield "the user may not publish: add write rights for amq.default"
