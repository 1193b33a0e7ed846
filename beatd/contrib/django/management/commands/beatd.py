"""``manage.py beatd worker …``: the command line of beatd inside the project, with the project's app."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from beatd.config.environment import django_settings


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """What comes after ``beatd`` is beatd's; without ``-A`` the app is that of the project's package."""

    help = "Runs beatd: manage.py beatd worker, manage.py beatd run --config beat.toml, ..."

    def run_from_argv(self, argv: list[str]) -> None:
        """Django would look for its own options among beatd's."""
        words = argv[2:]
        if words and words[0] in WITH_APP and not {"-A", "--app"} & {word.partition("=")[0] for word in words}:
            words = [words[0], "-A", project(), *words[1:]]
        os.execv(sys.executable, [sys.executable, "-m", "beatd", *words])  # noqa: S606 - the same user's own words

    def add_arguments(self, parser: ArgumentParser) -> None:
        """For ``manage.py help beatd`` only."""
        parser.add_argument("words", nargs="*", help="a command of beatd with its options")

    def handle(self, *_: Any, **options: Any) -> None:
        """``call_command("beatd", "worker")``."""
        self.run_from_argv([sys.argv[0], "beatd", *options["words"]])


WITH_APP = frozenset({"worker", "next", "run", "list", "inspect", "control"})
"""Commands that take ``-A``."""


def project() -> str:
    """The project's package: the one that its settings are in."""
    return str(django_settings()).partition(".")[0]
