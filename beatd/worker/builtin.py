"""beatd's own tasks. Registered only when the worker is told to: who can send messages can run them."""

from __future__ import annotations

from collections.abc import Sequence

from beatd.app.app import App


def register(app: App, names: Sequence[str]) -> None:
    """stub"""
