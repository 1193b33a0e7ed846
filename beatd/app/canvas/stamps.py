"""Stamping: named values in the headers of a composition's messages. A visitor chooses them for each part.

Source of the rules: ``celery/canvas.py`` as of Celery 5.7. Stamps are options of a signature; ``stamped_headers`` has
their names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

Stamps = dict[str, Any]


class StampingVisitor(ABC):
    """Chooses stamps: each method gets a part of a composition and the stamps so far, and returns more stamps."""

    def on_group_start(self, group: Any, **headers: Any) -> Stamps:  # noqa: ARG002 - for subclasses
        """Return stamps for all members of a group."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 - may be left out
        """Run when all members of a group are stamped."""

    def on_chain_start(self, chain: Any, **headers: Any) -> Stamps:  # noqa: ARG002
        """Return stamps for all steps of a chain."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027
        """Run when all steps of a chain are stamped."""

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> Stamps:
        """Return the stamps of a single task."""

    def on_chord_header_start(self, sig: Any, **header: Any) -> Stamps:
        """Return stamps for the header of a chord; default: those of a group."""
        return self.on_group_start(sig.header_group(), **header)

    def on_chord_header_end(self, sig: Any, **header: Any) -> None:
        """Run when the header of a chord is stamped."""
        self.on_group_end(sig.header_group(), **header)

    def on_chord_body(self, sig: Any, **header: Any) -> Stamps:  # noqa: ARG002
        """Return stamps for the body of a chord."""
        return {}

    def on_callback(self, callback: Any, **header: Any) -> Stamps:  # noqa: ARG002
        """Return stamps for a callback."""
        return {}

    def on_errback(self, errback: Any, **header: Any) -> Stamps:  # noqa: ARG002
        """Return stamps for an errback."""
        return {}


def merged_stamps(given: Mapping[str, Any], chosen: Stamps | None, own: Mapping[str, Any], *, append: bool) -> Stamps:
    """Merge the stamps of a call, of a visitor, and of a signature's options, in this order of precedence.

    With ``append``, values of the same name become a list. The result has the names under ``stamped_headers``.
    """
    stamps = dict(given)
    stamps["stamped_headers"] = list(given.get("stamped_headers") or given)
    if chosen is not None:
        _merge(stamps, {"stamped_headers": list(chosen), **chosen}, append=append)
    names = list(dict.fromkeys([*stamps["stamped_headers"], *(own.get("stamped_headers") or ())]))
    names = [name for name in names if name != "stamped_headers"]
    stamps["stamped_headers"] = names
    _merge(stamps, {name: own[name] for name in names if name in own}, append=append)
    return stamps


def _merge(stamps: Stamps, more: Mapping[str, Any], *, append: bool) -> None:
    """Add ``more``: lists are joined, mappings merged; of other values the first stays, or with ``append`` both."""
    for name, value in more.items():
        present = stamps.get(name)
        if name not in stamps:
            stamps[name] = value
        elif isinstance(present, dict) and isinstance(value, Mapping):
            stamps[name] = dict(present)
            _merge(stamps[name], value, append=append)
        elif isinstance(present, list) and isinstance(value, list):
            stamps[name] = [*present, *value]
        elif append:
            stamps[name] = [*_listed(present), *_listed(value)]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [] if value is None else [value]
