"""``/etc/crontab``, the files of ``/etc/cron.d`` and users' crontabs: each line becomes a ``beatd.command`` entry.

Grammar: crontab(5) of Debian's cron. Lines run in ``/bin/sh`` or what ``SHELL`` says, with the variables that the file
has set up to there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import PurePath
from typing import Any, NamedTuple

from beatd.importing.found import Found, Note

_ASSIGNMENT = re.compile(r"""([A-Za-z_]\w*|"[^"]*"|'[^']*')\s*=\s*(.*)""")
_NO_NAME = re.compile(r"[^A-Za-z0-9]+")
_NOT_OURS = {"MAILTO", "MAILFROM", "LOGNAME", "RANDOM_DELAY", "SHELL", "CRON_TZ", "TZ"}
_LONGEST_NAME = 40
_GLUE = {"cd", "&&", "test", "||"}
_REDIRECTION = re.compile(r"\d?[<>|]")


class Line(NamedTuple):
    """One line of a crontab that runs something."""

    number: int
    schedule: str
    user: str | None
    command: str


def read_crontab(text: str, *, shown: str, has_users: bool, timezone: str) -> Found:
    """The entries of a crontab. ``has_users``: its sixth field is a user's name, as in ``/etc/crontab``.

    ``timezone`` is that of the machine that it was written for; ``CRON_TZ`` in the file counts before it.
    """
    entries: dict[str, dict[str, Any]] = {}
    notes: list[Note] = []
    variables: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        place = f"{shown}:{number}"
        if not stripped or stripped.startswith("#"):
            continue
        if assigned := _ASSIGNMENT.fullmatch(stripped):
            variables[_unquoted(assigned[1])] = _unquoted(assigned[2].strip())
            continue
        found = _line(number, stripped, has_users)
        if found is None:
            notes.append(Note(place, "", f"not a line of a crontab: {stripped[:60]}"))
        elif found.schedule == "@reboot":
            notes.append(Note(place, "", "@reboot has no counterpart: it is no time"))
        else:
            name = _name(_without_input(found.command)[0], entries)
            notes += [Note(name, about, why) for about, why in _left_behind(found, variables)]
            entries[name] = _entry(found, variables)
    if variables.get("MAILTO"):
        notes.append(Note(shown, "MAILTO", "output is not mailed: it is in the worker's log and in the result"))
    return Found(entries, tuple(notes), timezone)


def _line(number: int, line: str, has_users: bool) -> Line | None:
    times = 1 if line.startswith("@") else 5
    words = line.split(None, times + has_users)
    if len(words) <= times + has_users:
        return None
    user = words[times] if has_users else None
    return Line(number, " ".join(words[:times]), user, words[-1])


def _entry(line: Line, variables: dict[str, str]) -> dict[str, Any]:
    script, _ = _without_input(line.command)
    shell = variables.get("SHELL", "/bin/sh")
    kwargs: dict[str, Any] = {}
    if env := {key: value for key, value in variables.items() if key not in _NOT_OURS}:
        kwargs["env"] = env
    if line.user and line.user != "root":
        kwargs["user"] = line.user
    entry: dict[str, Any] = {"task": "beatd.command", "schedule": line.schedule, "args": [shell, "-c", script]}
    if kwargs:
        entry["kwargs"] = kwargs
    if zone := variables.get("CRON_TZ"):
        entry["timezone"] = zone
    return entry


def _left_behind(line: Line, variables: dict[str, str]) -> Iterator[tuple[str, str]]:
    _, text = _without_input(line.command)
    if text:
        yield "args", "the text after % was the command's standard input; a beatd.command has none"
    if line.user == "root":
        yield "user", "ran as root; runs as the worker's user"
    if variables.get("RANDOM_DELAY"):
        yield "RANDOM_DELAY", f'not carried over; jitter = "{variables["RANDOM_DELAY"]}m" comes near to it'


def _without_input(command: str) -> tuple[str, str]:
    """The command up to the first ``%``, and what follows, which is its standard input; ``\\%`` is a percent sign."""
    parts = re.split(r"(?<!\\)%", command, maxsplit=1)
    return parts[0].replace("\\%", "%").strip(), parts[1] if len(parts) > 1 else ""


def _name(command: str, taken: dict[str, Any]) -> str:
    """A readable name from the program, with a number when it is taken."""
    words = [word for word in command.split() if word not in _GLUE and not word.startswith("-")]
    words = list(takewhile(lambda word: not _REDIRECTION.match(word), words))
    text = " ".join([PurePath(words[0]).name, *words[1:3]]) if words else "command"
    base = _NO_NAME.sub("-", text).strip("-").lower()[:_LONGEST_NAME].strip("-") or "command"
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
