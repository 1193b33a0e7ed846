"""Admission control: repeats, rate limits and poison messages between the strategy and the pool."""

from __future__ import annotations

from beatd.states import REJECTED
from beatd.worker.admission.poison import MAX_DEATHS
from beatd.worker.messages import LOST

RUN = {"beatd-entry": "e", "beatd-due-at": "2026-01-01T00:00:00+00:00"}


def test_a_run_that_has_ended_is_dropped(bench):
    bench.finished.ended = {"id-1"}
    bench.send(1, headers=RUN)
    bench.turn()
    assert not bench.pool.jobs
    assert bench.journal == [("ack", 1)]


def test_a_run_that_comes_twice_in_one_batch_starts_once(bench):
    for tag in (1, 2):
        bench.send(tag, task_id="same", headers=RUN)
    bench.turn()
    assert list(bench.pool.jobs) == [1]
    assert bench.journal == [("ack", 2)]


def test_a_repeat_of_a_running_run_is_dropped_and_its_retry_is_not(bench):
    bench.send(1, task_id="same", headers=RUN)
    bench.turn()
    bench.send(2, task_id="same", headers=RUN)
    bench.send(3, task_id="same", retries=1, headers=RUN)
    bench.turn()
    assert list(bench.pool.jobs) == [1, 3]
    assert bench.journal == [("ack", 2)]


def test_a_repeat_of_a_run_that_a_rate_limit_delays_is_dropped(make_bench):
    bench = make_bench(rates={"late": "1/s"})
    for tag in (1, 2, 3):
        bench.send(tag, task_id="first" if tag == 1 else "delayed", headers=RUN)
    bench.turn()
    assert list(bench.pool.jobs) == [1]
    assert bench.journal == [("ack", 3)]
    bench.clock.advance(1.01)
    bench.turn()
    assert list(bench.pool.jobs) == [1, 2]


def test_a_request_revoked_while_a_rate_limit_delays_it_does_not_start(make_bench):
    bench = make_bench(rates={"late": "1/s"})
    for tag in (1, 2):
        bench.send(tag)
    bench.turn()
    bench.remote.revoked.add(["id-2"], bench.clock.now_ms())
    bench.clock.advance(1.01)
    bench.turn()
    assert list(bench.pool.jobs) == [1]
    bench.turn()
    assert bench.journal.of("store") == [("id-2", "REVOKED")]
    assert bench.journal.of("ack") == [2]


def test_a_delayed_request_that_another_worker_has_taken_does_not_start(make_bench):
    bench = make_bench(rates={"late": "1/s"})
    for tag in (1, 2, 3):
        bench.send(tag)
    bench.turn()
    bench.consumer.gone = [2]
    bench.turn()
    bench.clock.advance(1.01)
    bench.turn()
    assert list(bench.pool.jobs) == [1, 3]
    assert bench.journal == []


def test_delayed_requests_go_back_at_the_end(make_bench):
    bench = make_bench(rates={"late": "1/s"})
    for tag in (1, 2):
        bench.send(tag)
    bench.turn()
    bench.pool.end(1)
    bench.worker.stop()
    bench.worker.run()
    assert bench.journal.of("give_back") == [2]


def suspected(bench, tag, deaths):
    return bench.send(tag, headers={"redelivered": True, "beatd-deaths": deaths})


def test_a_poison_message_goes_to_the_dead_letters_and_its_task_fails(bench):
    suspected(bench, 1, MAX_DEATHS)
    bench.turn()
    assert not bench.pool.jobs
    assert bench.journal.of("store") == [("id-1", "FAILURE")]
    ((tag, reason),) = bench.journal.of("bury")
    assert tag == 1
    assert "3 times" in reason


def test_the_last_chances_are_given_one_at_a_time(bench):
    for tag in (1, 2):
        suspected(bench, tag, MAX_DEATHS - 1)
    bench.turn()
    assert list(bench.pool.jobs) == [1]
    assert [tag for tag, _ in bench.journal.of("park")] == [2]
    bench.pool.begin(1)
    bench.pool.end(1, LOST, document=None, text="signal 9")
    suspected(bench, 3, MAX_DEATHS - 1)
    bench.turn()
    assert list(bench.pool.jobs) == [3]  # the place is free in the turn in which the first one ended


def test_a_suspect_that_another_worker_has_taken_leaves_its_place(bench):
    suspected(bench, 1, MAX_DEATHS - 1)
    bench.turn()
    bench.consumer.gone = [1]
    suspected(bench, 2, MAX_DEATHS - 1)
    bench.turn()
    assert list(bench.pool.jobs) == [2]


def test_a_suspect_that_is_revoked_leaves_its_place(bench):
    suspected(bench, 1, MAX_DEATHS - 1)
    bench.turn()
    (request,) = bench.remote.tools.requests.values()
    bench.pool.withdraw(1)
    bench.remote.tools.drop(request)
    suspected(bench, 2, MAX_DEATHS - 1)
    bench.turn()
    assert list(bench.pool.jobs) == [2]


def test_a_message_that_its_task_requeues_again_and_again_is_no_poison(bench):
    """On a broker that counts no deaths, each of its deliveries but the first looks like that after a death."""
    for tag in range(1, 8):
        bench.send(tag, task_id="polls", headers={"redelivered": tag > 1})
        bench.turn()
        bench.pool.begin(tag)
        bench.pool.end(tag, REJECTED, document=None, requeue=True)
        bench.turn()
    assert bench.journal.of("give_back") == list(range(1, 8))
    assert bench.journal.of("bury") == []


def test_deaths_are_counted_on_a_broker_that_counts_none(bench):
    for tag in range(1, 6):
        bench.send(tag, "keeps", task_id="kills", headers={"redelivered": tag > 1})
        bench.turn()
        if tag not in bench.pool.jobs:
            break
        bench.pool.begin(tag)
        bench.pool.end(tag, LOST, document=None, text="signal 9")
        bench.turn()
    assert [tag for tag, _ in bench.journal.of("bury")] == [4]
    assert bench.journal.of("give_back") == [1, 2, 3]
