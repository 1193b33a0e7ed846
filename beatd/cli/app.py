"""Command line of an app that starts itself: ``app.worker_main()``, ``app.start()`` and ``app.Beat().run()``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beatd.app.app import App
from beatd.exceptions import ConfigError, Fault


def run_worker(app: App, argv: Sequence[str] | None) -> None:
    """Run a worker. ``argv``, by default the program's own, is with or without the word ``worker``."""
    from beatd.cli.worker import worker  # noqa: PLC0415 - only the command that is used

    words = _words(argv)
    worker.main(args=words[1:] if words[:1] == ["worker"] else words, prog_name="worker", obj=app)


def run_command(app: App, argv: Sequence[str] | None) -> None:
    """Run any command with the app, or a worker if ``argv`` names none."""
    words = _words(argv)
    if not words or words[0] == "worker" or (words[0].startswith("-") and words[0] not in {"-h", "--help"}):
        run_worker(app, words)
        return
    from beatd.cli import main  # noqa: PLC0415 - as above

    if words[0] in {"-h", "--help"}:
        main.main(args=words, prog_name="beatd")
    else:
        main.main(args=["-A", import_name(app), *words], prog_name="beatd")


class Beat:
    """A daemon with the schedule of an app, run by the app itself. ``options`` are keywords of ``app.Beat``."""

    def __init__(self, app: App, options: dict[str, Any]) -> None:
        self.app = app
        self.options = options

    def run(self) -> None:
        """Run until SIGTERM or Ctrl-C; ends the process, as the command does."""
        words = ["beat"]
        for option in ("loglevel", "logfile", "pidfile"):
            if (value := self.options.get(option)) is not None:
                words += [f"--{option}", str(value)]
        run_command(self.app, words)


def _words(argv: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if argv is None else argv)


def import_name(app: App) -> str:
    """Find the name by which another process imports the app. Raises ConfigError if no module has it."""
    for name, module in list(sys.modules.items()):
        attribute = next((key for key, value in list(getattr(module, "__dict__", {}).items()) if value is app), None)
        if attribute is None or name.split(".")[0] == "beatd":
            continue
        if name != "__main__":
            return f"{name}:{attribute}"
        spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
        if spec is not None:
            return f"{spec.name}:{attribute}"  # python -m NAME
        if file is not None:
            folders = [str(Path(file).absolute().parent), *filter(None, [os.environ.get("PYTHONPATH")])]
            os.environ["PYTHONPATH"] = os.pathsep.join(folders)
            return f"{Path(file).stem}:{attribute}"
    text = "the app is no attribute of a module: assign it to a name such as app, in a module that can be imported"
    raise ConfigError([Fault("beatd", None, repr(app), text)])
