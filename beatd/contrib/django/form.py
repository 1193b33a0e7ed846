"""The form of an entry of the state store, and the schedule in words beside it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

import tomli_w
from django import forms

from beatd.client.schedules import checked
from beatd.clock import SystemClock
from beatd.config.entries import LONGEST_NAME
from beatd.config.errors import dotted
from beatd.config.fields import is_off
from beatd.config.toml import SCHEDULE
from beatd.config.writer import toml_value
from beatd.exceptions import ConfigError, ScheduleError
from beatd.model import Entry
from beatd.planning.catchup import ResumePoints
from beatd.planning.lint import schedule_warnings
from beatd.planning.phrase import in_words
from beatd.planning.preview import new_state, upcoming
from beatd.schedules import parse

_OWN = ("task", "schedule", "timezone", "args", "kwargs", "queue", "enabled")
"""Keys of an entry with a field of their own."""
_RUNS = 5
_LONGEST = 2_000


class Explanation(NamedTuple):
    """A schedule in words, its next runs on the clocks of its zone, and warnings; or why it cannot be read."""

    words: str = ""
    runs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""


def explanation(text: str, timezone: str, name: str = "entry") -> Explanation:
    """The explanation of a schedule as the form has it."""
    if len(text) > _LONGEST:
        return Explanation(error=f"it has more than {_LONGEST:,} characters")
    try:
        meaning = parse(schedule_value(text), timezone=timezone, name=name or "entry")
    except ScheduleError as error:
        return Explanation(error=str(error))
    entry = Entry(name=name or "entry", task="task", schedule=meaning, timezone=timezone)
    now_ms = SystemClock().now_ms()
    runs = islice(upcoming(entry, new_state(now_ms), ResumePoints(now_ms)), _RUNS)
    times = tuple(f"{run.local:%a %Y-%m-%d %H:%M:%S %Z}" + (f" ({run.note})" if run.note else "") for run in runs)
    return Explanation(in_words(meaning), times, tuple(schedule_warnings(entry, now_ms)))


def schedule_value(text: str) -> Any:
    """The value of a schedule: a table, list or number as in ``beat.toml``; other text is itself. ScheduleError."""
    stripped = text.strip()
    if not (stripped[:1] in {"{", "[", '"', "'"} or stripped.replace(".", "", 1).isdecimal()):
        return stripped
    try:
        return tomllib.loads(f"schedule = {stripped}")["schedule"]
    except (ValueError, RecursionError) as error:
        raise ScheduleError(f"{stripped[:60]}: not a value of TOML: {error}") from None


class EntryForm(forms.Form):  # type: ignore[misc]  # Django has no types
    """The keys of an entry. ``rules`` are time zone and defaults of the files; :attr:`table` is what is stored."""

    name = forms.CharField(max_length=LONGEST_NAME, help_text="Unique in the schedule; it cannot be changed later.")
    task = forms.CharField(help_text='The name of the task, such as "shop.tasks.report".')
    schedule = forms.CharField(
        help_text='"30 7 * * mon-fri", "every 10 minutes", "1h30m", "@daily", or a table as in beat.toml.'
    )
    timezone = forms.CharField(required=False, help_text="Such as Europe/Berlin; empty: that of the file.")
    args = forms.CharField(required=False, help_text='Arguments as a JSON list, such as [1, "a"].')
    kwargs = forms.CharField(required=False, help_text='Named arguments as a JSON object, such as {"format": "pdf"}.')
    queue = forms.CharField(required=False, help_text="Empty: the default queue.")
    enabled = forms.BooleanField(required=False, initial=True, help_text="A run leaves only while this is on.")
    more = forms.CharField(
        required=False,
        label="Other keys",
        widget=forms.Textarea(attrs={"rows": 6, "cols": 80, "spellcheck": "false"}),
        help_text='As in beat.toml, one a line, such as expires = "1h" or overlap = "skip".',
    )

    def __init__(self, *args: Any, rules: Mapping[str, Any], fixed_name: str | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self._rules, self._fixed_name = rules, fixed_name
        self.table: dict[str, Any] = {}
        self.fields["timezone"].widget.attrs["placeholder"] = rules["timezone"]
        if fixed_name is not None:
            del self.fields["name"]

    @classmethod
    def initial_of(cls, table: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a stored table."""
        schedule = table.get("schedule", "")
        return {
            "task": table.get("task", ""),
            "schedule": schedule if isinstance(schedule, str) else toml_value(schedule),
            "timezone": table.get("timezone") or "",
            "args": _json(table.get("args")),
            "kwargs": _json(table.get("kwargs")),
            "queue": table.get("queue") or "",
            "enabled": table.get("enabled", True),
            "more": tomli_w.dumps({key: each for key, each in table.items() if key not in _OWN or is_off(key, each)}),
        }

    @property
    def explained(self) -> Explanation | None:
        """The schedule in words; None for an empty one."""
        text = self["schedule"].value()
        if not text:
            return None
        return explanation(str(text), str(self["timezone"].value() or self._rules["timezone"]), self._name())

    def clean_schedule(self) -> Any:
        """The value of the schedule."""
        try:
            return schedule_value(self.cleaned_data["schedule"])
        except ScheduleError as error:
            raise forms.ValidationError(str(error)) from None

    def clean_args(self) -> Any:
        """The list of arguments."""
        return _read_json(self.cleaned_data["args"], list, 'expected a JSON list, such as [1, "a"]')

    def clean_kwargs(self) -> Any:
        """The named arguments."""
        return _read_json(self.cleaned_data["kwargs"], dict, 'expected a JSON object, such as {"format": "pdf"}')

    def clean_more(self) -> dict[str, Any]:
        """The other keys."""
        try:
            found = tomllib.loads(self.cleaned_data["more"].replace("\r\n", "\n"))
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(f"this is no TOML: {error}") from None
        own = [key for key in found if key in _OWN]
        if twice := [key for key in own if self.cleaned_data.get(key) or not is_off(key, found[key])]:
            raise forms.ValidationError(f"{twice[0]} has a field of its own above")
        return found

    def clean(self) -> dict[str, Any]:
        """Check the whole entry with the words that ``beatd check`` has, each error at its field."""
        cleaned: dict[str, Any] = super().clean()
        if self.errors:
            return cleaned
        table = {"task": cleaned["task"], "schedule": cleaned["schedule"], **cleaned["more"]}
        table |= {key: cleaned[key] for key in ("timezone", "args", "kwargs", "queue") if cleaned[key]}
        if not cleaned["enabled"]:
            table["enabled"] = False
        name = self._name()
        try:
            checked(name, table, **self._rules)
        except ConfigError as error:
            for fault in error.faults:
                key = fault.path.removeprefix(dotted((SCHEDULE, name))).lstrip(".").partition(".")[0]
                field = key if key in self.fields else "more" if key else None
                self.add_error(field, f"{key}: {fault.message}" if field == "more" else fault.message)
        self.table = table
        return cleaned

    def _name(self) -> str:
        return self._fixed_name or str(self["name"].value() or "").strip()


def _json(value: Any) -> str:
    if isinstance(value, str):  # JSON already, as a file may have it
        return value
    return json.dumps(value, ensure_ascii=False) if value else ""


def _read_json(text: str, kind: type, expected: str) -> Any:
    if not text.strip():
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise forms.ValidationError(expected) from None
    if not isinstance(found, kind):
        raise forms.ValidationError(expected)
    return found
