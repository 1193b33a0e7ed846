"""A Django project whose tasks were Celery's: only the import lines are changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.forked import environment

FILES = {
    "manage.py": """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "proj/__init__.py": """
from .celery import app as celery_app
__all__ = ("celery_app",)
""",
    "proj/settings.py": """
from pathlib import Path
SECRET_KEY = "x"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
INSTALLED_APPS = ["shop", "orders.apps.OrdersConfig", "beatd.contrib.django"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("db.sqlite3")}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CELERY_BROKER_URL = {url!r}
CELERY_RESULT_BACKEND = {url!r}
CELERY_TIMEZONE = "Asia/Baku"
CELERY_TASK_TIME_LIMIT = 60
BEATD_TIMEOUT = 10
CELERY_BEAT_SCHEDULE = {{"count": {{"task": "shop.tasks.count", "schedule": 30.0}}}}
""",
    "proj/celery.py": """
import os
from beatd import App as Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

@app.task(bind=True, ignore_result=True)
def debug_task(self):
    print(f"Request: {{self.request!r}}")
""",
    "shop/__init__.py": "",
    "shop/models.py": """
from django.db import models

class Item(models.Model):
    name = models.CharField(max_length=20)
""",
    "shop/tasks.py": """
from beatd import shared_task
from django.db import connection
from .models import Item

@shared_task
def add_item(name):
    return Item.objects.create(name=name).pk

@shared_task
def count():
    return Item.objects.count()

@shared_task
def name_of(pk):
    return Item.objects.get(pk=pk).name

@shared_task
def opened_by_another_task():
    return connection.connection is not None
""",
    "orders/__init__.py": "",
    "orders/apps.py": """
from django.apps import AppConfig

class OrdersConfig(AppConfig):
    name = "orders"
""",
    "orders/tasks.py": """
from beatd import shared_task

@shared_task(bind=True)
def limits(self):
    return [self.app.conf.timezone, self.time_limit, self.app.main]
""",
}


ADMIN = {
    "proj/urls.py": """
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)]
""",
    "proj/admin_settings.py": """
from proj.settings import *
DEBUG = True
ALLOWED_HOSTS = ["*"]
DJANGO = ["admin", "auth", "contenttypes", "sessions", "messages", "staticfiles"]
INSTALLED_APPS = [f"django.contrib.{name}" for name in DJANGO] + INSTALLED_APPS
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
PROCESSORS = ["template.context_processors.request", "contrib.auth.context_processors.auth"]
PROCESSORS = [f"django.{name}" for name in PROCESSORS] + ["django.contrib.messages.context_processors.messages"]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": PROCESSORS},
}]
ROOT_URLCONF = "proj.urls"
STATIC_URL = "static/"
""",
}
"""Files that add the admin: settings of their own, for ``DJANGO_SETTINGS_MODULE=proj.admin_settings``."""


def write_project(folder: Path, url: str) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text.format(url=url) if "{url" in text or "{{" in text else text)
    for name, text in ADMIN.items():
        (folder / name).write_text(text)
    return folder


def run(project: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=project, env=environment(**env), capture_output=True, text=True, timeout=90, check=False
    )


def python(project: Path, *arguments: str, **env: str) -> str:
    done = run(project, *arguments, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout
