"""What people and logs are not shown: values whose names say that they are secret, and passwords in URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_NAMES = (
    r"password|passwd|passphrase|pass|secret|token|authorization|authentication|auth|"
    r"api[-_]?key|private[-_]?key|access[-_]?key|cookie|credentials?"
)
_SECRET_NAME = re.compile(rf"(?:^|[-_.\s])(?:{_NAMES})(?:$|[-_.\s])", re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_URL_PASSWORD = re.compile(r"(\w[\w+.-]*://[^\s/:@'\"]*:)[^\s/@'\"]+(@)")
_IN_TEXT = re.compile(
    r"""(?P<name>(["'])(?P<word>[\w.-]+)\2\s*:\s*)(?:'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[\w.+-]+)"""
)


def is_secret(name: str) -> bool:
    """Whether a value of that name should be hidden: ``password``, ``X-Api-Key``, ``db_token``, …"""
    return _SECRET_NAME.search(_HUMP.sub("_", name)) is not None


def redacted(value: Any) -> Any:
    """The value, in which secrets are replaced at any depth; a new one where something had to be."""
    if isinstance(value, Mapping):
        return {
            k: HIDDEN if isinstance(k, str) and is_secret(k) and v is not None else redacted(v)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(map(redacted, value)) if type(value) in (list, tuple) else value
    return redacted_text(value) if isinstance(value, str) else value


def redacted_text(text: str) -> str:
    """A text in which the values of secrets are replaced, as far as they look like Python or JSON, or are in a URL."""
    return _IN_TEXT.sub(_hidden, _URL_PASSWORD.sub(rf"\1{HIDDEN}\2", text))


def _hidden(found: re.Match[str]) -> str:
    return f"{found['name']}'{HIDDEN}'" if is_secret(found["word"]) else found[0]
