"""``beatd migrate celery``: a project that uses much of Celery, and sources that are no Python."""

from __future__ import annotations

import json
import random
import subprocess

import pytest

from beatd import config

FILES = {
    "proj/__init__.py": "from .celery import app as celery_app\n",
    "proj/celery.py": """from celery import Celery, bootsteps
from celery.schedules import crontab
from celery.signals import worker_ready

app = Celery("proj", broker="amqp://me:hunter2@localhost/vh", backend="redis://:hunter3@localhost:16399/3")
app.conf.beat_schedule = {
    "a": {"task": "proj.tasks.add", "schedule": 30.0, "args": (1, 2)},
    "b": {"task": "proj.tasks.add", "schedule": crontab(hour=7, minute=0), "options": {"queue": "q"}},
}
app.conf.update(result_serializer="pickle", worker_prefetch_multiplier=1, worker_lost_wait=3, beat_sync_every=1)
app.conf.worker_pool = "gevent"

class Boot(bootsteps.StartStopStep):
    pass
app.steps["worker"].add(Boot)
QUEUE = app.amqp.router.route({}, "proj.tasks.add")["queue"].name
app.amqp.send_task_message = print
""",
    "proj/tasks.py": '''"""Tasks."""
from celery import Task, chain, shared_task
from celery.beat import Scheduler
from celery.schedules import schedule

class Own(schedule):
    def is_due(self, last): return False, 60
class Mine(Scheduler): pass

@shared_task(bind=True, max_retries=3)
def add(self, x, y):
    chain(add.s(1, 2), add.s(3)).delay()

class Tenant(Task):
    def apply_async(self, *args, **options): ...

def test_add(celery_worker): ...
''',
    "proj/settings.py": "CELERY_RESULT_BACKEND = 'db+sqlite:///x'\nCELERY_BEAT_SCHEDULER = 'redbeat.RedBeatScheduler'",
    "Procfile": "web: gunicorn x\nworker: celery -A proj worker -l info -B\nbeat: celery -A proj beat\n",
    "compose.yaml": 'services:\n  beat:\n    command: ["celery", "-A", "proj", "beat"]\n',
    "broken.py": "import celery\nx = (\n",
    "node_modules/x.py": "import celery\n",
    ".venv/x.py": "import celery\n",
}


@pytest.fixture
def project(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_report(project, beatd):
    done = beatd("migrate", "celery", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["app"] == "proj"
    assert said["unread"] == ["broken.py:2: is no Python that can be read: '(' was never closed"]
    found = {(f"{use['file']}:{use['line']}", use["verdict"], use["feature"]) for use in said["uses"]}
    assert {
        ("proj/celery.py:1", "change", "imports"),
        ("proj/celery.py:1", "by hand", "imports"),
        ("proj/celery.py:5", "works", "app"),
        ("proj/celery.py:6", "works", "schedule"),
        ("proj/celery.py:10", "by hand", "serializers"),
        ("proj/celery.py:10", "change", "settings"),
        ("proj/celery.py:11", "change", "worker pool"),
        ("proj/celery.py:13", "by hand", "bootsteps"),
        ("proj/celery.py:15", "by hand", "bootsteps"),
        ("proj/celery.py:16", "works", "app"),
        ("proj/celery.py:17", "by hand", "app"),
        ("proj/celery.py:3", "works", "signals"),
        ("proj/tasks.py:6", "by hand", "custom schedule"),
        ("proj/tasks.py:8", "by hand", "custom scheduler"),
        ("proj/tasks.py:11", "works", "tasks"),
        ("proj/tasks.py:10", "works", "task options"),
        ("proj/tasks.py:12", "works", "canvas"),
        ("proj/tasks.py:14", "works", "task classes"),
        ("proj/tasks.py:15", "by hand", "task classes"),
        ("proj/tasks.py:17", "by hand", "fixtures"),
        ("proj/settings.py:1", "change", "result backend"),
        ("proj/settings.py:2", "change", "custom scheduler"),
        ("Procfile:3", "change", "command lines"),
        ("Procfile:2", "change", "command lines"),
        ("compose.yaml:3", "change", "command lines"),
    } <= found
    assert "hunter" not in done.stdout
    text = beatd("migrate", "celery", COLUMNS="80")
    assert "Works unchanged" in text.stdout
    assert "Without counterpart" in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 80 or "proj/celery.py:1" in text.stdout
    for words in (("proj.celery:app",), ("proj",), ("proj/celery.py",)):
        assert beatd("migrate", "celery", *words).returncode == 0
    nowhere = beatd("migrate", "celery", "nowhere")
    assert (nowhere.returncode, "expected a folder, a file, or the module" in nowhere.stderr) == (2, True)
    (project / "empty").mkdir()
    empty = beatd("migrate", "celery", "empty")
    assert (empty.returncode, empty.stderr) == (2, "empty: has no Python files\n")


def test_the_changes_are_a_patch(project, beatd):
    before = (project / "proj" / "celery.py").read_text()
    shown = beatd("migrate", "celery", "--rewrite").stdout
    assert (project / "proj" / "celery.py").read_text() == before
    (project / "x.patch").write_text(shown)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run(["git", "apply", "--check", "x.patch"], cwd=project, check=True)
    done = beatd("migrate", "celery", "--write")
    assert done.stdout == "proj/celery.py: 3 imports changed\nproj/tasks.py: 2 imports changed\n2 files changed\n"
    assert (
        "from beatd import App as Celery\nfrom celery import bootsteps\n"
        in (project / "proj" / "celery.py").read_text()
    )
    subprocess.run(["git", "apply", "--check", "-R", "x.patch"], cwd=project, check=True)


def test_the_schedule_is_written_without_passwords(project, beatd):
    (project / "proj" / "celery.py").write_text(FILES["proj/celery.py"].replace('app.steps["worker"].add(Boot)', ""))
    done = beatd("migrate", "celery", "-o", "beat.toml")
    assert done.returncode == 0, done.stderr
    assert "BEATD_REDIS_URL: set it to the URL of the state store" in done.stderr
    assert "BEATD_BROKER_URL: set it to the URL of the broker" in done.stderr
    text = (project / "beat.toml").read_text()
    assert "hunter" not in text + done.stderr
    env = {"BEATD_REDIS_URL": "redis://localhost:1/3", "BEATD_BROKER_URL": "amqp://localhost/vh"}
    loaded = config.load(project / "beat.toml", env=env)
    assert [entry.name for entry in loaded.entries] == ["a", "b"]
    assert loaded.settings.broker.url == "amqp://localhost/vh"
    again = beatd("migrate", "celery", "-o", "beat.toml")
    assert (again.returncode, "--force" in again.stderr) == (1, True)


def test_an_entry_that_is_left_behind_is_a_failure_as_with_import(tmp_path, beatd):
    entries = '{"a": {"task": "t", "schedule": 30.0}, "b": {"task": "t", "schedule": object()}}'
    (tmp_path / "proj.py").write_text(
        f'from celery import Celery\napp = Celery("proj")\napp.conf.beat_schedule = {entries}\n'
    )
    done = beatd("migrate", "celery", "-o", "beat.toml")
    assert (done.returncode, beatd("import", "celery", "proj").returncode) == (1, 1)
    assert "beat.toml: 1 entry, 1 entry left behind" in done.stderr


@pytest.mark.parametrize("seed", range(4))
def test_sources_that_are_cut_or_mixed_up(seed, tmp_path, beatd):
    dice = random.Random(seed)
    for number in range(60):
        text = dice.choice([text for name, text in FILES.items() if name.endswith(".py")])
        data = bytearray(text.encode())
        for _ in range(dice.randrange(6)):
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(5)] = dice.choice(
                [b"", b"(", b"\x00", b"\xff", b"\r", b"celery", b"\n    ", b"'''"]
            )
        (tmp_path / f"f{number}.py").write_bytes(bytes(data))
    (tmp_path / "deep.py").write_text("import celery\nx = " + "(" * 500 + ")" * 500)
    (tmp_path / "long.sh").write_text("celery " + "-A " * 5_000 + "\n" + "celery -B" * 300)
    done = beatd("migrate", "celery", "--all")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "internal error" not in done.stderr
    assert beatd("migrate", "celery", "--rewrite").returncode == 0
    assert beatd("migrate", "celery", "--write").returncode == 0
