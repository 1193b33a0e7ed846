"""What every kind of schedule is: a frozen value with one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from hashlib import blake2b
from typing import Protocol, runtime_checkable

from beatd.epoch import from_ms, to_ms

#: Longest fingerprint that is written out; longer meanings are hashed.
FINGERPRINT_LENGTH = 64


@runtime_checkable
class Schedule(Protocol):
    """When an entry runs. Frozen and hashable; two schedules are equal when they mean the same."""

    def next_after(self, t: datetime, /) -> datetime | None:
        """The first run strictly later than the aware datetime ``t``, in UTC; None when there is none any more."""

    def next_after_ms(self, t_ms: int, /) -> int | None:
        """The same in whole milliseconds since 1970-01-01T00:00:00Z, for any ``t_ms``; none after the year 9998."""

    @property
    def notation(self) -> object:
        """What to write in the file (str, number, dict or list) for ``parse`` to read an equal schedule."""

    @property
    def fingerprint(self) -> str:
        """A short stable text that changes if and only if the meaning does: fields, zone and DST rule."""


class Moments(ABC):
    """The base of all kinds: equality by meaning, and datetimes on top of integers.

    ``meaning`` is the canonical text of everything that decides when the schedule runs, and of nothing else.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def meaning(self) -> str: ...

    @property
    @abstractmethod
    def notation(self) -> object: ...

    @abstractmethod
    def next_after_ms(self, t_ms: int, /) -> int | None: ...

    def next_after(self, t: datetime, /) -> datetime | None:
        due_ms = self.next_after_ms(to_ms(t))
        return None if due_ms is None else from_ms(due_ms)

    @property
    def fingerprint(self) -> str:
        return shorten(self.meaning)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Moments) and self.meaning == other.meaning)

    def __hash__(self) -> int:
        return hash(self.meaning)

    def __repr__(self) -> str:
        return f"<{self.meaning}>"

    def __str__(self) -> str:
        return self.meaning


def shorten(meaning: str) -> str:
    """``meaning`` itself where it is short, else its kind and a 128-bit digest."""
    if len(meaning) <= FINGERPRINT_LENGTH:
        return meaning
    return f"{meaning.split(' ', 1)[0]} {blake2b(meaning.encode(), digest_size=16).hexdigest()}"
