"""``/etc/crontab``, the files of ``/etc/cron.d`` and users' crontabs: each line becomes a ``beatd.command`` entry.

Grammar: crontab(5) of Debian's cron and of cronie. Lines run in ``/bin/sh`` or what ``SHELL`` says, with the variables
that the file has set up to there.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import PurePath
from typing import Any, NamedTuple

from beatd.exceptions import ConfigError, Fault
from beatd.importers.collected import OTHER_USER
from beatd.importers.crontab_times import plain_times
from beatd.importers.file_format import FileFormat, binary_format, text_format
from beatd.importers.report import FoundSchedule, Note

_ASSIGNMENT = re.compile(r"""([A-Za-z_][A-Za-z0-9_]*|"[^"]*"|'[^']*')[ \t]*=[ \t]*(.*)""", re.DOTALL)
_BLANKS = re.compile(r"[ \t]+")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")
_UNDECODED = re.compile(r"[\ud800-\udfff]")
_INPUT = re.compile(r"\\.|%", re.DOTALL)
_NO_NAME = re.compile(r"[^A-Za-z0-9]+")
_OF_CRON = {"MAILTO", "MAILFROM", "RANDOM_DELAY", "START_HOURS_RANGE", "CRON_TZ", "CONTENT_TYPE"}
_OF_CRON |= {"CONTENT_TRANSFER_ENCODING", "LOGNAME", "USER"}
"""Variables that say something to cron, or that cron sets itself: no command gets them from the file."""
_NUMBERS = r"(?=[\w/,#?-]*[\d*~])[\w/,#?*~-]++"
_NAMES = r"[A-Za-z]{3}(?:[,-][A-Za-z]{3})*+"
_ALIASES = r"@(?:reboot|yearly|annually|monthly|weekly|daily|midnight|hourly|every_\w++)"
_TIMES = re.compile(rf"-?(?:{_ALIASES}[ \t]|{_NUMBERS}(?:[ \t]++(?:{_NUMBERS}|{_NAMES}|\?)){{4}}[ \t]++\S)")
"""The beginning of a line of a crontab by its shape; times that are out of range are errors of that line."""
_FEW = 3
"""So many lines that are none of a crontab are errors of these lines; more of them are another file."""
_LONGEST_NAME = 40
_GLUE = {"cd", "&&", "test", "||"}
_REDIRECTION = re.compile(r"\d?[<>|]")
_VARIABLES = re.compile(r"""^\s*(?:[A-Za-z_]\w*=(?:'[^']*'|"[^"]*"|[^\s'"])*+\s+)+""")
"""Variables that are set before the program."""
_URL = re.compile(r"(?<![\w+.-])[A-Za-z][\w+.-]*+://(?:[^/@\s]*@)?([^/?#:\s]*)\S*")
_LONGEST_WORD = 1_000
_BEFORE_PROGRAMS = {"-c", "-lc", "-m"}
"""Options of shells and of Python whose value is what they run."""
_WITH_INPUT = """printf '%s' "$2" | "$0" -c "$1\""""
"""A script that runs the command ``$1`` in the shell ``$0`` with the text ``$2`` as its standard input."""


class CrontabLine(NamedTuple):
    """One line of a crontab that runs something."""

    number: int
    schedule: str
    user: str | None
    command: str


def decoded(data: bytes, shown: str) -> str:
    """The text of a crontab; bytes that are not UTF-8 become surrogates. Raises ConfigError for what is no text."""
    if found := binary_format(data):
        raise _other(found, shown)
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def read_crontab(
    text: str, *, shown: str, has_users: bool | None = False, timezone: str | None = None
) -> FoundSchedule:
    """The entries of a crontab. ``has_users``: its sixth field is a user's name, as in ``/etc/crontab``.

    With None it is not known; raises ConfigError if that field looks like a user's name. ``timezone`` is that of the
    machine that it was written for; ``CRON_TZ`` in the file counts before it.
    """
    lines = list(_lines(text))
    _refuse_other_formats(text, lines, shown)
    if has_users is None:
        _refuse_users(lines, shown)
    reader = _Reader(shown, bool(has_users))
    for number, line in lines:
        reader.read(number, line)
    notes = (*reader.notes, *reader.of_all(timezone))
    return FoundSchedule(reader.entries, notes, timezone or "UTC", places=reader.places)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are neither empty nor comments, with their numbers."""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.removesuffix("\r").strip(" \t")
        if line and not line.startswith("#"):
            yield number, line


def _refuse_other_formats(text: str, lines: list[tuple[int, str]], shown: str) -> None:
    """Raise ConfigError for a file of another format, or if none of several lines is one of a crontab."""
    strange = [(number, line) for number, line in lines if not _ASSIGNMENT.fullmatch(line)]
    if not strange or any(_TIMES.match(line) for _, line in strange):
        return
    if found := text_format(text):
        raise _other(found, shown)
    if len(strange) > _FEW:
        number, line = strange[0]
        raise ConfigError(
            [Fault(shown, number, "", f"none of its lines is one of a crontab, {_EXPECTED}: {line[:60]}")]
        )


def _other(found: FileFormat, shown: str) -> ConfigError:
    step = f"; {found.step.format(shown)}" if found.step else ""
    return ConfigError([Fault(shown, None, "", f"is {found.name}; expected a crontab{step}")])


class _Reader:
    """Reader of one crontab: variables, entries and notes so far."""

    def __init__(self, shown: str, has_users: bool) -> None:
        self._shown = shown
        self._has_users = has_users
        self._variables: dict[str, str] = {}
        self._is_mailed = False
        self.entries: dict[str, dict[str, Any]] = {}
        self.notes: list[Note] = []
        self.places: dict[str, str] = {}

    def read(self, number: int, line: str) -> None:
        """One line that is neither empty nor a comment."""
        place = f"{self._shown}:{number}"
        if _UNDECODED.search(line):
            self.notes.append(Note(place, "", "the line is not UTF-8"))
        elif assigned := _ASSIGNMENT.fullmatch(line):
            name, value = _unquoted(assigned[1]), _unquoted(assigned[2].rstrip(" \t"))
            self._variables[name] = value
            self._is_mailed |= name == "MAILTO" and value != ""
        elif (found := _line(number, line, self._has_users)) is None:
            expected = "expected five times, a user and a command" if self._has_users else _EXPECTED
            self.notes.append(Note(place, "", f"not a line of a crontab, {expected}: {line[:60]}"))
        elif found.schedule == "@reboot":
            self.notes.append(Note(place, "", "@reboot is not supported: it is not a time"))
        elif found.user is not None and not _USER.fullmatch(found.user):
            why = f'"{found.user}" is not the name of a user; is this a crontab without users?'
            self.notes.append(Note(place, "", why))
        else:
            self._take(found)

    def _take(self, line: CrontabLine) -> None:
        command, given = _without_input(line.command)
        name = _name(command, self.entries)
        times, changes = plain_times(line.schedule.removeprefix("-"))
        if line.schedule.startswith("-"):
            changes = [*changes, "the leading - (do not log) has no effect here"]
        entry = {"task": "beatd.command", "schedule": times, **_program(command, given, line, self._variables)}
        if zone := self._variables.get("CRON_TZ"):
            entry["timezone"] = zone
        self.entries[name] = entry
        self.places[name] = f"{self._shown}:{line.number}"
        self.notes += [Note(name, "schedule", change) for change in changes]
        self.notes += [Note(name, about, why) for about, why in _different(line, self._variables)]

    def of_all(self, timezone: str | None) -> Iterator[Note]:
        """Notes about the whole file."""
        if timezone is None and any("timezone" not in entry for entry in self.entries.values()):
            yield Note(self._shown, "timezone", "times are taken as UTC; --timezone names the zone of this crontab")
        if any("timezone" in entry for entry in self.entries.values()):
            why = "times below it are in that zone, as in cronie; Debian's cron takes the zone of the machine for all"
            yield Note(self._shown, "CRON_TZ", why)
        if self._is_mailed:
            yield Note(self._shown, "MAILTO", "output is not mailed: it is in the worker's log and in the result")
        if any("user" in entry.get("kwargs", ()) for entry in self.entries.values()):
            yield Note(self._shown, "user", OTHER_USER)
        if any("cwd" not in entry.get("kwargs", ()) for entry in self.entries.values()):
            why = "cron starts commands in the home of the user; these start in the working directory of the worker"
            yield Note(self._shown, "cwd", why)


_EXPECTED = "expected five times and a command"


def _line(number: int, line: str, has_users: bool) -> CrontabLine | None:
    times = 1 if line.startswith(("@", "-@")) else 5
    words = _BLANKS.split(line, times + has_users)
    if len(words) <= times + has_users:
        return None
    user = words[times] if has_users else None
    return CrontabLine(number, " ".join(words[:times]), user, words[-1])


def _program(command: str, given: str | None, line: CrontabLine, variables: dict[str, str]) -> dict[str, Any]:
    """The arguments of ``beatd.command``: the shell with the command, its environment, user and working directory."""
    shell = variables.get("SHELL") or "/bin/sh"
    args = [shell, "-c", command] if given is None else ["/bin/sh", "-c", _WITH_INPUT, shell, command, given]
    kwargs: dict[str, Any] = {}
    if env := {key: value for key, value in variables.items() if key and key not in _OF_CRON}:
        kwargs["env"] = env
    if home := variables.get("HOME"):
        kwargs["cwd"] = home
    if line.user and line.user != "root":
        kwargs["user"] = line.user
    return {"args": args, "kwargs": kwargs} if kwargs else {"args": args}


def _different(line: CrontabLine, variables: dict[str, str]) -> Iterator[tuple[str, str]]:
    if line.user == "root":
        yield "user", "ran as root; runs as the worker's user"
    if "TZ" in variables:
        yield "TZ", "is set for the command; the times of the schedule are not in this zone, as in cron"
    if variables.get("RANDOM_DELAY"):
        yield "RANDOM_DELAY", f'not carried over; jitter = "{variables["RANDOM_DELAY"]}m" comes near to it'
    if variables.get("START_HOURS_RANGE"):
        yield "START_HOURS_RANGE", "not carried over; blackout names hours without runs"


def _without_input(command: str) -> tuple[str, str | None]:
    r"""The command up to the first ``%``, and the rest, its standard input, if there is any.

    In the rest each ``%`` is a new line, and its last line ends; ``\%`` is a percent sign in both.
    """
    parts = [""]
    end = 0
    for found in _INPUT.finditer(command):
        parts[-1] += command[end : found.start()]
        end = found.end()
        if found[0] == "%":
            parts.append("")
        else:
            parts[-1] += "%" if found[0] == r"\%" else found[0]
    parts[-1] += command[end:]
    given = "\n".join(parts[1:])
    ending = "\n" if given and not given.endswith("\n") else ""
    return parts[0].strip(" \t"), given + ending if len(parts) > 1 else None


def _refuse_users(lines: list[tuple[int, str]], shown: str) -> None:
    """Raise ConfigError if the sixth field of lines is a user's name: ``root``, or in all of them one known here."""
    found = list(_sixth_words(lines))
    number, word = next(((number, word) for number, word in found if word == "root"), (0, ""))
    if not word and found and _are_users(word for _, word in found):
        number, word = found[0]
    if word:
        why = f'"{word}" is the name of a user, as in /etc/crontab and /etc/cron.d'
        raise ConfigError([Fault(shown, number, "", f"{why}: add --system, or --no-system if it is a command")])


def _sixth_words(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The sixth field of each line, with its number; empty where no command follows."""
    for number, line in lines:
        if not _ASSIGNMENT.fullmatch(line):
            with_user = _line(number, line, has_users=True)
            yield number, with_user.user or "" if with_user else ""


def _are_users(words: Iterable[str]) -> bool:
    known = {user.pw_name for user in pwd.getpwall()}
    return all(word in known for word in words)


def _name(command: str, taken: dict[str, Any]) -> str:
    """A readable name from the program, with a number when it is taken."""
    words = list(islice(_words_of_name(command), 3))
    text = " ".join([PurePath(words[0]).name, *words[1:]]) if words else "command"
    base = _NO_NAME.sub("-", text).strip("-").lower()[:_LONGEST_NAME].strip("-") or "command"
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name


def _words_of_name(command: str) -> Iterator[str]:
    """The program and what it is about, without values of variables and options, and logins of URLs.

    They may be secrets, and names are in logs and metrics.
    """
    before = ""
    for written in _VARIABLES.sub("", command).split():
        word = _URL.sub(r"\1", written[:_LONGEST_WORD])
        is_option = before.startswith("-") and "=" not in before and before not in _BEFORE_PROGRAMS
        is_value = is_option and not word.startswith(("/", "."))
        if _REDIRECTION.match(word):
            return
        if not (word in _GLUE or word.startswith("-") or "=" in word or is_value):
            yield word
        before = word


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
