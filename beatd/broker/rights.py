"""Check of a RabbitMQ: find or declare queues, find exchanges, and publish. It leaves nothing behind."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import kombu as _kombu
from amqp.exceptions import AccessRefused, AMQPError, ChannelError, NotFound, PreconditionFailed
from kombu.exceptions import KombuError

from beatd.broker.amqp_queues import task_queue
from beatd.broker.publisher import PUBLISH_TIMEOUT
from beatd.exceptions import BrokerError
from beatd.urls import BrokerUrl

kombu: Any = _kombu  # only half of it is typed


class _Blocked(BrokerError):
    """The broker has blocked the connection, as it is short of memory or disk space."""

    def __init__(self) -> None:
        super().__init__("it takes no messages for now: it is short of memory or disk space; its log says which")


def try_rights(url: str, queues: Sequence[str], exchanges: Sequence[str] = ()) -> list[str]:
    """Try what publishing to these queues and exchanges needs; return notes about what works and may surprise.

    Raises :class:`~beatd.exceptions.BrokerError` that names missing rights and exchanges, or why nothing is taken.
    """
    parsed = BrokerUrl.parse(url)
    with _connection(parsed) as connection:
        wrong = [reason for queue in queues for reason in _queue(connection, queue)]
        wrong += [reason for exchange in exchanges for reason in _exchange(connection, exchange)]
        wrong += _publishing(connection)
        notes = [note for queue in queues for note in _other_arguments(connection, queue)] if not wrong else []
    if wrong:
        raise BrokerError(f"broker {parsed.shown}: {'; '.join(wrong)}")
    return notes


@contextmanager
def _connection(url: BrokerUrl) -> Iterator[Any]:
    """Open a connection; errors of opening it are explained."""
    connection = kombu.Connection(
        url.bare, **{"connect_timeout": PUBLISH_TIMEOUT, **url.options}, transport_options={"on_blocked": _on_blocked}
    )
    try:
        connection.ensure_connection(max_retries=url.bare.count(";"), interval_start=0, reraise_as_library_errors=False)
        yield connection.connection
    except (AMQPError, KombuError, OSError) as error:
        raise BrokerError(f"broker {url.shown}: {explained(error)}") from error
    finally:
        with suppress(AMQPError, KombuError, OSError):
            connection.release()


def _on_blocked(_reason: str) -> None:
    raise _Blocked


def explained(error: Exception) -> str:
    """Return the text of an error, with a hint where TLS may be the reason."""
    text = str(error) or type(error).__name__
    if "ACCESS_REFUSED - Login" in text:
        return "it refuses the user or the password of the URL: correct one of both, there or in RabbitMQ"
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
    channel = connection.channel()
    try:
        channel.confirm_select()
        message = channel.prepare_message(b"", properties={})
        channel.basic_publish_confirm(message, "", f"beatd.check.{secrets.token_hex(6)}", timeout=PUBLISH_TIMEOUT)
    except AccessRefused:
        yield "the user may not publish: add write rights for amq.default"
    except _Blocked as blocked:
        connection.collect()  # a blocked connection answers nothing, not even a close
        yield str(blocked)
    else:
        channel.close()


def _exchange(connection: Any, name: str) -> Iterator[str]:
    """Yield why nothing can be published to an exchange."""
    try:
        with connection.channel() as channel:
            channel.exchange_declare(name, "direct", passive=True)
    except NotFound:
        yield f"there is no exchange {name}, and beatd makes none: declare it first"
    except AccessRefused:
        pass  # looking needs configure rights, publishing does not


def _other_arguments(connection: Any, name: str) -> Iterator[str]:
    """Yield how a queue differs from the one that Celery's workers declare; beatd takes it as it is."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, passive=True)
        with connection.channel() as channel:
            task_queue(name)(channel).queue_declare()
    except PreconditionFailed as error:
        yield f"the queue {name} has other arguments than Celery's default: set task_queues ({error.reply_text})"
    except ChannelError:
        pass  # it is not there, or the user may not declare queues
