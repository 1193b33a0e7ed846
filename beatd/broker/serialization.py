"""kombu's serializers other than JSON: pickle, YAML, MessagePack, and those that the program registered.

Imported only by workers whose ``accept_content`` names one, and by clients that send with one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kombu.serialization import prepare_accept_content, registry

from beatd.exceptions import MessageError


def content_types(names: Iterable[str]) -> frozenset[str]:
    """Return the content types of serializers, given by name or by content type; raises :class:`MessageError`."""
    names = list(names)
    if unknown := [name for name in names if "/" not in name and name not in registry.name_to_type]:
        known = ", ".join(sorted(registry.name_to_type))
        raise MessageError(f"accept_content: there is no serializer {unknown[0]!r}, there are: {known}")
    return frozenset(prepare_accept_content(names))  # type: ignore[no-untyped-call]


def dumps(value: Any, name: str) -> tuple[str, str, bytes]:
    """Encode with a serializer, given by name or content type; returns content type, encoding and body.

    Raises :class:`MessageError` for an unknown serializer and for a value that it cannot carry.
    """
    if name not in registry.name_to_type and name not in registry.type_to_name:
        known = ", ".join(sorted(registry.name_to_type))
        raise MessageError(f"there is no serializer {name!r}, there are: {known}")
    encode: Any = registry.dumps
    try:
        content_type, encoding, body = encode(value, registry.type_to_name.get(name, name))
    except Exception as error:  # noqa: BLE001 - a value's own methods may do anything
        raise MessageError(f"the serializer {name!r} cannot carry this value: {error}") from None
    return content_type, encoding, body if isinstance(body, bytes) else body.encode()


def loads(body: bytes, content_type: str, encoding: str) -> Any:
    """Decode a body of an accepted type; raises :class:`MessageError` for whatever is wrong with it."""
    try:
        return registry.loads(body, content_type, encoding, accept={content_type})  # type: ignore[no-untyped-call]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a pickle imports modules, and runs code of its own
        raise MessageError(f"its body cannot be read as {content_type}: {error}") from None
