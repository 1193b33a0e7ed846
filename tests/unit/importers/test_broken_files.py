"""Files with pieces cut out, doubled, moved or replaced: a sentence for each, never an error of another kind."""

from __future__ import annotations

import pickle
import random
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apscheduler.triggers.combining import AndTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from beatd.exceptions import ConfigError
from beatd.importers import carry_over
from beatd.importers.apscheduler import jobs_of_file, read_apscheduler
from beatd.importers.cronstable import read_cronstable
from beatd.importers.dkron import read_dkron
from beatd.importers.github_actions import read_github_actions
from beatd.importers.kubernetes import read_kubernetes
from beatd.importers.systemd_timers import read_systemd
from tests.broken_files import broken

DATA = Path(__file__).parents[2] / "data" / "importers"
UNIT = b"[Timer]\nOnCalendar=Mon..Fri *-*-* 07:30\nOnUnitActiveSec=5min\n[Service]\nExecStart=/bin/a 'b'\nUser=x\n"
TRIGGERS = [
    CronTrigger(hour="*/3", minute="5,35", day_of_week="mon-fri", day="2nd tue", timezone="Europe/Berlin"),
    IntervalTrigger(minutes=3, start_date=datetime(2030, 1, 1, tzinfo=UTC), timezone="UTC"),
    AndTrigger([CronTrigger(timezone="UTC")]),
]


def check(read):
    """Read it: a refusal of one line with the file, or entries and notes of which a file is made that loads."""
    refused, found = None, None
    try:
        found = read()
    except ConfigError as error:
        refused = error
    if refused is not None:
        assert all(fault.file for fault in refused.faults)
        assert "\n" not in str(refused)
        return
    carried = carry_over(found)
    tomllib.loads(carried.toml)
    assert all(str(note).strip() for note in carried.notes)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("reader", "name"),
    [
        (read_kubernetes, "kubernetes.yaml"),
        (read_dkron, "dkron.json"),
        (read_cronstable, "cronstable.yaml"),
        (read_github_actions, "workflow.yaml"),
    ],
)
def test_a_file(reader, name, seed):
    dice, data = random.Random(f"{name} {seed}"), (DATA / name).read_bytes()
    for _ in range(40):
        text = broken(dice, data)
        check(lambda text=text: reader(text, shown="f"))


@pytest.mark.parametrize("seed", range(3))
def test_units(seed, tmp_path):
    dice = random.Random(f"units {seed}")
    for _ in range(40):
        (tmp_path / "x.timer").write_bytes(broken(dice, UNIT))
        (tmp_path / "x.service").write_bytes(broken(dice, UNIT))
        check(lambda: read_systemd(tmp_path))


@pytest.mark.parametrize("seed", range(3))
def test_pickles(seed, tmp_path):
    dice = random.Random(f"pickles {seed}")
    states = [
        {"id": str(n), "func": "a:b", "trigger": each, "args": (1,), "kwargs": {}} for n, each in enumerate(TRIGGERS)
    ]
    for _ in range(150):
        protocol = dice.choice([0, 2, 4, 5])
        (tmp_path / "x").write_bytes(broken(dice, pickle.dumps(dice.choice([states, states[0]]), protocol)))
        check(lambda: read_apscheduler(jobs_of_file(tmp_path / "x"), shown="x"))
