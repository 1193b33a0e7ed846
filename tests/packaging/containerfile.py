"""A Dockerfile as a list of instructions, and the part of a ``.dockerignore`` that ours uses."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


class Instruction(NamedTuple):
    """``RUN``, and what is behind it."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The exec form; fails for the shell form."""
        value = json.loads(self.rest)
        assert isinstance(value, list)
        return value


def read(path: Path) -> list[list[Instruction]]:
    """The stages of a Dockerfile, each from its ``FROM`` on."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    instructions = [Instruction(*line.split(" ", 1)) for line in lines if line.strip()]
    stages: list[list[Instruction]] = []
    for instruction in instructions:
        if instruction.word == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(instruction)
    return stages


def last(stage: list[Instruction], word: str) -> Instruction:
    return [instruction for instruction in stage if instruction.word == word][-1]


def environment(stage: list[Instruction]) -> dict[str, str]:
    """What ``ENV`` sets."""
    return dict(pair.split("=", 1) for each in stage if each.word == "ENV" for pair in each.rest.split())


def copied(stage: list[Instruction]) -> list[str]:
    """The paths of the context that ``COPY`` takes."""
    found = [each.rest.split() for each in stage if each.word == "COPY" and not each.rest.startswith("--from=")]
    return [source for *sources, _ in found for source in sources]


def ignored(path: str) -> bool:
    """Whether ``.dockerignore`` keeps a path of the context from the build."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if line and not line.startswith("#") and any(fnmatch.fnmatch(part, pattern) for part in _parts(path)):
            verdict = not line.startswith("!")
    return verdict


def _parts(path: str) -> list[str]:
    pieces = path.split("/")
    return ["/".join(pieces[: n + 1]) for n in range(len(pieces))] + pieces
