"""A Django project whose tasks were Celery's: only the import lines are changed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.acceptance.django_project import python, run, write_project
from tests.acceptance.pages import DOCS, follow
from tests.forked import environment

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
    return write_project(tmp_path, redis_url)


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


FILE = """
timezone = "Europe/Berlin"
[redis]
url = {url!r}
[beat_schedule.nightly]
task = "shop.tasks.add_item"
schedule = "30 4 * * *"
args = ["pear"]
"""


@pytest.mark.slow
def test_system_checks(project, redis_url, free_port):
    assert "no issues" in python(project, "manage.py", "check")
    beat = project / "beat.toml"
    beat.write_text(FILE.format(url=redis_url))
    assert "no issues" in python(project, "manage.py", "check", "--fail-level", "WARNING")
    beat.write_text(FILE.format(url=redis_url).replace("add_item", "ad_item").replace('["pear"]', "[]"))
    done = run(project, "manage.py", "check", "--fail-level", "WARNING")
    assert 'the app has no task "shop.tasks.ad_item"; did you mean shop.tasks.add_item' in done.stderr
    assert (done.returncode, "beatd.W002" in done.stderr) == (1, True)
    beat.write_text(FILE.format(url=redis_url).replace("nightly", "count"))  # the app has another one of this name
    assert "no issues" in python(project, "manage.py", "check", "--fail-level", "WARNING")
    beat.write_text(FILE.format(url=redis_url).replace("nightly", "count").replace("add_item", "ad_item"))
    done = run(project, "manage.py", "check", "--fail-level", "WARNING")
    assert (done.returncode, "beat_schedule.count.task: the app has no task" in done.stderr) == (1, True)
    beat.write_text(FILE.format(url=redis_url).replace('"30 4', '"70 4'))
    done = run(project, "manage.py", "check")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "(beatd.E001) beat.toml:7:1: beat_schedule.nightly.schedule:" in done.stderr
    beat.write_text(FILE.format(url=f"redis://:secret@127.0.0.1:{free_port()}/0"))
    done = run(project, "manage.py", "check")
    assert (done.returncode, "(beatd.W003) The state store cannot be used" in done.stderr) == (0, True)
    assert "secret" not in done.stderr
    settings = project / "proj" / "settings.py"
    settings.write_text(f"{settings.read_text()}\nSILENCED_SYSTEM_CHECKS = ['beatd.W003']\nBEATD_CONFG = 'x'\n")
    done = run(project, "manage.py", "check")
    assert ("W003" in done.stderr, "did you mean BEATD_CONFIG?" in done.stderr) == (False, True)
    settings.write_text(f"{settings.read_text()}\nBEATD_APP = 'nowhere'\n")
    assert "no module named 'nowhere'" in run(project, "manage.py", "check").stderr
    done = run(project, "manage.py", "beatd", "next")
    assert (done.returncode, "no module named 'nowhere'" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


@pytest.mark.slow
def test_a_project_with_an_app_of_celery(project):
    """Celery runs Django's system checks when it imports task modules, which the checks make it do."""
    for name in ("proj/celery.py", "shop/tasks.py", "orders/tasks.py"):
        text = (project / name).read_text()
        text = text.replace("from beatd import App as Celery", "from celery import Celery")
        (project / name).write_text(text.replace("from beatd import", "from celery import"))
    python(project, "manage.py", "migrate", "--run-syncdb", "-v", "0")
    done = run(project, "manage.py", "check", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr
    listed = json.loads(python(project, "manage.py", "beatd", "list", "--json"))
    assert [entry["name"] for entry in listed["entries"]] == ["count"]
    tasks = (project / "proj" / "settings.py").read_text().replace("shop.tasks.count", "shop.tasks.cuont")
    (project / "proj" / "settings.py").write_text(tasks)
    assert 'the app has no task "shop.tasks.cuont"' in run(project, "manage.py", "check").stderr
    (project / "orders" / "tasks.py").write_text("1 / 0\n")
    done = run(project, "manage.py", "check")
    assert "(beatd.E001) proj: its task modules or registrations failed: ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_schedule_of_settings(project, redis_url):
    (project / "etc").mkdir()
    (project / "etc" / "beat.toml").write_text(FILE.format(url=redis_url))
    settings = project / "proj" / "settings.py"
    settings.write_text(f"{settings.read_text()}\nBEATD_CONFIG = Path(__file__).parent.parent / 'etc' / 'beat.toml'\n")
    elsewhere = str(project / "nowhere.toml")  # a setting counts before the environment
    listed = json.loads(python(project, "manage.py", "beatd", "list", "--json", BEATD_CONFIG=elsewhere))
    assert [entry["name"] for entry in listed["entries"]] == ["count", "nightly"]
    code = "from django.core.management import call_command as c; import proj.settings, os\n"
    code += "os.environ['DJANGO_SETTINGS_MODULE'] = 'proj.settings'; import django; django.setup()\n"
    code += "c('beatd', 'check'); c('beatd', 'check', 'nowhere.toml')"
    done = run(project, "-c", code)
    assert "2 entries" in done.stdout
    assert "CommandError: beatd -A proj check nowhere.toml failed" in done.stderr


@pytest.mark.slow
def test_the_worker_follows_the_code(project, wait_until):
    log = project / "log"
    with log.open("wb") as file:
        worker = subprocess.Popen(
            [sys.executable, "manage.py", "beatd_worker", "--autoreload", "-c", "1", "-P", "solo"],
            cwd=project, env=environment(), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_until(lambda: log.read_text().count("ready.") == 1, 40, "the worker to be ready")
        tasks = project / "shop" / "tasks.py"
        tasks.write_text(tasks.read_text() + "\n@shared_task\ndef added():\n    return 7\n")
        wait_until(lambda: log.read_text().count("ready.") >= 2, 60, "the worker to start again")
        assert "tasks.py changed: the worker starts again" in log.read_text()
        ask = "from proj.celery import app; print(app.send_task('shop.tasks.added').get(timeout=30))"
        assert python(project, "-c", ask) == "7\n"
    finally:
        worker.terminate()
        assert worker.wait(40) == 0, log.read_text()


def test_the_worker_finds_the_store_of_the_file(project, start_beatd, wait_until, tmp_path_factory):
    """The project's own broker is another server: only the file leads the worker to the daemon's."""
    state = tmp_path_factory.mktemp("state")
    (project / "beat.toml").write_text(
        f"""state_dir = {str(state)!r}
[redis]
url = "embedded"
[beat_schedule.often]
task = "orders.tasks.limits"
schedule = "1s"
"""
    )
    daemon = start_beatd("run", "--config", str(project / "beat.toml"))
    daemon.expect("Dispatched often", timeout=30)
    log = project / "log"
    with log.open("wb") as file:
        worker = subprocess.Popen(
            [sys.executable, str(project / "manage.py"), "beatd_worker", "-c", "1", "-P", "solo"],
            cwd=project, env=environment(), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_until(lambda: "orders.tasks.limits" in log.read_text() and "succeeded" in log.read_text(), 40, "a run")
    finally:
        worker.terminate()
        assert worker.wait(40) == 0, log.read_text()


def test_eager_tasks_in_a_test_of_django(project):
    (project / "shop" / "tests.py").write_text("""
from beatd.testing import eager_tasks
from django.test import TestCase
from shop.models import Item
from shop.tasks import add_item

class Shop(TestCase):
    @eager_tasks()
    def test_at_once(self):
        self.assertEqual(Item.objects.get(pk=add_item.delay("fig").get()).name, "fig")

    def test_on_commit(self):
        with eager_tasks(), self.captureOnCommitCallbacks(execute=True):
            add_item.delay_on_commit("kiwi")
            self.assertEqual(Item.objects.count(), 0)
        self.assertEqual(Item.objects.count(), 1)
""")
    (project / "shop" / "migrations").mkdir()
    (project / "shop" / "migrations" / "__init__.py").write_text("")
    python(project, "manage.py", "makemigrations", "-v", "0")
    done = run(project, "manage.py", "test", "shop")
    assert "Ran 2 tests" in done.stderr
    assert done.returncode == 0, done.stderr


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


@pytest.mark.slow
def test_a_new_project_works_as_the_page_says():
    with tempfile.TemporaryDirectory(prefix="beatd-") as folder:  # short: the path of a socket has 107 bytes at most
        work = Path(folder) / "work"
        work.mkdir()
        follow(DOCS / "django.md", work)
