"""Whatever the file says, the answer is a schedule or faults with lines; never another exception, never a hang."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from beatd import config
from beatd.exceptions import ConfigError, Fault

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


def faults_of(file: Path) -> tuple[Fault, ...]:
    """What is wrong with a file; nothing if it loads."""
    try:
        loaded = config.load(file, env={"HOME": "/root"})
    except ConfigError as error:
        return error.faults or pytest.fail("an error without faults")
    assert all(entry.task and entry.source for entry in loaded.entries)
    return ()


@pytest.mark.parametrize("seed", range(5))
def test_mutations(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    file = tmp_path / "beat.toml"
    for _ in range(100):
        data = mutated(GOOD, dice)
        file.write_bytes(data)
        for fault in faults_of(file):
            assert fault.file.startswith(str(tmp_path))
            assert fault.line is None or 1 <= fault.line <= data.count(b"\n") + 1
            assert "\n" not in str(fault)
