"""The handles of what was sent, and what they tell: ``from beatd.result import AsyncResult``. Celery's names."""

from __future__ import annotations

from beatd.app.eager_result import EagerResult
from beatd.app.group_result import GroupResult, ResultSet, result_from_tuple
from beatd.app.result import AsyncResult, allow_join_result

__all__ = ["AsyncResult", "EagerResult", "GroupResult", "ResultSet", "allow_join_result", "result_from_tuple"]
