"""``beatd report``: versions and settings, for a bug report."""

from __future__ import annotations

import platform
import sys

import click

import beatd
from beatd.app.app import App
from beatd.app.conf_urls import first_url
from beatd.cli.app_client import SETTINGS, client_app, place_options
from beatd.cli.output import print_lines
from beatd.urls import shown


@click.command(context_settings=SETTINGS)
@place_options
def report(*, app_name: str | None, config_file: str | None, broker: str | None, result_backend: str | None) -> None:
    """Show versions and settings, for a bug report. Passwords are hidden."""
    app = client_app(app_name, broker, config_file, result_backend)
    print_lines(bug_report(app))


def bug_report(app: App) -> str:
    """Return versions of software and the settings of an app as text, without secrets."""
    backend = first_url(app.conf.result_backend)
    lines = [
        f"software -> beatd:{beatd.__version__} py:{platform.python_version()} ({sys.executable})",
        f"platform -> {platform.platform()}",
        f"broker -> {shown(first_url(app.conf.broker_url))}",
        f"results -> {shown(backend) if backend and '://' in backend else 'disabled'}",
        "",
        app.conf.humanize(censored=True),
    ]
    return "\n".join(lines)
