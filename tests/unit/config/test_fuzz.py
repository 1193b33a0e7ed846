"""Whatever the file says, the answer is a schedule or faults with lines; never another exception, never a hang."""

from __future__ import annotations

import copy
import random
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from beatd import config
from beatd.beat.message_builder import MessageBuilder
from beatd.config.entries import ENTRY
from beatd.config.fields import SECTIONS
from beatd.config.settings import TOP
from beatd.exceptions import ConfigError, Fault
from beatd.model import Run

GOOD = (
    (Path(__file__).parents[3] / "config" / "beat.toml").read_text()
    + """
[beat_schedule.everything]
task = "t"
schedule = [ { every = "30s", anchor = 2026-01-01T00:00:00Z }, "0 12 * * fri#2" ]
kwargs = { a = [1, 2.5, true, { b = "${HOME:-x}" }], c = 2026-01-01T00:00:00+02:00 }
headers = { tenant = "a" }
link = [{ task = "u" }]
start = 2026-01-01
end = "2036-01-01T00:00:00"
blackout = ["22:00-06:00", "2026-12-24/2026-12-26"]
priority = 3
max_runs = 10
expires = "PT2H"
"""
)

TOKENS = [
    *"[]{}\"'=,.#\\\n\r\t\0$ -+_:0",
    *(
        '"""',
        "'''",
        "[[",
        "]]",
        "true",
        "nan",
        "-inf",
        "1e400",
        "9" * 400,
        "0x",
        "2026-01-01",
        "00:00",
        "\ud7ff",
        "\U0001f600",
    ),
    *(
        "${",
        "${}",
        "${X}",
        "${X:-y}",
        "$${",
        "\\u0000",
        "\\ud800",
        "task",
        "schedule",
        "beat_schedule",
        "[beat_schedule.x]",
    ),
    *(
        "args",
        "kwargs",
        "defaults",
        "include",
        "* * * * *",
        "@daily",
        "H",
        "L",
        "every",
        "cron",
        "lat",
        "UTC",
        "[" * 500,
    ),
]


def mutated(text: str, dice: random.Random) -> bytes:
    """``text`` after one to four random edits."""
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(text))
        end = start + dice.choice([0, 1, 1, 2, 5, 30, 300])
        match dice.randrange(6):
            case 0 | 1:
                text = text[:start] + dice.choice(TOKENS) + text[end:]
            case 2:
                text = text[:start] + text[end:]
            case 3:
                text = text[:end] + text[start:]
            case 4:
                lines = text.split("\n")
                dice.shuffle(lines)
                text = "\n".join(lines)
            case 5:
                value = dice.choice(TOKENS) if dice.random() < 0.5 else f'"{dice.choice(TOKENS)}"'
                lines = text.split("\n")
                line = dice.randrange(len(lines))
                lines[line] = lines[line].partition("=")[0] + "= " + value
                text = "\n".join(lines)
    data = text.encode("utf-8", "replace")
    if dice.random() < 0.05:
        place = dice.randrange(len(data) + 1)
        data = data[:place] + dice.randbytes(3) + data[place:]
    return data


VALUES: list[Any] = [
    *(
        "",
        " ",
        "x",
        "${",
        "${HOME}",
        "${NONE}",
        "a\nb",
        "* * * * *",
        "@daily",
        "1h",
        "auto",
        "99:99",
        "\u202e",
        "e" * 300,
    ),
    *("redis://h", "embedded", "Europe/Berlin", "2026-01-01", "PT1S", "H H * * *", "0 0 31 2 *", "1e3", "${HOME:-}"),
    *(0, 1, -1, 255, 256, 10**18, 2**63 - 1, 0.0, 0.001, -1.5, 1e300, float("nan"), float("inf"), True, False),
    *(
        date(2026, 1, 1),
        date(1, 1, 1),
        datetime(9999, 12, 31, 23, 59),
        datetime(2026, 3, 29, 2, 30, tzinfo=UTC),
        time(7),
    ),
    *([], {}, [[]], [{}], [1, "a", None], {"a": 1}, {"every": 30}, {"cron": "* * * * *"}, {"at": 1}, {"task": "t"}),
    *({"solar": "sunset", "lat": 91, "lon": 0}, {"minute": [1, "x"]}, {"every": "1s", "anchor": 1, "relative": True}),
]
KEYS = [
    *ENTRY,
    *TOP,
    *SECTIONS,
    "url",
    "beat_schedule",
    "defaults",
    "",
    " ",
    "x",
    "a.b",
    "a\nb",
    "n" * 251,
    "täsk",
    "\u202e",
]


def restructured(text: str, dice: random.Random) -> bytes:
    """``text`` with one to four values, keys or tables replaced, added, removed, moved, or nested."""
    tree = tomllib.loads(text)
    for _ in range(dice.randint(1, 4)):
        place = dice.choice([*_tables(tree)])
        key = dice.choice([*place]) if place else dice.choice(KEYS)
        match dice.randrange(7):
            case 0 | 1:
                place[key] = copy.deepcopy(dice.choice(VALUES))
            case 2:
                place[dice.choice(KEYS)] = copy.deepcopy(dice.choice(VALUES))
            case 3:
                place.pop(key, None)
            case 4:
                place[dice.choice(KEYS)] = place.pop(key, 1)
            case 5:
                for _ in range(dice.choice([1, 2, 60])):
                    place[key] = dice.choice([[place.get(key, 1)], {dice.choice(KEYS): place.get(key, 1)}])
            case 6:
                dice.choice([*_tables(tree)])[key] = copy.deepcopy(place.get(key, 1))
    return tomli_w.dumps(_writable(tree)).encode("utf-8", "replace")


def _tables(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for each in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _tables(each)


def _writable(tree: Any) -> Any:
    """Without what TOML has no word for."""
    if isinstance(tree, dict):
        return {key: _writable(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_writable(value) for value in tree if value is not None]
    return tree


def faults_of(file: Path) -> tuple[Fault, ...]:
    """What is wrong with a file; nothing if it loads."""
    try:
        loaded = config.load(file, env={"HOME": "/root"})
    except ConfigError as error:
        return error.faults or pytest.fail("an error without faults")
    assert all(entry.task and entry.source for entry in loaded.entries)
    assert all(entry.schedule.next_after_ms(0) is None or entry.schedule.fingerprint for entry in loaded.entries)
    if loaded.entries:
        entry = loaded.entries[0]
        MessageBuilder("celery").render(Run(entry, 0, 0, entry.schedule), expires_ms=None)
    return ()


def check(seed: str, count: int, folder: Path) -> None:
    """Load so many mutations; whatever comes is an answer with places."""
    dice = random.Random(seed)
    file = folder / "beat.toml"
    for number in range(count):
        data = (mutated if number % 2 else restructured)(GOOD, dice)
        file.write_bytes(data)
        try:
            faults = faults_of(file)
        except Exception as error:
            error.add_note(data.decode("utf-8", "replace"))
            raise
        for fault in faults:
            assert fault.file.startswith(str(folder))
            assert fault.line is None or 1 <= fault.line <= data.count(b"\n") + 1, fault
            assert "\n" not in str(fault)
            assert len(str(fault)) < 2_000, fault


@pytest.mark.parametrize("seed", range(5))
def test_mutations(seed: int, tmp_path: Path) -> None:
    check(f"quick {seed}", 300, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10))
def test_twenty_thousand_mutations(seed: int, tmp_path: Path) -> None:
    check(f"long {seed}", 2_000, tmp_path)
