"""The notations as regular expressions of ECMA 262, for editors and others that validate without Python.

They are made from the tables that the readers use. What can be read they always match; what they match can nearly
always be read. Upper and lower case are spelt out, as JSON Schema has no flags.
"""

from __future__ import annotations

from collections.abc import Iterable

from beatd.schedules.cronstring import ALIASES
from beatd.schedules.duration import UNIT_NAMES, UNITS
from beatd.schedules.fields import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, SECOND, Field

_NUMBER = r"\d+(?:\.\d+)?"
_SPACE = r"\s*"
_LONG_STEP = r"0*[1-9]\d*"
_HASHED = r"[hHrR](?:\(\d+-\d+\))?(?:/0*[1-9]\d*)?"


def crontab_field(field: Field) -> str:
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


def _value(field: Field) -> str:
    number = _number(field.low, 7 if field is DAY_OF_WEEK else field.high)
    return _either(number, _words(field.names)) if field.names else number


def _part(field: Field, step: str) -> str:
    value = _value(field)
    ranged = rf"{value}(?:-{value}(?:/{step})?)?" if step == _LONG_STEP else rf"{value}(?:-{value})?(?:/{step})?"
    return _either(rf"\*(?:/{step})?", ranged)


def _column(field: Field, *more: str) -> str:
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

DURATION = _whole(_duration())
CRON = _whole(_either(_cron(), *map(_any_case, ALIASES)))
EVERY = _whole(rf"@?{_any_case('every')}\s\s*{_duration()}")
INSTANT = _whole(_INSTANT)
BLACKOUT = _whole(_either(rf"{_CLOCK}\s*-\s*{_CLOCK}", rf"{_INSTANT}(?:\s*/\s*{_INSTANT})?"))
