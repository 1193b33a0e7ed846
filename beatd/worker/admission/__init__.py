"""Admission: whether a message may run, and when.

Rate limits, revoked tasks, poison messages, and Celery's *strategy*, which asks them.
"""
