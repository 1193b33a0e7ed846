"""Import apps and other objects by name: ``-A MODULE:ATTRIBUTE``, ``"module:attribute"`` in settings."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from beatd.app.base import AppBase
from beatd.config.errors import near
from beatd.exceptions import ConfigError, Fault
from beatd.schedules.literals import or_list, quoted

if TYPE_CHECKING:
    from beatd.app.app import App


def import_symbol(path: str) -> Any:
    """Import the object that ``"module:attribute"`` or ``"module.attribute"`` names."""
    module, _, name = path.replace(":", ".").rpartition(".")
    return getattr(importlib.import_module(module), name)


_NAME_MAX = 255
"""Letters of the name of an app."""
_FORM = 'expected MODULE or MODULE:APP such as "proj.tasks:app"'


def find_app(name: str, *, where: str = "-A", directory: Path | None = None) -> App:
    """Import the app ``MODULE`` or ``MODULE:ATTRIBUTE``; see :func:`locate`. Raises :class:`ConfigError`."""
    app: App = locate(name, _is_app, where=where, directory=directory)
    return app


def locate(name: str, wanted: Callable[[Any], bool], *, where: str = "-A", directory: Path | None = None) -> Any:
    """Import the object ``MODULE`` or ``MODULE:ATTRIBUTE`` that is ``wanted``, by Celery's rules for finding an app.

    Without an attribute: ``MODULE.app``, ``MODULE.celery``, the module ``MODULE.celery``, else the only app in it.
    The working directory and ``directory`` (of the file that names the app) are importable. Raises
    :class:`ConfigError` with the places that were searched, or with the user's own traceback if the module raises.
    """
    if len(name) > _NAME_MAX:
        text = f"a name of {len(name):,} letters; expected MODULE or MODULE:ATTRIBUTE"
        raise ConfigError([Fault(where, None, f"{name[:60]}…", text)])
    for place in filter(None, (directory, Path.cwd())):
        if str(place.absolute()) not in sys.path:
            sys.path.insert(0, str(place.absolute()))
    module_name, _, attribute = name.partition(":")
    if "/" in name or not all(module_name.split(".")):
        raise ConfigError([Fault(where, None, name, f"not the name of a module; {_FORM}{_as_module(module_name)}")])
    with slow_imports_logged(name):
        if not attribute and is_attribute(module_name):
            module_name, _, attribute = module_name.rpartition(".")
        module = import_module(module_name, where=where)
    value = _attribute(module, attribute, where, wanted) if attribute else _search(module, wanted)
    if isinstance(value, ModuleType):
        value = _search(value, wanted)
    if not wanted(value):
        raise ConfigError([Fault(where, None, name, _not_an_app(value, module, wanted))])
    return value


@contextmanager
def slow_imports_logged(name: str) -> Iterator[None]:
    """Log where an import is that takes longer than ten seconds: perhaps it waits for something and never ends."""
    importing = threading.get_ident()

    def say() -> None:
        frame = sys._current_frames().get(importing)
        stack = traceback.extract_stack(frame) if frame is not None else []
        at = next((f"{one.filename}:{one.lineno}" for one in reversed(stack) if one.name == "<module>"), "")
        extra = {"event": "import_slow", "app": name, "at": at}
        log.warning("Importing %s takes longer than %d s; it is at %s", name, _IMPORT_SLOW_S, at, extra=extra)

    timer = threading.Timer(_IMPORT_SLOW_S, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # no thread is left for a fork to copy


log = logging.getLogger("beatd.app")

_IMPORT_SLOW_S = 10.0


def is_attribute(path: str) -> bool:
    """Return True if ``path`` is no module, but an attribute of one: ``proj.app``, as Celery takes it, too."""
    parent, _, name = path.rpartition(".")
    try:
        return bool(parent) and hasattr(importlib.import_module(parent), name) and not _is_module(path)
    except Exception:  # noqa: BLE001 - the user's code: importing the path says it with its traceback
        return False


def _is_module(path: str) -> bool:
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:  # its parent is a module without parts
        return False


def _is_app(value: Any) -> bool:
    return isinstance(value, AppBase)


def importable_name(app: Any) -> str:
    """Return ``MODULE:ATTRIBUTE`` under which another process can import the app; raises :class:`ConfigError`.

    An app that only the script that runs has is found in the file of that script.
    """
    main = sys.modules["__main__"]
    for module in (*(module for module in list(sys.modules.values()) if module is not main), main):
        attribute = next((name for name, value in list(getattr(module, "__dict__", {}).items()) if value is app), None)
        if attribute:
            file = getattr(module, "__file__", None) or module.__name__
            return f"{Path(file).stem if module is main else module.__name__}:{attribute}"
    text = "no module has it as a variable, so that no other process can import it"
    raise ConfigError([Fault("Beat", None, str(app.main), text)])


def import_module(name: str, *, where: str) -> ModuleType:
    """Import a user's module; errors become :class:`ConfigError`, without frames of beatd."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name + ".").startswith(error.name + "."):
            text = f"no module named {error.name!r} (looked in {Path.cwd()} and the Python path)"
            text += _as_module(name) or _near_module(name)
            text += "; start beatd in the folder of the project, or name the folder with --workdir"
            raise ConfigError([Fault(where, None, name, text)]) from None
        raise ConfigError([Fault(where, None, name, _failure(error))]) from None
    except Exception as error:  # noqa: BLE001 - importing runs the user's code
        raise ConfigError([Fault(where, None, name, _failure(error))]) from None


def _search(module: ModuleType, wanted: Callable[[Any], bool]) -> Any:
    for attribute in ("app", "celery"):
        value = getattr(module, attribute, None)
        if wanted(value):
            return value
        if isinstance(value, ModuleType) and value is not module:
            return _search(value, wanted)
    if hasattr(module, "__path__") and importlib.util.find_spec(f"{module.__name__}.celery"):
        return _search(import_module(f"{module.__name__}.celery", where="-A"), wanted)
    apps = {id(value): value for value in vars(module).values() if wanted(value)}
    return next(iter(apps.values())) if len(apps) == 1 else getattr(module, "app", None)


def _as_module(name: str) -> str:
    """``; did you mean "shop.tasks"?`` for the path of a module, ``shop/tasks.py``; else nothing."""
    parts = [part for part in name.removesuffix(".py").replace("/", ".").split(".") if part]
    is_name = parts and parts != name.split(".") and all(part.isidentifier() for part in parts)
    return f"; did you mean {quoted('.'.join(parts))}?" if is_name else ""


def _near_module(name: str) -> str:
    """Modules of the working directory with a name like that of the missing one."""
    places = Path.cwd().joinpath(*name.split(".")[:-1])
    found = [path.stem for path in places.glob("*") if path.suffix == ".py" or path.joinpath("__init__.py").is_file()]
    return near(name.rpartition(".")[2], found)


def _attribute(module: ModuleType, path: str, where: str, wanted: Callable[[Any], bool]) -> Any:
    value: Any = module
    for part in path.split("."):
        if not hasattr(value, part):
            text = f"the module has no attribute {path!r}{_apps_in(module, wanted)}"
            raise ConfigError([Fault(where, None, module.__name__, text)])
        value = getattr(value, part)
    return value


def _apps_in(module: ModuleType, wanted: Callable[[Any], bool]) -> str:
    """``; did you mean "proj.tasks:app"?`` with the apps that the module has; else nothing."""
    apps = [quoted(f"{module.__name__}:{name}") for name, value in list(vars(module).items()) if wanted(value)]
    return f"; did you mean {or_list(apps)}?" if apps else ""


def _not_an_app(value: Any, module: ModuleType, wanted: Callable[[Any], bool]) -> str:
    if value is None:
        return f"no beatd App found: expected an attribute 'app' or 'celery', or -A {module.__name__}:ATTRIBUTE"
    if _is_app(value):
        return f'this is an app of beatd, nothing to import: set app = "{module.__name__}" in beat.toml, or use -A'
    kind = type(value)
    text = f"{kind.__module__}.{kind.__qualname__} is not a beatd App"
    if there := _apps_in(module, wanted):
        return text + there
    text += ": change the import to 'from beatd import App'"
    if kind.__module__.startswith("celery."):
        text += f", or keep the app as it is and run its tasks with: celery -A {module.__name__} worker"
    return text


def _failure(error: BaseException) -> str:
    """Return the error of the user's module with the user's frames only."""
    frames = error.__traceback__
    while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames)
    text = "importing it failed:\n" + "".join(lines).rstrip()
    if isinstance(error, ModuleNotFoundError) and error.name:
        text += f"\nThis Python has no {error.name}; install it here: {sys.executable} -m pip install …"
    return text


def _is_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")
