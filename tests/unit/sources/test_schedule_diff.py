"""Differences of two schedules: the same as those that a look at each entry finds."""

from __future__ import annotations

import random

import pytest
from msgspec import structs

from beatd import config
from beatd.model import Entry
from beatd.sources.schedule_diff import differences, renewed


def entry(name: str, schedule: int = 30) -> Entry:
    return config.entry(name, {"task": "t", "schedule": schedule}, source="beat.toml:1")


@pytest.mark.parametrize("seed", range(20))
def test_however_a_schedule_is_edited_its_differences_are_found(seed: int) -> None:
    dice = random.Random(seed)
    before = [entry(f"e-{number}") for number in range(30)]
    for _ in range(30):
        after = list(before)
        for _ in range(dice.randrange(4)):
            place = dice.randrange(len(after))
            match dice.randrange(6):
                case 0:
                    after.insert(place, entry(f"new-{dice.randrange(10**9)}"))
                case 1:
                    del after[place]
                case 2:
                    after[place] = structs.replace(after[place], schedule=entry("a", dice.randrange(1, 9)).schedule)
                case 3:
                    after[place] = structs.replace(after[place], line=dice.randrange(99))
                case 4:
                    dice.shuffle(after)
                case 5:
                    after[place:] = after[: place - 1 : -1] if place else after[::-1]
        old, new = ({each.name: each for each in entries} for entries in (before, after))
        found = differences(before, after)
        assert found.added == {name: each for name, each in new.items() if name not in old}
        assert found.gone == {name: each for name, each in old.items() if name not in new}
        assert found.changed == {name: each for name, each in new.items() if name in old and not each.means(old[name])}
        by_name = renewed(old, after)
        assert list(by_name) == list(new)
        assert all(by_name[name] is each for name, each in new.items())
        before = after
