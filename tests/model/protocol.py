"""The protocol of lease and claim, cut down to what matters: who may do what, and what they know when they do it.

A store, some daemons, one entry with a few runs. A request may be answered, or its sender gives up, and it arrives
later or never. A lease may run out at any moment, however much its holder trusts it; so clocks, pauses and slow
renewals need no model of their own: a daemon that is not chosen to take a step is one that is paused. Daemons crash and
come back as others. The store may lose its last writes.

Asking, executing and hearing are one step: what a daemon knows is its own, so nobody could tell if it heard later.

What the scripts do is in ``beatd/store/lua``, what the daemon does with their answers in ``beatd/beat/loop.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import NamedTuple


class Rules(NamedTuple):
    """The rules that make it safe. Without any one of them the checker must find the harm."""

    fenced: bool = True
    """A write is refused when its term is over."""
    once: bool = True
    """A run is left out when last due is not before it."""
    advance_after: bool = True
    """The daemon moves on when the store has answered, not when it has asked."""
    read_again: bool = True
    """A new leader begins with what the store says, not with what it remembers."""
    looks_back: bool = True
    """A leader is told when the store has forgotten claims that it had confirmed."""
    counts_reads: bool = True
    """It is told so from the moment at which it read the state, not only from its first claim."""
    own_lease: bool = True
    """A lease of one's own, whose answer was lost, may be taken again."""


class Size(NamedTuple):
    """How much there is, and how much may go wrong."""

    daemons: int = 2
    runs: int = 2
    crashes: int = 1
    lost: int = 1
    """Requests whose sender gives up before the answer."""
    expiries: int = 1
    """Leases that run out although their holder lives. (Those of the dead always do.)"""
    releases: int = 0
    seizures: int = 0
    """Leases that a daemon takes from another that is taken for gone, whether it is or not."""
    power_losses: int = 0


DEAD = 0
"""The id of everyone who has crashed. Their leases and late requests outlive them."""


class Store(NamedTuple):
    lease: tuple[int, int] | None = None
    term: int = 0
    last_due: int = 0
    claims: int = 0
    queue: tuple[int, ...] = ()
    """The runs whose messages were pushed."""
    strays: int = 0
    """Runs that were claimed by a daemon that did not lead any more."""


class Request(NamedTuple):
    verb: str
    sender: int
    token: int = 0
    run: int = 0
    confirmed: int = 0
    over: tuple[int, int] | None = None
    """Of a take: the lease that may be taken from its holder."""


class Daemon(NamedTuple):
    id: int
    token: int = 0
    next: int = 0
    """The run that comes next; 0 before the state was read."""
    read_in: int = 0
    """The term in which it was read."""
    confirmed: int = 0


class World(NamedTuple):
    store: Store
    daemons: tuple[Daemon, ...]
    now: int
    """Runs up to this one are due."""
    late: tuple[Request, ...]
    """Requests on their way whose senders gave up on them."""
    durable: Store
    """What the store would still know after a loss of power."""
    left: Size
    """What may still go wrong."""


def initial(size: Size) -> World:
    daemons = tuple(Daemon(number + 1) for number in range(size.daemons))
    return World(Store(), daemons, 0, (), Store(), size)


def execute(store: Store, request: Request, rules: Rules) -> tuple[Store, tuple[str, int, int]]:
    """What the scripts do: ``lease_take``, ``load_entries``, ``claim``."""
    if request.verb == "take":
        own = rules.own_lease and store.lease is not None and store.lease[0] == request.sender != DEAD
        if store.lease and store.lease != request.over and not own:
            return store, ("held", 0, 0)
        term = store.term + 1
        return store._replace(term=term, lease=(request.sender, term)), ("term", term, 0)
    if rules.fenced and store.lease != (request.sender, request.token):
        return store, ("fenced", 0, 0)
    if request.verb == "read":
        return store, ("state", store.last_due, store.claims)
    if rules.looks_back and store.claims < request.confirmed:
        return store, ("went back", 0, 0)
    if request.verb == "look":
        return store, ("nothing new", 0, 0)
    if rules.once and request.run <= store.last_due:
        return store, ("claimed", request.run, store.claims)
    store = store._replace(
        last_due=request.run,
        claims=store.claims + 1,
        queue=tuple(sorted((*store.queue, request.run))),
        strays=store.strays + (store.lease != (request.sender, request.token)),
    )
    return store, ("claimed", request.run, store.claims)


def hear(daemon: Daemon, answer: tuple[str, int, int], rules: Rules) -> Daemon:
    """What a daemon makes of an answer."""
    kind, number, confirmed = answer
    if kind == "term":
        known = daemon.next if daemon.next and (daemon.read_in == number or not rules.read_again) else 0
        return daemon._replace(token=number, next=known)
    if kind == "state":
        return daemon._replace(next=number + 1, read_in=daemon.token, confirmed=confirmed if rules.counts_reads else 0)
    if kind == "claimed":
        return daemon._replace(next=number + 1, confirmed=confirmed)
    if kind == "went back":
        return daemon._replace(next=0, confirmed=0)
    return daemon if kind == "nothing new" else daemon._replace(token=0)


def steps(world: World, rules: Rules, size: Size) -> Iterator[tuple[str, World]]:
    """Everything that may happen next."""
    if world.now < size.runs:
        yield f"run {world.now + 1} comes due", world._replace(now=world.now + 1)
    yield from _store_steps(world)
    for request in dict.fromkeys(world.late):
        late = list(world.late)
        late.remove(request)
        store, _ = execute(world.store, request, rules)
        yield f"the late {_said(request)} arrives", world._replace(store=store, late=tuple(late))
    for place, daemon in enumerate(world.daemons):
        for name, after, changed in _daemon_steps(world, daemon, rules):
            daemons = (*world.daemons[:place], changed, *world.daemons[place + 1 :])
            yield name, _canonical(after._replace(daemons=daemons))


def _canonical(world: World) -> World:
    """The same world, its daemons numbered in one of the orders that make no difference."""
    if len(world.daemons) == 1:
        return world
    if len({each[1:] for each in world.daemons}) == len(world.daemons):
        order = sorted(world.daemons, key=lambda each: each[1:])
        return _renumbered(world, tuple(each.id for each in order))
    return min(_renumbered(world, order) for order in permutations(each.id for each in world.daemons))


def _renumbered(world: World, order: tuple[int, ...]) -> World:
    """``order``: the ids in the order in which they become 1, 2, …"""
    new = {old: number for number, old in enumerate(order, 1)}
    new[DEAD] = DEAD
    if all(old == number for old, number in new.items()):
        return world
    by_id = {each.id: each for each in world.daemons}
    return world._replace(
        store=_with_ids(world.store, new),
        durable=_with_ids(world.durable, new),
        daemons=tuple(by_id[old]._replace(id=new[old]) for old in order),
        late=_sorted(_of_others(each, new) for each in world.late),
    )


def _of_others(request: Request, new: dict[int, int]) -> Request:
    over = request.over and (new[request.over[0]], request.over[1])
    return request._replace(sender=new[request.sender], over=over)


def _sorted(requests: Iterable[Request]) -> tuple[Request, ...]:
    return tuple(sorted(requests, key=lambda each: (*each[:-1], each.over or ())))


def _with_ids(store: Store, new: dict[int, int]) -> Store:
    return store if store.lease is None else store._replace(lease=(new[store.lease[0]], store.lease[1]))


def _store_steps(world: World) -> Iterator[tuple[str, World]]:
    store, left = world.store, world.left
    if store.lease:
        alive = store.lease[0] != DEAD
        if left.expiries or not alive:
            spent = left._replace(expiries=left.expiries - 1) if alive else left
            yield "the lease runs out", world._replace(store=store._replace(lease=None), left=spent)
    if left.power_losses and world.durable != store:
        yield "the store syncs", world._replace(durable=store)
        spent = left._replace(power_losses=left.power_losses - 1)
        yield "the store loses power", world._replace(store=world.durable, left=spent)


def _daemon_steps(world: World, daemon: Daemon, rules: Rules) -> Iterator[tuple[str, World, Daemon]]:
    me, left, request = f"daemon {daemon.id}", world.left, _request(world, daemon)
    late = (world.late, *(() if request is None else (_sorted((*world.late, request)),)))
    if left.crashes:
        buried = {each.id: each.id for each in world.daemons} | {daemon.id: DEAD, DEAD: DEAD}
        for under_way in late:
            crashed = world._replace(
                store=_with_ids(world.store, buried),
                durable=_with_ids(world.durable, buried),
                late=_sorted(_of_others(each, buried) for each in under_way),
                left=left._replace(crashes=left.crashes - 1),
            )
            said = f" with a {request.verb} under way" if request and under_way is not world.late else ""
            yield f"{me} crashes{said} and starts anew", crashed, Daemon(daemon.id)
    if daemon.token and left.releases:
        mine = world.store.lease == (daemon.id, daemon.token)
        store = world.store._replace(lease=None) if mine else world.store
        released = world._replace(store=store, left=left._replace(releases=left.releases - 1))
        yield f"{me} gives the lease back", released, daemon._replace(token=0)
    if not daemon.token and world.store.lease and left.seizures:
        seizing = world._replace(left=left._replace(seizures=left.seizures - 1))
        yield from _asked(seizing, daemon, Request("take", daemon.id, over=world.store.lease), rules)
    if request is not None:
        yield from _asked(world, daemon, request, rules)


def _asked(world: World, daemon: Daemon, request: Request, rules: Rules) -> Iterator[tuple[str, World, Daemon]]:
    """A request that is answered, or whose sender gives up."""
    me, left = f"daemon {daemon.id}", world.left
    ahead = daemon._replace(next=request.run + 1) if request.verb == "claim" and not rules.advance_after else daemon
    if left.lost and request.verb in ("take", "claim"):
        unanswered = world._replace(late=_sorted((*world.late, request)), left=left._replace(lost=left.lost - 1))
        yield f"{me} gives up: {_said(request)}", unanswered, ahead
    store, answer = execute(world.store, request, rules)
    yield f"{_said(request)}: {answer[0]}", world._replace(store=store), hear(ahead, answer, rules)


def _request(world: World, daemon: Daemon) -> Request | None:
    """What a daemon asks for next."""
    if not daemon.token:
        return Request("take", daemon.id)
    if not daemon.next:
        return Request("read", daemon.id, daemon.token)
    if daemon.next <= world.now:
        return Request("claim", daemon.id, daemon.token, daemon.next, daemon.confirmed)
    return Request("look", daemon.id, daemon.token, 0, daemon.confirmed)


def _said(request: Request) -> str:
    what = f" {request.run}" if request.verb == "claim" else ""
    what += f" over {request.over}" if request.over else ""
    return f"{request.verb}{what} of daemon {request.sender} in term {request.token}"


def wrong(world: World) -> str | None:
    """What must never be."""
    queue = world.store.queue
    if len(set(queue)) < len(queue):
        return f"double enqueue: {queue}"
    if missing := set(range(1, world.store.last_due + 1)).difference(queue):
        return f"lost run: {sorted(missing)} of {world.store.last_due}"
    if world.store.strays:
        return "claimed without a term"
    return None


def done(world: World) -> bool:
    """Every run has come due and is in the queue."""
    return world.left.runs == world.now == world.store.last_due
