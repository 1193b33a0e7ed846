"""``beatd events --camera``: snapshots of a cluster by a camera, a class of one's own, as in Celery."""

from __future__ import annotations

from typing import Any

import click

from beatd.app.app import App
from beatd.app.find_app import import_symbol
from beatd.cli.output import print_line


def take_snapshots(app: App, camera: str, *, every: float, most: str | None) -> None:
    """Hand the state of workers and tasks to a camera every so many seconds, until Ctrl-C.

    ``camera`` names a subclass of Celery's ``Polaroid``, ``most`` is a rate limit such as ``10/m``. Raises BrokerError,
    and ImproperlyConfigured without Celery.
    """
    state = app.events.State()
    try:
        kind: Any = import_symbol(camera)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(f"{camera!r}: {error}", param_hint="--camera") from None
    print_line(f"Taking snapshots with {camera} every {every:g} s", err=True)
    taken = kind(state, app=app, freq=every, maxrate=most)
    taken.install()
    try:
        app.events.Receiver(handlers={"*": state.event}).capture()
    except KeyboardInterrupt:
        pass
    finally:
        taken.cancel()
