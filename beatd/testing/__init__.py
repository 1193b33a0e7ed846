"""Tests of schedules and tasks: the runs of a file in a span of time, and fixtures for pytest.

:func:`runs_between` and :func:`eager_tasks` need no server. The fixtures (``beatd_store``, ``beatd_eager``,
``beatd_worker``) are those of :mod:`beatd.testing.plugin`, which pytest finds by itself.
"""

from beatd.testing.eager import eager_tasks
from beatd.testing.runs import PlannedRun, runs_between

__all__ = ["PlannedRun", "eager_tasks", "runs_between"]
