"""beatd at home in frameworks.

The promise: nothing here is imported unless the framework is in use.
"""
