"""Uses of Celery in the source code of a project: found in its syntax, without running any of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Literal, NamedTuple

from beatd.app.conf import setting_name
from beatd.app.entrypoints import INSTEAD
from beatd.app.settings import DEFAULTS, WITHOUT_EFFECT
from beatd.importers.celery_imports import Imports

Verdict = Literal["works", "change", "by hand"]


class Use(NamedTuple):
    """Something that a project uses: what becomes of it, and what to do."""

    file: str
    line: int
    feature: str
    verdict: Verdict
    what: str
    advice: str = ""


_CANVAS = {"chain", "group", "chord", "chunks", "signature", "subtask", "xmap", "xstarmap", "maybe_signature"}
_CALLS = {"delay": "calls", "apply_async": "calls", "send_task": "calls", "s": "canvas", "si": "canvas"}
_CALLS |= {"retry": "task methods", "update_state": "task methods", "replace": "task methods"}
_CALLS |= {"add_periodic_task": "schedule", "autodiscover_tasks": "app", "config_from_object": "app"}
_OF_AMQP = {"default_exchange", "default_queue", "queues", "router"}
_CLASSES = {"amqp_cls", "backend_cls", "events_cls", "loader_cls", "log_cls", "control_cls", "registry_cls"}
_NO_MODULE = {
    "celery.beat": "schedulers of beatd's own are not written as classes: use beat.toml, or beatd.client.Schedules",
    "celery.bootsteps": "use the signals worker_init, worker_ready and worker_shutdown; health: --metrics-port",
    "celery.bin": "write a command of your own, or use the signals",
    "celery.apps": "run beatd worker and beatd run as processes",
    "celery.worker": "use the signals, or beatd.worker.control for remote control",
    "celery.contrib.testing": "use beatd.testing: beatd_worker and eager_tasks",
    "celery.contrib.pytest": "use the fixtures of beatd.testing: beatd_worker, beatd_eager, beatd_store",
    "celery.contrib.abortable": "look at a state in a loop, or revoke with terminate",
    "celery.contrib.django": "beatd.contrib.django; tasks have delay_on_commit by themselves",
    "celery.backends": "name the result backend as a URL",
    "celery.loaders": "use the signals import_modules and worker_init",
    "celery.platforms": "use the standard library",
    "celery.events": "use app.events of beatd, or keep Celery for this program: its protocol is the same",
    "celery.task": "use shared_task or app.task",
    "celery.decorators": "use shared_task or app.task",
    "celery.local": "use a plain reference",
    "celery.utils": "use the standard library, or copy the helper",
}
_SCHEDULERS = {
    "django_celery_beat": "beatd import django-celery-beat SETTINGS takes its tables over",
    "redbeat": "beatd import redbeat URL takes its entries over",
}
_POOLS = {"gevent": "threads", "eventlet": "threads"}
_OWN_TIME = {"is_due", "remaining_estimate", "remaining_delta"}
_NOT_CALLED = "the daemon calls no code of the app when it sends: give entries headers and options"
_FIXTURES = {"celery_worker", "celery_session_worker", "celery_session_app", "celery_enable_logging"}
_PREFIXES = ("CELERY_", "CELERYD_", "CELERYBEAT_", "BROKER_")


def uses_of(file: str, tree: ast.Module, imports: Imports) -> Iterator[Use]:
    """Yield the uses of Celery in a file."""
    yield from _of_imports(file, imports)
    visitor = _Visitor(file, {place.name for place in imports.places})
    visitor.visit(tree)
    yield from visitor.found


def _of_imports(file: str, imports: Imports) -> Iterator[Use]:
    told = dict(imports.by_hand)
    changed = {line for edit in imports.edits for line in range(edit.first, edit.last + 1)}
    for edit in imports.edits:
        old, new = " ".join(edit.old.split()), "; ".join(line.strip() for line in edit.new.splitlines())
        yield Use(file, edit.first, "imports", "change", old, new)
    for line, reason in imports.by_hand:
        yield Use(file, line, "imports", "by hand", reason.partition(":")[0], reason.partition(": ")[2] or reason)
    for place in imports.places:
        if place.target is None and place.name and (place.line in changed or place.line not in told):
            yield Use(
                file,
                place.line,
                "imports",
                "by hand",
                f"{place.source}.{place.name}",
                _advice(place.source, place.name),
            )
        elif place.source == "celery.signals":
            yield Use(file, place.line, "signals", "works", place.name)


def _advice(module: str, name: str) -> str:
    whole = f"{module}.{name}"
    known = [each for each in _NO_MODULE if whole == each or whole.startswith(f"{each}.") or module == each]
    return _NO_MODULE[max(known, key=len)] if known else "beatd has no such name"


class _Visitor(ast.NodeVisitor):
    """Collects uses. ``imported`` are the names of Celery that the file imports."""

    def __init__(self, file: str, imported: set[str]) -> None:
        self.found: list[Use] = []
        self._file = file
        self._imported = imported
        self._apps = {"app", "celery", "celery_app", "current_app"}

    def _add(self, node: ast.AST, feature: str, verdict: Verdict, what: str, advice: str = "") -> None:
        self.found.append(Use(self._file, getattr(node, "lineno", 0), feature, verdict, what, advice))

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Call) and _name(node.value.func).rpartition(".")[2] == "Celery":
            self._apps |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        for target in node.targets:
            self._setting(node, target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._setting(node, node.target, node.value)
        self.generic_visit(node)

    def _setting(self, node: ast.AST, target: ast.expr, value: ast.expr) -> None:
        match target:
            case ast.Attribute(value=ast.Attribute(attr="conf"), attr=name):
                self._conf(node, name, name, value)
            case ast.Subscript(value=ast.Attribute(attr="conf"), slice=ast.Constant(value=str(name))):
                self._conf(node, name, name, value)
            case ast.Name(id=name) if name.startswith(_PREFIXES) and name.isupper():
                self._conf(node, name, setting_name(name) or "", value)

    def _conf(self, node: ast.AST, shown: str, name: str, value: ast.expr) -> None:
        text = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
        feature, verdict, what, advice = _setting(shown, name, text, value)
        if feature:
            self._add(node, feature, verdict, what, advice)

    def visit_Call(self, node: ast.Call) -> None:
        name = _name(node.func)
        last = name.rpartition(".")[2]
        if last == "Celery" and (name != "Celery" or "Celery" in self._imported):
            self._add(node, "app", "works", ast.unparse(node.func) + "(…)")
            for keyword in node.keywords:
                if keyword.arg in _CLASSES or keyword.arg in ("loader", "amqp", "events", "log", "control"):
                    self._add(
                        keyword.value, "app", "by hand", f"{keyword.arg}=", "beatd has no such class; see the docs"
                    )
        elif last in _CANVAS and last in self._imported:
            self._add(node, "canvas", "works", last)
        elif last in _CALLS and "." in ast.unparse(node.func):
            self._add(node, _CALLS[last], "works", last)
        elif last == "update" and ".conf" in ast.unparse(node.func):
            for keyword in node.keywords:
                if keyword.arg:
                    self._conf(keyword.value, keyword.arg, keyword.arg, keyword.value)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._decorated(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._decorated(node)

    def _decorated(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for each in node.args.args:
            if each.arg in _FIXTURES:
                self._add(each, "fixtures", "by hand", each.arg, _NO_MODULE["celery.contrib.pytest"])
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            name = _name(call.func if call else decorator)
            if (
                name == "shared_task"
                or name.endswith(".shared_task")
                or (name.partition(".")[0] in self._apps and name.endswith(".task"))
            ):
                self._add(node, "tasks", "works", node.name)
                for keyword in call.keywords if call else ():
                    if keyword.arg and keyword.arg not in ("name", "bind"):
                        self._add(keyword.value, "task options", "works", keyword.arg)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = [_name(base) for base in node.bases]
        lasts = {base.rpartition(".")[2] for base in bases}
        if lasts & {"Scheduler", "PersistentScheduler", "ScheduleEntry", "DatabaseScheduler", "RedBeatScheduler"}:
            advice = "beatd is the scheduler: put entries with beatd.client.Schedules, or generate beat.toml"
            self._add(node, "custom scheduler", "by hand", f"class {node.name}", advice)
        elif lasts & {"schedule", "crontab", "solar", "BaseSchedule"}:
            own = _OWN_TIME & {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
            advice = "write its times as cron strings, a list of schedules, or a blackout"
            if own:
                self._add(
                    node, "custom schedule", "by hand", f"class {node.name} with {', '.join(sorted(own))}", advice
                )
        elif lasts & {"Step", "StartStopStep", "ConsumerStep", "Bootstep", "Blueprint"}:
            advice = _NO_MODULE["celery.bootsteps"]
            self._add(node, "bootsteps", "by hand", f"class {node.name}", advice)
        elif "Task" in lasts and "Task" in self._imported:
            self._add(node, "task classes", "works", f"class {node.name}")
            for each in node.body:
                if isinstance(each, ast.FunctionDef) and each.name == "apply_async":
                    self._add(each, "task classes", "by hand", f"class {node.name} with apply_async", _NOT_CALLED)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = _name(node.value)
        app, _, part = owner.rpartition(".")
        if part == "amqp" and node.attr in _OF_AMQP and app in self._apps and self._is_app(app):
            self._add(node, "app", "works", f"{owner}.{node.attr}")
            return
        if owner in self._apps and node.attr in INSTEAD and self._is_app(owner):
            feature = "bootsteps" if node.attr == "steps" else "app"
            self._add(node, feature, "by hand", f"{owner}.{node.attr}", INSTEAD[node.attr])
        elif node.attr == "start_strategy":
            self._add(node, "task methods", "by hand", "….start_strategy", "use a Request class")
        self.generic_visit(node)

    def _is_app(self, name: str) -> bool:
        """True for a name that is surely an app here: other things may be called ``app``."""
        return name in ("celery_app", "current_app") or "Celery" in self._imported


def _setting(shown: str, name: str, text: str, value: ast.expr) -> tuple[str, Verdict, str, str]:
    """Feature, verdict, name and advice of a setting whose value is ``text``, as far as that is known."""
    what = f"{shown} {text}".strip()
    if name == "beat_schedule":
        count = f"{len(value.keys)} entries" if isinstance(value, ast.Dict) else ""
        return "schedule", "works", f"{shown} {count}".strip(), ""
    if name == "beat_scheduler":
        advice = next((told for part, told in _SCHEDULERS.items() if part in text), "beatd is the scheduler")
        is_known = not text or text.startswith(("celery.beat", *_SCHEDULERS))
        return "custom scheduler", "change" if is_known else "by hand", what, advice
    if name in _SERIALIZERS:
        return _serializer(what, name, text, value)
    if name in WITHOUT_EFFECT and text != str(DEFAULTS[name]):
        return "settings", "change", shown, f"has no effect: {WITHOUT_EFFECT[name]}"
    if name == "result_backend":
        scheme = text.partition(":")[0]
        is_own = scheme in _OWN_RESULTS
        advice = "" if is_own else "by Celery's own class: keep Celery installed in the worker"
        return "result backend", "works" if is_own else "change", f"{shown} {scheme}".strip(), advice
    if name == "worker_pool" and text in _POOLS:
        advice = f"runs as {_POOLS[text]}; nothing is monkey-patched; coroutines: -P asyncio"
        return "worker pool", "change", what, advice
    return ("settings" if name in DEFAULTS else ""), "works", shown, ""


_SERIALIZERS = ("task_serializer", "accept_content", "result_accept_content", "result_serializer")
_OWN_RESULTS = ("", "redis", "rediss", "sentinel", "redis+socket", "unix", "rpc")
"""Schemes of result backends that need no Celery; empty: it is not known."""


def _serializer(what: str, name: str, text: str, value: ast.expr) -> tuple[str, Verdict, str, str]:
    if "auth" in {each.value for each in ast.walk(value) if isinstance(each, ast.Constant)}:
        return "serializers", "by hand", what, "signed messages are not supported"
    if name == "result_serializer" and text not in ("", "json"):
        return "serializers", "by hand", what, "results are JSON: return what JSON can carry"
    return "serializers", "works", what, ""


def has_celery(imports: Imports, uses: list[Use]) -> bool:
    """True if a file has anything to do with Celery; ``CELERY_…`` settings count."""
    return bool(imports.places) or any(use.feature in ("settings", "schedule", "custom scheduler") for use in uses)


def _name(node: ast.expr) -> str:
    """``app.task`` of an expression of names; empty for others."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            owner = _name(value)
            return f"{owner}.{attr}" if owner else attr
    return ""
