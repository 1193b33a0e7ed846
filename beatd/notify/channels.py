"""Channels of a target: a webhook, a command, or what apprise knows. One attempt each, in bounded time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

from beatd.clock import monotonic
from beatd.model import NotifyTarget
from beatd.notify.http_request import DeliveryFailed, host_of, request
from beatd.redaction import HIDDEN, printable, redacted_text
from beatd.store.run_record import tail

_START_S = 20.0
"""Time for starting Python and apprise, beside that of the target."""
_REASON_MAX = 300
_OUTPUT_MAX = 64 << 10
"""Bytes of the output of a program that are kept: the last ones."""


def deliver(target: NotifyTarget, body: Mapping[str, Any], *, now_ms: int, left: Sequence[int] = ()) -> None:
    """Deliver a message to a target; raises :class:`DeliveryFailed`. ``left``: the addresses that lack it; all."""
    timeout_s = target.timeout_ms / 1000
    if target.webhook:
        text = json.dumps({**body, "text": _for_slack(str(body["text"]))}).encode()
        request(target.webhook, now_ms=now_ms, timeout_s=timeout_s, body=text, headers=target.headers)
    elif target.command:
        _run_command(target, body, timeout_s)
    else:
        _send_by_apprise(target.urls, body, timeout_s, list(left) or list(range(len(target.urls))))


def unreadable_urls(target: NotifyTarget) -> list[int]:
    """Return the numbers of the URLs that apprise cannot read; none where it is not installed."""
    if not target.urls or find_spec("apprise") is None:
        return []
    with contextlib.suppress(DeliveryFailed, ValueError):
        _, said = _ask_apprise({"urls": target.urls, "check": True}, _START_S)
        return list(json.loads(said)["left"])
    return []


def _for_slack(text: str) -> str:
    """Escape what Slack would take for links and mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _run_command(target: NotifyTarget, body: Mapping[str, Any], timeout_s: float) -> None:
    """Run the command of a target with the message on its standard input, and in variables."""
    variables = {"BEATD_TITLE": body["title"], "BEATD_TEXT": body["text"], "BEATD_KIND": body["kind"]}
    env = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    code, said = _run(target.command, json.dumps(body).encode(), timeout_s, env=env)
    if code is None:
        raise DeliveryFailed(f"the command did not end within {timeout_s:g} s")
    if code:
        text = printable(" ".join(said.decode(errors="replace").split()))
        end = " ".join(tail(text, _REASON_MAX).split())
        raise DeliveryFailed(f"the command ended with {code}{f': {end}' if end else ''}")


def _send_by_apprise(urls: Sequence[str], body: Mapping[str, Any], timeout_s: float, left: Sequence[int]) -> None:
    numbers = [number for number in left if number < len(urls)]
    given = {"urls": [urls[number] for number in numbers]} | {key: body[key] for key in ("title", "text", "kind")}
    within_s = timeout_s * len(numbers) + _START_S
    code, said = _ask_apprise(given, within_s)
    if code is None:
        raise DeliveryFailed(f"apprise did not end within {within_s:g} s", left=tuple(numbers))
    try:
        answer = json.loads(said)
    except ValueError:
        raise DeliveryFailed("apprise failed; is it installed? pip install 'beatd[notify]'") from None
    if answer["left"]:
        reason = _without_secrets(answer["reason"], urls)
        raise DeliveryFailed(reason, left=tuple(numbers[number] for number in answer["left"]))


def _ask_apprise(given: Mapping[str, Any], within_s: float) -> tuple[int | None, bytes]:
    words = [sys.executable, "-m", "beatd.notify.apprise_process"]
    return _run(words, json.dumps(given).encode(), within_s, stderr=subprocess.DEVNULL)


def _run(
    words: Sequence[str],
    given: bytes,
    timeout_s: float,
    *,
    env: Mapping[str, str] | None = None,
    stderr: int = subprocess.STDOUT,
) -> tuple[int | None, bytes]:
    """Run a program in a process group of its own; None: its time was over, and the group was killed."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env, start_new_session=True
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it cannot be started"
        raise DeliveryFailed(f"{printable(words[0])}: {reason}") from None
    until, said = monotonic() + timeout_s, bytearray()
    threading.Thread(target=_write, args=(process.stdin, given), name="notice-input", daemon=True).start()
    reader = threading.Thread(target=_read_end, args=(process.stdout, said), name="notice-output", daemon=True)
    reader.start()
    try:
        reader.join(timeout_s)
        if reader.is_alive():
            return None, b""
        code = process.wait(max(until - monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        return None, b""
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has left behind holds the pipe
        process.wait()
    return code, bytes(said)


def _write(pipe: Any, given: bytes) -> None:
    """Write the message; a program need not read it."""
    with contextlib.suppress(OSError), pipe:
        pipe.write(given)


def _read_end(pipe: Any, kept: bytearray) -> None:
    """Read until all writers have closed the pipe, and keep the end: a program may write without end."""
    with contextlib.suppress(OSError), pipe:
        while chunk := pipe.read1(_OUTPUT_MAX):
            kept += chunk
            del kept[:-_OUTPUT_MAX]


def _without_secrets(text: str, urls: Sequence[str]) -> str:
    """The reason without any part of the addresses but their hosts, and in one line."""
    hosts = {host_of(url) for url in urls}
    pieces = {piece for url in urls for piece in re.split(r"[/?&=:@,;#]+", url.partition("://")[2])} - hosts
    for piece in sorted(pieces, key=len, reverse=True):  # one may be the beginning of another
        if len(piece) > 3:
            text = text.replace(unquote(piece), HIDDEN).replace(piece, HIDDEN)
    return redacted_text(printable(text), at_most=_REASON_MAX)
