"""The status page's process: files, logging, and the web server around them."""

from __future__ import annotations

import logging
import socket
from functools import partial

from beatd import config, sources
from beatd.cli.metrics import MetricsOptions
from beatd.cli.run import configure_logging
from beatd.cli.status import look_with
from beatd.cli.status_document import facts
from beatd.clock import SystemClock
from beatd.memory import keep_no_large_blocks
from beatd.model import Settings
from beatd.process_signals import ignore_unused
from beatd.sources.calendars import Calendars
from beatd.state_store import running_store, with_patience
from beatd.store.server_check import ThrottledCheck
from beatd.web.address import is_loopback, url_of
from beatd.web.app import Guards, PageSources, create
from beatd.web.broker_view import BrokerView
from beatd.web.entries import EntryListing
from beatd.web.metrics import PageEndpoint
from beatd.web.security import LOCAL_NAMES
from beatd.web.server import serve
from beatd.web.store_view import StoreView
from beatd.web.tls import certificate_of
from beatd.web.tokens import Tokens

log = logging.getLogger("beatd.web")

PATIENCE_MS = 2_000
"""A person who waits for a page is not kept waiting for as long as a daemon would wait for the store."""


def run(
    config_file: str | None,
    listener: socket.socket,
    *,
    app: str | None,
    names: tuple[str, ...],
    log_level: str | None,
    log_format: str | None,
    metrics: MetricsOptions,
) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError for a file that cannot be used at the start."""
    keep_no_large_blocks()
    clock = SystemClock()
    path = sources.find(config_file, app).path
    schedule = EntryListing(path, lambda: sources.load(path, app=app), clock)
    settings = with_patience(schedule.first().settings, PATIENCE_MS)
    configure_logging(settings.log, log_level, log_format, config.environment())
    ignore_unused(log)
    logging.getLogger("beatd.sources").setLevel(logging.CRITICAL)  # the page says it, and the daemons' logs do
    throttled = ThrottledCheck()
    url_of_store = partial(running_store, settings)
    store = StoreView(lambda client: facts(look_with(client, settings, throttled)), url_of_store, settings.redis, clock)
    broker = BrokerView(str(path), lambda: schedule.settings, url_of_store, clock)
    guards = _guards(settings, listener, names)
    tls = certificate_of(settings.web)
    schedule.start()
    calendars = Calendars.of(settings)  # those of runtime entries, too
    calendars.start(lambda _faults: None)
    try:
        url = url_of(listener, secure=tls is not None)
        log.info("Status page at %s", url, extra={"event": "web_started"})
        with metrics.served(settings.metrics, lambda: PageEndpoint(schedule, store, clock)):
            serve(create(PageSources(schedule, store, broker, clock), guards), listener, tls=tls)
    finally:
        calendars.stop()
        schedule.stop()
        store.close()
    log.info("Status page stopped", extra={"event": "web_stopped"})


def _guards(settings: Settings, listener: socket.socket, names: tuple[str, ...]) -> Guards:
    """Guards of the page: names, tokens, roles. Raises ConfigError for a file of tokens that cannot be used."""
    tokens, is_local = Tokens(settings.web.tokens_file), is_loopback(listener)
    hosts = LOCAL_NAMES.union(names) if names or is_local else None
    is_guarded = tokens.is_configured or settings.web.user_header is not None
    reads = is_local or not is_guarded if settings.web.anonymous is None else settings.web.anonymous == "read"
    return Guards(hosts, tokens, settings.web, reads)
