"""What a worker tells monitors: that it lives, and, when asked to, what becomes of its tasks.

Celery's events in Celery's form, so that ``celery events`` and Flower show a bundled worker as one of theirs. The
promise: heartbeats come as long as the loop turns; task events cost nothing while they are off; and while they are on,
no monitor and no broker can hold work up: what nobody takes is dropped, and counted.
"""
