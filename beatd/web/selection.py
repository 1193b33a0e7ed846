"""Selection of entries: search, filters, order and the part that is shown. Pages count from 1."""

from __future__ import annotations

import threading
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlencode

from beatd.client.entries import is_of
from beatd.client.outcomes import EntryOutcome
from beatd.clock import Clock
from beatd.model import Entry
from beatd.planning.preview import Outlook, outlooks
from beatd.store.held_back import HeldBackEntry
from beatd.store.pipeline import joint_reads
from beatd.web.entries import EntryListing
from beatd.web.store_view import Document, StoreView

FILTERS = {"failing": "Failing", "overdue": "Overdue", "paused": "Paused", "held": "Held back"}
ORDERS = {"name": "Name", "next": "Next run", "last": "Last run", "failures": "Failures"}
PER_PAGE = 200
ORDER_S = 15.0
"""Time for which the order by next run holds."""


class View(NamedTuple):
    """View of entries: words to search for, a filter of :data:`FILTERS`, a source, an order, a page, a tag."""

    query: str = ""
    only: str = ""
    sort: str = "name"
    source: str = ""
    page: int = 1
    per_page: int = PER_PAGE
    tag: str = ""


class Slice(NamedTuple):
    """The part of the entries that is shown."""

    view: View
    outlooks: Sequence[Outlook] = ()
    pages: int = 1
    matching: int = 0
    total: int = 0
    outcomes: Mapping[str, EntryOutcome] = MappingProxyType({})

    @property
    def page(self) -> int:
        """The page that is shown: the last one for a number beyond it."""
        return min(self.view.page, self.pages)

    def outcome(self, name: str) -> EntryOutcome:
        """The outcomes of an entry that is shown."""
        return self.outcomes.get(name, EntryOutcome(None, ()))

    def link(
        self,
        page: int = 1,
        *,
        only: str | None = None,
        sort: str | None = None,
        source: str | None = None,
        tag: str | None = None,
    ) -> str:
        """The query string of another page, filter or order of the same search."""
        view = self.view if source is None else self.view._replace(source=source)
        view = view if tag is None else view._replace(tag=tag)
        only, sort = view.only if only is None else only, sort or view.sort
        wanted = {
            "q": view.query,
            "only": only,
            "source": view.source,
            "tag": view.tag,
            "sort": "" if sort == "name" else sort,
        }
        wanted["page"] = str(page) if page > 1 else ""
        return "?" + urlencode({key: value for key, value in wanted.items() if value})


class Selector:
    """Selects entries of a listing. Raises :class:`~beatd.exceptions.StoreError`."""

    def __init__(self, schedule: EntryListing, store: StoreView, clock: Clock) -> None:
        self._schedule, self._store, self._clock = schedule, store, clock
        self._ordering = threading.Lock()
        self._next: dict[str, int] = {}
        self._ordered: tuple[Entry, ...] = ()
        self._order_until = 0.0

    def overlay(self) -> None:
        """Show the runtime entries and pauses that the store has now."""
        mirror = self._store.mirror()
        self._schedule.overlay(mirror.tables, mirror.pauses)

    def look(self) -> Document:
        """The document of ``beatd status --json``; what the store has now is shown, too. Both are read side by side."""
        with ThreadPoolExecutor(1, "overview") as threads:
            overview = threads.submit(self._store.status)
            self.overlay()
            return overview.result()

    def slice(self, view: View) -> Slice:
        """The part that is shown, with state and outcomes."""
        self.overlay()
        now_ms, listing = self._clock.now_ms(), self._schedule.listing
        found = self._sorted(self._filtered(listing.search(view.query), view), view.sort)
        pages = max(-(-len(found) // view.per_page), 1)
        first = (min(view.page, pages) - 1) * view.per_page
        shown = found[first : first + view.per_page]
        names = [entry.name for entry in shown]
        held = self._store.held(names)
        with joint_reads() as read:
            outcomes = read(self._store.outcomes, names, now_ms, held=held)
            looks = read(self.outlooks, shown, held)
        return Slice(view, looks.result(), pages, len(found), len(listing.entries), outcomes.result())

    def outlooks(self, entries: Sequence[Entry], held: Mapping[str, HeldBackEntry]) -> list[Outlook]:
        """State and next run of entries, given those that are held back."""
        now_ms, names = self._clock.now_ms(), [entry.name for entry in entries]
        states = self._store.states(entries, now_ms=now_ms)
        paused = {name: pause for name in names if (pause := self._schedule.pause_of(name))}
        waiting, last_dues = self._store.waiting(entries, states, now_ms), self._store.last_dues
        looks = outlooks(entries, states, now_ms, paused=paused, held=held, last_dues=last_dues, waiting=waiting)
        notes = {name: pause.note for name, pause in paused.items()}
        return [look._replace(note=notes.get(look.entry.name, look.note)) for look in looks]

    def _filtered(self, entries: tuple[Entry, ...], view: View) -> tuple[Entry, ...]:
        if view.source:
            entries = tuple(entry for entry in entries if is_of(entry, view.source))
        if view.tag:
            entries = tuple(entry for entry in entries if view.tag in entry.policies.tags)
        if not view.only:
            return entries
        wanted: Container[str]
        if view.only == "failing":
            wanted = self._store.failing()
        elif view.only == "overdue":
            wanted = {**self._store.overdue(), **self._store.too_long()}
        elif view.only == "paused":
            wanted = self._schedule.paused
        else:
            wanted = self._store.held([entry.name for entry in entries])
        return tuple(entry for entry in entries if entry.name in wanted)

    def _sorted(self, entries: tuple[Entry, ...], sort: str) -> tuple[Entry, ...]:
        if sort == "failures":
            failures = {name: one.failures for name, one in self._store.failing().items()}
            return tuple(sorted(entries, key=lambda entry: -failures.get(entry.name, 0)))
        if sort == "last":
            ends = {name: one.end_ms for name, one in self._store.summaries().items()}
            return tuple(sorted(entries, key=lambda entry: -ends.get(entry.name, 0)))
        if sort == "next":
            order = self._next_runs()
            never = 1 << 60
            return tuple(sorted(entries, key=lambda entry: order.get(entry.name, never)))
        return entries

    def _next_runs(self) -> dict[str, int]:
        """When the next run of each entry leaves, at most :data:`ORDER_S` old."""
        entries = self._schedule.listing.entries
        with self._ordering:
            if self._ordered is not entries or self._clock.monotonic() > self._order_until:
                looks = self.outlooks(entries, self._store.held([entry.name for entry in entries]))
                self._next = {one.entry.name: one.next_fire_ms for one in looks if one.next_fire_ms is not None}
                self._ordered = entries
                self._order_until = self._clock.monotonic() + ORDER_S
            return self._next
