"""What task authors see: the app, its tasks, signatures and results.

The promise: a module of Celery tasks runs after its import lines are changed; where Celery is silent about a mistake,
beatd says what is wrong and where.
"""
