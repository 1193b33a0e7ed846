"""Admission: the decision whether and when a message runs.

Rate limits, revoked tasks, poison-message detection, and the strategy, as Celery calls it, that consults them.
"""
