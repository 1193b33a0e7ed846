"""Routes with names of entries: any name survives a browser.

Browsers take the parts ``.`` and ``..`` out of a path, also as ``%2E``. In paths of the page and the API such a part of
a name has a ``~`` before it, and so has a part that looks like this already: ``..`` is ``~..``, ``~..`` is ``~~..``.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.convertors import Convertor, register_url_convertor

_DOTS = re.compile(r"(?:(?<=/)|^)(?=~*\.{1,2}(?:/|\Z))")
_MARKED_DOTS = re.compile(r"(?:(?<=/)|^)~(?=~*\.{1,2}(?:/|\Z))")


def name_in_path(name: str) -> str:
    """The name of an entry as paths have it."""
    return quote(_DOTS.sub("~", name))


class NameConvertor(Convertor[str]):
    """The name of an entry in a path that is unquoted: ``{name:entry}``. It may have slashes."""

    regex = ".*"

    def convert(self, value: str) -> str:
        """The name."""
        return _MARKED_DOTS.sub("", value)

    def to_string(self, value: str) -> str:
        """The name as the path has it before it is quoted."""
        return _DOTS.sub("~", value)


register_url_convertor("entry", NameConvertor())
NAME = "{name:entry}"
"""The part of a route that is the name of an entry."""
