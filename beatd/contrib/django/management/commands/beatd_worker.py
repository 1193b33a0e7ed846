"""``manage.py beatd_worker``: the bundled worker of a Django project; with ``--autoreload`` it follows the code."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from beatd.contrib.django.management.commands.beatd import command_line
from beatd.contrib.django.reload import Reloader
from beatd.exceptions import ConfigError
from beatd.redaction import printable_lines

OPTION = "--autoreload"


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Pass all arguments but ``--autoreload`` to ``beatd worker``; default of ``--config`` is the project's file."""

    help = "Run the bundled worker; with --autoreload it starts again when code of the project changes."

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the worker; Django must not parse its options."""
        words = [word for word in argv[2:] if word != OPTION]
        try:
            command = [sys.executable, "-m", "beatd", *command_line(["worker", *words])]
        except ConfigError as error:
            self.stderr.write(printable_lines(str(error)))
            sys.exit(2)
        sys.stdout.flush()
        if OPTION in argv:
            sys.exit(Reloader(command, self.stderr.write).run())
        os.execv(sys.executable, command)  # noqa: S606 - the user's own arguments

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Describe the arguments for ``manage.py help beatd_worker``."""
        parser.add_argument(OPTION, action="store_true", help="start again when code of the project changes")
        parser.add_argument("words", nargs="*", help="options of beatd worker")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run ``call_command("beatd_worker")``."""
        again = [OPTION] if options["autoreload"] else []
        self.run_from_argv([sys.argv[0], "beatd_worker", *again, *options["words"]])
