"""Settings of an example: for a computer of your own only."""

SECRET_KEY = "only for the example"  # noqa: S105 - it protects nothing
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "beatd.contrib.django", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True

CELERY_TIMEZONE = "Europe/Berlin"
CELERY_BEAT_SCHEDULE = {"count-users": {"task": "shop.tasks.count_users", "schedule": 2.0}}
