"""Remote control: a worker answers to ``beatd inspect`` and ``control``, to Celery's own tools, and to Flower.

The promise: whatever is sent to its mailbox, the worker goes on with its tasks; it answers in Celery's shapes, a few
commands each turn of its loop; and while the broker cannot be reached, only the answers are missing.
"""

from __future__ import annotations

from beatd.worker.control import control_commands, inspect_commands
from beatd.worker.control.control_commands import add_consumer, cancel_consumer
from beatd.worker.control.panel import COMMANDS, Command, Kind, control_command, inspect_command

__all__ = [
    "COMMANDS",
    "Command",
    "Kind",
    "add_consumer",
    "cancel_consumer",
    "control_command",
    "control_commands",
    "inspect_command",
    "inspect_commands",
]
