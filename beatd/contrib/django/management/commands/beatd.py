"""``manage.py beatd worker …``: the beatd command line in a Django project, with the project's app."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from beatd.config.environment import django_settings


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Pass all arguments to ``beatd``; the default of ``-A`` is the project's package."""

    help = "Run beatd: manage.py beatd worker, manage.py beatd run --config beat.toml, ..."

    def run_from_argv(self, argv: list[str]) -> None:
        """Replace this process by ``beatd``; Django must not parse its options."""
        words = argv[2:]
        if words and words[0] in WITH_APP and not {"-A", "--app"} & {word.partition("=")[0] for word in words}:
            words = [words[0], "-A", project(), *words[1:]]
        os.execv(sys.executable, [sys.executable, "-m", "beatd", *words])  # noqa: S606 - the user's own arguments

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Describe the arguments for ``manage.py help beatd``."""
        parser.add_argument("words", nargs="*", help="a beatd command with its options")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run ``call_command("beatd", "worker")``."""
        self.run_from_argv([sys.argv[0], "beatd", *options["words"]])


WITH_APP = frozenset({"worker", "next", "run", "list", "inspect", "control"})
"""Commands with the option ``-A``."""


def project() -> str:
    """Return the project's package, which contains the settings module."""
    return str(django_settings()).partition(".")[0]
