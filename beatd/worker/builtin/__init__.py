"""Built-in tasks, ``beatd.command`` and ``beatd.http``: schedules without any Python code.

The promise: a worker has them only with ``--builtin``, because everyone with access to the queue can run them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from beatd.app.app import App
from beatd.exceptions import ConfigError, Fault

NAMES = ("command", "http")


def step(task: str) -> str:
    """Return the option that gives a worker this task, if it is a built-in one."""
    prefix, _, name = task.partition(".")
    return f"--builtin {name}" if prefix == "beatd" and name in NAMES else ""


def register(app: App, names: Sequence[str]) -> None:
    """Add the built-in tasks of these names to ``app``; raises :class:`ConfigError` for others."""
    for name in names:
        if name not in NAMES:
            text = f"no built-in task {name!r}, there are: {', '.join(NAMES)}"
            raise ConfigError([Fault("beatd worker", None, "--builtin", text)])
        run = getattr(import_module(f"{__name__}.{name}"), name)
        app.task(name=f"beatd.{name}", typing=False)(run)
