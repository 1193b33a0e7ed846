"""What can be said of a dead letter, and which are meant by a command's options."""

from __future__ import annotations

import fnmatch
from datetime import datetime
from typing import Any, NamedTuple

from beatd.cli.letter_places import Place
from beatd.cli.output import printable
from beatd.epoch import to_ms
from beatd.exceptions import MessageError
from beatd.message import TaskMessage, open_envelope
from beatd.redaction import redacted, redacted_text
from beatd.store.dead_letters import Letter

_BODY_MAX = 2_000
"""Characters of a body that are shown."""


class Found(NamedTuple):
    """A letter and where it is."""

    place: Place
    letter: Letter


class Filter(NamedTuple):
    """Which letters are meant."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    task: str | None = None
    queue: str | None = None
    older_ms: int | None = None

    def __bool__(self) -> bool:
        return any(self)

    def takes(self, letter: Letter, now_ms: int) -> bool:
        """Whether this is one of them."""
        return (
            (not self.ids or letter.id.startswith(self.ids))
            and (self.reason is None or self.reason.lower() in letter.reason.lower())
            and (self.task is None or fnmatch.fnmatchcase(task_of(letter), self.task))
            and (self.queue is None or self.queue == queue_of(letter))
            and (self.older_ms is None or age_ms(letter, now_ms) >= self.older_ms)
        )


def message_of(letter: Letter) -> TaskMessage | None:
    """The letter's message, if it is one."""
    try:
        return open_envelope(letter.message)
    except MessageError:
        return None


def task_of(letter: Letter) -> str:
    """The task's name, as far as it can be read."""
    message = message_of(letter)
    return str(message.headers.get("task") or "") if message else ""


def queue_of(letter: Letter) -> str:
    """On Redis the key of a list, in which the priority is a part of its own."""
    return letter.queue.partition("\x06")[0]


def age_ms(letter: Letter, now_ms: int) -> int:
    """How long it has been dead."""
    try:
        return max(0, now_ms - to_ms(datetime.fromisoformat(letter.at)))
    except (ValueError, TypeError):
        return 0


def facts(found: Found) -> dict[str, Any]:
    """The letter in short, for programs and people."""
    letter = found.letter
    message = message_of(letter)
    headers = message.headers if message else {}
    return {
        "id": letter.id,
        "at": letter.at,
        "reason": redacted_text(letter.reason),
        "queue": queue_of(letter),
        "task": headers.get("task"),
        "task_id": headers.get("id"),
        "by": letter.worker or "the daemon",
        "bytes": letter.size,
        "complete": letter.whole,
        "store": found.place.name,
    }


def content(letter: Letter, *, body: bool) -> dict[str, Any]:
    """What is in its message, without secrets; ``body`` shows arguments as they are."""
    message = message_of(letter)
    if message is None:
        return {"message": cut(redacted_text(letter.message.decode("utf-8", "replace")), _BODY_MAX)} if body else {}
    shown: dict[str, Any] = {"headers": redacted(message.headers), "properties": redacted(message.properties)}
    shown["content"] = f"{message.content_type}, {message.content_encoding}"
    if body:
        shown["body"] = cut(message.body.decode("utf-8", "replace"), _BODY_MAX)
    return shown


def cut(text: str, most: int) -> str:
    """The text on one line, and not longer."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"
