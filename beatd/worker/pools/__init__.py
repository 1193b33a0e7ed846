"""Pools: processes, threads, an event loop, or the worker's own thread, behind one small protocol.

The promise: each job that was submitted is reported exactly once as ended, also when what ran it is gone.
"""
