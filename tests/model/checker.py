"""A small explicit-state model checker: it visits every state that a protocol can reach."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

State = TypeVar("State", bound=Hashable)
Steps = Iterable[tuple[str, State]]


class Found(NamedTuple):
    """A state that must not be, and the shortest way there."""

    what: str
    way: list[str]

    def __str__(self) -> str:
        return "\n".join([*self.way, f"=> {self.what}"])


class Explored(NamedTuple, Generic[State]):
    """Everything that was reached, and the first fault."""

    states: int
    fault: Found | None


def explore(
    initial: State,
    steps: Callable[[State], Steps[State]],
    wrong: Callable[[State], str | None],
    done: Callable[[State], bool],
) -> Explored[State]:
    """Visit all states, the nearest first.

    ``wrong`` says what is wrong with a state, if anything is. From every state one that is ``done`` must remain in
    reach: then a system whose parts are all served some time ends up there. (Steps that only do harm must be bounded,
    and need not be taken.)
    """
    came_from: dict[State, tuple[State, str] | None] = {initial: None}
    before: dict[State, list[State]] = {initial: []}
    finished: list[State] = []
    queue = deque([initial])
    while queue:
        state = queue.popleft()
        if what := wrong(state):
            return Explored(len(came_from), Found(what, _way(state, came_from)))
        if done(state):
            finished.append(state)
        for name, after in steps(state):
            if after not in came_from:
                came_from[after] = (state, name)
                before[after] = []
                queue.append(after)
            before[after].append(state)
    stuck = _first_that_cannot_reach(finished, came_from, before)
    fault = None if stuck is None else Found("it cannot be done from here on", _way(stuck, came_from))
    return Explored(len(came_from), fault)


def _first_that_cannot_reach(
    finished: list[State], states: Iterable[State], before: dict[State, list[State]]
) -> State | None:
    able, queue = set(finished), list(finished)
    while queue:
        for state in before[queue.pop()]:
            if state not in able:
                able.add(state)
                queue.append(state)
    return next((state for state in states if state not in able), None)


def _way(state: State, came_from: dict[State, tuple[State, str] | None]) -> list[str]:
    names: list[str] = []
    while (step := came_from[state]) is not None:
        state, name = step
        names.append(name)
    return names[::-1]
