"""What a reader takes, in the words of JSON Schema: said where the reader is, so that the two are changed together.

The pieces are put together in :mod:`beatd.config.schema`. A time or date of TOML is text for JSON Schema, as it is for
the editors that use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from beatd.schedules import patterns
from beatd.schedules.crontab import FIELDS as CRONTAB_FIELDS
from beatd.schedules.solar import EVENTS

JsonSchema = dict[str, Any]

_R = TypeVar("_R", bound=Callable[..., Any])

_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_REFERENCE = r"\$\{[A-Za-z_][A-Za-z0-9_]*(?::-[^}]*)?\}"
_PLAIN = r"[^$]|\$\$\{|\$(?!\$?\{)"


def accepts(said: JsonSchema) -> Callable[[_R], _R]:
    """Marks a reader with what it takes."""

    def marked(reader: _R) -> _R:
        reader.accepts = said  # type: ignore[attr-defined]
        return reader

    return marked


def accepted(reader: Callable[..., Any]) -> JsonSchema:
    """What a reader was marked with."""
    said: JsonSchema = reader.accepts  # type: ignore[attr-defined]
    return said


def definition(name: str) -> JsonSchema:
    """A reference to one of :data:`DEFINITIONS`."""
    return {"$ref": f"#/definitions/{name}"}


def matching(*patterns: str) -> JsonSchema:
    """Text of one of these forms."""
    return {"type": "string", "pattern": "|".join(patterns)}


def either(*parts: JsonSchema) -> JsonSchema:
    """One of several; what they say alike is theirs."""
    return {"anyOf": list(parts)}


def or_variable(said: JsonSchema) -> JsonSchema:
    """The same, or text with a ``${VARIABLE}`` in it, of which nobody knows here what it stands for."""
    parts = said["anyOf"] if set(said) == {"anyOf"} else [said]
    return either(*parts, definition("variable"))


def list_of(said: JsonSchema, least: int = 0) -> JsonSchema:
    """A list of such values, with at least so many."""
    return {"type": "array", "items": said} | ({"minItems": least} if least else {})


def table(needed: tuple[str, ...] = (), /, **properties: JsonSchema) -> JsonSchema:
    """A table with these keys and no others."""
    closed = {"type": "object", "additionalProperties": False, "properties": properties}
    return closed | ({"required": list(needed)} if needed else {})


def number(least: float | None = None, most: float | None = None, kind: str = "number") -> JsonSchema:
    """A number within bounds."""
    bounds = {"minimum": least, "maximum": most}
    return {"type": kind} | {key: bound for key, bound in bounds.items() if bound is not None}


def duration(least_ms: int) -> JsonSchema:
    """Seconds, or a text such as ``"1h30m"``."""
    return or_variable(either(number(least_ms / 1000 if least_ms else 0), definition("duration")))


TEXT = definition("text")
CARRIED = definition("carried")
CARRIED_TABLE: JsonSchema = {"type": "object", "additionalProperties": CARRIED}
INSTANT = matching(patterns.INSTANT)
MOMENT = or_variable(INSTANT)
SIGNATURE = either(
    TEXT,
    table(
        ("task",),
        task=TEXT,
        args=list_of(CARRIED),
        kwargs=CARRIED_TABLE,
        options=CARRIED_TABLE,
        subtask_type=CARRIED,
        immutable=CARRIED,
    ),
)


def _degrees(limit: int) -> JsonSchema:
    return number(-limit, limit)


def _crontab() -> JsonSchema:
    def column(low: int, high: int, pattern: str) -> JsonSchema:
        one = either(number(low, high, "integer"), matching(pattern), definition("variable"))
        return either(*one["anyOf"], list_of(one, 1))

    named = {
        field.name: column(field.low, 7 if field.name == "day_of_week" else field.high, patterns.crontab_field(field))
        for field in CRONTAB_FIELDS
    }
    return table(**named) | {"minProperties": 1}


INTERVAL = either(number(0.01), definition("duration"), definition("variable"))
_SCHEDULE = either(
    number(0.01),
    matching(patterns.CRON),
    matching(patterns.EVERY),
    definition("duration"),
    definition("variable"),
    list_of(definition("schedule"), 1),
    table(("every",), every=INTERVAL, anchor=MOMENT, relative={"type": "boolean"}),
    table(("cron",), cron=or_variable(matching(patterns.CRON))),
    table(("at",), at=MOMENT),
    table(
        ("solar", "lat", "lon"),
        solar=or_variable({"enum": list(EVENTS)}),
        lat=_degrees(90),
        lon=_degrees(180),
    ),
    _crontab(),
)
_WINDOW = table(
    ("cron", "duration"),
    cron=or_variable(matching(patterns.CRON)),
    duration=either(number(0.001), definition("duration"), definition("variable")),
)
_BLACKOUT = either(matching(patterns.BLACKOUT), _WINDOW, definition("variable"))

DEFINITIONS: dict[str, JsonSchema] = {
    "text": matching(rf"^(?=[^{_CONTROL}]*[^\s{_CONTROL}])(?![\s\S]*[{_CONTROL}])(?:{_PLAIN}|{_REFERENCE})*$")
    | {"description": "Text, not empty. ${NAME} is taken from the environment."},
    "variable": matching(rf"^(?:{_PLAIN})*{_REFERENCE}(?:{_PLAIN}|{_REFERENCE})*$")
    | {"description": "${NAME} or ${NAME:-default}: from the environment."},
    "duration": matching(patterns.DURATION)
    | {"description": 'A length of time: "90s", "1h30m", "PT30S". Units w d h m s ms, large to small.'},
    "carried": either(
        matching(rf"^(?:{_PLAIN}|{_REFERENCE})*$"),
        {"type": ["number", "boolean"]},
        list_of(definition("carried")),
        {"type": "object", "additionalProperties": definition("carried")},
    )
    | {"description": "Anything that TOML can say, except nan and inf."},
    "schedule": _SCHEDULE,
    "blackout": either(*_BLACKOUT["anyOf"], list_of(_BLACKOUT, 1)),
}
"""What is referred to by name."""
