"""Redaction of secrets: values with secret names, and passwords and tokens in URLs.

Every pattern takes time in proportion to the text. A text of any length is cut before it is redacted; a URL or string
that the cut leaves open is hidden to its end, because half of a secret is a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any, NamedTuple
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
_PARAMETER = re.compile(r"""(?P<before>^|[?&;#\s'"(,]|\\u0026|\\[nrt])(?P<name>[\w.%\[\]-]{1,100})=""")
_UNQUOTED = re.compile(r"""(?:[^&;#\s'",)\\]|[#;',)](?=[\w%])|\\(?!\\{0,31}["']|u0026))+""")
"""A value goes on after a comma or the like that a word follows at once: it may be a part of a password."""
_PAIR = re.compile(r"""(?P<quote>["'])(?P<name>[\w.-]{1,200})(?P<escape>\\{0,31}+)(?P=quote)\s{0,20}:\s{0,20}""")
"""A name and a colon in JSON or Python. In JSON within JSON there are backslashes before each quote."""
_OPENING = re.compile(r"""[bBrRuU]{0,2}(?P<escape>\\{0,31}+)(?P<quote>["'])""")
_OPENING_BRACKET = re.compile(r"""[(\[{](?=\s{0,20}[bBrRuU]{0,2}\\{0,31}["'])""")
_BARE = re.compile(r"""[^\s,;()\[\]{}"'\\]+""")
_MARK = re.compile(r"""["'()\[\]{}]""")
_AFTER_VALUE = re.compile(r"\s{0,20}(?:[,;\])}]|$)")
_HEADER = re.compile(
    r"(?<![\w-])(?P<line_end>(?<=\\)[nr])?"
    r"(?P<name>(?:set-)?cookie2?|(?:[a-z0-9_]{1,40}-){0,5}(?:authorization|api-?key)|"
    r"(?:[a-z0-9_]{1,40}-){1,5}(?:token|secret|signature))"
    r"[ \t]{0,9}:(?!//)[ \t]{0,20}",
    re.IGNORECASE,
)
_LINE_START = re.compile(r"(?:^|[\r\n])[ \t<>*]{0,9}$")
_WITHIN_LINE = re.compile(
    r"x-|set-|(?:[a-z0-9_]{1,40}-){0,5}api-?key|proxy-auth|cookie2?[ \t]{0,9}:[ \t]{0,20}[\w.-]{1,100}=|"
    r"authorization[ \t]{0,9}:[ \t]{0,20}(?:bearer|basic|digest|negotiate|ntlm|token|apikey|hawk|aws4-)",
    re.IGNORECASE,
)
"""Headers that are told from words of a sentence also within a line."""
_LINE_END = re.compile(r"[\r\n]")
_ESCAPED_LINE_END = re.compile(r"\\[nr]|[\r\n]")
_SCHEME = re.compile(r"(?P<name>\b(?:[Bb]earer|BEARER|Basic|BASIC)(?:[ \t]|%20){1,9})(?P<token>[\w.~+/=%-]+)")
_WORDS = re.compile(r"(?:[A-Z]?[a-z]+|[A-Z]+)(?:[-_/.](?:[A-Z]?[a-z]+|[A-Z]+))*[.-]?|.{1,5}")
"""What follows "Basic" or "bearer" in a sentence."""
_SPACED, _SPACED_CUT = (
    re.compile(rf"""[^;"'&=\r\n,()]{{1,200}}(?=;\s{{0,5}}[A-Za-z][\w ]{{0,40}}={end})""")
    for end in ("", r"|(?:;[\w \t]{0,45})?\Z")
)
"""A value with spaces in the connection string of a database: another name follows its semicolon."""
_PROSE = re.compile(
    r"(?:(?<![A-Za-z0-9])(?<!\$\{)|(?<=\\[nrt]))"
    r"(?P<name>passw(?:or)?d|passphrase|pwd|token|secret|(?:api|access|private|secret)[ _-]?key)"
    r"(?:[ \t]{0,5}(?P<colon>:)(?![:/])[ \t]{0,20}|[ \t]{1,5}=[ \t]{1,20})",
    re.IGNORECASE,
)
"""A name in a sentence, a line of a file or the like, and what follows it at once."""
_OTHER_TOKEN = re.compile(r"\b(?:unexpected|unknown|unrecognized|illegal|next|last)\s{1,3}$", re.IGNORECASE)
"""Words before a token of a parser."""
_OF_LIST = re.compile(r"(?:^|[\r\n({\[,;]|\\[nr])[ \t*-]{0,9}(?:[A-Za-z]{1,20}[ _-]){0,2}$")
"""Text before the name in a line or a list of names and values."""
_AFTER_WORD = re.compile(r"[ \t]{0,9}(?:[,;)\]}\r\n]|\\[nr]|$)")
_WORD = re.compile(r"""[^\s,;()\[\]{}"'\\`<>$*][^\s,;()\[\]{}"'\\`]*""")
_NO_SECRET = re.compile(
    r"any|bad|bool|bytes|denied|empty|expected|expired|failed|false|float|incorrect|int|invalid|missing|none|null|object|"
    r"optional|redacted|refused|rejected|required|revoked|set|string|str|text|true|unknown|unset|valid|wrong|no|ok|yes",
    re.IGNORECASE,
)
"""States and types of a password or token."""
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Za-z_]+")
_KEY_PAIR, _KEY_PAIR_CUT = (
    re.compile(
        r"(?<![A-Za-z0-9])A(?:KI|SI)A[A-Z0-9]{16}(?![A-Za-z0-9])[\s\S]{0,80}?(?<![A-Za-z0-9/+=])"
        rf"(?=[A-Za-z0-9/+]{{40}}(?![A-Za-z0-9/+=]){end})"
    )
    for end in ("", r"|[A-Za-z0-9/+]{1,40}\Z")
)
"""An access key of AWS, up to its secret."""
_FORM = re.compile(
    r"(?<![A-Za-z0-9_])(?:(?P<kind>gh[opsur]_|github_pat_|glpat-|xox[abeoprs]-|[rs]k_(?:live|test)_)(?:[A-Za-z0-9_-]{8,}|[A-Za-z0-9_-]+\Z)"
    r"|(?P<jwt>eyJ)[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?)"
    r"|(?P<pem>-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)(?:(?!-----END)[\s\S]){1,20000}"
)
"""Tokens of GitHub, GitLab, Slack and Stripe, JSON Web Tokens, and private keys: told by their forms."""


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
    """A text in which the values of secrets are replaced, as far as they look like Python, JSON, a URL or a header.

    With ``at_most`` it is cut to so many characters first.
    """
    open_end = at_most is not None and len(text) > at_most
    text = text[:at_most]
    text = _URL.sub(lambda found: _url(found[0], mask, cut_off=open_end and found.end() == len(text)), text)
    for names, secret_of in ((_PARAMETER, partial(_parameter, cut_off=open_end)), (_PAIR, _pair), (_HEADER, _header)):
        text = _covered(text, names, secret_of, mask)
    text = _SCHEME.sub(lambda found: _token(found, mask, cut_off=open_end and found.end() == len(text)), text)
    text = _covered(text, _PROSE, partial(_prose, cut_off=open_end), mask)
    text = _covered(text, _KEY_PAIR_CUT if open_end else _KEY_PAIR, _key, mask)
    return _FORM.sub(lambda found: f"{found['kind'] or found['jwt'] or found['pem']}{mask}", text)


class _Secret(NamedTuple):
    """A secret that follows a name at once: where it ends, and the quotes or the like around its mask."""

    end: int
    quotes: str = ""


def _covered(
    text: str, names: re.Pattern[str], secret_of: Callable[[str, re.Match[str]], _Secret | None], mask: str
) -> str:
    """The text with a mask for each secret that has one of the names."""
    parts, at = [], 0
    found = names.search(text)
    while found:
        secret = secret_of(text, found)
        if secret and secret.end > found.end():
            parts += [text[at : found.end()], secret.quotes, mask, secret.quotes]
            at = secret.end
        found = names.search(text, max(at, found.end()))
    return "".join([*parts, text[at:]])


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


def _parameter(text: str, found: re.Match[str], *, cut_off: bool) -> _Secret | None:
    name, at = unquote(found["name"]), found.end()
    in_query = found["before"] in ("?", "&", ";", "#", "\\u0026")
    if not (is_secret(name) or (in_query and name.lower() in _LAST_PARAMETERS)):
        return None
    if opening := _OPENING.match(text, at):
        return _Secret(_string_end(text, opening, in_line=True))
    if _OPENING_BRACKET.match(text, at):
        return _Secret(_bracket_end(text, at))
    spaced = (_SPACED_CUT if cut_off and found["before"] in ("", ";") else _SPACED).match(text, at)
    value = _UNQUOTED.match(text, spaced.end() if spaced else at) or spaced
    return value and _Secret(value.end())


def _pair(text: str, found: re.Match[str]) -> _Secret | None:
    if not is_secret(found["name"]):
        return None
    at, quotes = found.end(), found["escape"] + found["quote"]
    if opening := _OPENING.match(text, at):
        return _Secret(_string_end(text, opening), opening["escape"] + opening["quote"])
    if text.startswith(("(", "[", "{"), at):
        return _Secret(_bracket_end(text, at, found), quotes)
    value = _BARE.match(text, at)
    return value and _Secret(value.end(), quotes)


def _header(text: str, found: re.Match[str]) -> _Secret | None:
    """The rest of the line; where a string begins with the header, the rest of the string."""
    begin, at = found.start("name"), found.end()
    if text[begin - 1 : begin] in ("'", '"'):
        return _Secret(_text_end(text, at, text[begin - 1], _backslashes(text, begin - 1), in_line=True))
    if found["line_end"]:
        end = _ESCAPED_LINE_END.search(text, at)
    elif _LINE_START.search(text, max(begin - 10, 0), begin) or _WITHIN_LINE.match(text, begin):
        end = _LINE_END.search(text, at)
    else:
        return None
    return _Secret(end.start() if end else len(text))


def _prose(text: str, found: re.Match[str], *, cut_off: bool) -> _Secret | None:
    """The word after a name, if it looks like a secret, or if its line, or its part of a list, has no other word."""
    before, at = text[max(found.start() - 60, 0) : found.start()], found.end()
    if _OTHER_TOKEN.search(before):
        return None
    if opening := _OPENING.match(text, at):
        if text.startswith("${", opening.end()) or _AFTER_VALUE.match(
            text, opening.end()
        ):  # a name, or the end of a text
            return None
        return _Secret(_string_end(text, opening, in_line=True), opening["escape"] + opening["quote"])
    value = _WORD.match(text, at)
    if value is None:
        return None
    word = value[0].rstrip(".:!?")
    is_place = word.startswith(("/", "~", "./", "../"))
    is_code = not found["colon"] and (_CODE.fullmatch(word) or text.startswith(("(", "["), value.end()))
    if cut_off and text[value.end() : value.end() + 2] in ("", "\\"):
        return _Secret(value.end())
    if not (_WORDS.fullmatch(word) or is_code or is_place):
        return _Secret(at + len(word))
    is_alone = found["colon"] and _AFTER_WORD.match(text, at + len(word)) and _OF_LIST.search(before)
    return _Secret(at + len(word)) if is_alone and not is_place and not _NO_SECRET.fullmatch(word) else None


def _key(text: str, found: re.Match[str]) -> _Secret | None:
    value = _BARE.match(text, found.end())
    return value and _Secret(value.end())


def _token(found: re.Match[str], mask: str, *, cut_off: bool) -> str:
    return found[0] if _WORDS.fullmatch(found["token"]) and not cut_off else f"{found['name']}{mask}"


def _string_end(text: str, opening: re.Match[str], *, in_line: bool = False) -> int:
    """The place after a string, or the end of a text that ends within it."""
    end = _text_end(text, opening.end(), opening["quote"], len(opening["escape"]), in_line=in_line)
    mark = opening["escape"] + opening["quote"]
    return end + len(mark) if text.startswith(mark, end) else end


def _text_end(text: str, at: int, quote: str, escape: int, *, in_line: bool = False) -> int:
    """The place of the mark that ends a string whose quotes have so many backslashes before them.

    A quote with fewer of them ends the string around it. One with more belongs to the string, except after a backslash
    of the string itself, each of which is ``2 * (escape + 1)`` there in JSON. In the repr of a JSON text, the same may
    be a quote of the string, therefore the string must also look as if it ended.
    """
    doubled = 2 * (escape + (escape & -escape or 1))
    while True:
        found = text.find(quote, at)
        line_end = text.find("\n", at, found if found >= 0 else len(text)) if in_line else -1
        if line_end >= 0 or found < 0:
            return line_end if line_end >= 0 else len(text)
        more = _backslashes(text, found, at) - escape
        if more <= 0 or (more % doubled == 0 and _AFTER_VALUE.match(text, found + 1)):
            return found - escape - min(more, 0)
        at = found + 1


def _bracket_end(text: str, at: int, name: re.Match[str] | None = None) -> int:
    """The place after a bracket and all in it; it ends with the string around the quoted name, too."""
    depth = 0
    while mark := _MARK.search(text, at):
        at = mark.end()
        if mark[0] in "\"'":
            run = _backslashes(text, mark.start())
            if name and mark[0] == name["quote"] and run < len(name["escape"]):
                return mark.start() - run
            end = _text_end(text, at, mark[0], run)
            at = end + run + 1 if text.startswith(mark[0], end + run) else end
        else:
            depth += 1 if mark[0] in "([{" else -1
            if depth <= 0:
                return at
    return len(text)


def _backslashes(text: str, at: int, begin: int = 0) -> int:
    """The number of backslashes before a place."""
    first = at
    while first > begin and text[first - 1] == "\\":
        first -= 1
    return at - first


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


def printable_lines(text: str) -> str:
    """A text of several lines from elsewhere; all in it but its line ends is as :func:`printable` shows it."""
    return "\n".join(map(printable, text.split("\n")))
