"""Messages: Celery's protocol v2, templates for thousands of equal ones, JSON and compression.

The promise: what Celery 5 writes is read, and what is written here any Celery 5 worker reads.
"""
