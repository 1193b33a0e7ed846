"""An app at home in Django: its settings, its installed apps, its transactions, its database connections.

The promise: a Celery project's ``proj/celery.py`` works after its import line is changed. It takes effect by itself for
each app that is made where ``DJANGO_SETTINGS_MODULE`` is set. Add ``"beatd.contrib.django"`` to ``INSTALLED_APPS`` for
``manage.py beatd``.
"""

from __future__ import annotations

from beatd.contrib.django.fixup import install

__all__ = ["install"]
