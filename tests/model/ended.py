"""The protocol of ended runs, cut down: which message is dropped as a repeat, after whatever has happened to it.

One leader after the other sends, skips or passes over the runs of an entry, and may not hear the answer to its claim.
Messages are taken in any order by a worker that may die at any moment, and may be published twice. What has ended is a
set of stretches, as in ``note_ends.lua``; a message carries the instant after which its run is the first.

Claims and terms have a model of their own (:mod:`tests.model.protocol`); here a claim is simply claimed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Rules(NamedTuple):
    """The rules that make it safe. Without any one of them the checker must find the harm."""

    moves_when_left_out: bool = True
    """A run that had been claimed before counts as sent, although it is skipped now."""
    gaps_are_apart: bool = True
    """The first run after missed ones begins a stretch after them: they may be sent after all."""
    resumes_at_last_due: bool = True
    """A new leader's first run comes after the last one that was claimed."""
    notes_before_ack: bool = True
    """The end is noted before the message is acknowledged."""
    knows_what_runs: bool = True
    """A worker drops a message of a run that it is running."""


class Size(NamedTuple):
    runs: int = 3
    lost: int = 1
    """Claims whose answers get lost."""
    skips: int = 1
    missed: int = 1
    leaders: int = 1
    """Leaders that are replaced."""
    deaths: int = 1
    repeats: int = 1
    """Messages that are published twice."""


class Message(NamedTuple):
    after: int
    due: int


class World(NamedTuple):
    left: Size
    next: int = 1
    """The run that the leader decides about next."""
    after: int = 0
    """The last one that it may have sent, as far as it knows."""
    last_due: int = 0
    gaps: frozenset[int] = frozenset()
    queue: tuple[Message, ...] = ()
    sent: frozenset[Message] = frozenset()
    running: frozenset[Message] = frozenset()
    over: frozenset[Message] = frozenset()
    """Ended, and not settled."""
    half: frozenset[Message] = frozenset()
    """Of these, the ones of which one of both steps, noting and acknowledging, is taken."""
    stretches: tuple[tuple[int, int], ...] = ()
    ends: tuple[int, ...] = ()
    """The runs that have ended, each time."""
    dropped: frozenset[int] = frozenset()


def initial(size: Size) -> World:
    return World(size)


def merged(stretches: tuple[tuple[int, int], ...], message: Message) -> tuple[tuple[int, int], ...]:
    """The stretches with that of a message: those that touch are one."""
    result = list[tuple[int, int]]()
    for after, due in sorted((*stretches, message)):
        if result and after <= result[-1][1]:
            result[-1] = result[-1][0], max(due, result[-1][1])
        else:
            result.append((after, due))
    return tuple(result)


def steps(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    """Everything that may happen next."""
    yield from _leader_steps(world, rules)
    yield from _worker_steps(world, rules)
    left = world.left
    if left.repeats:
        for message in world.sent:
            spent = left._replace(repeats=left.repeats - 1)
            yield f"{message.due} is published again", _pushed(world, message)._replace(left=spent)


def _pushed(world: World, message: Message) -> World:
    return world._replace(queue=tuple(sorted((*world.queue, message))), sent=world.sent | {message})


def _leader_steps(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    left, due = world.left, world.next
    if left.leaders:
        gaps = frozenset(gap for gap in world.gaps if gap < world.last_due)  # see load_entries.lua
        anew = world._replace(left=left._replace(leaders=left.leaders - 1), next=world.last_due + 1, gaps=gaps)
        yield "another leader", anew._replace(after=world.last_due if rules.resumes_at_last_due else 0)
    for gap in world.gaps:  # the clock is set right; what is after last due is simply due
        if gap < world.last_due:
            sent = _pushed(world, Message(gap - 1, gap))
            yield f"{gap} is sent after all", sent._replace(gaps=world.gaps - {gap})
    if due > left.runs:
        return
    is_new = due > world.last_due
    claimed = world._replace(last_due=max(due, world.last_due))
    sent = _pushed(claimed, Message(world.after, due)) if is_new else claimed
    yield f"{due} is sent", sent._replace(next=due + 1, after=due)
    if left.lost:
        yield f"{due} is sent, and the answer lost", sent._replace(left=left._replace(lost=left.lost - 1))
    if left.skips:
        moves = not is_new and rules.moves_when_left_out
        skipped = claimed._replace(next=due + 1, after=due if moves else world.after)
        yield f"{due} is skipped", skipped._replace(left=left._replace(skips=left.skips - 1))
    if left.missed and is_new:
        after = due if rules.gaps_are_apart else world.after
        missed = world._replace(left=left._replace(missed=left.missed - 1), next=due + 1, after=after)
        yield f"{due} is missed", missed._replace(gaps=world.gaps | {due})


def _worker_steps(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    left = world.left
    for message in dict.fromkeys(world.queue):
        queue = list(world.queue)
        queue.remove(message)
        taken = world._replace(queue=tuple(queue))
        if any(after < message.due <= last for after, last in world.stretches):
            yield f"{message.due} is dropped", taken._replace(dropped=world.dropped | {message.due})
        elif message in world.running | world.over:
            if rules.knows_what_runs:
                yield f"{message.due} is at work", taken
            else:
                yield f"{message.due} runs beside itself", taken._replace(ends=(*world.ends, message.due))
        else:
            yield f"{message.due} is taken", taken._replace(running=world.running | {message})
    for message in world.running:
        ended = world._replace(running=world.running - {message}, over=world.over | {message})
        yield f"{message.due} ends", ended._replace(ends=tuple(sorted((*world.ends, message.due))))
    for message in world.over:
        yield _settled(world, message, rules)
    if left.deaths and (world.running or world.over):
        held = world.running | (world.over if rules.notes_before_ack else world.over - world.half)
        queue = tuple(sorted((*world.queue, *held)))
        # an end that was not noted is as if it had not been: the task may have begun, and that is all that is known
        unnoted = world.over - world.half if rules.notes_before_ack else frozenset()
        ends = list(world.ends)
        for message in unnoted:
            ends.remove(message.due)
        dead = world._replace(queue=queue, running=frozenset(), over=frozenset(), half=frozenset(), ends=tuple(ends))
        yield "the worker dies", dead._replace(left=left._replace(deaths=left.deaths - 1))


def _settled(world: World, message: Message, rules: Rules) -> tuple[str, World]:
    """Take the first or the second step of a settlement."""
    is_second = message in world.half
    if is_second:
        world = world._replace(over=world.over - {message}, half=world.half - {message})
    else:
        world = world._replace(half=world.half | {message})
    if is_second != rules.notes_before_ack:
        return f"{message.due} is noted", world._replace(stretches=merged(world.stretches, message))
    return f"{message.due} is acknowledged", world


def wrong(world: World) -> str | None:
    """What must never be."""
    if len(set(world.ends)) < len(world.ends):
        return f"double run: {world.ends}"
    if lost := world.dropped.difference(world.ends):
        return f"lost run: {sorted(lost)}"
    return None


def done(world: World) -> bool:
    """Every run is decided, and what was sent has ended once."""
    is_idle = not (world.queue or world.running or world.over)
    return is_idle and world.next > world.left.runs and {one.due for one in world.sent} == set(world.ends)
