"""``autoretry_for``: a task that asks for another attempt by itself when it raises one of these."""

from __future__ import annotations

import functools
import inspect
import random
from typing import Any

from beatd.exceptions import Ignore, Retry


def add_autoretry(task: Any, options: dict[str, Any]) -> None:  # noqa: C901 - the wrapper comes in two colours
    """Wrap ``task.run`` if ``options`` (or the task's class) name exceptions to retry for.

    The pause is ``retry_backoff * 2**retries`` seconds, at most ``retry_backoff_max``, with full jitter unless
    ``retry_jitter`` is false; ``retry_kwargs`` are passed on to ``task.retry``. Source: ``celery/app/autoretry.py``.
    """

    def option(name: str, default: Any) -> Any:
        return options.get(name, getattr(task, name, default))

    wanted = tuple(option("autoretry_for", ()))
    if not wanted:
        return
    unwanted = tuple(option("dont_autoretry_for", ()))
    settings = dict(option("retry_kwargs", {}))
    factor = int(option("retry_backoff", False))
    longest = int(option("retry_backoff_max", 600))
    jitter = bool(option("retry_jitter", True))
    run = task.run

    def again(error: BaseException) -> Any:
        more = dict(settings)
        if factor:
            more["countdown"] = backoff_s(factor, task.request.retries, longest, jitter=jitter)
        return task.retry(exc=error, **more)

    @functools.wraps(run)
    def run_and_retry(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except (Ignore, Retry, *unwanted):
            raise
        except wanted as error:
            raise again(error) from error

    @functools.wraps(run)
    async def await_and_retry(*args: Any, **kwargs: Any) -> Any:
        try:
            return await run(*args, **kwargs)
        except (Ignore, Retry, *unwanted):
            raise
        except wanted as error:
            raise again(error) from error

    task.run = await_and_retry if inspect.iscoroutinefunction(run) else run_and_retry


def backoff_s(factor: int, retries: int, longest: int, *, jitter: bool) -> int:
    """Seconds before the attempt after ``retries`` earlier ones."""
    pause = min(longest, factor * 2 ** min(retries, 64))
    return random.randrange(pause + 1) if jitter else pause  # noqa: S311 - spreads load, keeps no secret
