"""Imported lines run when cron would run them: cronsim, which follows Debian's cron, is the oracle."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from beatd import config
from beatd.importers import carry_over
from beatd.importers.crontab import read_crontab

LIMITS = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6))
PARTS = ["${", "$", "}", "x", '"', "'", "\\", " ", "\u2028", "\x0c", "#", "="]
START = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)


def field(draw: random.Random, low: int, high: int) -> str:
    first, last = sorted(draw.sample(range(low, high + 1), 2))
    forms = ["*", "*", str(first), f"{first}-{last}", f"{first},{last}", f"{first}-{last}/{draw.randint(1, 40)}"]
    return draw.choice([*forms, f"*/{draw.randint(1, 70)}"])


def line(draw: random.Random) -> str:
    fields = [field(draw, *limits) for limits in LIMITS]
    fields[draw.choice((2, 4))] = "*"  # both together are another rule, which tests of schedules have
    command = "".join(
        draw.choice(["${", "$", "}", "x", '"', "'", "\\", " ", "\u2028", "\x0c", "#", "="]) for _ in range(9)
    )
    return f"{' '.join(fields)} run{command}x"


@pytest.mark.parametrize("seed", range(6))
def test_generated_crontabs(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    lines = [line(draw) for _ in range(15)]
    found = read_crontab("\n".join(lines), shown="crontab", timezone="Asia/Tokyo")
    carried = carry_over(found)
    assert carried.lost == 0, carried.notes
    (tmp_path / "beat.toml").write_text(carried.toml, "utf-8")
    loaded = config.load(tmp_path / "beat.toml", env={})
    assert loaded.digest == config.digest(carried.entries)
    for written, entry in zip(lines, loaded.entries, strict=True):
        *times, command = written.split(" ", 5)
        assert entry.args == ("/bin/sh", "-c", command)
        expected = islice(CronSim(" ".join(times), START.astimezone(ZoneInfo("Asia/Tokyo"))), 200)
        moment = START
        for want in expected:
            moment = entry.schedule.next_after(moment)
            assert moment == want, (written, entry.schedule.notation)
