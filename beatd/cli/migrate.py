"""``beatd migrate``: what to do for moving to beatd, or to another version of it."""

from __future__ import annotations

import click

from beatd.cli.migrate_celery import migrate_celery


@click.group()
def migrate() -> None:
    """Move a project to beatd."""


migrate.add_command(migrate_celery)
