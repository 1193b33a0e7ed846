"""The types of the JSON Schema: what each reader takes, and the notations of schedules as regular expressions of ECMA
262.

The expressions are made from the tables that the readers use. What can be read they always match; what they match can
nearly always be read. Upper and lower case are spelt out, as JSON Schema has no flags. A time or date of TOML is text
for JSON Schema, as it is for editors. :mod:`beatd.config.schema` puts the pieces together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from beatd.schedules.cron import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, SECOND, CronField
from beatd.schedules.cron_parser import ALIASES
from beatd.schedules.crontab import FIELDS as CRONTAB_FIELDS
from beatd.schedules.duration import UNIT_NAMES, UNITS
from beatd.schedules.solar import EVENTS

_NUMBER = r"\d+(?:\.\d+)?"
_SPACE = r"\s*"
_LONG_STEP = r"0*[1-9]\d*"
_HASHED = r"[hHrR](?:\(\d+-\d+\))?(?:/0*[1-9]\d*)?"


def crontab_field(field: CronField) -> str:
    """The text of one field of a crontab table."""
    return rf"^\s*{_listed(_part(field, _LONG_STEP) + _SPACE, _SPACE)}$"


def _either(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


def _any_case(text: str) -> str:
    return "".join(f"[{char}{char.upper()}]" if char.isalpha() else char for char in text)


def _whole(pattern: str) -> str:
    return rf"^\s*{pattern}\s*$"


def _listed(item: str, space: str = "") -> str:
    """One or more, with commas between, and perhaps ``space`` behind those."""
    return rf"(?:{item}(?:,{space}(?=[^,\s])|(?=\s|$)))+"


def _number(low: int, high: int) -> str:
    """Whole numbers from ``low`` to ``high``, which is below 100, with leading zeros as one likes."""
    tens, ones = divmod(high, 10)
    if not tens:
        return f"0*[{low}-{high}]"
    between = [rf"[1-{tens - 1}]\d"] if tens > 1 else []
    return "0*" + _either(f"[{low}-9]", *between, f"{tens}[0-{ones}]")


def _words(names: Iterable[str]) -> str:
    """Names of at least three letters."""
    return _either(*dict.fromkeys(_any_case(name[:3]) for name in names)) + "[a-zA-Z]*"


def _value(field: CronField) -> str:
    number = _number(field.low, 7 if field is DAY_OF_WEEK else field.high)
    return _either(number, _words(field.names)) if field.names else number


def _part(field: CronField, step: str) -> str:
    value = _value(field)
    ranged = rf"{value}(?:-{value}(?:/{step})?)?" if step == _LONG_STEP else rf"{value}(?:-{value})?(?:/{step})?"
    return _either(rf"\*(?:/{step})?", ranged)


def _column(field: CronField, *more: str) -> str:
    return _listed(_either(_part(field, _number(1, field.high)), _HASHED, *more))


def _cron() -> str:
    weekday = _value(DAY_OF_WEEK)
    columns = (
        _column(MINUTE),
        _column(HOUR),
        _either(r"\?", _column(DAY_OF_MONTH, "[lL][wW]?", r"\d{1,2}[wW]", r"[wW]\d{1,2}")),
        _column(MONTH),
        _either(r"\?", _column(DAY_OF_WEEK, rf"{weekday}#[1-5lL]", f"[lL]{weekday}", f"{weekday}[lL]")),
    )
    return rf"(?:{_column(SECOND)}\s+)?" + r"\s+".join(columns)


def _duration() -> str:
    """Units go from large to small; the spellings of each unit that begin alike are tried from the longest on."""
    parts = ""
    for unit in UNITS:
        spellings = sorted((name for name, meant in UNIT_NAMES.items() if meant == unit), key=len, reverse=True)
        parts += rf"(?:\s*{_NUMBER}\s*{_either(*(name if name == 'm' else _any_case(name) for name in spellings))})?"
    days, hours = ("".join(f"(?:{_NUMBER}{_any_case(unit)})?" for unit in units) for units in ("wd", "hms"))
    return _either(_NUMBER, rf"(?=\d){parts}", rf"[pP](?=[\dtT]){days}(?:[tT](?=\d){hours})?")


_DAY = r"\d{4}(?:-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])|-?[wW][0-5]\d(?:-?[1-7])?)"
_TIME = r"(?:[01]\d|2[0-4])(?::?[0-5]\d(?::?[0-5]\d(?:[.,]\d+)?)?)?(?:[zZ]|[+-]\d{2}(?::?\d{2}){0,2}(?:\.\d+)?)?"
_INSTANT = rf"{_DAY}(?:[\s\S]{_TIME})?"
_CLOCK = r"(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d)?"

DURATION_PATTERN = _whole(_duration())
CRON_PATTERN = _whole(_either(_cron(), *map(_any_case, ALIASES)))
EVERY_PATTERN = _whole(rf"@?{_any_case('every')}\s\s*{_duration()}")
INSTANT_PATTERN = _whole(_INSTANT)
BLACKOUT_NAME = "^[A-Za-z][A-Za-z0-9_-]{0,99}$"
BLACKOUT_PATTERN = _whole(_either(rf"{_CLOCK}\s*-\s*{_CLOCK}", rf"{_INSTANT}(?:\s*/\s*{_INSTANT})?"))


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
    """Return the schema that :func:`accepts` gave a reader."""
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
    """A table with these keys and no others. :data:`_ABOUT` describes those that say nothing of themselves."""
    described = {
        key: said if "description" in said else {**wrapped(said), "description": _ABOUT[key]}
        for key, said in properties.items()
    }
    closed = {"type": "object", "additionalProperties": False, "properties": described}
    return closed | ({"required": list(needed)} if needed else {})


def wrapped(said: JsonSchema) -> JsonSchema:
    """Wrap a reference, because draft 7 ignores the keys beside one."""
    return {"allOf": [said]} if "$ref" in said else said


_ABOUT = {
    "anchor": "A moment at which a run is due; all others follow from it.",
    "args": "Arguments of the task.",
    "at": "The moment of the only run. Without an offset it is in the entry's time zone.",
    "business-days": "The country or region whose holidays count, such as DE-BY.",
    "cron": 'A cron string, such as "30 7 * * mon".',
    "day_of_month": "1 to 31, as in a cron string.",
    "day_of_week": "0 (Sunday) to 6, or names, as in a cron string.",
    "duration": "The length of the window.",
    "every": "The interval.",
    "holidays": "The country or region whose public holidays they are, such as DE-BY.",
    "hour": "0 to 23, as in a cron string.",
    "ics": "A file or URL in iCalendar form; its events are meant.",
    "immutable": "True: the task does not get the result of the one before.",
    "kwargs": "Arguments of the task by name.",
    "lat": "Latitude in degrees, north is positive.",
    "lon": "Longitude in degrees, east is positive.",
    "minute": "0 to 59, as in a cron string.",
    "month_of_year": "1 to 12, or names, as in a cron string.",
    "only_on": "The days outside of the blackout.",
    "options": "Options of its message, such as queue.",
    "relative": "Counted from the last run, and rounded down to the unit of the interval.",
    "solar": "The event.",
    "subtask_type": "The kind of composition, such as chain.",
    "task": "The name of the task.",
    "windows": "When it holds.",
}


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
INSTANT = matching(INSTANT_PATTERN)
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
    return or_variable(number(-limit, limit))


def _crontab() -> JsonSchema:
    def column(low: int, high: int, pattern: str) -> JsonSchema:
        one = either(number(low, high, "integer"), matching(pattern), definition("variable"))
        return either(*one["anyOf"], list_of(one, 1))

    named = {
        field.name: column(field.low, 7 if field.name == "day_of_week" else field.high, crontab_field(field))
        for field in CRONTAB_FIELDS
    }
    return table(**named) | {"minProperties": 1}


INTERVAL = either(number(0.01), definition("duration"), definition("variable"))
_SCHEDULE = either(
    number(0.01),
    matching(CRON_PATTERN),
    matching(EVERY_PATTERN),
    definition("duration"),
    definition("variable"),
    list_of(definition("schedule"), 1),
    table(("every",), every=INTERVAL, anchor=MOMENT, relative=or_variable({"type": "boolean"})),
    table(("cron",), cron=or_variable(matching(CRON_PATTERN))),
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
    cron=or_variable(matching(CRON_PATTERN)),
    duration=either(number(0.001), definition("duration"), definition("variable")),
)
ONLY_ON = or_variable(
    either({"enum": ["business-days"]}, table(("business-days",), **{"business-days": definition("text")}))
)
_BLACKOUT = either(
    matching(BLACKOUT_PATTERN),
    matching(BLACKOUT_NAME) | {"description": "The name of a shared blackout."},
    _WINDOW,
    table(("holidays",), holidays=definition("text")),
    table(("ics",), ics=definition("text")),
    table(("only_on",), only_on=ONLY_ON),
    definition("variable"),
)

DEFINITIONS: dict[str, JsonSchema] = {
    "text": matching(rf"^(?=[^{_CONTROL}]*[^\s{_CONTROL}])(?![\s\S]*[{_CONTROL}])(?:{_PLAIN}|{_REFERENCE})*$")
    | {"description": "Text, not empty. ${NAME} is taken from the environment."},
    "variable": matching(rf"^(?:{_PLAIN})*{_REFERENCE}(?:{_PLAIN}|{_REFERENCE})*$")
    | {"description": "${NAME} or ${NAME:-default}: from the environment."},
    "duration": matching(DURATION_PATTERN)
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
    "off": {"const": False, "description": "Not set, whatever [defaults] say."},
}
"""What is referred to by name."""
