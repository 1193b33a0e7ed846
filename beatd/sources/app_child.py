"""The child process of :func:`beatd.sources.load_app`: imports an app and writes what it registers.

``python -m beatd.sources.app_child MODULE[:APP] WHERE DIRECTORY DESCRIPTOR`` writes one JSON document to the
descriptor: ``entries``, ``timezone``, ``file``, ``conf``, the names of ``settings``, what is ``refused`` and
``remarks``, or ``faults``; and ``files``, of the app's own code. What the user's code prints goes elsewhere.

Standard input has the calls of the file's entries as JSON, ``[[entry, task, args, kwargs, queue], …]``, or nothing.
With calls the document also has ``task_faults``, ``[[entry, key, message], …]``: of these calls, and of the app's own
entries.
"""

from __future__ import annotations

import os
import sys
import traceback
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import beatd
from beatd import signals
from beatd.app.app import App
from beatd.app.conf_urls import with_prefix, with_tls
from beatd.app.find_app import locate
from beatd.config.writer import plain_table
from beatd.exceptions import ConfigError, Fault
from beatd.message.json_codec import dumps, loads
from beatd.sources import celery_schedule
from beatd.sources.app_check import app_remarks, task_remarks
from beatd.sources.celery_schedule import dropped, is_celery_app, timezone_of
from beatd.sources.task_check import NO_TASKS, Call, call_faults, has_tasks
from beatd.sources.task_options import unused_options, with_task_options

_MOST_FILES = 1000
"""Files of an app that are watched."""

_PACKAGE = str(Path(beatd.__file__).parent) + os.sep


def main(name: str, where: str, directory: str, descriptor: int) -> None:
    """Write the document and leave at once, without waiting for threads that the module may have started."""
    os.set_inheritable(descriptor, False)
    files = _note_files(Path.cwd(), Path(directory or ".").absolute())
    given = sys.stdin.buffer.read()
    sys.stdin = Path(os.devnull).open()  # noqa: SIM115 - the user's code finds nothing there
    try:
        document = describe(name, where, directory, loads(given) if given else None)
    except ConfigError as error:
        document = {"faults": list(error.faults)}
    document["files"] = list(files)[:_MOST_FILES]
    with os.fdopen(descriptor, "wb") as answer:
        answer.write(dumps(document))
    sys.stdout.flush()
    os._exit(0)


def describe(name: str, where: str, directory: str, calls: list[Any] | None = None) -> dict[str, Any]:
    """The app's entries in the fields of ``beat.toml``, and what is wrong with ``calls``; raises ConfigError."""
    try:
        app = locate(name, is_any_app, where=where, directory=Path(directory) if directory else None)
        registrations = celery_schedule.registrations(app) if is_celery_app(app) else app.registrations()
        signals.beat_init.send(sender=app)
    except ConfigError:
        raise
    except SystemExit as error:
        raise ConfigError([Fault(where, None, name, f"importing it called sys.exit({error.code!r})")]) from None
    except Exception as error:  # noqa: BLE001 - a receiver of the user's may raise anything
        raise ConfigError([Fault(where, None, name, f"its registrations failed:\n{_shown(error)}")]) from None
    file = _file_of(name, app)
    refused: list[Fault] = []
    remarks = [Fault(file, None, about, why) for about, why in app_remarks(app)] if is_celery_app(app) else []
    entries = {}
    for entry, registration in registrations.items():
        path = f"beat_schedule.{entry}"
        try:
            fields = plain_table(celery_schedule.translated(with_task_options(app, registration)))
            dumps(fields)
        except Exception as error:  # noqa: BLE001 - objects of the user's may raise anything
            refused.append(Fault(file, None, path, str(error) or type(error).__name__))
        else:
            entries[entry] = fields
            more = chain(dropped(registration), unused_options(registration))
            remarks += [Fault(file, None, f"{path}.{about}", why) for about, why in more]
    remarks += [
        Fault(file, None, f"beat_schedule.{entry}.task", why) for entry, why in task_remarks(app, registrations)
    ]
    conf = settings_of(app)
    found = {"entries": entries, "timezone": conf["timezone"], "file": file, "settings": _settings(app), "conf": conf}
    return {**found, "refused": refused, "remarks": remarks, **_checked(app, calls, entries)}


def _checked(app: Any, calls: list[Any] | None, entries: dict[str, Any]) -> dict[str, Any]:
    """Check the calls of the file's entries, and those of the app's own."""
    if calls is None:
        return {}
    try:
        if not has_tasks(app):
            return {"task_faults": [], "own_task_faults": [], "task_remark": NO_TASKS}
        own = (
            Call(name, fields.get("task"), fields.get("args") or [], fields.get("kwargs") or {})
            for name, fields in entries.items()
        )
        given = (Call(*call) for call in calls)
        return {"task_faults": list(call_faults(app, given)), "own_task_faults": list(call_faults(app, own))}
    except Exception as error:  # noqa: BLE001 - the user's objects may raise anything
        return {"task_faults": [], "own_task_faults": [], "task_remark": f"the tasks could not be checked: {error!r}"}


def _note_files(*folders: Path) -> dict[str, None]:
    """From now on, the files below ``folders`` from which code is run, or that cannot even be compiled."""
    found: dict[str, None] = {}

    def note(event: str, details: tuple[Any, ...]) -> None:
        if event in {"exec", "compile"}:
            file = getattr(details[0], "co_filename", None) if event == "exec" else details[1]
            if isinstance(file, str) and file not in found and _is_own(file, folders):
                found[file] = None

    sys.addaudithook(note)
    return found


def _is_own(file: str, folders: tuple[Path, ...]) -> bool:
    path = Path(file)
    return path.is_absolute() and "site-packages" not in path.parts and any(map(path.is_relative_to, folders))


def _settings(app: Any) -> list[str]:
    """The names of what the app sets, of either kind."""
    changes = app.conf.changes
    return sorted(map(str, changes() if callable(changes) else changes))


def settings_of(app: Any) -> dict[str, Any]:
    """The settings by which the app can be scheduled without a file."""
    conf = app.conf
    broker = with_tls(conf.broker_url or "amqp://guest:guest@localhost:5672//", conf.broker_use_ssl)
    results = with_tls(conf.result_backend, conf.redis_backend_use_ssl)
    return {
        "broker_url": with_prefix(broker, conf.broker_transport_options),
        "result_backend": with_prefix(results, conf.result_backend_transport_options),
        "timezone": timezone_of(app),
        "default_queue": conf.task_default_queue,
    }


def is_any_app(found: object) -> bool:
    """An app of Celery's will do: only names of tasks are wanted."""
    return isinstance(found, App) or is_celery_app(found)


def _file_of(name: str, app: Any) -> str:
    """The file of the app's module, as short as it can be written from here."""
    module = sys.modules.get(name.partition(":")[0])
    file = Path(getattr(module, "__file__", None) or app.main or name)
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def _shown(error: BaseException) -> str:
    """The traceback from the first frame of the user's code on."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_next and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
