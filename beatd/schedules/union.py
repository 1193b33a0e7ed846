"""Several schedules for one entry: it runs whenever one of them does, and once when several do at the same moment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from beatd.schedules.schedule import Moments, Schedule


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Union(Moments):
    """Whenever one of ``parts`` runs. Build it with ``parse([...])``."""

    parts: tuple[Schedule, ...]

    def next_after_ms(self, t_ms: int, /) -> int | None:
        return min((due for part in self.parts if (due := part.next_after_ms(t_ms)) is not None), default=None)

    @property
    def notation(self) -> object:
        return [part.notation for part in self.parts]

    @property
    def meaning(self) -> str:
        return "union " + " | ".join(sorted(str(part) for part in self.parts))


def union(parts: Iterable[Schedule]) -> Schedule:
    """Their union: nested ones are flattened, equal ones are taken once, and a single one is itself."""
    flat: dict[Schedule, None] = {}
    for part in parts:
        flat.update(dict.fromkeys(part.parts if isinstance(part, Union) else (part,)))
    return Union(tuple(flat)) if len(flat) > 1 else next(iter(flat))
