"""The API of task authors: the app, its tasks, signatures and results.

Contract: a module of Celery tasks runs once its import lines are changed. Where Celery ignores a mistake, beatd reports
it, with the place.

Imports go one way: ``base ← context ← result ← canvas ← task ← trace ← loader ← app``.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Return ``app_or_default``, Celery's name; imported late, as the modules here import each other."""
    if name != "app_or_default":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from beatd.app.current import app_or_default  # noqa: PLC0415

    return app_or_default
