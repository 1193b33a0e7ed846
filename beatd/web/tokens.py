"""Tokens file: who may read the page, and who may act. One line for each token: ``NAME ROLE TOKEN``.

Roles are ``read`` and ``operate``. The file is read again when it has changed; while it cannot be used, no token is
valid. The text of a token is never kept: only its digest.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import stat
import threading
from pathlib import Path
from typing import Literal, NamedTuple

from beatd.exceptions import ConfigError, Fault

log = logging.getLogger("beatd.web")

Role = Literal["read", "operate"]
ROLES: tuple[Role, ...] = ("read", "operate")
TOKEN_MIN = 16
"""Characters: what is shorter could be guessed."""
_FILE_MAX = 1 << 20
_NAME = re.compile(r"[\w.@+-]{1,64}")
_FORBIDDEN = stat.S_IWGRP | stat.S_IRWXO


class Token(NamedTuple):
    """A known token: whose it is, and its role."""

    name: str
    role: Role
    digest: bytes


class Tokens:
    """The tokens of a file; without one there are none."""

    def __init__(self, file: str | None) -> None:
        self._file = Path(file) if file else None
        self._reading = threading.Lock()
        self._known: tuple[Token, ...] = ()
        self._seen: tuple[int, ...] = ()
        self.key = secrets.token_bytes(32)
        """Key with which sessions are signed: another one when the tokens change."""
        if self._file is not None:
            self._take(self._file, self._state(self._file))

    @property
    def is_configured(self) -> bool:
        """True if there is a file of tokens."""
        return self._file is not None

    def known(self) -> tuple[Token, ...]:
        """The tokens that are valid now."""
        if self._file is not None:
            with self._reading:
                self._refresh(self._file)
        return self._known

    def find(self, text: str) -> Token | None:
        """The token of that text; takes as long for a wrong one."""
        digest, found = digest_of(text), None
        for token in self.known():
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def named(self, name: str) -> Token | None:
        """The token of that name."""
        return next((token for token in self.known() if token.name == name), None)

    def _refresh(self, file: Path) -> None:
        try:
            state = self._state(file)
            if state != self._seen:
                self._take(file, state)
        except ConfigError as error:
            if self._known:
                log.error(  # noqa: TRY400 - the fault says it all
                    "No token is valid: %s", error, extra={"event": "web_tokens_refused"}
                )
            self._known, self._seen = (), ()

    def _take(self, file: Path, state: tuple[int, ...]) -> None:
        self._known, self._seen = read_tokens(file), state
        if self._known:  # without any, everybody could compute it
            self.key = hashlib.sha256(b"beatd session" + b"".join(token.digest for token in self._known)).digest()

    @staticmethod
    def _state(file: Path) -> tuple[int, ...]:
        try:
            found = file.stat()
        except OSError as error:
            raise _refused(file, None, f"cannot be read: {error.strerror}") from None
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def read_tokens(file: Path) -> tuple[Token, ...]:
    """The tokens of a file; raises ConfigError with the line of what is wrong, and never quotes a token."""
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):
            raise _refused(file, None, "is not a regular file")
        if state.st_mode & _FORBIDDEN:
            mode = stat.S_IMODE(state.st_mode)
            raise _refused(file, None, f"can be used by others: its rights are {mode:04o}; run chmod 600 {file}")
        if state.st_size > _FILE_MAX:
            raise _refused(file, None, f"has more than {_FILE_MAX:,} bytes")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _refused(file, None, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _refused(file, None, "is not UTF-8") from None
    tokens = [
        _read_line(file, number, line.split())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    names = [token.name for token in tokens]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _refused(file, None, f"{twice} is there twice")
    return tuple(tokens)


def _read_line(file: Path, number: int, words: list[str]) -> Token:
    if len(words) != 3:
        raise _refused(file, number, "expected NAME ROLE TOKEN")
    name, role, token = words
    if not _NAME.fullmatch(name):
        raise _refused(file, number, "a name has up to 64 letters, digits, or . _ @ + -")
    if role not in ROLES:
        raise _refused(file, number, f"the role of {name} is read or operate")
    if len(token) < TOKEN_MIN:
        raise _refused(
            file, number, f"the token of {name} has fewer than {TOKEN_MIN} characters; make one: openssl rand -hex 24"
        )
    return Token(name, role, digest_of(token))


def digest_of(text: str) -> bytes:
    """Digest of a token, by which it is known."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _refused(file: Path, line: int | None, text: str) -> ConfigError:
    return ConfigError([Fault(str(file), line, "", text if line else f"the tokens file {text}")])
