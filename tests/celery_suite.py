"""Celery's own tests (``t/integration`` and some of ``t/unit`` of its source) against beatd.

    python tests/celery_suite.py FOLDER [worker|imports|unit|celery ...] [-- PYTEST ARGUMENTS]

FOLDER is an unpacked source distribution of Celery (``pip download --no-deps --no-binary :all: celery==5.7.0``); it is
copied, never changed. ``worker`` runs the unchanged client against beatd's worker, ``imports`` changes the imports of
tests and tasks to beatd, ``unit`` does the same with unit tests of schedules, compositions, results and routes (which
needs ``pip install freezegun``), ``celery`` runs Celery alone, for comparison. Each run has a Redis server of its own.
The exit code is 1 if the failures differ from the list in ``docs/celery.md``.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from beatd.canvas import chain

ROOT = Path(__file__).resolve().parents[1]
_INTEGRATION = tuple(f"integration/test_{name}.py" for name in ("canvas", "tasks", "inspect"))
FILES = dict.fromkeys(("worker", "imports", "celery"), _INTEGRATION)
FILES["unit"] = tuple(
    f"unit/{name}.py" for name in ("app/test_schedules", "tasks/test_canvas", "tasks/test_result", "app/test_routes")
)
LIST = ROOT / "docs" / "celery.md"

_MODULES = {
    "celery": "beatd",
    "celery.canvas": "beatd.canvas",
    "celery.exceptions": "beatd.exceptions",
    "celery.result": "beatd.result",
    "celery.schedules": "beatd.schedules",
    "celery.signals": "beatd.signals",
    "celery.utils.log": "beatd.log",
    "celery.worker.control": "beatd.worker.control",
}
"""Imports of user code, which docs/celery.md names. Imports of Celery's internals stay as they are."""
_ELSEWHERE = {"celery._state": "beatd", "celery.app.task": "beatd.app.context"}
"""Modules of internals whose public names unit tests import."""
_REWRITTEN = {
    "pytest.importorskip('ephem')": "pytest.importorskip('astral')",
    "self.app.timezone = ": "self.app.conf.timezone = ",
    "del self.app.timezone": "",
    "patch('celery.canvas.": "patch('beatd.canvas.",
    "'_chord'": "'chord'",
}
"""Text of unit tests that concerns internals, and what stands there instead."""

_WORKER = """
import os
from beatd import App
app = App("celery.tests", **__import__("json").loads(os.environ["SUITE_CONFIG"]))
app.conf.include = ["t.integration.tasks"]
app.conf.update(accept_content=["json"], enable_utc=True, timezone="UTC", broker_heartbeat=0)
app.conf.update(worker_hijack_root_logger=False, worker_log_color=False)
@app.on_after_finalize.connect
def add_class_tasks(sender, **_):
    from t.integration.tasks import ClassBasedAutoRetryTask
    sender.register_task(ClassBasedAutoRetryTask)
"""

_FIXTURES = {
    "worker": "from tests.celery_suite import celery_session_worker\n",
    "imports": """
from tests.celery_suite import celery_app, celery_session_app, celery_session_worker


@pytest.fixture(autouse=True)
def ZZZZ_set_app_current(app):
    app.set_current()
""",
    "celery": "",
}

_UNIT_FIXTURES = """
import os
import pytest
from kombu import Queue
from beatd import App
from tests.celery_suite import celery_app, depends_on_current_app, limited


@pytest.fixture
def app(celery_app):
    return celery_app


@pytest.fixture(scope="session")
def celery_config():
    queues = [Queue("testcelery", routing_key="testcelery")]
    names = dict.fromkeys(("task_default_queue", "task_default_exchange", "task_default_routing_key"), "testcelery")
    urls = {"broker_url": "memory://", "result_backend": os.environ["TEST_BACKEND"]}
    return {**urls, **names, "task_queues": queues, "accept_content": ["json", "pickle"]}


@pytest.fixture(autouse=True)
def test_cases_shortcuts(request, app):
    add = app.task(lambda x, y: x + y, name="t.unit.conftest.add")
    if request.instance:
        request.instance.app, request.instance.add, request.instance.Celery = app, add, App


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call():
    with limited(10):
        return (yield)
"""

# -- fixtures of the copied suite -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def celery_session_worker(celery_session_app: Any, celery_config: Mapping[str, Any]) -> Iterator[Any]:
    """A worker of beatd in a process of its own, under the node name that the tests expect."""
    if os.environ["SUITE_MODE"] == "imports":
        __import__("t.integration.tasks")
    name = f"gen{os.getpid()}@{socket.gethostname()}"
    command = [sys.executable, "-m", "beatd", "worker", "-A", "suite_worker", "-c", "1", "-n", name, "-l", "info"]
    environment = os.environ | {"SUITE_CONFIG": json.dumps(dict(celery_config)), "PYTHONPATH": os.environ["SUITE_PATH"]}
    folder = Path(os.environ["SUITE_FOLDER"])
    log = (folder / "worker.log").open("wb")
    process = subprocess.Popen(command, cwd=folder / "worker", env=environment, stdout=log, stderr=log)
    try:
        for _ in range(20):
            if celery_session_app.control.ping(timeout=1.0) or process.poll() is not None:
                break
        yield SimpleNamespace(hostname=name, app=celery_session_app)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


@pytest.fixture(scope="session")
def celery_session_app(celery_config: Mapping[str, Any]) -> Iterator[Any]:
    from beatd import App

    with App("celery.tests", **celery_config) as app:
        yield app


@pytest.fixture
def celery_app(celery_config: Mapping[str, Any]) -> Iterator[Any]:
    from beatd import App

    with App("celery.tests", **celery_config) as app:
        yield app


@pytest.fixture
def depends_on_current_app(celery_app: Any) -> None:
    celery_app.set_current()


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """End what takes longer as failed."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"takes longer than {seconds} s"))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


class _Failing(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        pytest.fail(f"uses internals of Celery: {name}")


class Internal(metaclass=_Failing):
    """A name of Celery's internals that beatd does not have: a test that uses it fails."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pytest.fail("uses internals of Celery")


class _IsChain(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, chain) if cls is WrittenChain else super().__instancecheck__(value)


class WrittenChain(chain, metaclass=_IsChain):
    """A chain of the steps as they are given, not joined: Celery's ``_chain``."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return dict.__new__(cls)


# -- the command ------------------------------------------------------------------------------------------------------


def converted(text: str) -> str:
    """Change the imports of a test or task module to beatd."""

    def module(found: re.Match[str]) -> str:
        return f"{found[1]}{_MODULES.get(found[2], found[2])}{found[3]}"

    text = re.sub(r"^(\s*from )(celery[\w.]*)( import)", module, text, flags=re.MULTILINE)
    text = re.sub(r"^import celery$", "import beatd as celery", text, flags=re.MULTILINE)
    text = text.replace("from celery.backends.base import states", "from beatd import states")
    return re.sub(r"\bStampingVisitor, _chain\b", "StampingVisitor, chain as _chain", text)


class _Imports(ast.NodeTransformer):
    """Change imports of Celery's names to beatd's, and those of internals to :class:`Internal`."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> list[ast.stmt]:
        if (node.module or "").partition(".")[0] != "celery":
            return [node]
        module = (_MODULES | _ELSEWHERE).get(node.module or "")
        return [self._import(module, alias.name, alias.asname or alias.name) for alias in node.names]

    @staticmethod
    def _import(module: str | None, name: str, local: str) -> ast.stmt:
        if name == "pickle":
            return ast.Import([ast.alias(name)])
        if name == "_chain":
            return ast.ImportFrom("tests.celery_suite", [ast.alias("WrittenChain", local)], 0)
        if module and hasattr(importlib.import_module(module), name.removeprefix("_")):
            return ast.ImportFrom(module, [ast.alias(name.removeprefix("_"), local)], 0)
        return ast.ImportFrom("tests.celery_suite", [ast.alias("Internal", local)], 0)


def lay_out_units(source: Path, folder: Path) -> None:
    """Copy the unit tests, with their imports changed, into ``client``."""
    package = folder / "client" / "t"
    for name in (
        "__init__.py",
        "canvas_helpers.py",
        "skip.py",
        "unit/__init__.py",
        "unit/tasks/unit_tasks.py",
        *FILES["unit"],
    ):
        target = package / name
        target.parent.mkdir(parents=True, exist_ok=True)
        tree = _Imports().visit(ast.parse((source / "t" / name).read_text()))
        text = ast.unparse(ast.fix_missing_locations(tree))
        for internal, public in _REWRITTEN.items():
            text = text.replace(internal, public)
        target.write_text(text)
    for name in ("app", "tasks"):
        (package / "unit" / name / "__init__.py").touch()
    (package / "unit" / "conftest.py").write_text(_UNIT_FIXTURES)


def lay_out(source: Path, folder: Path, mode: str) -> None:
    """Copy the suite: ``client`` for the tests, ``worker`` for the worker's tasks."""
    for side in ("client", "worker"):
        package = folder / side / "t"
        shutil.copytree(source / "t" / "integration", package / "integration")
        for name in ("__init__.py", "canvas_helpers.py", "skip.py"):
            shutil.copy(source / "t" / name, package / name)
        if mode == "imports" or side == "worker":
            for path in (package / "integration").glob("*.py"):
                path.write_text(converted(path.read_text()))
    conftest = folder / "client" / "t" / "integration" / "conftest.py"
    text = conftest.read_text()
    if mode != "celery":
        names = ["celery_session_worker"] + (["celery_app", "celery_session_app"] if mode == "imports" else [])
        line = re.search(r"^from celery\.contrib\.pytest import (.*)$", text, re.MULTILINE)
        assert line is not None
        kept = [name for name in line[1].split(", ") if name not in names]
        text = text.replace(line[0], f"from celery.contrib.pytest import {', '.join(kept)}" if kept else "")
    conftest.write_text(text + _FIXTURES[mode])
    for path in (folder / "client" / "t" / "integration").glob("test_*.py"):
        path.write_text(re.sub(r"^TIMEOUT = 60$", "TIMEOUT = 25", path.read_text(), flags=re.MULTILINE))
    (folder / "worker" / "suite_worker.py").write_text(_WORKER)


@contextmanager
def redis_on_a_free_port(folder: Path) -> Iterator[int]:
    """A Redis server, which ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        server.terminate()
        server.wait(10)


def run(source: Path, mode: str, arguments: Sequence[str]) -> dict[str, str]:
    """Run the suite; returns the tests, with the first line of the reason if they failed, and prints the figures."""
    folder = Path(tempfile.mkdtemp(prefix=f"celery-suite-{mode}-"))
    (lay_out_units(source, folder) if mode == "unit" else lay_out(source, folder, mode))
    with redis_on_a_free_port(folder) as port:
        url = f"redis://localhost:{port}/0"
        environment = os.environ | {
            "REDIS_PORT": str(port),
            "TEST_BROKER": url,
            "TEST_BACKEND": url,
            "SUITE_MODE": mode,
            "SUITE_FOLDER": str(folder),
            "SUITE_PATH": f"{folder / 'worker'}:{ROOT}",
            "PYTHONPATH": f"{folder / 'client'}:{ROOT}",
        }
        report = folder / "report.xml"
        tests = [str(Path("t", name)) for name in FILES[mode]]
        options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "--tb=native"]
        options += ["-p", "celery.contrib.pytest"] if mode != "unit" else []
        options += ["-o", "python_classes=test_*", f"--junitxml={report}", "--rootdir=.", "-W", "ignore"]
        command = [sys.executable, "-m", "pytest", *options, *(arguments or tests)]
        log = folder / "pytest.log"
        with log.open("wb") as output:
            subprocess.run(command, cwd=folder / "client", env=environment, stdout=output, stderr=output, check=False)
    found = outcomes(report)
    print(f"{mode}: {log.read_text(errors='replace').splitlines()[-1]}   ({log})")
    for name, reason in sorted(found.items()):
        if reason:
            print(f"  {name}: {reason[:200]}")
    return found


def outcomes(report: Path) -> dict[str, str]:
    """Read the tests that were run from a JUnit report: the reason why each failed, or an empty text."""
    import xml.etree.ElementTree as ET

    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        problems = [*case.iter("failure"), *case.iter("error")]
        if problems:
            found[name] = (problems[0].get("message") or "no message").split("\n")[0]
        elif case.find("skipped") is None:
            found.setdefault(name, "")
    return found


def listed(mode: str) -> set[str]:
    """Return the tests that docs/celery.md lists for a mode: ``| `test` | worker, imports | reason |``.

    A star stands for any text.
    """
    rows = re.findall(r"^\| (`test_.*`) \| ([a-z, ]+) \|", LIST.read_text(), re.MULTILINE)
    return {name for cell, modes in rows if mode in modes.split(", ") for name in re.findall(r"`([^`]+)`", cell)}


def differences(found: Mapping[str, str], names: set[str], at_times: set[str]) -> Iterator[str]:
    """Yield how the outcomes differ from the list; only tests that fail may be listed."""

    def is_in(name: str, patterns: set[str]) -> bool:
        return any(re.fullmatch(re.escape(each).replace(r"\*", ".*"), name) for each in patterns)

    for name, reason in sorted(found.items()):
        if reason and not is_in(name, names | at_times):
            yield f"fails and is not in docs/celery.md: {name}"
        if not reason and is_in(name, names):
            yield f"passes and is in docs/celery.md: {name}"
    for each in sorted(names):
        if not any(is_in(name, {each}) for name in found):
            yield f"is in docs/celery.md, but there is no such test: {each}"


def main(words: Sequence[str]) -> int:
    """Run the modes named on the command line."""
    words, arguments = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    source, modes = Path(words[0]).resolve(), words[1:] or ["worker", "imports", "unit"]
    differs = False
    for mode in modes:
        found = run(source, mode, arguments)
        if mode == "celery" or arguments:
            continue
        for difference in differences(found, listed(mode), listed("at times")):
            print(f"{mode}: {difference}")
            differs = True
    return int(differs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
