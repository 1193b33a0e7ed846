"""Remote control: a worker answers to ``beatd inspect`` and ``control``, to Celery's own tools, and to Flower.

The promise: whatever is sent to its mailbox, the worker goes on with its tasks; it answers in Celery's shapes, a few
commands each turn of its loop; and while the broker cannot be reached, only the answers are missing.
"""

from __future__ import annotations

from beatd.worker.control import control_commands, inspect_commands
from beatd.worker.control.panel import COMMANDS, Command, Kind

__all__ = ["COMMANDS", "Command", "Kind", "control_commands", "inspect_commands"]
