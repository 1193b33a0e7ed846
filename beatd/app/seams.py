"""What an app offers that is made in a layer above it: running a worker, living in Django.

Those layers import the app, so it cannot import them. ``beatd/__init__.py``, the table of contents that knows all of
beatd, puts their names in here.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_places: dict[str, str] = {}


def provide(name: str, place: str) -> None:
    """What is called ``name`` is at ``"module:attribute"``; it is imported when it is first needed."""
    _places[name] = place


def provided(name: str) -> Any:
    """What was provided under that name. Raises KeyError if nothing was."""
    module, _, attribute = _places[name].partition(":")
    return getattr(import_module(module), attribute)
