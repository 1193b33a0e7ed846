"""Planning: when entries run and what becomes of each run. Pure time, no clock, no I/O.

The promise: the daemon, the command line, the status page and ``beatd check`` ask the same functions, so there is one
answer to "when does it run next".
"""
