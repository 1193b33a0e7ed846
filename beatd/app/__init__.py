"""The API of task authors: the app, its tasks, signatures and results.

Contract: a module of Celery tasks runs once its import lines are changed. Where Celery ignores a mistake, beatd reports
it, with the place.

Imports go one way: ``base ← context ← result ← canvas ← task ← trace ← loader ← app``.
"""
