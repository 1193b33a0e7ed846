"""Message templates: one message, encoded once, with placeholders for the id and the times, for thousands of runs."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterable, Mapping

from beatd.message import json_codec
from beatd.message.protocol import TaskMessage, _envelope


class MessageTemplate:
    """A family of messages that differ only in some places: an encoded envelope with holes.

    Made from an example message in which :func:`placeholder` stands for each value to come. :meth:`fill` may leave
    holes open: so one form serves all entries with the same options, and each entry's own form all of its runs.
    """

    __slots__ = ("_pattern",)

    def __init__(self, pattern: bytes) -> None:
        self._pattern = pattern

    @classmethod
    def of(cls, message: TaskMessage, *, queue: str, exchange: str = "") -> MessageTemplate:
        """The form of an example. Its body is always one hole, ``body`` (in base64); its delivery tag is ``id``."""
        outer = _envelope(message, placeholder("body"), queue=queue, exchange=exchange, delivery_tag=placeholder("id"))
        pattern = json_codec.dumps(outer).replace(b"%", b"%%")
        return cls(_PLACEHOLDER.sub(rb"%(\1)b", pattern))

    def fill(self, values: Mapping[bytes, bytes], *, open_holes: Iterable[str] = ()) -> MessageTemplate:
        """A form with fewer holes: ``values`` as JSON text go into theirs, ``open_holes`` stay."""
        escaped = {name: value.replace(b"%", b"%%") for name, value in values.items()}
        return MessageTemplate(
            self._pattern.replace(b"%%", b"%%%%")
            % {**escaped, **{h.encode(): b"%%(%b)b" % h.encode() for h in open_holes}}
        )

    def render(self, values: Mapping[bytes, bytes]) -> bytes:
        """The envelope of one message; ``values`` has the JSON text for every hole."""
        return self._pattern % values


def placeholder(name: str) -> str:
    """A stand-in for a value of a :class:`MessageTemplate`. Drawn at random once per process, so that no text can be
    mistaken."""
    return f"hole-{_PLACEHOLDER_SALT}-{name}"


_PLACEHOLDER_SALT = secrets.token_hex(8)
_PLACEHOLDER = re.compile(rb'"hole-%b-([a-z_]+)"' % _PLACEHOLDER_SALT.encode())


def base64_text(body: bytes) -> bytes:
    """A body as JSON text, for the hole ``body``."""
    return b'"%b"' % base64.b64encode(body)
