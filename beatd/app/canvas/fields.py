"""Fields: the keys of a signature's dict as attributes that can be read and set."""

from __future__ import annotations

from typing import Any


def field(path: str, about: str) -> Any:
    """Return a property for a key of a signature, also of a dict in it: ``options.task_id``. A missing key is None."""
    place, _, key = path.rpartition(".")

    def mapping(signature: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = signature[place] if place else signature
        return found

    def get(signature: dict[str, Any]) -> Any:
        return mapping(signature).get(key)

    def put(signature: dict[str, Any], value: Any) -> None:
        mapping(signature)[key] = value

    return property(get, put, doc=about)
