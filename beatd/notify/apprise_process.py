"""Process that sends one message by apprise, and ends: the library and its waiting stay out of the daemon.

Standard input has ``{"urls", "title", "text", "kind"}`` as JSON, so that no address is in the list of processes; with
``check`` in it nothing is sent.
Standard output gets ``{"left", "reason"}``: the numbers of the addresses that have not got it, and why.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from io import StringIO
from typing import Any

_KINDS = {"problem": "failure", "recovery": "success", "test": "info"}


def main() -> None:
    """Send what standard input has."""
    given = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # of plugins
        answer = _check(given["urls"]) if given.get("check") else _send(given)
    json.dump(answer, sys.stdout)


def _check(urls: list[str]) -> dict[str, Any]:
    import apprise  # noqa: PLC0415 - an optional extra

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it would show the URL
    made = [apprise.Apprise.instantiate(url, suppress_exceptions=True) for url in urls]
    return {"left": [number for number, one in enumerate(made) if not one], "reason": ""}


def _send(given: dict[str, Any]) -> dict[str, Any]:
    import apprise  # noqa: PLC0415 - an optional extra

    left, reason = [], ""
    for number, url in enumerate(given["urls"]):
        said = StringIO()
        handler = logging.StreamHandler(said)
        logger = logging.getLogger("apprise")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            target = apprise.Apprise.instantiate(url, suppress_exceptions=True)
            ok, why = bool(target and _notify(target, given)), "" if target else "apprise cannot read the URL"
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            ok, why = False, type(error).__name__
        finally:
            logger.removeHandler(handler)
        if not ok:
            left.append(number)
            reason = why or " ".join(said.getvalue().split()) or "apprise gives no reason"
    return {"left": left, "reason": reason[:1000]}


def _notify(target: Any, given: dict[str, Any]) -> bool:
    """Send it as text. Without that word apprise takes it for what the service shows, which is HTML for mail: lines
    and angle brackets would be lost, and markup in an error would be shown."""
    import apprise  # noqa: PLC0415 - an optional extra

    sender = apprise.Apprise()
    sender.add(target)
    return bool(
        sender.notify(
            body=given["text"],
            title=given["title"],
            notify_type=_KINDS.get(given["kind"], "info"),
            body_format=apprise.NotifyFormat.TEXT,
        )
    )


if __name__ == "__main__":
    main()
