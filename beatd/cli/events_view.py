"""The screen of ``beatd events``: tasks and workers as their events tell, drawn in place."""

from __future__ import annotations

import logging
import signal
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType
from typing import Any, NamedTuple

import click

from beatd.cli.output import plural
from beatd.cli.top_view import cut, padded
from beatd.exceptions import BeatdError
from beatd.redaction import printable, redacted

KEPT = 2_000
"""Tasks that are remembered, the newest."""
_TICK_MS = 200
_CHROME = 5
"""Lines above and below the tasks."""
_KEYS = "up, down select   Page Up, Page Down   q quit"


class SeenTask(NamedTuple):
    """A task as its last event tells."""

    uuid: str
    name: str = ""
    state: str = ""
    worker: str = ""
    at: float = 0.0
    detail: str = ""


class EventsView:
    """State of the screen. It reads no clock and does no I/O."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, SeenTask] = OrderedDict()
        self._workers: dict[str, bool] = {}
        self._selected = ""
        self.count = 0
        self.problem = ""
        self.is_over = False

    def take(self, event: Mapping[str, Any]) -> None:
        """Note one event."""
        self.count += 1
        kind, worker = str(event.get("type")), str(event.get("hostname", ""))
        if kind.startswith("worker-"):
            self._workers[worker] = kind != "worker-offline"
        elif kind.startswith("task-") and "uuid" in event:
            self._take_task(str(event["uuid"]), kind.removeprefix("task-"), worker, event)

    def _take_task(self, uuid: str, state: str, worker: str, event: Mapping[str, Any]) -> None:
        known = self._tasks.get(uuid, SeenTask(uuid))
        stamp = event.get("timestamp")
        self._tasks[uuid] = SeenTask(
            uuid,
            str(event.get("name") or known.name),
            state,
            worker or known.worker,
            stamp if isinstance(stamp, int | float) else known.at,
            _detail(event) or known.detail,
        )
        self._tasks.move_to_end(uuid)
        while len(self._tasks) > KEPT:
            self._tasks.popitem(last=False)

    def press(self, key: str, height: int) -> None:
        """Do what a key means."""
        page = max(1, height - _CHROME - 1)
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "pagedown": page}
        if key == "q":
            self.is_over = True
        elif key in steps and self._tasks:
            order = self._order()
            at = order.index(self._selected) if self._selected in self._tasks else -1 if steps[key] > 0 else 0
            self._selected = order[max(0, min(len(order) - 1, at + steps[key]))]

    def _order(self) -> list[str]:
        return list(reversed(self._tasks))

    def lines(self, width: int, height: int) -> list[tuple[str, str]]:
        """Return the lines, each with its style: "", "bold" or "selected"."""
        online = sum(self._workers.values())
        head = f"beatd events: {plural(self.count, 'event')}, {online} of {plural(len(self._workers), 'worker')} online"
        widths = (10, 10, max(10, (width - 26) * 2 // 3), max(6, (width - 26) // 3))
        shown = max(1, height - _CHROME)
        order = self._order()
        first = max(0, order.index(self._selected) - shown + 1) if self._selected in self._tasks else 0
        lines = [
            (head, "bold"),
            (self.problem, "bold"),
            (_row(("time (UTC)", "state", "task", "worker"), widths), "bold"),
        ]
        for uuid in order[first : first + shown]:
            one = self._tasks[uuid]
            name = f"{one.name or '?'} {uuid}"
            row = _row((_time(one.at), one.state, name, one.worker), widths)
            lines.append((row, "selected" if uuid == self._selected else ""))
        lines += [("", "")] * (height - 2 - len(lines))
        chosen = self._tasks.get(self._selected)
        lines += [(f"{chosen.name} {chosen.uuid}: {chosen.detail or '-'}" if chosen else "", ""), (_KEYS, "bold")]
        return [(cut(printable(text), width - 1), style) for text, style in lines[:height]]


def _detail(event: Mapping[str, Any]) -> str:
    told = redacted(
        {name: event[name] for name in ("args", "kwargs", "result", "runtime", "exception") if name in event}
    )
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _time(stamp: float) -> str:
    try:
        return f"{datetime.fromtimestamp(stamp, UTC):%H:%M:%S}" if stamp else "-"
    except (ValueError, OverflowError, OSError):
        return "-"


def _row(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(padded(printable(cell), width) for cell, width in zip(cells, widths, strict=True)).rstrip()


class EventReader:
    """Reads events in a thread and hands them to the view."""

    def __init__(self, events: Iterable[Mapping[str, Any] | None], view: EventsView) -> None:
        self._events, self._view = events, view
        self.lock = threading.Lock()
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def _run(self) -> None:
        try:
            for event in self._events:
                if event is not None:
                    with self.lock:
                        self._view.take(event)
        except BeatdError as error:
            with self.lock:
                self._view.problem = str(error)
        except Exception as error:  # noqa: BLE001 - it is shown; a log would break the screen
            with self.lock:
                self._view.problem = f"unexpected: {error!r}"


def watch(events: Iterable[Mapping[str, Any] | None]) -> None:
    """Show events in the terminal until ``q`` or Ctrl-C."""
    try:
        import curses  # noqa: PLC0415 - not everywhere
    except ImportError:
        raise click.ClickException("this Python has no curses; use beatd events --dump") from None
    logging.disable(logging.CRITICAL)  # a line of a log would break the screen
    signal.signal(signal.SIGTERM, _end)
    view = EventsView()
    reader = EventReader(events, view)
    try:
        curses.wrapper(lambda screen: _show(curses, screen, view, reader))
    except curses.error as error:
        raise click.ClickException(f"this terminal cannot be used: {error}; use beatd events --dump") from None
    except KeyboardInterrupt:
        pass


def _end(number: int, _frame: FrameType | None) -> None:
    """End by an exception, so that the terminal is restored."""
    raise SystemExit(128 + number)


def _show(curses: Any, screen: Any, view: EventsView, reader: EventReader) -> None:
    styles = {"": 0, "bold": curses.A_BOLD, "selected": curses.A_REVERSE}
    keys = {
        curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_PPAGE: "pageup", curses.KEY_NPAGE: "pagedown",
    }  # fmt: skip
    screen.timeout(_TICK_MS)
    with suppress(curses.error):  # a terminal that cannot hide the cursor
        curses.curs_set(0)
    while not view.is_over:
        height, width = screen.getmaxyx()
        with reader.lock:
            lines = view.lines(width, height)
        screen.erase()
        for number, (text, style) in enumerate(lines):
            with suppress(curses.error, UnicodeEncodeError):  # the last cell of the screen, or no such character
                screen.addstr(number, 0, text, styles[style])
        screen.refresh()
        with suppress(curses.error):  # no key in time
            key = screen.get_wch()
            with reader.lock:
                view.press(keys.get(key, "") if isinstance(key, int) else key, height)
