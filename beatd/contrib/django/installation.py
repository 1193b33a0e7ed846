"""The installation of a Django project as its admin sees it: the documents and actions of the page."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import NamedTuple

from beatd import sources
from beatd.cli.status import look_with
from beatd.cli.status_document import facts
from beatd.clock import SystemClock
from beatd.contrib.django.conf import app_name, schedule_file, timeout_ms
from beatd.sources.calendars import Calendars
from beatd.state_store import running_store, with_patience
from beatd.store.server_check import ThrottledCheck
from beatd.web.actions import Operator
from beatd.web.broker_view import BrokerView
from beatd.web.documents import Documents
from beatd.web.entries import EntryListing
from beatd.web.store_view import StoreView


class Installation(NamedTuple):
    """``documents`` has the facts, ``operator`` changes something."""

    documents: Documents
    operator: Operator


_opening = threading.Lock()
_opened: dict[tuple[int, str, str | None, int], Installation] = {}


def installation() -> Installation:
    """The installation that the settings name, opened once in each process; its files are followed.

    Raises ConfigError for files or an app that cannot be read, and StoreError.
    """
    path, app, patience_ms = schedule_file(), app_name(), timeout_ms()
    key = os.getpid(), str(path), app, patience_ms
    with _opening:
        if key not in _opened:
            clock = SystemClock()
            schedule = EntryListing(path, lambda: sources.load(path, app=app), clock)
            settings = with_patience(schedule.first().settings, patience_ms)
            url = partial(running_store, settings)
            throttled = ThrottledCheck()
            store = StoreView(lambda client: facts(look_with(client, settings, throttled)), url, settings.redis, clock)
            broker = BrokerView(str(path), lambda: schedule.settings, url, clock)
            schedule.start()
            Calendars.of(settings).start(lambda _faults: None)  # those of runtime entries, too
            documents = Documents(schedule, store, broker, clock)
            _opened[key] = Installation(documents, Operator(documents))
        return _opened[key]
