"""Sources of entries: the files, the registrations of an app, and the state store.

The promise: a source that is broken never hurts the daemon. What was good stays in force, everything that is wrong is
said with its place, and user code runs in a process of its own.

When an entry's name is in several, the file's counts before the app's, and the app's before the store's: operators can
overrule what a program registers or puts.
"""

from beatd.sources.app import load_app
from beatd.sources.app_file import AppFile, find
from beatd.sources.file import FileSource, log_refused, log_task_faults
from beatd.sources.merge import InForce, MergedSchedule, ScheduleChange, call_faults, load, merge
from beatd.sources.runtime import RuntimeSource

__all__ = [
    "AppFile",
    "FileSource",
    "InForce",
    "MergedSchedule",
    "RuntimeSource",
    "ScheduleChange",
    "call_faults",
    "find",
    "load",
    "load_app",
    "log_refused",
    "log_task_faults",
    "merge",
]
