"""``beatd top``: entries, runs, workers and queues in the terminal, live, with keys to act."""

from __future__ import annotations

import locale
import logging
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import click

from beatd import sources
from beatd.cli.top_snapshot import Collector, Operations
from beatd.cli.top_view import Style, View

_TICK_MS = 100
"""Time after which the screen looks for another snapshot, while no key is pressed."""


@click.command()
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
def top(*, config_file: str | None, app: str | None) -> None:
    """Show entries (failing ones first), runs, workers and queues, live, and act on them by keys.

    Press "?" for the keys. Changes are asked about before they are made. The screen is read every second; while the
    state store is away, it shows what it knew.
    """
    try:
        import curses  # noqa: PLC0415 - not everywhere
    except ImportError:
        raise click.ClickException("this Python has no curses; use beatd status and beatd list") from None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; for programs there are beatd status --json and beatd list --json")
    collector = Collector(sources.find(config_file, app).path, app)
    logging.disable(logging.CRITICAL)  # a line of a log would break the screen
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    locale.setlocale(locale.LC_ALL, "")
    os.environ.setdefault("ESCDELAY", "50")
    for variable in ("LINES", "COLUMNS"):  # they would hide that the terminal is resized
        os.environ.pop(variable, None)
    collector.start()
    try:
        curses.wrapper(lambda screen: Terminal(screen, collector).run())
    except curses.error as error:
        raise click.ClickException(
            f"this terminal ({os.environ.get('TERM', 'no TERM')}) cannot be used: {error}"
        ) from None
    except KeyboardInterrupt:
        pass
    finally:
        collector.close()


def _end(number: int, _frame: FrameType | None) -> None:
    """End by an exception, so that the terminal is restored."""
    raise SystemExit(128 + number)


class Terminal:
    """The screen in a terminal: draws the view, and hands it the keys."""

    def __init__(self, screen: Any, collector: Collector) -> None:
        import curses  # noqa: PLC0415 - not everywhere

        self._curses, self._screen, self._collector = curses, screen, collector
        self._view = View()
        self._operations = Operations(collector.settings, self._show_outcome)
        self._keys = {
            curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_PPAGE: "pageup", curses.KEY_NPAGE: "pagedown",
            curses.KEY_HOME: "home", curses.KEY_END: "end", curses.KEY_BACKSPACE: "backspace",
            curses.KEY_ENTER: "enter",
        }  # fmt: skip
        self._styles = self._attributes()

    def run(self) -> None:
        """Show and act until the user quits."""
        self._screen.timeout(_TICK_MS)
        with suppress(self._curses.error):  # a terminal that cannot hide the cursor
            self._curses.curs_set(0)
        try:
            while not self._view.is_over:
                self._turn()
        finally:
            self._operations.close()

    def _turn(self) -> None:
        snapshot = self._collector.snapshot
        if snapshot is not None:
            self._view.take(snapshot)
        self._collector.look_at(self._view.wanted)
        self._draw()
        key = self._key()
        if key and (change := self._view.press(key)):
            self._operations.make(change)

    def _show_outcome(self, text: str) -> None:
        self._view.message = text
        self._collector.look_again()

    def _key(self) -> str:
        """The next key, as a character or by its name; empty when none is pressed in time."""
        try:
            key = self._screen.get_wch()
        except self._curses.error:
            return ""
        if isinstance(key, int):
            return self._keys.get(key, "")
        return _NAMES.get(key, key if key.isprintable() else "")

    def _draw(self) -> None:
        height, width = self._screen.getmaxyx()
        self._screen.erase()
        for number, line in enumerate(self._view.lines(width, height)):
            try:
                self._screen.addstr(number, 0, line.text, self._styles[line.style])
            except (self._curses.error, UnicodeEncodeError):  # the last cell of the screen, or no such character
                continue
        self._screen.refresh()

    def _attributes(self) -> dict[Style, int]:
        curses = self._curses
        plain: dict[Style, int] = {
            "": 0, "good": 0, "warn": curses.A_BOLD, "bad": curses.A_BOLD, "dim": curses.A_DIM,
            "bold": curses.A_BOLD, "selected": curses.A_REVERSE,
        }  # fmt: skip
        if os.environ.get("NO_COLOR") or not curses.has_colors():
            return plain
        curses.use_default_colors()
        colors: dict[Style, int] = {
            "good": curses.COLOR_GREEN, "bad": curses.COLOR_RED, "warn": curses.COLOR_YELLOW,
        }  # fmt: skip
        for pair, (style, color) in enumerate(colors.items(), 1):
            curses.init_pair(pair, color, -1)
            plain[style] = curses.color_pair(pair)
        return plain


_NAMES = {"\n": "enter", "\r": "enter", "\x1b": "esc", "\x7f": "backspace", "\b": "backspace", "\t": "tab"}
