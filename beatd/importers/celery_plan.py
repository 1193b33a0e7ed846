"""The runs that celery beat would send: Celery's own schedules are asked, with a clock that is moved.

The app is imported in a child process: ``python -m beatd.importers.celery_plan MODULE[:APP] FROM_MS UNTIL_MS FD``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from beatd.app.find_app import locate
from beatd.importers.dump import write_document
from beatd.sources.celery_schedule import is_celery_app, is_celery_schedule, registrations
from beatd.sources.child_process import ask
from beatd.timestamps import from_ms, to_ms

TIMEOUT_S = 120.0
MOST_RUNS = 20_000
"""Runs of one entry that are looked at."""
_SHORTEST = timedelta(milliseconds=1)


def celery_runs(name: str, from_ms: int, until_ms: int) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return when celery beat would send each entry of an app (ms), and the entries that cannot be foreseen, with why.

    Intervals begin at ``from_ms``. Raises ConfigError with the user's own traceback.
    """
    words = [name, str(from_ms), str(until_ms)]
    answer = ask("beatd.importers.celery_plan", words, name=name, where="celery", timeout=TIMEOUT_S)
    return answer["runs"], answer["unknown"]


def _plan(name: str, start_ms: int, until_ms: int) -> dict[str, Any]:
    app = locate(name, is_celery_app, where="celery")
    runs: dict[str, list[int]] = {}
    unknown: dict[str, str] = {}
    for entry, fields in registrations(app).items():
        try:
            found = _runs(_schedule(fields, app), from_ms(start_ms), from_ms(until_ms))
            runs[entry] = [to_ms(due) for due in found]
        except Exception as error:  # noqa: BLE001 - schedules of the user's may raise anything
            unknown[entry] = " ".join(str(error).split())[:200] or type(error).__name__
    return {"runs": runs, "unknown": unknown}


def _schedule(fields: dict[str, Any], app: Any) -> Any:
    from celery.schedules import maybe_schedule  # noqa: PLC0415 - the user's, not a dependency of ours

    schedule = maybe_schedule(fields.get("schedule"), bool(fields.get("relative")), app=app)
    if not is_celery_schedule(schedule):
        raise ValueError("it has no schedule of Celery's")
    schedule.app = app
    return schedule


def _runs(schedule: Any, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the runs: at each the schedule is asked how long it is to the next, as if it were that moment."""
    moment, count = since, 0
    while count < MOST_RUNS:
        schedule.nowfun = partial(_now, schedule, moment)
        remaining = schedule.remaining_estimate(schedule.maybe_make_aware(moment))
        moment += max(remaining, _SHORTEST)
        if moment >= until:
            return
        count += 1
        yield moment


def _now(schedule: Any, moment: datetime) -> datetime:
    """The moment on the clocks of the app's zone, as celery beat has it."""
    now: datetime = moment.astimezone(schedule.tz)
    return now


if __name__ == "__main__":
    make = partial(_plan, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    write_document(int(sys.argv[4]), "celery", sys.argv[1], make)
