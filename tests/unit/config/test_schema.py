"""The JSON Schema says what the reader says, as far as it can; a real validator is asked."""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Iterator
from datetime import date, time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from beatd import config
from beatd.config.schema import schema, schema_text
from beatd.exceptions import ConfigError
from tests.unit.config.test_errors import CASES, SECRET
from tests.unit.config.test_fuzz import GOOD, mutated

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "config" / "beat.schema.json"
VALIDATOR = Draft7Validator(schema())

BEYOND = {
    "a comparison of two values": {
        "redis waits for longer than an answer may take",
        "ttl against renew",
        "renew against the default ttl",
        "soft limit above the hard one",
        "end before start",
        "jitter above the period",
        "messages that are too large",
    },
    "what the host has: files, time zones, variables, packages": {
        "unknown time zone",
        "entry's time zone",
        "the host's zone",
        "included file is missing",
        "url_file that is not there",
        "includes itself",
        "variable is missing",
        "value of a variable stays hidden deep down",
    },
    "what a text stands for, in numbers": {
        "message size out of range",
        "a day that never comes",
        "blackout of everything",
        "blackout that ends before it begins",
        "once at no time",
        "an instant beyond the years",
        "an expiry beyond time",
        "a countdown beyond time",
        "a limit beyond time",
    },
    "numbers that JSON does not have": {"not a number in args", "infinity deep in kwargs"},
}
"""Faults that JSON Schema has no words for, by the reason."""


def told(text: str) -> Any:
    """TOML as an editor hands it to a validator: what JSON has no type for is text."""
    return json.loads(json.dumps(tomllib.loads(text), default=_text))


def _text(value: object) -> str:
    assert isinstance(value, date | time)
    return value.isoformat()


def refusals(text: str) -> list[str]:
    return [f"{error.json_path}: {error.message}"[:300] for error in VALIDATOR.iter_errors(told(text))]


def examples() -> Iterator[Any]:
    yield pytest.param((ROOT / "config" / "beat.toml").read_text(), id="beat.toml")
    yield pytest.param(GOOD, id="everything")
    for page in sorted(ROOT.glob("docs/**/*.md")):
        for found in re.finditer(r"^```toml[^\n]*\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            line = page.read_text()[: found.start()].count("\n") + 1
            yield pytest.param(found[1], id=f"{page.relative_to(ROOT)}:{line}")


def test_the_shipped_file_is_current() -> None:
    assert SHIPPED.read_text() == schema_text(), "run: beatd schema --output config/beat.schema.json"


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(schema())


@pytest.mark.parametrize("text", [*examples()])
def test_what_is_right_is_accepted(text: str) -> None:
    assert refusals(text) == []


@pytest.mark.parametrize("case", [case for case in CASES if "not TOML" not in case.faults], ids=lambda case: case.name)
def test_what_is_wrong_is_refused(case: Any) -> None:
    beyond = {name for names in BEYOND.values() for name in names}
    assert bool(refusals(case.text)) == (case.name not in beyond)


def test_the_faults_that_it_cannot_see_are_real_cases() -> None:
    assert {name for names in BEYOND.values() for name in names} <= {case.name for case in CASES}


def described(part: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in the schema."""
    for name, each in part.get("properties", {}).items():
        if "$ref" not in each:
            yield f"{path}{name}", each
            yield from described(each, f"{path}{name}.")


SETTINGS = [*described(schema()), *described(schema()["definitions"]["entry"], "entry.")]


@pytest.mark.parametrize(("name", "setting"), SETTINGS, ids=[name for name, _ in SETTINGS])
def test_each_setting_is_described_with_examples_that_it_accepts(name: str, setting: Any) -> None:
    assert setting["description"].endswith(".")
    if (
        name.endswith("_file")
        or "properties" in setting
        or (name in ("beat_schedule", "blackout") and "examples" not in setting)
    ):
        return
    validator = VALIDATOR.evolve(schema={**setting, "definitions": schema()["definitions"]})
    for example in setting["examples"] + [setting[key] for key in ("default",) if key in setting]:
        assert validator.is_valid(example), example


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_can_be_read_is_refused(seed: int, tmp_path: Path) -> None:
    dice = random.Random(f"schema {seed}")
    file = tmp_path / "beat.toml"
    read = 0
    while read < 25:
        data = mutated(GOOD, dice)
        file.write_bytes(data)
        try:
            config.load(file, env={"HOME": "/root", "SECRET": SECRET})
        except ConfigError:
            continue
        read += 1
        assert refusals(data.decode()) == [], data.decode()


# -- for SchemaStore --------------------------------------------------------------------------------------------------


def undescribed(said: Any, path: str = "") -> Iterator[str]:
    """The keys of tables without a description, of their own or behind a reference."""
    if isinstance(said, list):
        for place, each in enumerate(said):
            yield from undescribed(each, f"{path}[{place}]")
    if not isinstance(said, dict):
        return
    for key, value in said.items():
        if key == "properties":
            yield from (f"{path}.{name}" for name, each in value.items() if not {"description", "$ref"} & each.keys())
        if key not in {"dependencies", "if", "then", "default", "examples"}:  # conditions, not tables
            yield from undescribed(value, f"{path}.{key}")


def test_every_setting_has_a_description() -> None:
    assert list(undescribed(schema())) == []


def test_the_catalog_names_the_address_of_the_schema() -> None:
    catalog = json.loads((ROOT / "packaging" / "schemastore" / "catalog.json").read_text())
    assert catalog["url"] == schema()["$id"]
    assert catalog["url"].endswith(str(SHIPPED.relative_to(ROOT)))
    assert catalog.keys() == {"name", "description", "fileMatch", "url"}
    assert catalog["fileMatch"] == ["beat.toml"]
    assert not catalog["description"].endswith("."), "as SchemaStore has it"
    assert len(catalog["description"]) <= 120


def test_the_files_of_the_repository_are_valid() -> None:
    for path in ("config/beat.toml", "packaging/docker/beat.toml", "packaging/debian/beat.toml"):
        assert [fault.message for fault in VALIDATOR.iter_errors(told((ROOT / path).read_text()))] == [], path
