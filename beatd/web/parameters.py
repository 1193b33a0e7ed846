"""Parameters of a request's query: read by their declaration, which the OpenAPI document shows, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

TEXT_MAX = 500
"""Characters of a text."""


class Parameter(NamedTuple):
    """A parameter of the query. ``choices`` are the only values, ``least`` and ``most`` the bounds of a number."""

    name: str
    about: str
    default: Any = ""
    choices: tuple[str, ...] = ()
    least: int = 1
    most: int = 0

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its values."""
        if isinstance(self.default, bool):
            return {"type": "boolean", "default": self.default}
        if isinstance(self.default, int):
            return {"type": "integer", "minimum": self.least, "maximum": self.most, "default": self.default}
        if self.choices:
            return {"type": "string", "enum": list(self.choices), "default": self.default}
        return {"type": "string", "maxLength": TEXT_MAX, "default": self.default}

    def read(self, text: str) -> Any:
        """The value; raises HTTPException 400 that says what is expected."""
        if isinstance(self.default, bool):
            if text not in ("true", "false", "1", "0"):
                raise _refused(f"{self.name} is true or false")
            return text in ("true", "1")
        if isinstance(self.default, int):
            is_whole = text.isascii() and text.isdigit() and len(text) < 10
            if not is_whole or not self.least <= int(text) <= self.most:
                raise _refused(f"{self.name} is a number from {self.least} to {self.most:,}")
            return int(text)
        if self.choices and text not in self.choices:
            raise _refused(f"{self.name} is one of {', '.join(filter(None, self.choices))}")
        if len(text) > TEXT_MAX or "\0" in text:
            raise _refused(f"{self.name} is a text of at most {TEXT_MAX} characters")
        return text.strip()


def read_parameters(query: QueryParams, parameters: Sequence[Parameter]) -> Mapping[str, Any]:
    """The values of all parameters. Raises HTTPException 400 for an unknown or repeated name and a wrong value."""
    known = {one.name: one for one in parameters}
    values = {one.name: one.default for one in parameters}
    for name, text in query.multi_items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(known) or 'none'}"
            raise _refused(f"unknown parameter {name[:60]!r}; {hint}")
        if len(query.getlist(name)) > 1:
            raise _refused(f"{name} is given more than once")
        values[name] = known[name].read(text)
    return values


def _refused(text: str) -> HTTPException:
    return HTTPException(400, text)
