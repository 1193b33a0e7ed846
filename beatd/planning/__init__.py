"""Planning: when entries run and what becomes of each run. Pure time, no clock, no I/O.

The promise: the daemon, the command line, the status page and ``beatd check`` ask the same functions, so there is one
answer to "when does it run next". :mod:`~beatd.planning.timeline` has due and fire times,
:mod:`~beatd.planning.catchup` the resume point, :mod:`~beatd.planning.policies` the decision for a due run, and
:mod:`~beatd.planning.preview` the runs to come.
"""
