"""Credentials of the state store from a command: passwords that live for minutes, such as the tokens of cloud services.

The command runs before a connection is opened, never through a shell, for at most ten seconds. What it prints on its
standard output is the password, without blanks around it. Connections that are opened together share one run of it.
"""

from __future__ import annotations

import functools
import subprocess
import threading
from collections.abc import Sequence

from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

from beatd.clock import monotonic
from beatd.redaction import redacted_text

TIMEOUT_S = 10.0
"""Longest run of the command."""

SHARED_S = 5.0
"""Seconds for which connections that are opened share a password. The shortest tokens of cloud services live for 15
minutes."""

_ERROR_MAX = 200
"""Characters of an error that are shown."""


class PasswordCommand(CredentialProvider):
    """Credentials whose password a command prints."""

    def __init__(self, command: Sequence[str], username: str | None) -> None:
        self._command = list(command)
        self._username = username
        self._lock = threading.Lock()
        self._password, self._until = "", 0.0

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return ``(user, password)``, or the password alone where no user is named.

        Raises redis-py's ``ConnectionError`` if the command fails: it is tried again like a server that is away.
        """
        with self._lock:
            if monotonic() >= self._until:
                self._password, self._until = self._run(), monotonic() + SHARED_S
            password = self._password
        return (self._username, password) if self._username else (password,)

    def forget(self) -> None:
        """Run the command for the next connection: the server refused the password."""
        self._until = 0.0

    def _run(self) -> str:
        program = self._command[0]
        try:
            done = subprocess.run(  # noqa: S603 - the command of the one who configures
                self._command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise RedisConnectionError(f"password_command {program} did not end within {TIMEOUT_S:g} s") from None
        except OSError as error:
            raise RedisConnectionError(f"password_command {program} cannot be run: {error.strerror}") from None
        if done.returncode:
            said = redacted_text(done.stderr.decode(errors="replace").strip(), at_most=_ERROR_MAX) or "it says nothing"
            raise RedisConnectionError(f"password_command {program} failed with exit code {done.returncode}: {said}")
        password = done.stdout.decode(errors="replace").strip()
        if not password:
            raise RedisConnectionError(f"password_command {program} printed no password")
        return password


@functools.lru_cache(maxsize=32)
def password_command(command: tuple[str, ...], username: str | None) -> PasswordCommand:
    """The credentials of a command; the same for all clients, so that they share its runs."""
    return PasswordCommand(command, username)
