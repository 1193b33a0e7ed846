"""``manage.py beatd …``: the beatd command line in a Django project, with the project's app and schedule."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from beatd.cli import main
from beatd.config.search import FILE_VARIABLE
from beatd.contrib.django.conf import app_name, named_file
from beatd.exceptions import ConfigError
from beatd.redaction import printable_lines


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Pass all arguments to ``beatd``; the default of ``-A`` is the project's app, and of ``--config`` its schedule."""

    help = "Run beatd: manage.py beatd (the daemon), manage.py beatd worker, manage.py beatd next, ..."

    def run_from_argv(self, argv: list[str]) -> None:
        """Replace this process by ``beatd``; Django must not parse its options."""
        try:
            words = command_line(argv[2:])
        except ConfigError as error:
            self.stderr.write(printable_lines(str(error)))
            sys.exit(2)
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "beatd", *words])  # noqa: S606 - the user's own arguments

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Describe the arguments for ``manage.py help beatd``."""
        parser.add_argument("words", nargs="*", help="a beatd command with its options; default: run")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run ``call_command("beatd", "check")`` in this process; raises CommandError if it fails."""
        try:
            words = command_line(options["words"])
        except ConfigError as error:
            raise CommandError(str(error)) from None
        try:
            main(args=words, prog_name="beatd")
        except SystemExit as end:
            if end.code:
                raise CommandError(f"beatd {' '.join(words)} failed", returncode=int(end.code)) from None


def command_line(words: list[str]) -> list[str]:
    """The command line of beatd for a project: with its schedule in the environment, its app, and ``run`` by default.

    Raises ConfigError.
    """
    path = named_file()
    if path is not None:
        os.environ[FILE_VARIABLE] = str(path)  # a setting counts before the environment
    given = {word.partition("=")[0] for word in words}
    is_bare = not words or words[0].startswith("-")
    if is_bare and not given & {"--help", "-h", "--version"}:
        words = ["run", *words]
    if given & {"-A", "--app"} or any(word.startswith("-A") for word in words) or not words or words[0] in _OWN_WORDS:
        return words
    app = app_name()
    return words if app is None else ["-A", app, *words]


_OWN_WORDS = {"multi", "service", "--help", "-h", "--version"}
"""Words after which an app says nothing, or something to other programs."""
