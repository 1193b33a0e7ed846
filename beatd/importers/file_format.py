"""Formats of files, recognised by their content: an importer that got the wrong file can name the right one.

Nothing is parsed: a file with an error in its tenth line still is of its format.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class FileFormat(NamedTuple):
    """A format that was recognised."""

    name: str
    """With its article, as in "is a systemd unit"."""
    step: str = ""
    """The next step; ``{}`` stands for the file."""


_BINARY = (
    (b"SQLite format 3\0", FileFormat("an SQLite database", "beatd import apscheduler sqlite:///{} reads a job store")),
    (b"\x1f\x8b", FileFormat("compressed by gzip", "unpack it first")),
    (b"PK\x03\x04", FileFormat("a ZIP archive", "unpack it first")),
    (b"\xff\xfe", FileFormat("a text in UTF-16", "write it as UTF-8")),
    (b"\xfe\xff", FileFormat("a text in UTF-16", "write it as UTF-8")),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_SECTION = re.compile(r"^\[+([\w.\"' -]+)\]", re.MULTILINE)
_PYTHON = re.compile(r"^(?:import [\w.]+|from [\w.]+ import .*|def \w+\(.*|class \w+.*:)$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"[\w.\"'-]+ *=")
_JSON = re.compile(r"[\[{]\s*(?:[\[{\]}\"]|$)")
_KIND = re.compile(r"^[ \t-]*[\"']?kind[\"']?: *[\"']?CronJob", re.MULTILINE)
_CRONJOBS = "beatd import kubernetes {} reads CronJobs"
_YAML = re.compile(r"---|- |-$|[\"']?[\w./-]+[\"']?:(?: |$)")


def binary_format(data: bytes) -> FileFormat | None:
    """The format of a file that is no text; None for a text."""
    for start, known in _BINARY:
        if data.startswith(start):
            return known
    if _PICKLE.match(data):
        return FileFormat("a pickle", "beatd import apscheduler {} reads pickled jobs")
    return FileFormat("a binary file") if b"\0" in data else None


def text_format(text: str) -> FileFormat | None:
    """The format of a text; None if it is not recognised."""
    first = next((line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#")), "")
    if first.startswith("<"):
        return FileFormat("HTML or XML")
    sections = {name.strip() for name in _SECTION.findall(text)}
    if sections and (first.startswith("[") or _ASSIGNMENT.match(first)):
        if sections & {"Unit", "Timer", "Service", "Install"}:
            return FileFormat("a systemd unit", "beatd import systemd {} reads timers")
        return FileFormat("TOML", "if it is a schedule of beatd, beatd check {} reads it")
    if _JSON.match(first):
        return FileFormat("JSON", _CRONJOBS if _KIND.search(text) else "beatd import dkron {} reads jobs of dkron")
    if _PYTHON.search(text):
        return FileFormat("Python", "beatd import celery MODULE reads the schedule of a Celery app")
    return FileFormat("YAML", _yaml_step(text)) if _YAML.match(first) else None


def _yaml_step(text: str) -> str:
    def has(pattern: str) -> bool:
        return re.search(pattern, text, re.MULTILINE) is not None

    if _KIND.search(text):
        return _CRONJOBS
    if has(r"^['\"]?on['\"]?:") and has(r"^jobs:"):
        return "beatd import github-actions {} reads workflows"
    if has(r"^jobs:"):
        return "beatd import cronstable {} reads jobs of cronstable and yacron"
    return "beatd import reads those of kubernetes, cronstable and github-actions"
