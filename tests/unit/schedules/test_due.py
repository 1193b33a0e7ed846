"""Celery's questions to a schedule, with Celery's own schedules as the oracle."""

from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, schedules

from beatd import App
from beatd.schedules import crontab, once, schedule

LAST = datetime(2026, 3, 27, 22, 15, 30, tzinfo=UTC)
MOMENTS = [LAST + timedelta(minutes=minutes) for minutes in (0, 1, 14, 29, 45, 600, 1440, 2000, 5000)]
TABLES = [{}, {"minute": "*/15"}, {"minute": 30, "hour": 7}, {"minute": 0, "hour": 9, "day_of_week": "mon"}]


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/New_York"])
def zone(request):
    with App("zoned", timezone=request.param):
        yield request.param


@pytest.mark.parametrize("now", MOMENTS)
@pytest.mark.parametrize("table", TABLES)
def test_a_crontab_is_due_in_the_zone_of_the_app_when_celerys_is(zone, table, now):
    app = Celery("oracle", set_as_current=False, timezone=zone)
    theirs = schedules.crontab(**table, nowfun=lambda: now, app=app)
    ours = crontab(**table, nowfun=lambda: now)
    assert ours.is_due(LAST) == theirs.is_due(LAST)
    assert ours.remaining_estimate(LAST) == theirs.remaining_estimate(LAST)
    assert ours.is_due(LAST.replace(tzinfo=None)) == theirs.is_due(LAST.replace(tzinfo=None))


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("now", MOMENTS)
def test_an_interval_is_due_when_celerys_is(now, relative):
    with App("zoned"):
        app = Celery("oracle", set_as_current=False)
        theirs = schedules.schedule(timedelta(minutes=20), relative, lambda: now, app=app)
        assert schedule(timedelta(minutes=20), relative, lambda: now).is_due(LAST) == theirs.is_due(LAST)


def test_a_schedule_has_the_attributes_of_celerys():
    ours, theirs = crontab("*/15", 7, "mon-fri", "1,2"), schedules.crontab("*/15", 7, "mon-fri", "1,2")
    names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
    assert (schedule(90).run_every, schedule(90).seconds) == (timedelta(seconds=90), 90)


def test_a_schedule_that_has_ended_is_never_due():
    assert not once(LAST).is_due(LAST).is_due
