"""A Django project whose tasks were Celery's: only the import lines are changed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.acceptance.conftest import environment

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

CLIENT = """
import json, os
os.environ["DJANGO_SETTINGS_MODULE"] = "proj.settings"
import django
django.setup()
from django.db import transaction
from beatd import current_app
from orders.tasks import limits
from shop.models import Item
from shop.tasks import add_item, count, name_of, opened_by_another_task

said = {}
pk = add_item.delay("apple").get(timeout=30)
said["made"] = Item.objects.get(pk=pk).name
said["count"] = count.delay().get(timeout=30)
said["opened"] = opened_by_another_task.delay().get(timeout=30)
said["limits"] = limits.delay().get(timeout=30)

sent = []
names = name_of.delay
with transaction.atomic():
    pear = Item.objects.create(name="pear")
    name_of.apply_async_on_commit((pear.pk,), task_id="the-pear")
    name_of.delay_on_commit(pear.pk)
said["pear"] = current_app.AsyncResult("the-pear").get(timeout=30)
try:
    with transaction.atomic():
        name_of.apply_async_on_commit((pear.pk,), task_id="never")
        raise KeyError
except KeyError:
    pass
count.delay().get(timeout=30)
said["never"] = current_app.AsyncResult("never").state
with transaction.atomic():
    inside = Item.objects.create(name="fig")
    said["eager"] = name_of.apply((inside.pk,)).get()
    inside.refresh_from_db()
said["registered"] = sorted(current_app.registrations())
print(json.dumps(said))
"""


@pytest.fixture
def project(tmp_path, redis_url):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.format(url=redis_url) if "{url" in text or "{{" in text else text)
    return tmp_path


def python(project, *arguments):
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=project, env=environment(), capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_project(project, start_beatd):
    python(project, "manage.py", "migrate", "--run-syncdb", "-v", "0")
    worker = start_beatd("worker", "-A", "proj", "-c", "1")
    worker.expect(r"ready\.", timeout=30)
    said = json.loads(python(project, "-c", CLIENT))
    assert said == {
        "made": "apple",
        "count": 1,
        "opened": False,
        "limits": ["Asia/Baku", 60, "proj"],
        "pear": "pear",
        "never": "PENDING",
        "eager": "fig",
        "registered": ["count"],
    }
    assert worker.end() == 0
    (project / "beat.toml").write_text("")
    assert "shop.tasks.count" in python(project, "manage.py", "beatd", "next", "-n", "1", "--json")


def test_a_project_without_django_is_told(tmp_path):
    (tmp_path / "django.py").write_text("")
    code = "import sys; sys.modules['django'] = None; from beatd import App; App()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(DJANGO_SETTINGS_MODULE="x.settings"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Django is not installed: pip install 'beatd[django]'" in done.stderr
