"""The protocol of the outbox, cut down to what matters: claimed, published, confirmed, struck off.

A store, some daemons that may lead, and a broker that is another server. Runs are claimed into the outbox; whoever
leads reads the oldest messages, publishes them, and strikes them off when the broker has confirmed them. The way to the
broker may break at any point of a batch; a request to the store may be given up and arrive later; a lease may run out
at any moment; daemons crash and come back as others; the store may lose its last writes. Pauses need no model of their
own: a daemon that is not chosen to take a step is one that is paused.

What is left in the outbox of a shard that is no more is taken over by the leader of one that is.

The scripts are ``beatd/store/lua/outbox_*.lua`` and ``claim.lua``; the daemon's part is ``beatd/beat/delivery.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

BATCH = 2
"""Messages read, published and struck off at once."""

DEAD = 0
"""The id of everyone who has crashed. Their leases and late requests outlive them."""

Message = tuple[int, int]
"""A run, and what tells its message from another one of the same run; 0 as long as ids are those of runs."""


class Rules(NamedTuple):
    """The rules that make it safe. Without any one of them the checker must find the harm."""

    with_the_claim: bool = True
    """The message is in the outbox in the same step in which its run counts as claimed."""
    confirmed_first: bool = True
    """Nothing is struck off before the broker has confirmed it."""
    all_confirmed: bool = True
    """A batch of which only a part was confirmed is published again."""
    matched: bool = True
    """What is struck off is what was published, not as many as were published."""
    leftovers: bool = True
    """A leader looks into the outbox although it has claimed nothing."""
    inherits: bool = True
    """It takes over the outbox of a shard that is no more."""
    looks_again: bool = True
    """It does so not only when its term begins."""
    same_id: bool = True
    """A message that is published again carries the id that it had."""
    looks_back: bool = True
    """A leader is told when the store has forgotten claims that it had confirmed."""
    counts_runs: bool = True
    """Claims are counted by their runs: one that is forgotten and a smaller one that comes late are told apart."""


class Size(NamedTuple):
    """How much there is, and how much may go wrong."""

    daemons: int = 2
    runs: int = 2
    former: int = 0
    """The first runs, so many, were claimed into the outbox of a shard that is no more."""
    crashes: int = 1
    lost: int = 1
    """Requests to the store whose sender gives up before the answer."""
    expiries: int = 1
    """Leases that run out although their holder lives. (Those of the dead always do.)"""
    power_losses: int = 0


class Store(NamedTuple):
    lease: tuple[int, int] | None = None
    term: int = 0
    last_due: int = 0
    claims: int = 0
    outbox: tuple[int, ...] = ()
    """Runs whose messages wait, the oldest first."""
    former: tuple[int, ...] = ()


class Request(NamedTuple):
    verb: str
    sender: int
    token: int = 0
    runs: tuple[int, ...] = ()
    confirmed: int = 0


class Daemon(NamedTuple):
    id: int
    token: int = 0
    next: int = 0
    """The run that comes next; 0 before the state was read in this term."""
    confirmed: int = 0
    """How many claims the store was last known to have."""
    inherited: bool = False
    empty: bool = False
    """The outbox was empty when it was looked at, and nothing was claimed since."""
    batch: tuple[int, ...] = ()
    published: bool = False
    """The broker has confirmed the batch."""
    half_claimed: tuple[int, ...] = ()
    """Runs that count as claimed and whose messages are to follow; only without ``with_the_claim``."""


class World(NamedTuple):
    store: Store
    daemons: tuple[Daemon, ...]
    broker: frozenset[Message]
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
    store = Store(last_due=size.former, former=tuple(range(1, size.former + 1)))
    return World(store, daemons, frozenset(), size.former, (), store, size)


def execute(store: Store, request: Request, rules: Rules) -> tuple[Store, tuple[str, int, int]]:
    """What the scripts do."""
    if request.verb == "take":
        if store.lease and store.lease[0] != request.sender:
            return store, ("held", 0, 0)
        return store._replace(term=store.term + 1, lease=(request.sender, store.term + 1)), ("term", store.term + 1, 0)
    if store.lease != (request.sender, request.token):
        return store, ("fenced", 0, 0)
    match request.verb:
        case "inherit":
            return store._replace(outbox=store.former + store.outbox, former=()), ("inherited", 0, 0)
        case "strike":
            return _strike(store, request.runs, rules)
        case "read":
            return store, ("state", store.last_due, store.claims)
        case "push":
            return store._replace(outbox=store.outbox + request.runs), ("claimed", request.runs[-1], store.claims)
    return _claim(store, request, rules)


def _strike(store: Store, runs: tuple[int, ...], rules: Rules) -> tuple[Store, tuple[str, int, int]]:
    if not rules.matched or store.outbox[: len(runs)] == runs:
        store = store._replace(outbox=store.outbox[len(runs) :])
    return store, ("struck", len(store.outbox), 0)


def _claim(store: Store, request: Request, rules: Rules) -> tuple[Store, tuple[str, int, int]]:
    """A claim, or with no runs a look at whether the store went back."""
    if rules.looks_back and store.claims < request.confirmed:
        return store, ("went back", 0, 0)
    if not request.runs:
        return store, ("nothing new", 0, 0)
    if new := tuple(run for run in request.runs if run > store.last_due):
        waiting = store.outbox + new if rules.with_the_claim else store.outbox
        store = store._replace(
            last_due=new[-1], claims=store.claims + (len(new) if rules.counts_runs else 1), outbox=waiting
        )
    return store, ("claimed" if rules.with_the_claim else "half claimed", request.runs[-1], store.claims)


def hear(daemon: Daemon, answer: tuple[str, int, int], rules: Rules) -> Daemon:
    """What a daemon makes of an answer."""
    kind, number, confirmed = answer
    match kind:
        case "term":
            return Daemon(daemon.id, number, inherited=not rules.inherits, empty=not rules.leftovers)
        case "inherited":
            return daemon._replace(inherited=True)
        case "struck":
            return daemon._replace(batch=(), published=False, empty=number == 0)
        case "state":
            return daemon._replace(next=number + 1, confirmed=confirmed)
        case "claimed":
            return daemon._replace(next=number + 1, confirmed=confirmed, empty=False, half_claimed=())
        case "half claimed":
            return daemon._replace(confirmed=confirmed, half_claimed=tuple(range(daemon.next, number + 1)))
        case "went back":
            return daemon._replace(next=0, confirmed=0)
        case "nothing new":
            return daemon
    return Daemon(daemon.id)  # no term, or none any more


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
    me, left = f"daemon {daemon.id}", world.left
    if left.crashes:
        crashed = _renumbered(world, {daemon.id: DEAD})._replace(left=left._replace(crashes=left.crashes - 1))
        yield f"{me} crashes and starts anew", crashed, Daemon(daemon.id)
    if daemon.token and daemon.inherited and not daemon.empty and not daemon.published:
        yield from _outbox_steps(world, daemon, rules)
        return
    if daemon.empty and rules.leftovers and rules.looks_again:
        yield f"{me} looks into the outbox again", world, daemon._replace(empty=False)
    request = _request(world, daemon)
    if left.lost and request.verb != "read":
        late = tuple(sorted((*world.late, request)))
        gave_up = daemon._replace(batch=(), published=False) if request.verb == "strike" else daemon
        yield (
            f"{me} gives up: {_said(request)}",
            world._replace(late=late, left=left._replace(lost=left.lost - 1)),
            gave_up,
        )
    store, answer = execute(world.store, request, rules)
    yield f"{_said(request)}: {answer[0]}", world._replace(store=store), hear(daemon, answer, rules)


def _outbox_steps(world: World, daemon: Daemon, rules: Rules) -> Iterator[tuple[str, World, Daemon]]:
    """Reading the outbox, which needs no term, and publishing what was read."""
    me = f"daemon {daemon.id}"
    if not daemon.batch:
        batch = world.store.outbox[:BATCH]
        yield f"{me} reads {list(batch)} in the outbox", world, daemon._replace(batch=batch, empty=not batch)
        return
    if not rules.confirmed_first:
        yield f"{me} does not wait for the broker", world, daemon._replace(published=True)
    messages = [(run, 0 if rules.same_id else daemon.token) for run in daemon.batch]
    for count in range(len(messages) + 1):
        after = world._replace(broker=world.broker.union(messages[:count]))
        if count == len(messages):
            yield f"the broker confirms {list(daemon.batch)}", after, daemon._replace(published=True)
        again = daemon._replace(batch=()) if rules.all_confirmed or not count else daemon._replace(published=True)
        yield f"the connection breaks when the broker has {count} of {list(daemon.batch)}", after, again


def _request(world: World, daemon: Daemon) -> Request:
    """What a daemon asks the store for next."""
    me, token = daemon.id, daemon.token
    if not token:
        return Request("take", me)
    if not daemon.inherited:
        return Request("inherit", me, token)
    if daemon.batch:
        return Request("strike", me, token, daemon.batch)
    if daemon.half_claimed:
        return Request("push", me, token, daemon.half_claimed, daemon.confirmed)
    if not daemon.next:
        return Request("read", me, token)
    return Request("claim", me, token, tuple(range(daemon.next, world.now + 1)), daemon.confirmed)


def _said(request: Request) -> str:
    what = f" of {list(request.runs)}" if request.runs else ""
    return f"{request.verb}{what} by daemon {request.sender} in term {request.token}"


def _canonical(world: World) -> World:
    """The same world, its daemons numbered in an order that does not depend on who is who, as far as that is easy."""
    ordered = sorted(world.daemons, key=lambda each: (each[1:], each.id))
    new = {each.id: number for number, each in enumerate(ordered, 1)}
    if all(old == number for old, number in new.items()):
        return world
    daemons = tuple(each._replace(id=new[each.id]) for each in ordered)
    return _renumbered(world, new)._replace(daemons=daemons)


def _renumbered(world: World, new: dict[int, int]) -> World:
    """With other ids in what the store and the network know."""
    late = (each._replace(sender=new.get(each.sender, each.sender)) for each in world.late)
    return world._replace(
        store=_with_ids(world.store, new), durable=_with_ids(world.durable, new), late=tuple(sorted(late))
    )


def _with_ids(store: Store, new: dict[int, int]) -> Store:
    return (
        store
        if store.lease is None
        else store._replace(lease=(new.get(store.lease[0], store.lease[0]), store.lease[1]))
    )


def wrong(world: World) -> str | None:
    """What must never be."""
    store, has = world.store, {run for run, _ in world.broker}
    pending = (daemon.half_claimed for daemon in world.daemons)
    if missing := set(range(1, store.last_due + 1)).difference(has, store.outbox, store.former, *pending):
        return f"lost run: {sorted(missing)} of {store.last_due} is neither in the broker nor in the outbox"
    if len(has) < len(world.broker):
        return "a run came under two ids"
    return None


def done(world: World) -> bool:
    """Every run has come due and is in the broker."""
    return world.now == world.left.runs == len({run for run, _ in world.broker})
