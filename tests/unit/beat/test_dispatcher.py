"""Herds that are prepared ahead of time: what leaves is what would leave without that."""

import pytest

from beatd.beat import dispatcher
from beatd.beat.message_builder import MessageBuilder
from beatd.message.protocol import open_envelope
from beatd.model import Entry, Options, Run
from tests.fakes import NOW
from tests.unit.beat.conftest import Rig

PERIOD_S = 60.0
DUE = NOW + 60_000


class Keeping(Rig):
    """A rig that keeps all claims, in the order in which they were made."""

    def __init__(self):
        self.made = []
        super().__init__()
        claim = self.claims.claim

        def kept(batches, *, lease_value):
            def each():
                for batch in batches:
                    self.made += batch
                    yield batch

            return claim(each(), lease_value=lease_value)

        self.claims.claim = kept


def entries(entry):
    """Entries of all kinds, due at the same instant."""
    return [*free(entry), *bounded(entry)]


def free(entry):
    """Entries of which no queue has a limit: most schedules have no others."""
    return [
        entry("plain", PERIOD_S),
        entry("other queue", PERIOD_S, options=Options(queue="other", priority=3)),
        entry("expires", PERIOD_S, options=Options(expires=5_000)),
        entry("expires auto", PERIOD_S, options=Options(expires="auto")),
        entry("jittered", PERIOD_S, jitter_ms=2_000),
        entry("skips", PERIOD_S, overlap="skip"),
        entry("waits", PERIOD_S, overlap="queue_one"),
        entry("counted", PERIOD_S, max_runs=2),
    ]


def bounded(entry):
    """Entries whose queue has a limit, and one that sends to it in any case."""
    return [
        entry("into the deep", PERIOD_S, options=Options(queue="deep")),
        *(entry(f"deep {number}", PERIOD_S, options=Options(queue="deep"), max_queue_depth=2) for number in range(3)),
    ]


def nothing(rig, entry):
    pass


def a_late_turn(rig, entry):
    rig.clock.advance(9)


def an_equal_entry_that_is_another(rig, entry):
    """1 and true are equal in Python, and not to a worker."""
    rig.beat.schedule.amend({"plain": with_args(entry, True)}, set())


def fewer_entries(rig, entry):
    rig.beat.schedule.amend({}, {"expires", "skips", "deep 1"})


def a_full_queue(rig, entry):
    rig.queues.depths["deep"] = 5


def with_args(entry, *args):
    plain = entry("plain", PERIOD_S)
    return Entry(name=plain.name, task=plain.task, schedule=plain.schedule, policies=plain.policies, args=args)


def claims_of_a_minute(entry, scheduled, between):
    """All claims of a herd and of the next one; ``between`` happens after the first one was prepared."""
    rig = Keeping()
    rig.beat.schedule.replace([with_args(entry, 1), *scheduled[1:]])
    rig.run_for(57)
    while rig.turn() == 0.0:  # it prepares
        pass
    prepared = len(rig.dispatcher._ahead)
    between(rig, entry)
    rig.clock.advance(max(DUE - rig.clock.ms, 0) / 1000)
    rig.run_for(62)
    return prepared, rig.made


@pytest.mark.parametrize("kinds", [free, entries])
@pytest.mark.parametrize("between", [nothing, a_late_turn, an_equal_entry_that_is_another, fewer_entries, a_full_queue])
def test_claims_that_were_prepared_ahead_are_those_that_are_made_when_they_are_due(entry, kinds, between, monkeypatch):
    prepared, with_it = claims_of_a_minute(entry, kinds(entry), between)
    assert prepared > 5
    monkeypatch.setattr("beatd.beat.loop.PREPARE_MS", 0)
    prepared, without = claims_of_a_minute(entry, kinds(entry), between)
    assert prepared == 0
    assert with_it == without
    assert len(with_it) > 10


def test_only_runs_that_ask_for_no_facts_are_decided_ahead(rig, entry):
    rig.beat.schedule.replace(entries(entry))
    rig.run_for(57)
    while rig.turn() == 0.0:
        pass
    decided = {name for name, one in rig.dispatcher._ahead.items() if one.decision is not None}
    assert decided >= {"plain", "other queue", "expires", "expires auto", "counted", "into the deep"}
    assert decided.isdisjoint({"skips", "waits", "deep 0"})


def test_the_first_messages_of_a_herd_do_not_wait_for_a_look_at_all_of_it(rig, entry, monkeypatch):
    rig.beat.schedule.replace([entry(f"e{number}", PERIOD_S) for number in range(3_000)])
    rig.run_for(57)
    rig.clock.advance(3.5)
    looked_at, facts = [], rig.dispatcher._facts
    monkeypatch.setattr(rig.dispatcher, "_facts", lambda runs: looked_at.append(len(runs)) or facts(runs))
    rig.turn()
    assert (looked_at[0], sum(looked_at)) == (350, 3_000)


def test_messages_rendered_ahead_are_bounded(rig, entry, monkeypatch):
    monkeypatch.setattr(dispatcher, "AHEAD_BYTES", 2_000)
    many = [entry(f"e{number}", PERIOD_S) for number in range(100)]
    for one in many:
        rig.dispatcher.prepare(Run(one, DUE, DUE, one.schedule))
    kept = rig.dispatcher._ahead
    assert 2_000 <= sum(len(one.message) for one in kept.values()) < 4_000
    later = Run(many[0], DUE + 60_000, DUE + 60_000, many[0].schedule)
    rig.dispatcher.prepare(later)
    assert [one.run for one in kept.values()] == [later], "those of the instant before are let go"
    message = MessageBuilder("celery", origin="test").render(later, None)
    assert open_envelope(kept["e0"].message) == open_envelope(message)
