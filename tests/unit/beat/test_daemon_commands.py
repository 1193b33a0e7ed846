"""Orders to a daemon: each carried out once, and answered with what came of it."""

import logging

import pytest

from beatd.beat.daemon_commands import CommandHandler
from beatd.beat.shard_assignment import ShardPlanner, eligible_daemons, why_aside
from beatd.exceptions import StoreUnavailable
from beatd.store.daemon_commands import CommandReply, DaemonCommand
from beatd.store.daemon_registry import FleetView, LeaseOwner, Member, Status


class MemoryOrders:
    def __init__(self):
        self.orders = {}
        self.answers = {}
        self.down = False

    def recent(self):
        return dict(self.orders)

    def answer(self, order_id, daemon_id, answer):
        if self.down:
            raise StoreUnavailable("down")
        self.answers[order_id, daemon_id] = answer


@pytest.fixture
def orders():
    return MemoryOrders()


@pytest.fixture
def done():
    return []


@pytest.fixture
def orderly(orders, done):
    made = CommandHandler(orders, "a", reload=lambda: done.append("reload"), step_down=done.append)
    made.look()
    return made


OK = CommandReply(ok=True, digest="d", entries=3)


def test_orders_from_before_its_time_are_not_for_a_daemon(orders, done):
    orders.orders["1"] = DaemonCommand(what="reload")
    made = CommandHandler(orders, "a", reload=lambda: done.append("reload"), step_down=done.append)
    made.look()
    made.look()
    assert done == []


def test_an_order_is_carried_out_once(orderly, orders, done, caplog):
    caplog.set_level(logging.INFO)
    orders.orders["1"] = DaemonCommand(what="reload")
    orderly.look()
    orderly.look()
    assert done == ["reload"]
    assert [(record.event, record.getMessage()) for record in caplog.records] == [
        ("reload_asked", "Told to read the schedule again")
    ]


def test_stepping_down_is_for_the_one_that_is_named(orderly, orders, done):
    orders.orders["1"] = DaemonCommand(what="step_down", daemon="b", rest_ms=1_000)
    orders.orders["2"] = DaemonCommand(what="step_down", daemon="a", rest_ms=5_000)
    orderly.look()
    assert done == [5.0]


def test_a_reload_is_answered_by_the_attempt_that_began_after_it(orderly, orders):
    orderly.begin()
    orders.orders["1"] = DaemonCommand(what="reload")
    orderly.look()
    orderly.end(OK)
    assert orders.answers == {}, "that attempt had begun before"
    orderly.begin()
    orderly.end(OK)
    assert orders.answers == {("1", "a"): OK}
    orders.answers.clear()
    orderly.begin()
    orderly.end(OK)
    assert orders.answers == {}


def test_several_reloads_are_answered_by_one_attempt(orderly, orders):
    orders.orders |= {"1": DaemonCommand(what="reload"), "2": DaemonCommand(what="reload")}
    orderly.look()
    orderly.begin()
    orderly.end(OK)
    assert set(orders.answers) == {("1", "a"), ("2", "a")}


def test_an_answer_that_cannot_be_given_is_no_error(orderly, orders, caplog):
    orders.orders["1"] = DaemonCommand(what="reload")
    orders.down = True
    orderly.look()
    orderly.begin()
    orderly.end(OK)
    assert caplog.records[-1].event == "answer_lost"


def status(name, **fields):
    return Status(id=name, entries=1, digest="d", **fields)


def fleet(*statuses, leases):
    daemons = {each.id: Member(each, 0) for each in statuses}
    return FleetView(0, daemons, {shard: LeaseOwner(holder, 1, 10_000) for shard, holder in leases.items()})


def test_who_rests_hands_over_at_once():
    plan = ShardPlanner("a", shards=2).plan(
        fleet(status("a", resting_ms=9_000), status("b"), leases={0: "a", 1: "a"}), 0.0
    )
    assert sorted(plan.give) == [0, 1]


def test_who_rests_takes_nothing_that_is_free_and_the_other_all_of_it():
    seen = fleet(status("a", resting_ms=9_000), status("b"), leases={})
    assert ShardPlanner("a", shards=3).plan(seen, 0.0).take == []
    assert ShardPlanner("b", shards=3).plan(seen, 0.0).take == [0, 1, 2]


def test_who_rests_leads_on_when_nobody_else_is_there():
    alone = ShardPlanner("a", shards=1)
    assert alone.plan(fleet(status("a", resting_ms=9_000), leases={0: "a"}), 0.0).give == []
    assert alone.plan(fleet(status("a", resting_ms=9_000), leases={}), 1.0).take == [0]


def test_who_rests_leads_on_when_the_others_are_less_fit():
    broken = status("b", config="broken")
    seen = fleet(status("a", resting_ms=9_000), broken, leases={0: "a"})
    assert ShardPlanner("a", shards=1).plan(seen, 0.0).give == []


def test_all_may_lead_when_all_rest():
    both = [status("a", resting_ms=1), status("b", resting_ms=1)]
    assert eligible_daemons(both) == both


def test_why_a_daemon_rests_is_said():
    a, b = status("a", resting_ms=41_500), status("b")
    assert why_aside(a, [a, b]) == "it was told to step down, and campaigns again in 42 s"
    assert why_aside(b, [a, b]) == ""
