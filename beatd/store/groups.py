"""Group state beside the results of tasks: finished tasks of chords, in Celery's format.

Celery's workers and beatd's count in the same keys, so the tasks of one header may run on both. Source:
``celery/backends/redis.py`` as of Celery 5.7; earlier versions know all keys but ``.c`` and ``.d``. Workers of Celery 4
keep what tasks return in a list unless ``result_chord_ordered`` is set, later ones in a sorted set: the first that ends
a task decides for all.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import redis

from beatd.exceptions import ChordError, MessageError, StoreRefused
from beatd.message import json_codec
from beatd.states import FAILURE
from beatd.store.client import is_cluster, is_of_foreign_type, translate_errors
from beatd.store.result_document import exception_payload
from beatd.store.script import Call, Script

log = logging.getLogger("beatd.store")

_CLAIM_S = 60
"""Time for which one worker alone may send the body of a chord."""
_DONE_S = 300
"""Time for which a sent body is remembered: the end of a task of the header may be reported twice."""


class Part(NamedTuple):
    """The end of one task of a chord's header."""

    group: str
    place: int | None
    """In the header."""
    task_id: str
    ended: bytes
    """JSON of ``[1, task id, state, result]``."""
    body: bytes
    """JSON of the signature that waits for it."""
    root_id: str | None = None
    """The task that all of this began with."""


class Complete(NamedTuple):
    """A header whose tasks have all ended."""

    part: Part
    """The last one."""
    shape: Any
    """The ``as_tuple`` of the header's ``GroupResult`` where it has groups inside, else None."""
    ends: list[tuple[str, str, Any]]
    """Task id, state and result of each task, in the header's order."""


class Claimed(NamedTuple):
    """A header whose tasks have all ended, and whose body another worker is sending."""

    part: Part
    seconds: float
    """Time after which that worker has done so, or has ended before."""


class Ends(NamedTuple):
    """Headers that are complete: those whose body is to be sent, and those of which others send it."""

    complete: list[Complete]
    claimed: list[Claimed]


class GroupStore(Protocol):
    """Group state of a result backend."""

    is_polled: bool
    """True if nothing is counted: a task of its own waits until all tasks of a header have ended."""

    def begin(self, group: str, size: int | None, shape: Any = None) -> None:
        """A header of ``size`` tasks is about to be sent; ``shape``: see :class:`Complete`.

        With None the size is in the body's signature alone, as in chords of Celery 4's clients.
        """

    def grow(self, group: str) -> None:
        """One more task was added to a header that is running."""

    def end(self, parts: Sequence[Part], owner: str) -> Ends:
        """Note the ends of tasks; returns the headers that are complete, see :meth:`Groups.end`."""

    def sent(self, group: str, owner: str, *, failed: bool = False) -> None:
        """The body of a complete header was sent, or given up."""

    def save(self, group: str, shape: Any) -> None:
        """Keep the ``as_tuple`` of a ``GroupResult``."""

    def restore(self, group: str) -> Any:
        """Return the group that :meth:`save` stored, or None."""

    def delete(self, group: str) -> None:
        """Undo :meth:`save`."""


class Groups:
    """The groups on one Redis, or in a cluster, where all keys of a group are in one slot.

    Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`.
    """

    is_polled = False

    def __init__(self, client: redis.Redis, keep_s: int, *, ordered: bool | None = None, prefix: str = "") -> None:
        """``ordered``: Celery's option ``result_chord_ordered``; None: as the client's version has it by default.

        ``prefix`` is that of results.
        """
        self._prefix = prefix
        self._client = client
        self._keep_s = keep_s
        self._kind = "" if ordered is None else "zset" if ordered else "list"
        self._part = Script(client, "chord_part")
        self._sent = Script(client, "chord_sent")
        self._tagged = is_cluster(client)

    def _key(self, group: str, suffix: str = "") -> str:
        """Return a key of a group; in a cluster with a tag, as all of them must be in one slot. Celery has no such."""
        name = f"{self._prefix}celery-taskset-meta-{group}"
        return f"{{{name}}}{suffix}" if self._tagged else f"{name}{suffix}"

    def begin(self, group: str, size: int | None, shape: Any = None) -> None:
        """A header of ``size`` tasks is about to be sent; see :class:`GroupStore`."""
        with translate_errors(self._client), self._client.pipeline(transaction=True) as pipeline:
            pipeline.delete(self._key(group, ".c"))
            if size is not None:
                pipeline.set(self._key(group, ".s"), size, ex=self._keep_s or None)
            if shape is not None:
                pipeline.set(self._key(group), json_codec.dumps({"result": shape}), ex=self._keep_s or None)
            pipeline.execute()

    def grow(self, group: str) -> None:
        """One more task was added to a header that is running."""
        with translate_errors(self._client):
            self._client.incr(self._key(group, ".t"))

    def end(self, parts: Sequence[Part], owner: str) -> Ends:
        """Note the ends of tasks. For each complete header the body must be sent, and :meth:`sent` called after that.

        Nobody else gets it meanwhile; the same ``owner`` gets it again when it asks again. A header that another one
        has got is to be asked for again: that worker may end before it has sent the body.
        """
        answers = list(zip(parts, self._part.each([self._call(part, owner) for part in parts]), strict=True))
        for part, answer in answers:
            if is_of_foreign_type(answer):
                extra = {"event": "result_refused", "task_id": part.task_id}
                log.error("Chord %s cannot be counted: %s", part.group, answer, extra=extra)
            elif isinstance(answer, Exception):
                raise answer
        return Ends(
            [_complete(part, answer) for part, answer in answers if isinstance(answer, list)],
            [Claimed(part, max(0, answer) / 1000) for part, answer in answers if isinstance(answer, int)],
        )

    def _call(self, part: Part, owner: str) -> Call:
        place = "+inf" if part.place is None else str(part.place)
        keys = [self._key(part.group, suffix) for suffix in (".j", ".t", ".s", ".d", "", ".c")]
        member = f"{part.task_id}:{place}"
        return keys, [member, part.ended, place, self._keep_s, owner, _CLAIM_S, _size_in(part), self._kind]

    def sent(self, group: str, owner: str, *, failed: bool = False) -> None:
        """The body was sent by ``owner``; or given up, ``failed``: then the return values of the header are kept."""
        suffixes = (".c", ".t", ".s", ".d", *(() if failed else (".j",)))
        self._sent([self._key(group, suffix) for suffix in suffixes], [owner, _DONE_S])

    def save(self, group: str, shape: Any) -> None:
        """Keep the ``as_tuple`` of a ``GroupResult``."""
        with translate_errors(self._client):
            self._client.set(self._key(group), json_codec.dumps({"result": shape}), ex=self._keep_s or None)

    def restore(self, group: str) -> Any:
        """Return the group that :meth:`save` stored, or None."""
        with translate_errors(self._client):
            raw: Any = self._client.get(self._key(group))
        return None if raw is None else _shape_in(raw)

    def delete(self, group: str) -> None:
        """Undo :meth:`save`."""
        with translate_errors(self._client):
            self._client.delete(self._key(group))


class NoGroups:
    """No groups: without a result backend that keeps them nobody could know that a header has ended."""

    is_polled = False

    def __init__(self, reason: str = "chords and saved groups need a result backend") -> None:
        self.reason = f"{reason}, for example App(backend='redis://localhost/1')"

    def begin(self, group: str, size: int | None, shape: Any = None) -> None:  # noqa: ARG002
        raise StoreRefused(self.reason)

    def grow(self, group: str) -> None:  # noqa: ARG002
        raise StoreRefused(self.reason)

    def end(self, parts: Sequence[Part], owner: str) -> Ends:  # noqa: ARG002
        raise StoreRefused(self.reason)

    def sent(self, group: str, owner: str, *, failed: bool = False) -> None:  # noqa: ARG002
        raise StoreRefused(self.reason)

    def save(self, group: str, shape: Any) -> None:  # noqa: ARG002
        raise StoreRefused(self.reason)

    def restore(self, group: str) -> Any:  # noqa: ARG002
        raise StoreRefused(self.reason)

    def delete(self, group: str) -> None:  # noqa: ARG002
        raise StoreRefused(self.reason)


def _complete(part: Part, answer: list[Any]) -> Complete:
    shape, places, *raw = answer
    ends = [_end(each) for each in raw]
    if places:  # of those that beatd's workers ended
        place = dict(member.decode().rsplit(":", 1) for member in places)
        ends.sort(key=lambda end: float(place.get(end[0], "inf")))
    try:
        return Complete(part, _shape_in(shape) if shape else None, ends)
    except StoreRefused as error:
        return Complete(part, None, [_failed(str(error))])


def _shape_in(raw: bytes) -> Any:
    """Return the group that was saved; raises StoreRefused for what another serializer has written."""
    try:
        return json_codec.loads(raw)["result"]
    except (MessageError, LookupError, TypeError):
        raise StoreRefused(
            "the group was not saved as JSON: whoever saved it needs result_serializer = 'json'"
        ) from None


def _end(raw: bytes) -> tuple[str, str, Any]:
    """Read what a worker wrote; a worker of Celery with another ``result_serializer`` fails the chord."""
    try:
        _, task_id, state, result = json_codec.loads(raw)
    except (MessageError, TypeError, ValueError):
        return _failed("what a task of the header returned is no JSON: its worker needs result_serializer = 'json'")
    return task_id, state, result


def _failed(reason: str) -> tuple[str, str, Any]:
    return "", FAILURE, exception_payload(ChordError(reason))


def _size_in(part: Part) -> int | str:
    """Return the size of the header that clients of Celery 4 write into the body's signature; else an empty text."""
    if b'"chord_size"' not in part.body:
        return ""
    size = json_codec.loads(part.body).get("chord_size")
    return size if isinstance(size, int) else ""
