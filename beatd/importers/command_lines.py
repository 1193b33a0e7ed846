"""Command lines of Celery in the files that deploy a project, and those of beatd in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator

from beatd.importers.celery_usage import Use, Verdict

NAMES = re.compile(
    r"(?i)(?:.*\.(?:ya?ml|sh|bash|service|conf|ini|cfg|toml|env|tf|nomad|json|mk)|(?:Docker|Container|Proc|Make)file.*|start.*|run.*|.*entrypoint.*)"
)
"""Names of files in which a command line of Celery may be."""
_WORD = re.compile(r"""[^\s"',\[\]]+""")
_COMMAND_KEY = re.compile(r"""\s*(?:- +)?["']?(?:command|args|entrypoint)["']?:""")
_ITEM = re.compile(r"\s*(?:- +(?![\w-]+:(?:\s|$))|args:)")
_MOST_WORDS = 40
"""Words behind ``celery`` among which the command is looked for."""
_LONGEST = 2_000
_ADVICE = {
    "beat": "beatd run (with the same -A, or --config beat.toml); stop celery beat before it starts",
    "worker": "the same, or beatd worker with the same options",
    "multi": "beatd multi with the same words",
    "inspect": "the same, or beatd inspect",
    "control": "the same, or beatd control",
    "events": "the same, or beatd events",
    "flower": "the same: Flower reads beatd's workers",
}


def command_uses(file: str, text: str) -> Iterator[Use]:
    """The command lines of Celery in a file."""
    for number, line in _whole_lines(text):
        if len(line) > _LONGEST:
            continue
        words = _WORD.findall(line) if "celery" in line.lower() else []
        for at, word in enumerate(words):
            if not _is_celery(word) or (count := _command(words[at + 1 :])) is None:
                continue
            command, shown = words[at + count], " ".join(["celery", *words[at + 1 : at + count + 1]])
            verdict: Verdict = "change" if command == "beat" else "works"
            yield Use(file, number, "command lines", verdict, shown, _ADVICE[command])
            if command == "worker" and {"-B", "--beat"} & set(words):
                advice = "run beatd run as a process of its own, without -B"
                yield Use(file, number, "command lines", "change", "celery worker -B", advice)


def _whole_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are no comments, with their numbers. What follows a backslash, and the words of a command that are
    the items of a YAML list, belong to the line before."""
    begun, whole = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        item = _ITEM.match(line) if _COMMAND_KEY.match(whole) else None
        if len(whole) < _LONGEST and (item or whole.endswith("\\")):
            whole = " ".join((whole.removesuffix("\\"), line[item.end() :] if item else line))
            continue
        yield begun, whole
        begun, whole = number, line
    yield begun, whole


def _is_celery(word: str) -> bool:
    """True for the program, also as the variable that Celery's own units have for it."""
    return word.rpartition("/")[2] == "celery" or word.strip("${}") == "CELERY_BIN"


def _command(words: list[str]) -> int | None:
    """The number of words up to a command of Celery, options and their values before it; None without one."""
    is_value = False
    for count, word in enumerate(words[:_MOST_WORDS], 1):
        if word in _ADVICE:
            return count
        if not (word.startswith("-") or is_value):
            return None
        is_value = word.startswith("-") and "=" not in word
    return None
