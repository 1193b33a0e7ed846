"""Defaults that one entry turns off: ``false`` says that a setting is not set. Tried for every setting there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from beatd import config
from beatd.client.schedules import checked
from beatd.config.entries import DEFAULTS, ENTRY
from beatd.config.fields import CAN_BE_OFF, OPTIONS
from beatd.config.references import references
from beatd.config.schema import schema
from beatd.config.toml import has_reference
from beatd.config.writer import export, toml_value
from beatd.exceptions import ConfigError
from beatd.model import Entry

FLAGS = ("enabled", "ignore_result", "keep_result")
VALUES = {name: field.example for name, field in DEFAULTS.items()}
"""A default for each setting, which is not what holds without one."""
VALUES |= {"serializer": "json", "ping": "https://hc-ping.com/key", "sentry": {"dsn": "https://k@h.example/1"}}
OWN: Mapping[str, Any] = {"task": "t", "schedule": "0 7 * * *"}
HEAD = '[notify.ops]\ncommand = ["true"]\n'
VALIDATOR = Draft7Validator(schema())


def text(defaults: Mapping[str, Any], own: Mapping[str, Any], name: str = "a") -> str:
    parts = ("".join(f"{key} = {toml_value(each)}\n" for key, each in table.items()) for table in (defaults, own))
    return "[defaults]\n{}[beat_schedule.{name}]\n{}".format(*parts, name=name)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in VALUES.items() if key != name}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(main: str, **others: str) -> tuple[Entry, ...]:
    Path("beat.toml").write_text(main)
    for name, each in others.items():
        Path(f"{name}.toml").write_text(each)
    return config.load("beat.toml", env={}).entries


def same(one: Entry, other: Entry) -> bool:
    return one.means(other) and one.timezone == other.timezone


def test_all_settings_but_flags_can_be_off() -> None:
    assert set(DEFAULTS) - CAN_BE_OFF == set(FLAGS)


@pytest.mark.parametrize("name", sorted(CAN_BE_OFF))
def test_a_default_that_an_entry_turns_off_is_as_if_it_were_not_there(folder: Path, name: str) -> None:
    (expected,) = loaded(HEAD + text(without(name), OWN))
    (off,) = loaded(HEAD + text(VALUES, {**OWN, name: False}))
    assert same(off, expected)
    assert name == "serializer" or not same(loaded(HEAD + text(VALUES, OWN))[0], expected), "the default says something"
    alone = config.entry("a", OWN, defaults={})
    assert same(config.entry("a", {**OWN, name: False}, defaults={name: VALUES[name]}), alone)
    assert same(config.entry("a", {**OWN, name: False}), alone), "also where there is no default"
    if name in OPTIONS:
        (off,) = loaded(HEAD + text(VALUES, {**OWN, "options": {name: False}}))
        assert same(off, expected)


@pytest.mark.parametrize("name", sorted(CAN_BE_OFF))
def test_defaults_that_are_off_are_not_set(folder: Path, name: str) -> None:
    (expected,) = loaded(HEAD + text(without(name), OWN))
    (off,) = loaded(HEAD + text({**VALUES, name: False}, OWN))
    assert same(off, expected)
    assert name not in config.load("beat.toml", env={}).defaults
    include = 'include = ["more.toml"]\n'
    (included,) = loaded(include + HEAD + text(VALUES, {}).partition("[beat_")[0], more=text({name: False}, OWN))
    assert same(included, expected), "those of an included file turn off those of the main file"


@pytest.mark.parametrize("name", sorted(CAN_BE_OFF))
def test_an_entry_of_the_state_store_keeps_what_it_turns_off(name: str) -> None:
    stored = checked("a", {**OWN, name: False}, defaults=VALUES)
    assert stored[name] is False
    assert same(config.entry("a", stored, defaults=VALUES), config.entry("a", OWN, defaults=without(name)))
    assert checked("a", {**OWN, name: None}) == OWN, "None is not said: the default holds"


@pytest.mark.parametrize("name", FLAGS)
def test_false_is_a_value_of_flags(name: str) -> None:
    made = config.entry("a", {**OWN, name: False}, defaults={name: True})
    assert getattr(made.options if name in OPTIONS else made.policies, name) is False


@pytest.mark.parametrize("name", ["task", "schedule", "args", "kwargs", "options", "colour", "qeue"])
def test_what_has_no_default_cannot_be_off(name: str) -> None:
    said = []
    for defaults in ({}, VALUES):
        with pytest.raises(ConfigError) as caught:
            config.entry("a", {**OWN, name: False}, defaults=defaults)
        said.append([str(fault) for fault in caught.value.faults])
    assert said[0] == said[1]
    assert "turns off" not in str(said)


@pytest.mark.parametrize("name", sorted(CAN_BE_OFF))
def test_an_error_says_how_to_turn_off_a_default(folder: Path, name: str) -> None:
    said = []
    for defaults in (VALUES, {}):
        with pytest.raises(ConfigError) as caught:
            loaded(HEAD + text(defaults, {**OWN, name: True}))
        said += [each.message for each in caught.value.faults if each.path == f"beat_schedule.a.{name}"]
    assert said == [f"{said[1]}; false turns off that of [defaults]", said[1]]


@pytest.mark.parametrize("name", sorted(ENTRY))
def test_editors_know_what_can_be_off(name: str) -> None:
    for value in (False, True):
        is_right = name in (*FLAGS, "relative") or (name in CAN_BE_OFF and not value)
        entry = {"task": "t", "schedule": 30, name: value}
        assert VALIDATOR.is_valid({"beat_schedule": {"a": entry}}) == is_right, value
        if name in DEFAULTS:
            assert VALIDATOR.is_valid({"defaults": {name: value}}) == is_right
        if name in OPTIONS:
            entry = {"task": "t", "schedule": 30, "options": {name: value}}
            assert VALIDATOR.is_valid({"beat_schedule": {"a": entry}}) == is_right


def test_an_export_means_the_same_where_it_is_included(folder: Path) -> None:
    """Also an entry that turns off all defaults, and values that are the usual ones and so not written."""
    defaults = 'timezone = "Asia/Tokyo"\n' + HEAD + text({**VALUES, "catch_up_max": 7}, OWN, "all")
    usual = {"enabled": True, "catch_up": "latest", "overlap": "allow", "jitter": 0, "tags": [], "catch_up_max": 100}
    tables: list[dict[str, Any]] = [dict.fromkeys(sorted(CAN_BE_OFF), False), usual]
    more = "".join(text({}, {**OWN, **own}, f"e{place}").partition("\n")[2] for place, own in enumerate(tables))
    before = loaded(defaults + more)
    found = config.load("beat.toml", env={})
    written = export(before, timezone=found.settings.timezone, defaults=found.defaults)
    again = loaded(f"{written}\n{HEAD}")
    assert all(map(same, again, before)), "alone"
    head = defaults.partition("[beat_schedule")[0]
    again = loaded('include = ["more.toml"]\n' + head, more=written)
    assert [entry.name for entry in again] == ["all", "e0", "e1"]
    assert all(map(same, again, before)), "included beside the same defaults"


def test_an_export_has_no_variables_of_a_default_that_is_off(folder: Path) -> None:
    text_of_all = '[defaults]\nqueue = "${Q}"\nping = "https://h/${Q}"\n[beat_schedule.a]\ntask = "t"\nschedule = 30\n'
    Path("beat.toml").write_text(text_of_all + "queue = false\noptions = { shadow = false }\n")
    found = config.load("beat.toml", env={"Q": "q"})
    assert not has_reference(references(found)["a"].get("queue"))
    assert references(found) == {"a": {"ping": "https://h/${Q}"}}


@pytest.mark.parametrize("off", ["queue", "exchange", "routing_key"])
def test_an_address_that_is_off_replaces_no_other(off: str) -> None:
    address = {"queue": "q", "exchange": "e", "routing_key": "k"}
    made = config.entry("a", {**OWN, off: False}, defaults=address)
    assert {name: getattr(made.options, name) for name in address} == {**address, off: None}


# -- places of errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DEFAULTS))
@pytest.mark.parametrize("is_included", [False, True])
def test_a_wrong_default_is_named_with_its_own_place(folder: Path, name: str, is_included: bool) -> None:
    """Whatever entries there are: once, at its line, in its file."""
    entries = "".join(f'[beat_schedule.e{number}]\ntask = "t"\nschedule = {number + 1}\n' for number in range(3))
    wrong = f'timezone = "Asia/Tokyo"\n\n[defaults]\n# it\n{name} = nan\n{entries}'
    main = 'include = ["more.toml"]\n[defaults]\nshadow = "x"\n' if is_included else wrong
    with pytest.raises(ConfigError) as caught:
        loaded(main, more=wrong.replace("beat_schedule.e", "beat_schedule.f"))
    (fault,) = caught.value.faults
    assert (fault.file, fault.line, fault.path) == ("more.toml" if is_included else "beat.toml", 5, f"defaults.{name}")
