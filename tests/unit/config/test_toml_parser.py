"""The two parsers of TOML: the same tables, and errors on the same lines, with rtoml and without."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beatd.config.toml_parser import DUPLICATE_KEY, TomlError, parse, parse_without_rtoml
from tests.conftest import needed
from tests.unit.config.test_errors import CASES
from tests.unit.config.test_fuzz import GOOD, mutated, restructured

WITHOUT_RTOML = """
import json, sys
sys.modules["rtoml"] = None
from pathlib import Path
from beatd import config
from beatd.exceptions import ConfigError
answers = []
for text in json.load(sys.stdin):
    Path("beat.toml").write_text(text)
    try:
        config.load("beat.toml", env={"SECRET": "hunter2"})
    except ConfigError as error:
        answers.append("".join(f"{fault}\\n" for fault in error.faults).replace("beat.toml:", ""))
    else:
        answers.append("")
print(json.dumps(answers))
"""


def without_reason(faults: str) -> list[str]:
    """The faults; of those of the parsers, the line alone, since each has words of its own."""
    return [line.split(":")[0] + " not TOML" if "not TOML" in line else line for line in faults.splitlines()]


def test_each_fault_is_found_without_rtoml(tmp_path: Path) -> None:
    texts = json.dumps([case.text for case in CASES])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RTOML],
        cwd=tmp_path,
        input=texts,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for case, said in zip(CASES, json.loads(done.stdout), strict=True):
        assert without_reason(said) == without_reason(case.faults), case.name


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a = [\n  1\n", 2, 4, "unclosed array, expected `]`"),
        ('a = "x\n', 1, 7, "unclosed string, expected a quote at its end"),
        ('a = """x\n\n', 1, 9, "unclosed string, expected a quote at its end"),
        ("a = 'x\n", 1, 7, "unclosed string, expected a quote at its end"),
        ("[a\n", 1, 3, "unclosed table, expected `]`"),
        ("[[a]\n", 1, 4, "unclosed array of tables, expected `]]`"),
        ("a\n", 1, 2, "key with no value, expected `=`"),
        ("a = { b = 1\n", 1, 12, "unclosed inline table, expected `}`"),
        ("x = 1\na = 5m\n", 2, 6, "unexpected text after the value, expected newline, `#`"),
        ("a = { b = 1 }\na.c = 2\nd = 1\n", 2, 8, "an inline table cannot be extended"),
        ('a = "\\q"\n', 1, 8, "unknown escape sequence in a string; write \\\\ for a backslash"),
        ("a = 1\na = [\n1,\n2]\n", 2, 1, DUPLICATE_KEY),
        ("[a]\n[b]\n  [a]\n", 3, 3, DUPLICATE_KEY),
        ("a = { b = 1, b = 2 }\n", 1, 14, DUPLICATE_KEY),
        ("a = " + "[" * 5000, None, None, "nested too deeply"),
    ],
)
def test_errors_without_rtoml(text: str, line: int | None, column: int | None, message: str) -> None:
    with pytest.raises(TomlError) as caught:
        parse_without_rtoml(text)
    assert (caught.value.line, caught.value.column, caught.value.message) == (line, column, message)


def comparable(value: Any) -> str:
    """Text by which values compare: NaN is itself, and zones of two libraries are alike."""
    return json.dumps(value, default=lambda moment: [type(moment).__name__, moment.isoformat()])


def tables(text: str, reader: Callable[[str], Any]) -> str | None:
    """What the parser reads; None for what is not TOML, whose line is one of the text."""
    try:
        return comparable(reader(text))
    except TomlError as error:
        line = error.line
    assert line is None or 1 <= line <= text.count("\n") + 1
    return None


def test_both_parsers_read_the_same() -> None:
    needed("rtoml")
    dice = random.Random("parsers")
    texts = [(mutated if number % 2 else restructured)(GOOD, dice).decode("utf-8", "replace") for number in range(400)]
    pairs = [(tables(text, parse), tables(text, parse_without_rtoml)) for text in texts]
    both = [pair for pair in pairs if None not in pair]
    assert len(both) > 100
    for first, second in both:
        assert first == second


def test_check_runs_where_rtoml_is_missing(tmp_path: Path) -> None:
    (tmp_path / "beat.toml").write_text('[beat_schedule.a]\ntask = "t"\nschedule = "5m"\n\n[beat_schedule.b\n')
    program = "import sys; sys.modules['rtoml'] = None; from beatd.cli import main; main(['check', 'beat.toml'])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (2, "beat.toml:5:17: not TOML: unclosed table, expected `]`\n")
