"""How large an entry's message is: one that is far too large is a mistake, and brokers refuse or choke on it."""

from __future__ import annotations

from beatd import message, wire
from beatd.model import Entry

ENVELOPE = 1_500
"""Bytes of a message beside its body and the user's own headers, about."""

LARGEST_GROWTH = 8
"""A character of the file makes at most so many bytes of the message: escaped as JSON, then as base64."""


def message_bytes(entry: Entry) -> int:
    """The size of the entry's message, to within some kilobytes."""
    options = entry.options
    body = message.body_of(entry.args, entry.kwargs, {"callbacks": options.link, "errbacks": options.link_error})
    return ENVELOPE + -(-len(body) // 3) * 4 + (len(wire.dumps(options.headers)) if options.headers else 0)


def too_large(entry: Entry, most: int) -> str:
    """What is wrong with a message of more than ``most`` bytes; nothing if it is not so large."""
    size = message_bytes(entry)
    if size <= most:
        return ""
    return (
        f"its messages would have {size_text(size)}, more than max_message_size of [broker], {size_text(most)}; "
        "pass a reference to what is large instead"
    )


def size_text(size: int) -> str:
    """Bytes, rounded as people say them."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"
