"""Where entries come from: the files, and the registrations of an app.

The promise: a source that is broken never hurts the daemon. What was good stays in force, everything that is wrong is
said with its place, and user code runs in a process of its own.

When an entry's name is in both, the file's counts: operators can overrule what a program registers.
"""

from beatd.sources.app import load_app
from beatd.sources.file import FileSource
from beatd.sources.merge import load, merge

__all__ = ["FileSource", "load", "load_app", "merge"]
