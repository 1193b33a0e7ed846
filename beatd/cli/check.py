"""``beatd check``: all errors of the file, warnings, and with ``--connect`` whether the servers answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from beatd import broker, sources
from beatd.broker.redis_keys import RedisKeys
from beatd.cli.errors import add_to_error, server_advice
from beatd.cli.output import plural, print_folded, print_json, print_line
from beatd.clock import SystemClock
from beatd.config import Config
from beatd.config.errors import dotted
from beatd.config.targets import NOTIFY
from beatd.config.toml import Document, read
from beatd.config.toml_lines import KeyPath
from beatd.exceptions import BeatdError, BrokerError, ConfigError, Fault, StoreError, StoreRefused, StoreUnavailable
from beatd.model import Entry, Settings
from beatd.notify.channels import unreadable_urls
from beatd.planning.lint import find_warnings
from beatd.planning.preview import Upcoming, all_upcoming
from beatd.redaction import redacted_text
from beatd.state_store import is_broker, store_keys
from beatd.store import rights, server_check
from beatd.store.client import connect, is_cluster, server_of, try_nodes
from beatd.store.embedded import find_embedded
from beatd.store.embedded.binary import choose
from beatd.store.keys import Keys
from beatd.timestamps import iso_ms
from beatd.urls import shown

if TYPE_CHECKING:
    import redis


@click.command()
@click.argument("file", required=False)
@click.option("--config", "-c", "config_file", metavar="FILE", help="The same as FILE.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Also check the entries that this app registers.")
@click.option("--no-app", is_flag=True, help="Import no app: check neither its entries nor tasks and arguments.")
@click.option("--connect", is_flag=True, help="Also test the state store and the broker.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there are warnings.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def check(
    *,
    file: str | None,
    config_file: str | None,
    app: str | None,
    no_app: bool,
    connect: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Check FILE (default: $BEATD_CONFIG, ./beat.toml, /etc/beatd/beat.toml), its includes and its app.

    Each error is one line on standard error, "file:line:column: key: what is wrong"; the exit code is 2. Warnings are
    about valid settings that are probably unintended; with an app also about tasks that it does not have and arguments
    that its tasks do not take. With --connect, the exit code is 1 if a server cannot be used.
    """
    if file and config_file:
        raise click.UsageError("give the file once: as FILE or with --config")
    try:
        path = sources.find(file or config_file, app).path
        loaded = sources.load(path, app=app, check_tasks=True, with_app=not no_app)
    except ConfigError:
        add_to_error({"ok": False})
        raise
    now_ms = SystemClock().now_ms()
    warnings = [*find_warnings(loaded, now_ms), *_target_warnings(loaded.settings)]
    if loaded.refused:  # by the app; all else of it is checked all the same
        add_to_error({"ok": False, "warnings": _as_json(warnings)})
        if not as_json:
            _print_warnings(warnings)
        raise ConfigError(loaded.refused)
    attempts = try_servers(loaded.settings, loaded.entries) if connect else []
    ok = all(attempt.ok for attempt in attempts)
    if as_json:
        more = {"connections": [attempt._asdict() for attempt in attempts]} if connect else {}
        print_json({"ok": ok, **_facts(loaded, now_ms), "faults": [], "warnings": _as_json(warnings), **more})
    else:
        _print(str(path), _facts(loaded, now_ms), warnings)
        for attempt in attempts:
            print_line(str(attempt), err=not attempt.ok)
        for advice in filter(None, (attempt.advice for attempt in attempts)):
            print_line(advice, err=True)
    if (warnings and strict) or not ok:
        raise click.exceptions.Exit(1)


def _target_warnings(settings: Settings) -> list[Fault]:
    """Warn of URLs that apprise cannot read, at the places of their settings."""
    wrong = [(target.name, number) for target in settings.notify for number in unreadable_urls(target)]
    if not wrong:
        return []
    document = Document(settings.file, read(Path(settings.file), settings.file))
    faults = []
    for name, number in wrong:
        key = next(key for key in ("urls", "url_file", "url") if key in document.settings[NOTIFY][name])
        path: KeyPath = (NOTIFY, name, key, number) if key == "urls" else (NOTIFY, name, key)
        line, column = document.position_of(path) or (None, None)
        message = "apprise cannot read this URL (not shown: it may be secret)"
        faults.append(Fault(settings.file, line, dotted(path), message, column))
    return faults


def _as_json(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    return [fault._asdict() for fault in faults]


def _facts(loaded: Config, now_ms: int) -> dict[str, Any]:
    first = first_run(loaded.entries, now_ms)
    return {
        "files": list(loaded.files),
        "entries": len(loaded.entries),
        "enabled": sum(entry.policies.enabled for entry in loaded.entries),
        "digest": loaded.digest,
        "next": {"entry": first.entry.name, "due_at": iso_ms(first.due_ms)} if first else None,
    }


def first_run(entries: Sequence[Entry], now_ms: int) -> Upcoming | None:
    """The run that leaves first, of those of all entries; they are taken as new, as the store is not asked."""
    return next(all_upcoming(entries, now_ms, sent_only=True, on_error=lambda *_: None), None)


def _print_warnings(warnings: Sequence[Fault]) -> None:
    for warning in warnings:
        print_line(f"warning: {warning}")


def _print(file: str, facts: dict[str, Any], warnings: Sequence[Fault]) -> None:
    _print_warnings(warnings)
    disabled = facts["entries"] - facts["enabled"]
    shown = [plural(facts["entries"], "entry") + (f" ({disabled:,} not enabled)" if disabled else "")]
    shown += [plural(len(facts["files"]), "file"), "no errors"] + [plural(len(warnings), "warning")] * bool(warnings)
    print_line(f"{file}: {', '.join(shown)}")
    if first := facts["next"]:
        print_folded(f"next: {first['entry']}, due at {first['due_at']}")
    else:
        click.echo("next: nothing; no entry has a run left")


WITHIN = 15.0
"""Seconds for each server. Sockets have timeouts of their own; this also bounds name servers and drivers that wait."""


QUEUES_TRIED = 50
"""Of the queues that entries name, and of the exchanges, at most so many are tried."""


_STORE_ITSELF = "the state store itself"


class Attempt(NamedTuple):
    """Result of trying one server: ``what`` is ``store`` or ``broker``; no password is in any of it."""

    what: str
    url: str
    ok: bool
    message: str

    def __str__(self) -> str:
        return f"{self.what} {self.url}: {self.message}"

    @property
    def advice(self) -> str:
        """Advice about a server that refuses connections; empty otherwise."""
        if self.ok or self.url == _STORE_ITSELF:  # the advice is that of the store
            return ""
        return server_advice(self.message, "state store" if self.what == "store" else "broker")


def try_servers(settings: Settings, entries: Sequence[Entry] = ()) -> list[Attempt]:
    """Try the state store, and the broker if it is another server: all that a daemon needs there.

    Starts nothing; what it writes are keys and queues for trial, which are gone when it returns.
    """
    named = (entry.options.queue for entry in entries)
    queues = list(dict.fromkeys((settings.broker.default_queue, *filter(None, named))))[:QUEUES_TRIED]
    url = settings.broker.url
    store = _try("store", settings.redis.url, lambda: _store(settings, queues if url is None else []))
    if url is None:
        return [store, Attempt("broker", _STORE_ITSELF, store.ok, store.message)]
    exchanges = list(dict.fromkeys(filter(None, (entry.options.exchange for entry in entries))))[:QUEUES_TRIED]
    return [store, _try("broker", url, lambda: _broker(url, queues, exchanges, settings))]


def _store(settings: Settings, queues: Sequence[str]) -> str:
    url = settings.redis.url
    if url == "embedded":
        running = find_embedded(settings.state_dir)
        if running is None:
            return f"would be {choose(None)}"
        url = running
    with connect(url, timeout_ms=settings.redis.timeout_ms) as client:
        notes = _examine(client, store_keys(settings), queues)
        described = server_check.described(server_check.facts(client))
        what = f", {described} runs" if settings.redis.url == "embedded" else ""
        server_check.inspect(client)
        if is_cluster(client):
            what = f", a cluster of {plural(try_nodes(client), 'node')}"
            server_check.check_shards(client, store_keys(settings))
        if settings.redis.wait_replicas:
            server_check.check_wait(client)
        both = ""
        with suppress(StoreError):  # of another server, which is tried by itself
            both = ", and the broker, too" if settings.broker.url and is_broker(client, settings) else ""
    return "; ".join([f"reachable{what}{both}", *notes])


def _examine(client: redis.Redis, keys: Keys, queues: Sequence[str], *, state: bool = True) -> list[str]:
    """Describe a server; raises :class:`StoreRefused` with all that is wrong with it."""
    info = server_check.facts(client)
    wrong, notes = rights.state_of(info, in_cluster=is_cluster(client))
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        notes.append(f"maxmemory-policy is {policy}: set it to noeviction")
    wrong = wrong or rights.missing(client, keys, queues, state=state)
    if wrong:
        raise StoreRefused(f"{server_of(client)}: {'; '.join(wrong)}")
    return notes + (rights.optional(client, keys) if state else [])


def _broker(url: str, queues: Sequence[str], exchanges: Sequence[str], settings: Settings) -> str:
    notes = []
    if broker.is_redis(url):
        try:
            with connect(url, timeout_ms=settings.redis.timeout_ms, role="broker") as client:
                lists = list(map(RedisKeys.of(url).queue, queues))
                notes = _examine(client, Keys(settings.redis.prefix), lists, state=False)
        except StoreUnavailable as error:
            raise BrokerError(str(error)) from None
    elif broker.is_amqp(url):
        notes = broker.try_rights(url, queues, exchanges)
    publisher = broker.open(url)
    try:
        waiting = publisher.depth(queues[0])
    finally:
        publisher.close()
    return "; ".join([f"reachable, {waiting:,} waiting in {queues[0]}", *notes])


def _try(what: str, url: str, attempt: Callable[[], str]) -> Attempt:
    """Run the attempt in a thread that is left behind if it does not come back."""
    said: list[str] = []
    failed: list[str] = []

    def run() -> None:
        try:
            said.append(attempt())
        except BeatdError as error:
            failed.append(str(error))
        except Exception as error:  # noqa: BLE001 - of a driver: it is what became of the attempt
            failed.append(redacted_text(f"{type(error).__name__}: {error}", at_most=1_000))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WITHIN)
    message = (said or failed or [f"no answer within {WITHIN:g} s"])[0]
    return Attempt(what, shown(url), bool(said), message)
