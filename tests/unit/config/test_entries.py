"""How large messages may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from beatd import config
from beatd.beat.message_builder import MessageBuilder
from beatd.config.entries import message_bytes, too_large
from beatd.config.fields import SECTIONS
from beatd.exceptions import ConfigError, MessageError
from beatd.model import Entry, Run
from beatd.schedules import parse


def entry(text: str, **more: object) -> Entry:
    return config.entry("a", {"task": "t", "schedule": 30, "args": [text], **more})


def run(text: str, **more: object) -> Run:
    return Run(entry(text, **more), 0, 0, parse(30))


@pytest.mark.parametrize("text", ["", "x" * 1_000_000, "ß" * 100_000, "\\" * 100_000])
@pytest.mark.parametrize(
    "more", [{}, {"headers": {"h": "y" * 10_000}}, {"link": {"task": "u", "args": ["z" * 10_000]}}]
)
def test_the_size_is_known_well_enough_before_a_message_is_made(text: str, more: dict[str, object]) -> None:
    rendered = MessageBuilder("celery", most_bytes=1 << 30).render(run(text, **more), None)
    assert abs(message_bytes(entry(text, **more)) - len(rendered)) < 10_000


def test_a_message_that_is_too_large_is_not_made() -> None:
    assert MessageBuilder("celery", most_bytes=10_000).render(run("x" * 1_000), None)
    with pytest.raises(MessageError, match=r"it has [\d,]+ bytes; max_message_size of \[broker\] is 10,000"):
        MessageBuilder("celery", most_bytes=10_000).render(run("x" * 10_000), None)


def test_a_setting_that_is_lowered_is_looked_at_again(tmp_path: Path) -> None:
    text = f'[beat_schedule.a]\ntask = "t"\nschedule = 30\nargs = ["{"x" * 5_000}"]\n'
    (tmp_path / "beat.toml").write_text(text)
    loaded = config.load(tmp_path / "beat.toml", env={})
    (tmp_path / "beat.toml").write_text("[broker]\nmax_message_size = 4096\n" + text)
    with pytest.raises(ConfigError, match=r"message of this entry would have 8\.\d KiB; max_message_size .* is 4 KiB"):
        config.load(tmp_path / "beat.toml", env={}, before=loaded)


def test_what_a_variable_stands_for_is_weighed(tmp_path: Path) -> None:
    (tmp_path / "beat.toml").write_text('[beat_schedule.a]\ntask = "t"\nschedule = 30\nargs = ["${LONG}"]\n')
    with pytest.raises(ConfigError, match="a message of this entry would have"):
        config.load(tmp_path / "beat.toml", env={"LONG": "x" * 2_000_000})
    assert too_large(entry("x"), 1 << 20) == ""


@pytest.mark.parametrize(
    ("written", "meant"),
    [(4096, 4096), ("4096", 4096), ("4KiB", 4096), ("8 kb", 8000), ("1MiB", 1 << 20), ("2MB", 2_000_000)],
)
def test_sizes_are_written_in_these_ways(written: object, meant: int) -> None:
    assert SECTIONS["broker"]["max_message_size"].read(written, "UTC") == meant
