"""Killed between any two of heap, claim and advance: the next leader leaves no gap and sends nothing twice."""

import signal

import pytest

from tests.integration.beat.dying import POINTS


@pytest.mark.parametrize("point", POINTS)
def test_the_next_leader_goes_on_where_the_last_one_died(point, redis_url, start_daemon, queue_of):
    queue = queue_of(redis_url)
    first = start_daemon(redis_url, "-m", "tests.integration.beat.dying", point, "3")
    first.says("schedule_resumed")
    second = start_daemon(redis_url)
    assert first.process.wait(20) == -signal.SIGKILL
    second.says("schedule_resumed")
    queue.grows(8)
    queue.assert_every_run_once()
