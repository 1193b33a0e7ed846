"""Management commands of ``manage.py``."""
