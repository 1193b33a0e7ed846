"""Where tasks run: processes, threads, or the worker's own thread, behind one small port.

The promise: each job that was submitted is reported exactly once as ended, also when what ran it is gone.
"""
