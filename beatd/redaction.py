"""Redaction of secrets: values with secret names, and passwords and tokens in URLs.

Every pattern takes time in proportion to the text. A text of any length is cut before it is redacted; a URL or string
that the cut leaves open is hidden to its end, because half of a secret is a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
MASK = "********"
"""Celery's word for a setting that is a secret."""

_NAMES = (
    r"password|passwd|passphrase|pass|pwd|secret|token|authorization|authentication|auth|"
    r"api[-_]?key|private[-_]?key|access[-_]?key|cookie|credentials?|signature"
)
_SECRET_NAME = re.compile(rf"(?:^|[-_.\s])(?:{_NAMES})(?:$|[-_.\s])|password|passwd|passphrase", re.IGNORECASE)
"""Some words mean a secret also inside of others: ``PGPASSWORD``."""
_SECRET_SETTING = re.compile("API|TOKEN|KEY|SECRET|PASS|SIGNATURE|DATABASE|CREDENTIAL", re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LONGEST_NAME = 200
_LAST_PARAMETERS = frozenset({"key", "sig", "hmac", "apikey", "accesskey", "sessionid", "jwt"})
"""Names that mean a secret in the query of a URL, and may mean anything elsewhere."""

_URL = re.compile(
    r"""(?<=")[A-Za-z][\w+.-]{0,31}://(?:[^"\\\n]|\\.)*"""
    r"""|(?<=')[A-Za-z][\w+.-]{0,31}://(?:[^'\\\n]|\\.)*"""
    r"""|://\S*"""
)
"""A URL in quotes goes to the quote that ends it, and any other to the next space: a password may have quotes in it."""
_PARAMETER = re.compile(
    r"""(?P<before>^|[?&;#\s'"(,])(?P<name>[\w.%\[\]-]{1,100})="""
    r"""(?:'[^'\n]*'?|"[^"\n]*"?|(?:[^&;#\s'",)]|[#;',)](?=[\w%]))+)"""
)
"""A value goes on after a comma or the like that a word follows at once: it may be a part of a password."""
_IN_TEXT = re.compile(
    r"""(?P<name>(["'])(?P<word>[\w.-]{1,200})\2\s{0,20}:\s{0,20})"""
    r"""(?:[bBrRuU]{0,2}'(?:[^'\\]|\\.)*'?|[bBrRuU]{0,2}"(?:[^"\\]|\\.)*"?|[\w.+-]+)""",
    re.DOTALL,
)


def is_secret(name: str) -> bool:
    """True if a value of that name must be hidden: ``password``, ``X-Api-Key``, ``db_token``, …"""
    return _SECRET_NAME.search(_HUMP.sub("_", name[:_LONGEST_NAME])) is not None


_ADDRESSES = frozenset({"ping", "ics"})
"""Fields of entries with URLs whose paths are secrets: of pings, and of private calendars."""


def address_shown(url: str) -> str:
    """A URL whose path is a secret: scheme and host only."""
    scheme, _, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme}://{host}/{HIDDEN}"


def redacted(value: Any, *, at_most: int | None = None) -> Any:
    """The value, in which secrets are replaced at any depth.

    With ``at_most`` as much of it as the first so many characters of its ``repr`` can show.
    """
    return _Redaction(at_most).of(value)


class _Redaction:
    """One walk through a value; it ends early when there is enough to be shown."""

    def __init__(self, at_most: int | None) -> None:
        self._at_most = at_most
        self._left = at_most

    def of(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {self._cut(name): self._named(name, each) for name, each in self._some(value.items())}
        if type(value) in (list, tuple):
            return type(value)([self.of(each) for each in self._some(value)])
        if isinstance(value, str):
            shown = redacted_text(value, at_most=self._at_most)
            self._spend(len(shown))
            return shown
        if isinstance(value, bytes | bytearray) and self._at_most is not None:
            value = value[: self._at_most]
        self._spend(1)
        return value

    def _named(self, name: object, value: Any) -> Any:
        if isinstance(name, str) and is_secret(name) and value is not None:
            self._spend(len(HIDDEN))
            return HIDDEN
        if name in _ADDRESSES and isinstance(value, str) and "://" in value:
            return self.of(address_shown(value))
        return self.of(value)

    def _cut(self, name: Any) -> Any:
        return name[: self._at_most] if isinstance(name, str) else name

    def _some(self, items: Any) -> Any:
        for item in items:
            if self._left is not None and self._left <= 0:
                return
            self._spend(1)
            yield item

    def _spend(self, characters: int) -> None:
        if self._left is not None:
            self._left -= characters


def redacted_text(text: str, *, at_most: int | None = None, mask: str = HIDDEN) -> str:
    """A text in which the values of secrets are replaced, as far as they look like Python or JSON, or are in a URL.

    With ``at_most`` it is cut to so many characters first.
    """
    open_end = at_most is not None and len(text) > at_most
    text = text[:at_most]
    text = _URL.sub(lambda found: _url(found[0], mask, cut_off=open_end and found.end() == len(text)), text)
    text = _PARAMETER.sub(lambda found: _parameter(found, mask), text)
    return _IN_TEXT.sub(lambda found: _hidden(found, mask), text)


def _url(url: str, mask: str, *, cut_off: bool) -> str:
    """Without what stands before an ``@``: whatever is wrong with a URL, its password is there."""
    scheme, sign, rest = url.partition("://")
    if cut_off:
        return f"{scheme}{sign}{mask}"
    login, at, tail = rest.rpartition("@")
    if not at:
        return url
    user, colon, secret = login.partition(":")
    if "?" in login:  # what follows the "@" may be the host, and may be the rest of a password in the query
        return f"{scheme}{sign}{mask}"
    if any(one in login for one in "/?#@"):
        return f"{scheme}{sign}{mask}@{tail}"
    hidden = mask if secret or not colon else ""
    return f"{scheme}{sign}{user if colon else ''}{colon}{hidden}@{tail}"


def _parameter(found: re.Match[str], mask: str) -> str:
    name = unquote(found["name"])
    in_query = found["before"] in ("?", "&", ";", "#")
    secret = is_secret(name) or (in_query and name.lower() in _LAST_PARAMETERS)
    return f"{found['before']}{found['name']}={mask}" if secret else found[0]


def _hidden(found: re.Match[str], mask: str) -> str:
    return f"{found['name']}'{mask}'" if is_secret(found["word"]) else found[0]


def censored(settings: Mapping[Any, Any], *, at_most: int = 10_000) -> dict[str, Any]:
    """Settings as Celery shows them: JSON values, what sounds like a secret masked, and no password in any URL."""
    return {
        str(name): _setting(str(name), value, at_most)
        for name, value in islice(settings.items(), at_most)
        if not str(name).startswith("__")
    }


def _setting(name: str, value: Any, at_most: int) -> Any:
    if isinstance(value, Mapping):
        return censored(value, at_most=at_most)
    if _SECRET_SETTING.search(name[:_LONGEST_NAME]):
        return MASK
    if isinstance(value, list | tuple | set | frozenset):
        return [_setting("", each, at_most) for each in islice(value, at_most)]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redacted_text(value if isinstance(value, str) else safe_repr(value), at_most=at_most, mask=MASK)


def safe_repr(value: object) -> str:
    """``repr(value)``, whatever it does; never raises."""
    try:
        return encodable(repr(value))
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may do anything
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


def encodable(text: str) -> str:
    """A text with lone surrogates, which no UTF-8 has, as escapes; they come from file names that are no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """A text from elsewhere as one line: control characters, line ends and the like are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
