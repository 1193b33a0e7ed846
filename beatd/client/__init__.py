"""Change a schedule while daemons run, from any program that reaches the state store.

The promise: what is put here is checked as if it stood in ``beat.toml``, with the same words, and refused before it is
stored; what is stored is in force within a second on all daemons, and stays when they are started again. Errors are
those of :mod:`beatd.exceptions`, every call has a timeout, and no daemon needs to be alive; but runs that
are asked for are sent by the daemon that leads.
"""

from beatd.client.runs import Backfilled, Triggered
from beatd.client.schedules import Schedules, Stored
from beatd.client.watch import Change
from beatd.store.history import Record
from beatd.store.runtime_entries import Pause

__all__ = ["Backfilled", "Change", "Pause", "Record", "Schedules", "Stored", "Triggered"]
