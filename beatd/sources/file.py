"""The file source: ``beat.toml`` and what it includes, watched. A change is in force within moments, a mistake never
is."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from watchfiles import watch

from beatd.clock import SystemClock, monotonic
from beatd.config import Config
from beatd.exceptions import ConfigError, Fault
from beatd.memory import give_back
from beatd.model import Entry, Settings
from beatd.sources.emptied import emptied
from beatd.sources.file_watch import Snapshot, directories, identities, snapshot, unchanged_since, unfinished
from beatd.sources.schedule_diff import differences

log = logging.getLogger(__name__)

SETTLE_S = 0.1
"""A change is taken when the files have kept still for so long."""
SETTLE_UNFINISHED_S = 1.0
"""The same while a file is empty or missing: it has perhaps only been opened for writing."""
SETTLE_AT_MOST_S = 5.0
LOOK_S = 1.0
"""How often the files are looked at although nothing was reported: the watcher is deaf while it starts, and some file
systems never report."""
TIDY_AFTER_S = 2.5
"""Time after a reload until memory is given back: by then nobody has the former schedule any more."""
FILE_TIMES_LAG_NS = 20_000_000
"""By how much the kernel's times of files may be behind the clock: they are taken from its last tick."""
_NAMES_SHOWN = 10
_AT_START = ("redis", "broker", "leader", "log", "results", "worker", "history", "metrics", "web", "state_dir")
"""Settings that daemon, worker or page reads when it starts, and only then."""


class FileSource:
    """Loads the configuration, and again whenever it changes.

    ``load`` reads everything and raises ConfigError. ``on_change`` is called with a configuration whose schedule is
    another one, ``on_broken`` with the error of files that cannot be used or were emptied, and ``on_done`` after every
    attempt; all from the watching thread.
    """

    def __init__(
        self,
        path: str | Path,
        load: Callable[[], Config],
        *,
        on_change: Callable[[Config], None],
        on_broken: Callable[[ConfigError], None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        self._path = str(Path(path).absolute())
        self._load = load
        self._on_change = on_change
        self._on_broken = on_broken
        self._on_done = on_done
        self.config: Config | None = None
        """What was loaded last without a fault."""
        self._is_in_force = True
        """False after a receiver failed with it: it is to be handed over again."""
        self._files: tuple[str, ...] = (self._path,)
        self._globs: tuple[str, ...] = ()
        self._seen: Snapshot = {}
        self._reading_since_ns = 0
        self._tidy_at = math.inf
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="file-source", daemon=True)

    def first(self) -> Config:
        """Load for the first time; raises ConfigError."""
        self._seen = snapshot([self._path])
        config = self._read()
        self._take(config)
        give_back(len(config.entries))
        return config

    def start(self) -> None:
        """Watch from now on. What changed since :meth:`first` is seen."""
        self._thread.start()

    def reload_now(self) -> None:
        """Load again although nothing seems to have changed. May be called from a signal handler."""
        self._asked.set()
        self._wake.set()

    def stop(self) -> None:
        """End the watching; returns when the thread has ended or after 5 s."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._watch()
            except Exception:
                log.exception("Watching files failed in an unexpected way", extra={"event": "watch_error"})
                self._stopping.wait(SETTLE_UNFINISHED_S)

    def _watch(self) -> None:
        """Load what changes, until other directories are to be watched."""
        self._wake.clear()
        watched = identities(directories(self._files, self._globs))
        for touched in self._events(list(watched)):
            if self._stopping.is_set():
                return
            self._consider(touched)
            if identities(directories(self._files, self._globs)) != watched:
                return

    def _events(self, watched: list[str]) -> Iterator[set[str]]:
        """Yield the paths that were touched; at once and every second an empty set, for a look; ends when woken."""
        yield set()
        milliseconds = int(SETTLE_S * 1000)
        try:
            for changes in watch(
                *watched,
                watch_filter=None,
                step=milliseconds,
                debounce=10 * milliseconds,
                stop_event=self._wake,
                rust_timeout=int(LOOK_S * 1000),
                yield_on_timeout=True,
                recursive=False,
                raise_interrupt=False,
            ):
                yield {path for _, path in changes}
        except (OSError, RuntimeError) as error:
            log.warning("Files cannot be watched, looking instead: %s", error, extra={"event": "watch_failed"})
            self._wake.wait(SETTLE_UNFINISHED_S)
            yield set()

    def _consider(self, touched: set[str]) -> None:
        """Load if somebody asked for it, or if one of the files was touched or looks different."""
        asked = self._asked.is_set()
        self._asked.clear()
        if asked or self._look() != self._seen or touched & self._seen.keys():
            self._seen = self._settled()
            try:
                self._reload()
            except Exception:
                log.exception("Reloading failed in an unexpected way", extra={"event": "reload_failed"})
            self._tidy_at = monotonic() + TIDY_AFTER_S
            if self._on_done is not None:
                self._on_done()
        elif monotonic() >= self._tidy_at:
            self._tidy_at = math.inf
            give_back(len(self.config.entries) if self.config else 0)

    def _look(self) -> Snapshot:
        return snapshot(self._files, self._globs)

    def _settled(self) -> Snapshot:
        """Wait until nobody is writing; returns what the files look like then."""
        deadline = monotonic() + SETTLE_AT_MOST_S
        seen = self._look()
        while monotonic() < deadline:
            still = SETTLE_UNFINISHED_S if unfinished(seen) else SETTLE_S
            changed = False
            until = monotonic() + still
            while not changed and monotonic() < until and not self._stopping.wait(SETTLE_S / 2):
                now = self._look()
                changed, seen = now != seen, now
            if not changed:
                break
        return seen

    def _reload(self) -> None:
        try:
            config = self._read()
            if self.config is not None and (faults := emptied(self.config, config)):
                self._globs = tuple(dict.fromkeys((*self._globs, *config.globs)))
                raise ConfigError(faults, (*config.files, *config.beside))  # noqa: TRY301 - kept as any other fault
        except ConfigError as error:
            self._keep(error)
            return
        before = self.config
        self._take(config)
        log_refused(config.refused)
        log_task_faults(config.task_faults)
        if before is None:
            self._on_change(config)
            return
        _warn_of_settings(before.settings, config.settings)
        is_same = self._is_in_force and (config.digest, config.rules) == (before.digest, before.rules)
        if config.settings.notify != before.settings.notify:
            log.info("The targets of notifications have changed", extra={"event": "targets_changed"})
        elif is_same:
            log.info("Configuration unchanged", extra={"event": "config_unchanged", "digest": config.digest})
            if config.task_faults == before.task_faults:
                return
        self._is_in_force = False
        self._on_change(config)
        self._is_in_force = True
        if not is_same:
            _say_difference(before.entries, config)

    def _read(self) -> Config:
        self._reading_since_ns = SystemClock().now_ms() * 1_000_000
        return self._load()

    def _take(self, config: Config) -> None:
        self.config = config
        self._files = (*(config.files or (self._path,)), *config.beside)
        self._globs = config.globs
        self._remember()

    def _remember(self) -> None:
        """Remember how files looked before they were read.

        How one looked that only the reading has told us of is not known: if it was written meanwhile, it differs from
        what is remembered, and is read again.
        """
        before_ns = self._reading_since_ns - FILE_TIMES_LAG_NS
        self._seen = {
            name: self._seen[name] if name in self._seen else unchanged_since(before_ns, facts)
            for name, facts in self._look().items()
        }

    def _keep(self, error: ConfigError) -> None:
        """Log the errors, and watch their files too: some may be new."""
        for fault in error.faults:
            extra = {"event": "config_broken", "file": fault.file, "line": fault.line, "path": fault.path}
            log.error("%s", fault, extra=extra)
        count = len(error.faults)
        log.error(
            "%d error%s in %s; the last valid schedule stays in force",
            count,
            "" if count == 1 else "s",
            self._path,
            extra={"event": "config_kept", "faults": count},
        )
        faulty = (str(Path(fault.file).absolute()) for fault in error.faults if _is_file(fault.file))
        self._files = tuple(dict.fromkeys((*self._files, *faulty, *error.files)))
        self._remember()
        if self._on_broken is not None:
            self._on_broken(error)


def log_refused(faults: Iterable[Fault]) -> None:
    """Say which registrations of the app are not in force."""
    for fault in faults:
        extra = {"event": "entry_refused", "file": fault.file, "path": fault.path}
        log.error("%s; the other entries are in force", fault, extra=extra)


def log_task_faults(faults: Sequence[Fault]) -> None:
    """Say which entries have unknown tasks, or arguments that their tasks do not take. They run all the same."""
    for fault in faults[:_NAMES_SHOWN]:
        extra = {"event": "task_fault", "file": fault.file, "line": fault.line, "path": fault.path}
        log.warning("%s", fault, extra=extra)
    if more := len(faults[_NAMES_SHOWN:]):
        log.warning("and %d more like these; run beatd check", more, extra={"event": "task_faults", "more": more})


def _warn_of_settings(before: Settings, now: Settings) -> None:
    changed = [name for name in _AT_START if getattr(before, name) != getattr(now, name)]
    if changed:
        log.warning(
            "Changes of %s take effect when the processes that read them are started again",
            ", ".join(changed),
            extra={"event": "restart_needed", "settings": changed},
        )


def _say_difference(before: tuple[Entry, ...], config: Config) -> None:
    added, changed, removed = differences(before, config.entries)
    groups = (("+", added), ("−", removed), ("~", changed))
    names = [sign + name for sign, group in groups for name in group]
    shown = ", ".join(names[:_NAMES_SHOWN]) + (
        f", and {len(names) - _NAMES_SHOWN} more" if names[_NAMES_SHOWN:] else ""
    )
    extra = {"event": "config_reloaded", "added": len(added), "removed": len(removed), "changed": len(changed)}
    counts = " ".join(f"{sign}{len(group)}" for sign, group in groups)
    what = f": {shown}" if names else ", and time zone or defaults of runtime entries"
    log.info("Schedule reloaded: %s%s", counts, what, extra={**extra, "digest": config.digest})


def _is_file(name: str) -> bool:
    return os.path.exists(name)  # noqa: PTH110 - False, no error, where nothing may be looked at
