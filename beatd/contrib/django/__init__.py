"""Django integration: settings, installed apps, transactions, database connections.

Contract: a Celery project's ``proj/celery.py`` works once its import line is changed. It is active in every app that is
created where ``DJANGO_SETTINGS_MODULE`` is set. Add ``"beatd.contrib.django"`` to ``INSTALLED_APPS`` for
``manage.py beatd``, ``manage.py beatd_worker``, system checks, and the schedule in the admin.
"""

from __future__ import annotations

from beatd.contrib.django.fixup import install

__all__ = ["install"]
