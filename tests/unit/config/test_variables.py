"""Values of variables are in no error, whatever is wrong with them: messages show ``${NAME}``."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from jsonschema import Draft7Validator

from beatd import config
from beatd.config.entries import DEFAULTS, ENTRY
from beatd.config.fields import SECTIONS, Fields
from beatd.config.schema import schema
from beatd.config.settings import TOP
from beatd.config.targets import TARGET
from beatd.exceptions import ConfigError

VALUES = [
    *(
        "zq77x",
        "zq77 x",
        " ",
        "Zq77X-Y",
        "zq77@x:99999",
        "zq77://x",
        "https://zq77:p@/x",
        "redis://zq77:zq77@zq77/zq77",
    ),
    *("7777777", "-7777777", "7777777777777777777777", "0.0000777", "7777777d", "777.777 furlongs", "1e777"),
    *(
        "1907-07-07T07:07:07",
        "1907-07-07",
        "9999-07-07T07:07:07",
        "07:77-08:77",
        "2222-02-02/2221-01-01",
        "77:07-08:00",
    ),
    *("77 7 7 7 zq77", "H(77-78) * * * *", "[7777777", '{"zq77": 7777777', "Zq77/Lunar", "zq77*[", "failurezq77"),
    *("zq77\ttab", "zq77" * 100, "opszq77", "latestzq77"),
]
"""Each is wrong in most places, in one way or another."""

FORMS = ['"${V}"', '"x${V}"', '["${V}"]', '["ops", "${V}"]', '{ x = "${V}" }', '{ every = "${V}" }', '{ at = "${V}" }']
FORMS += ['{ cron = "${V}", duration = "${V}" }', '{ minute = "${V}" }', '{ solar = "${V}", lat = 1, lon = 1 }']
FORMS += ['{ holidays = "${V}" }', '{ business-days = "${V}" }', '{ ics = "zq://${V}" }', '{ task = "${V}" }']
FORMS += ['{ dsn = "${V}" }', '{ dsn = "https://k@h/1", monitor = "${V}", environment = "${V}" }']
FORMS += ['{ task = "t", args = "${V}" }', '{ priority = "${V}" }', '{ queue = "${V}", notify = ["${V}"] }']

TARGETS = '[notify.ops]\ncommand = ["x"]\n'


def _files() -> Iterator[str]:
    """Files with the variable in each place."""
    for text in FORMS:
        for key in ENTRY:
            fields = {"task": '"t"', "schedule": "30", key: text}
            yield TARGETS + "[beat_schedule.a]\n" + "".join(f"{name} = {each}\n" for name, each in fields.items())
        for key in DEFAULTS:
            yield f"{TARGETS}[defaults]\n{key} = {text}\n"
        for name, settings in SECTIONS.items():
            for key in [*settings, "url_file", "password_file"]:
                yield f"[{name}]\n{key} = {text}\n"
        for key in [*TARGET, "url_file", "webhook_file"]:
            yield f"[notify.ops]\n{key} = {text}\n"
        for key in TOP:
            yield f"{key} = {text}\n"
        yield f"[blackout]\nnight = {text}\n"


def said(text: str, folder: Path, **env: str) -> str:
    """The errors of a file; nothing if there are none."""
    file = folder / "beat.toml"
    file.write_text(text)
    try:
        config.load(file, env=env)
    except ConfigError as error:
        return str(error)
    return ""


def check(value: str, files: list[str], folder: Path) -> None:
    found = 0
    for text in files:
        errors = said(text, folder, V=value).replace(str(folder), "")
        found += bool(errors)
        assert not value.strip() or value not in errors, (text, errors)
        assert "zq77" not in errors.lower(), (text, errors)
        assert "777" not in errors, (text, errors)
        assert not value[0:1].isdigit() or value[4:5] != "-" or value[:4] not in errors, (text, errors)
    assert found > len(files) // 10


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:20])
def test_no_error_has_the_value_of_a_variable(value: str, tmp_path: Path) -> None:
    check(value, random.Random(value).sample([*_files()], 150), tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:20])
def test_no_error_anywhere_has_the_value_of_a_variable(value: str, tmp_path: Path) -> None:
    check(value, [*_files()], tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (TARGETS + '[beat_schedule.a]\ntask = "t"\nschedule = 30\nnotify = ["${V}"]\n', "opz"),
        ('[beat_schedule.a]\ntask = "t"\nschedule = 30\nnotify = ["${V}"]\n', "zq77"),
        ('[defaults]\nnotify = ["ops", "${V}"]\n' + TARGETS, "opz"),
        ('[beat_schedule.a]\ntask = "t"\nschedule = 30\nstart = "${V}"\n', "1907-07-07"),
        ('[defaults]\nsentry = { dsn = "https://k@h/1", monitor = "${V}" }\n', "Zq77"),
    ],
)
def test_places_where_the_value_was_shown(text: str, value: str, tmp_path: Path) -> None:
    errors = said(text, tmp_path, V=value)
    assert '"${V}"' in errors
    assert value not in errors.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("text", "values", "shown"),
    [
        ('schedule = 3600\nstart = "${V}"\nend = "${W}"', ("2031-07-07", "2021-07-07"), ("2031", "2021")),
        ('schedule = 3600\ntime_limit = "${V}"\nsoft_time_limit = "${W}"', ("707", "909"), ("707 s", "909 s")),
        ('schedule = "${V}"\njitter = "${W}"', ("707s", "909s"), ("11m47s", "15m9s")),
        ('[leader]\nttl = "${W}"\nrenew = "${V}"', ("707s", "909s"), ("35m21s", "15m9s")),
        ('[redis]\nwait_replicas = 1\ntimeout = "${V}"\nwait_timeout = "${W}"', ("707s", "909s"), ("11m47s", "15m9s")),
    ],
)
@pytest.mark.parametrize("hidden", ["", "V", "W", "VW"])
def test_values_that_do_not_fit_together_are_shown_as_they_are_written(
    text: str, values: tuple[str, str], shown: tuple[str, str], hidden: str, tmp_path: Path
) -> None:
    for name, value in zip("VW", values, strict=True):
        text = text if name in hidden else text.replace(f"${{{name}}}", value)
    head = "" if text.startswith("[") else '[beat_schedule.a]\ntask = "t"\n'
    errors = said(head + text, tmp_path, **dict(zip("VW", values, strict=True))).replace(str(tmp_path), "")
    assert "expected" in errors
    for name, value in zip("VW", shown, strict=True):
        assert (f'"${{{name}}}"' in errors) == (name in hidden), errors
        assert (value in errors) == (name not in hidden), errors


def test_a_reason_that_may_be_about_another_part_does_not_blame_the_variable(tmp_path: Path) -> None:
    text = '[beat_schedule.a]\ntask = "t"\nschedule = {{ hour = "{0}", minute = "${{V}}" }}\n'
    assert said(text.format("5"), tmp_path, V="30") == ""
    errors = said(text.format("99"), tmp_path, V="30")
    assert 'schedule: invalid; why is not shown: it may name the value of "${V}"' in errors


@pytest.mark.parametrize(
    "fields",
    [{"options": {1: 2}}, {"headers": {1: 2}}, {1: 2}, {"sentry": {"dsn": "https://k@h/1", 1: 2}}, {"kwargs": {1: 2}}],
)
def test_keys_that_are_no_text_are_faults(fields: dict[Any, Any]) -> None:
    for table in ({"task": "t", "schedule": 30, **fields}, fields):
        with pytest.raises(ConfigError):
            config.entry("a", table)


# -- each value may come from a variable ------------------------------------------------------------------------------

SCHEDULES = [
    *(30, 0.5, "1h", "30 7 * * mon", {"every": 30}, {"every": "1h", "anchor": "2026-01-01T00:00:00"}),
    *({"every": "30s", "relative": True}, {"every": "1h", "relative": False}, {"cron": "0 5 * * *"}),
    *({"at": "2027-01-01T00:00:00"}, {"solar": "sunset", "lat": 40.4, "lon": -49}),
    {"minute": 0, "hour": "7", "day_of_week": [1, "fri"], "day_of_month": 1, "month_of_year": [1, 2]},
    ["@hourly", {"minute": 30}, {"every": 60, "relative": True}, {"solar": "dawn_civil", "lat": 1, "lon": 2.5}],
]
ONLY_ON = ["business-days", {"business-days": "DE-BY"}]
BLACKOUTS = [
    *("22:00-06:00", ["2026-12-24", {"cron": "0 17 * * fri", "duration": 60}], {"ics": "maintenance.ics"}),
    *({"holidays": "DE-BY"}, *({"only_on": days} for days in ONLY_ON)),
]
MORE = {"schedule": SCHEDULES, "blackout": BLACKOUTS, "only_on": ONLY_ON, "match": [["a", "b"]]}
"""More values of settings, beside their examples: all tables that they may be."""

BESIDE: dict[str, dict[str, Any]] = {
    "routing_key": {"exchange": "events"},
    "exchange": {"routing_key": "report"},
    **{key: {"url": "redis:///0"} for key in ("host", "port", "username", "password")},
    "user_header": {"trusted_proxies": ["10.0.0.5"]},
    "trusted_proxies": {"user_header": "X-Remote-User"},
    "tls_cert": {"tls_key": "web.key"},
    "tls_key": {"tls_cert": "web.crt"},
}
"""What some settings need beside them."""

ENTRY_BASE = {"task": "t", "schedule": 60}
ALONE = {"beat_schedule": {"a": ENTRY_BASE}}
TARGET_BASE = {"notify": {"ops": {"command": ["x"]}}}
TEXT_ALWAYS = {"args", "kwargs", "headers", "link", "link_error"}
"""What a message carries: text from a variable stays text there."""


def _settings(fields: Fields, name: str, base: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The path, the table and the key of each setting of a table, with a value, and what it needs, in the table."""
    for key, field in fields.items():
        for value in [field.example, *MORE.get(key, ())]:
            yield f"{name}.{key}", {**base, **BESIDE.get(key, {}), key: value}, key


def _tables() -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """The path of each setting, a table with it, its key there, and what makes a file of that table."""
    for path, table, key in _settings(ENTRY, "entry", ENTRY_BASE):
        yield path, table, key, lambda made: {**TARGET_BASE, "beat_schedule": {"a": made}}
    for path, table, key in _settings(DEFAULTS, "defaults", {}):
        yield path, table, key, lambda made: {**TARGET_BASE, "defaults": made, **ALONE}
    for section, fields in SECTIONS.items():
        for path, table, key in _settings(fields, section, {}):
            yield path, table, key, lambda made, section=section: {section: made, **ALONE}
    for path, table, key in _settings(TARGET, "notify", {}):
        ways = {} if key in ("url", "urls", "command") else {"webhook": "https://example.com/hook"}
        yield path, {**ways, **table}, key, lambda made: {"notify": {"ops": made}, **ALONE}
    for path, table, key in _settings(TOP, "top", {}):
        yield path, table, key, lambda made: {**made, **ALONE}
    for value in BLACKOUTS:
        file = {"beat_schedule": {"a": {**ENTRY_BASE, "blackout": "night"}}}
        yield "blackout.night", {"night": value}, "night", lambda made, file=file: {"blackout": made, **file}


def _with_variable(value: Any) -> Iterator[tuple[Any, str]]:
    """``value`` with a variable for one of the values in it, for each of them, and what the variable stands for."""
    match value:
        case dict():
            for key, each in value.items():
                yield from (({**value, key: made}, text) for made, text in _with_variable(each))
        case list():
            for place, each in enumerate(value):
                made_parts = _with_variable(each)
                yield from (([*value[:place], made, *value[place + 1 :]], text) for made, text in made_parts)
        case str() if "${" in value:
            return
        case bool():
            yield "${V}", str(value).lower()
        case _:
            yield "${V}", str(value)


PLACES = [*_tables()]
VALIDATOR = Draft7Validator(schema())


@pytest.mark.parametrize("place", PLACES, ids=[f"{path} {table[key]}"[:60] for path, table, key, _ in PLACES])
def test_each_value_may_come_from_a_variable(place: Any, tmp_path: Path) -> None:
    _, table, key, file_of = place
    path = tmp_path / "beat.toml"

    def loaded(made: Any, **env: str) -> Any:
        path.write_text(tomli_w.dumps(file_of(made)))
        found = config.load(path, env={"REDIS_PASSWORD": "secret", **env})
        return found.settings, found.entries

    literal = loaded(table)
    for value, text in _with_variable(table[key]):
        made = {**table, key: value}
        assert [error.message for error in VALIDATOR.iter_errors(json.loads(json.dumps(file_of(made))))] == [], value
        found = loaded(made, V=text)
        assert found == literal or key in TEXT_ALWAYS, value
