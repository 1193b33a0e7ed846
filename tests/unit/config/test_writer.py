"""Entries as TOML: what is written and read again means the same."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beatd import config
from beatd.config.writer import export
from beatd.exceptions import ConfigError

ZONES = ["UTC", "Europe/Berlin", "Asia/Baku"]
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.replace(microsecond=0))
NASTY = [
    "${",
    "$${",
    "$$",
    "$",
    "{",
    "}",
    "${HOME}",
    "${HOME:-/}",
    '"',
    "'",
    "\\",
    '"""',
    "\\u0041",
    "\n",
    "\r\n",
    "\t",
]
NASTY += ["\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029", "\ufeff", "\U0001f600", "#", "=", "[x]", "x" * 5000]
TEXTS = st.text(min_size=1, max_size=12) | st.lists(st.sampled_from(NASTY), min_size=1, max_size=4).map("".join)
WORDS = st.from_regex(r"[a-z][a-z0-9_.]{0,11}", fullmatch=True)
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | MOMENTS
    | st.dates(date(1990, 1, 1), date(2100, 1, 1))
    | st.times().map(lambda t: t.replace(microsecond=0)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
OF_JSON = st.recursive(
    st.none() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
"""What JSON has and TOML has not: null, and numbers of any length."""
DURATIONS = st.integers(10, 10**9).map(lambda ms: f"{ms}ms")
ONE_SCHEDULE = (
    st.integers(1, 10**6)
    | DURATIONS
    | st.sampled_from(["*/5 * * * *", "30 7 * * mon", "@daily", "H H * * *", "0 0 L * *", "*/15 30 4 * * 1-5"])
    | st.fixed_dictionaries({"minute": st.sampled_from(["*/5", "0", 30, [1, 2]]), "day_of_week": st.just("mon-fri")})
    | st.fixed_dictionaries({"every": DURATIONS, "anchor": MOMENTS})
    | st.fixed_dictionaries({"every": st.just("5m"), "relative": st.just(True)})
    | st.fixed_dictionaries({"at": MOMENTS})
    | st.fixed_dictionaries({"solar": st.just("sunset"), "lat": st.just(40.5), "lon": st.just(-3)})
)
SIGNATURES = st.lists(
    st.fixed_dictionaries({"task": WORDS}, optional={"args": st.lists(VALUES, max_size=2), "immutable": st.just(True)}),
    min_size=1,
    max_size=2,
)
ENTRIES = st.fixed_dictionaries(
    {"task": WORDS, "schedule": ONE_SCHEDULE | st.lists(ONE_SCHEDULE, min_size=1, max_size=3)},
    optional={
        "args": st.lists(VALUES, max_size=3) | st.lists(OF_JSON, max_size=3),
        "kwargs": st.dictionaries(TEXTS, VALUES, max_size=3) | st.dictionaries(TEXTS, OF_JSON, max_size=3),
        "timezone": st.sampled_from(ZONES),
        "dst": st.sampled_from(["cron", "skip"]),
        "queue": WORDS,
        "priority": st.integers(0, 255),
        "expires": st.sampled_from(["auto", "never", 30, "1h30m"]) | MOMENTS,
        "countdown": DURATIONS,
        "headers": st.dictionaries(WORDS, PLAIN, max_size=2),
        "time_limit": st.integers(100, 200),
        "soft_time_limit": st.floats(1, 99).map(lambda s: round(s, 3)),
        "ignore_result": st.booleans(),
        "keep_result": st.booleans(),
        "link": SIGNATURES,
        "enabled": st.booleans(),
        "start": MOMENTS.map(lambda t: t.replace(year=1996)),
        "end": MOMENTS.map(lambda t: t.replace(year=2096)),
        "max_runs": st.integers(1, 9),
        "blackout": st.sampled_from(
            ["22:00-06:00", "2026-12-24", ["2026-12-24/2026-12-26", {"cron": "0 22 * * fri", "duration": "8h"}]]
        ),
        "catch_up": st.sampled_from(["latest", "all", "none"]),
        "catch_up_window": DURATIONS,
        "overlap": st.sampled_from(["allow", "skip", "queue_one"]),
        "max_queue_depth": st.integers(1, 9),
        "tags": st.lists(st.sampled_from(["billing", "eu"]), unique=True, max_size=2),
        "overdue_after": st.sampled_from(["10m", "1h"]),
        "expect_within": st.sampled_from(["2h", "1d"]),
    },
)
NAMES = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20).filter(
    lambda name: not name.isspace() and name.isprintable()
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, ENTRIES, max_size=3), st.sampled_from(ZONES))
def test_what_is_exported_means_the_same_when_it_is_loaded(tmp_path_factory, tables, timezone):
    entries = [config.entry(name, fields, timezone=timezone) for name, fields in tables.items()]
    file = tmp_path_factory.getbasetemp() / "exported.toml"
    file.write_text(export(entries, timezone=timezone), "utf-8")
    loaded = config.load(file, env={})
    assert [entry.name for entry in loaded.entries] == [entry.name for entry in entries]
    assert all(read.means(entry) for read, entry in zip(loaded.entries, entries, strict=True))
    assert loaded.digest == config.digest(tuple(entries))
    assert export(loaded.entries, timezone=timezone) == file.read_text("utf-8")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([None, date(2026, 1, 1)], "TOML has no null"),
        ([2**63, date(2026, 1, 1)], "64 bits"),
        ("\udc80", "surrogate"),
        (Decimal("1.5"), "decimals"),
        (b"x", "bytes"),
        (time(7, 30, tzinfo=UTC), "time zone"),
    ],
)
def test_what_toml_cannot_say_is_named(value, reason):
    entry = config.entry("one", {"task": "t", "schedule": 1, "kwargs": {"deep": [{"er": value}]}}, source="app.py")
    with pytest.raises(ConfigError) as caught:
        export([entry], timezone="UTC")
    assert str(caught.value).startswith("app.py: beat_schedule.one.kwargs.deep[0].er")
    assert reason in str(caught.value)


def test_the_style_is_that_of_the_documentation():
    fields = {
        "task": "t",
        "schedule": {"minute": 30, "hour": "7"},
        "args": [1, "two", {"x": [1, 2]}],
        "kwargs": {"a b": "${HOME}", "empty": {}},
        "options": {"queue": "reports", "headers": {"tenant": "x"}},
    }
    entries = [
        config.entry("one", fields),
        config.entry("two words", {"task": "t", "schedule": 1, "args": ["a" * 130]}),
    ]
    assert export(entries, timezone="Europe/Berlin", header=["From a test."]) == (
        "# From a test.\n"
        "\n"
        'timezone = "Europe/Berlin"\n'
        "\n"
        "[beat_schedule.one]\n"
        'task = "t"\n'
        'schedule = { minute = 30, hour = "7" }\n'
        'timezone = "UTC"\n'
        'args = [1, "two", { x = [1, 2] }]\n'
        'kwargs = { "a b" = "$${HOME}", empty = {} }\n'
        'queue = "reports"\n'
        'headers = { tenant = "x" }\n'
        "\n"
        '[beat_schedule."two words"]\n'
        'task = "t"\n'
        'schedule = "1s"\n'
        'timezone = "UTC"\n'
        f'args = [\n  "{"a" * 130}",\n]\n'
    )


def test_null_is_written_as_json_text():
    entry = config.entry("one", {"task": "t", "schedule": 1, "args": [None, "${X}"], "kwargs": {"limit": None}})
    text = export([entry], timezone="UTC")
    assert "args = '[null, \"$${X}\"]'" in text or 'args = "[null, \\"$${X}\\"]"' in text
    assert 'kwargs = "{\\"limit\\": null}"' in text


@pytest.mark.parametrize("field", ["kwargs", "headers"])
def test_names_that_no_file_can_have_are_named(field: str):
    entry = config.entry("one", {"task": "t", "schedule": 1, field: {"deep": [{"a\ud800": 1}]}}, source="app.py")
    with pytest.raises(
        ConfigError, match=rf'beat_schedule.one.{field}.deep\[0\]."a.ud800": it has half of a surrogate'
    ):
        export([entry], timezone="UTC")


def test_an_offset_with_seconds_is_named():
    """Such as of local times before time zones."""
    moment = datetime(1880, 1, 1, tzinfo=timezone(timedelta(minutes=53, seconds=28)))
    entry = config.entry("one", {"task": "t", "schedule": 1, "args": [moment]}, source="app.py")
    with pytest.raises(ConfigError, match="offsets with seconds"):
        export([entry], timezone="UTC")
