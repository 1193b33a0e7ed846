"""Entry points of an app that starts itself: a worker, a daemon, or any command.

The command line imports the app, so it is imported by name.
"""

from __future__ import annotations

import sys
from typing import Any

from beatd.app.find_app import import_symbol

WORKER_MAIN, COMMAND_MAIN = "beatd.cli.worker:run_for_app", "beatd.cli.run:command_for_app"
BEAT = "beatd.cli.run:AppBeat"


class EntryPoints:
    """The methods of an app by which a program becomes its worker or its daemon."""

    def worker_main(self, argv: list[str] | None = None) -> None:
        """Run a worker for this app. ``argv`` is its command line, with or without the word ``worker``.

        Without ``argv`` it is what follows the word ``worker`` on the command line of the program, if that is there.
        """
        if argv is None:
            argv = sys.argv[sys.argv.index("worker", 1) :] if "worker" in sys.argv[1:] else []
        import_symbol(WORKER_MAIN)(self, list(argv))

    def start(self, argv: list[str] | None = None) -> None:
        """Run the command on the command line of the program: ``worker``, ``beat``, or any other of beatd's.

        Without a command it runs a worker.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        if not words or words[0] == "worker":
            self.worker_main(words)
        else:
            import_symbol(COMMAND_MAIN)(self, words)

    def Beat(self, **options: Any) -> Any:  # noqa: N802 - Celery's name
        """Return a daemon for this app: ``app.Beat(loglevel="info").run()``. Celery's further options are ignored."""
        return import_symbol(BEAT)(self, **options)
