"""The values that everything else passes around: entries, runs, policies, settings. All of them frozen, none does I/O.

Durations are whole milliseconds (``*_ms``), instants are aware UTC datetimes or milliseconds since the epoch.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import date, datetime, time
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from beatd.schedules import Blackout, Schedule
from beatd.timestamps import from_ms
from beatd.urls import shown

RUN_NAMESPACE = uuid.UUID("6f4b1f5e-8f0a-5d8c-9b57-0d2f3f6f5bea")
"""The namespace of run ids. It never changes: a run's id must be the same on every daemon of every version."""

CatchUp = Literal["latest", "all", "none"]
Overlap = Literal["allow", "skip", "queue_one"]
Expires = int | datetime | Literal["auto"] | None
"""How long a message is worth running: milliseconds after due, an instant, one period (``"auto"``), or for ever."""


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Message options: the keywords of Celery's ``apply_async``, beside the task and its arguments."""

    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    expires: Expires = None
    headers: dict[str, Any] = {}
    serializer: str = "json"
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    keep_result: bool | None = None
    """True: the result is stored as a document, too; None: as the task says."""
    shadow: str | None = None
    countdown_ms: int | None = None
    link: list[dict[str, Any]] | None = None
    link_error: list[dict[str, Any]] | None = None


class SentryMonitor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cron monitor of Sentry. ``monitor`` is its slug; by default made of the entry's name."""

    dsn: str
    monitor: str | None = None
    environment: str | None = None


class Policies(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Policies for the runs of an entry: the fields of the same names in ``beat.toml``."""

    enabled: bool = True
    start: datetime | None = None
    end: datetime | None = None
    max_runs: int | None = None
    jitter_ms: int = 0
    blackout: Blackout | None = None
    catch_up: CatchUp = "latest"
    catch_up_window_ms: int | None = None
    catch_up_max: int = 100
    overlap: Overlap = "allow"
    max_runtime_ms: int | None = None
    max_queue_depth: int | None = None
    overdue_after_ms: int | None = None
    """0: never. None: learned from past runs; see :mod:`beatd.planning.overdue`."""
    expect_within_ms: int | None = None
    """Likewise."""
    tags: tuple[str, ...] = ()
    notify: tuple[str, ...] | None = None
    """Notification targets; None: those whose ``match`` fits."""
    ping: str | None = None
    sentry: SentryMonitor | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True, eq=True, gc=False):
    """One named line of the schedule: what to send, when, and under which policies.

    ``file`` and ``line`` say where it was written, for messages to people only; 0 is no line. A schedule may have a
    million: they are part of no cycle, and the collector need not look at them.
    """

    name: str
    task: str
    schedule: Schedule
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    timezone: str = "UTC"
    options: Options = Options()
    policies: Policies = Policies()
    file: str = ""
    line: int = 0

    @property
    def source(self) -> str:
        """The place of its text: ``beat.toml:12``."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def means(self, other: Entry) -> bool:
        """True if both entries mean the same; their places do not count."""
        return (
            self.schedule == other.schedule
            and self.task == other.task
            and alike(self.args, other.args)
            and alike(self.kwargs, other.kwargs)
            and self.timezone == other.timezone
            and self.options == other.options
            and self.policies == other.policies
            and all(alike(getattr(self.options, name), getattr(other.options, name)) for name in _FREE)
        )


_FREE = ("headers", "link", "link_error")
"""Options with values of JSON."""


def alike(one: Any, other: Any) -> bool:
    """True for equal values of JSON. A worker sees that 1, 1.0 and true are three values, which are equal in Python."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, date | time):  # equal are also moments whose texts have other zones
        return bool(one.isoformat() == other.isoformat())
    return bool(one == other) if isinstance(one, str | int | float) else repr(one) == repr(other)


class EntryState(NamedTuple):
    """State of an entry, as the store keeps it; times in milliseconds since the epoch."""

    last_due_ms: int
    """Due time after which it goes on: of its last claimed run, or, if that lies in the future because a clock was
    ahead, of the last run before the gap that this clock left."""
    first_seen_ms: int
    runs: int
    """Number of runs that were sent."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """One occurrence of an entry. A struct, as a tuple with names takes several times as long to make and to read.

    ``due_ms`` is the nominal time, never the jittered one, and part of the run's identity; ``fire_ms`` is when it
    leaves: the same instant, or a little later when the entry is jittered.
    """

    entry: Entry
    due_ms: int
    fire_ms: int
    timeline: Schedule
    """The runs of the entry over time, this one among them."""
    own_id: str | None = None
    """The id of a run that was asked for by hand, if it is not that of its due time."""
    after_ms: int | None = None
    """The instant (ms) after which this is the first run of its entry: runs due between the two are never sent. None
    for a run by hand. The message carries it as ``beatd-after``: see :mod:`beatd.store.ended_runs`."""

    @property
    def id(self) -> str:
        """The run id, which is the task id of its message."""
        return self.own_id or run_id(self.entry.name, self.due_ms)

    @property
    def due_at(self) -> datetime:
        """The nominal time as an aware UTC datetime."""
        return from_ms(self.due_ms)


def run_id(name: str, due_ms: int) -> str:
    """``uuid5(RUN_NAMESPACE, "<name>@<due_ms>")``: the same run has the same id wherever it is computed.

    Written out because :func:`uuid.uuid5` takes three times as long, and a herd needs ten thousand at once.
    """
    sha1 = _NAMESPACE_HASHED.copy()
    sha1.update(f"{name}@{due_ms}".encode())
    digest = sha1.hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{_VARIANT[digest[16]]}{digest[17:20]}-{digest[20:32]}"


def run_hash(name: str) -> Any:
    """A hash that has the first eight digits of a run id of the entry, once the due time (ms) has been added."""
    sha1 = _NAMESPACE_HASHED.copy()
    sha1.update(f"{name}@".encode())
    return sha1


def manual_run_id(name: str, request: str) -> str:
    """The id of a run that was asked for by hand; ``request`` tells it from all others of its entry."""
    return str(uuid.uuid5(RUN_NAMESPACE, f"{name}@manual:{request}"))


_NAMESPACE_HASHED = hashlib.sha1(RUN_NAMESPACE.bytes, usedforsecurity=False)
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[redis]``: the state store. ``url`` may be ``"embedded"``.

    ``wait_replicas`` are to confirm each batch of claims within ``wait_timeout_ms``.
    """

    url: str = "redis://localhost:6379/0"
    prefix: str = "beatd"
    timeout_ms: int = 5_000
    wait_replicas: int = 0
    wait_timeout_ms: int = 500

    def __repr__(self) -> str:
        return f"RedisSettings({shown(self.url)!r}, prefix={self.prefix!r})"


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[broker]``: where messages go; without a ``url`` into the state store itself.

    An entry with a message of more than ``max_message_bytes`` is refused.
    """

    url: str | None = None
    default_queue: str = "celery"
    max_message_bytes: int = 1 << 20

    def __repr__(self) -> str:
        return f"BrokerSettings({shown(self.url) if self.url else None!r}, default_queue={self.default_queue!r})"


class LeaderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[leader]``: how leadership is held. A lease of ``ttl_ms``, renewed every ``renew_ms``."""

    ttl_ms: int = 15_000
    renew_ms: int = 5_000
    shards: int = 1


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[log]``: ``level`` is a name of :mod:`logging` in lower case."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class HistorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[history]``: how many of its last runs are kept for each entry; 0: none."""

    keep: int = 20


class ResultSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[results]``: the Redis in which Celery's workers store results, if that is neither broker nor state store."""

    url: str | None = None

    def __repr__(self) -> str:
        return f"ResultSettings({shown(self.url) if self.url else None!r})"


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``[worker]``: the bundled worker. ``output``: the output of scheduled tasks is kept with the outcome."""

    output: bool = True


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[metrics]``: ``listen`` is ``HOST:PORT``; ``entries`` is ``all``, ``none`` or ``top:N``."""

    listen: str | None = None
    entries: str = "top:1000"


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[web]``: the status page. Without a ``tokens_file`` it only reads.

    A proxy at one of ``trusted_proxies`` may name the user in ``user_header``, who has ``proxy_role`` then.
    ``anonymous``: what is allowed without a token; ``None``: reading, on the loopback address or without tokens.
    """

    tokens_file: str | None = None
    anonymous: Literal["read", "none"] | None = None
    user_header: str | None = None
    trusted_proxies: tuple[str, ...] | None = None
    proxy_role: Literal["read", "operate"] = "read"
    tls_cert: str | None = None
    tls_key: str | None = None


AlertKind = Literal["failure", "recovery", "overdue", "missed", "held", "too_long", "nobody_leads", "config"]
ALERT_KINDS: tuple[AlertKind, ...] = get_args(AlertKind)


class NotifyTarget(msgspec.Struct, frozen=True, kw_only=True):
    """``[notify.NAME]``: one of ``urls`` (for apprise), ``webhook`` and ``command`` is set. Its repr has no secret."""

    name: str
    urls: tuple[str, ...] = ()
    webhook: str | None = None
    headers: dict[str, str] = {}
    command: tuple[str, ...] = ()
    on: tuple[AlertKind, ...] = ALERT_KINDS
    match: tuple[str, ...] = ("*",)
    """Patterns of the names of entries, as in a shell."""
    tags: tuple[str, ...] = ()
    """Only entries with one of these; none: all that match."""
    after: int = 1
    """Failures in a row before an entry counts as failing."""
    repeat_ms: int | None = None
    interval_ms: int = 60_000
    """Time between two messages."""
    timeout_ms: int = 10_000

    def __repr__(self) -> str:
        return f"NotifyTarget({self.name!r})"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in ``beat.toml`` but the schedule. ``file`` is where it was read from; paths in it are absolute."""

    file: str = ""
    timezone: str = "UTC"
    app: str | None = None
    include: tuple[str, ...] = ()
    allow_empty: bool = False
    """A reload may take the last entries of files or of the app out of the schedule."""
    state_dir: str = ""
    redis: RedisSettings = RedisSettings()
    broker: BrokerSettings = BrokerSettings()
    leader: LeaderSettings = LeaderSettings()
    log: LogSettings = LogSettings()
    history: HistorySettings = HistorySettings()
    results: ResultSettings = ResultSettings()
    worker: WorkerOptions = WorkerOptions()
    metrics: MetricsSettings = MetricsSettings()
    web: WebSettings = WebSettings()
    notify: tuple[NotifyTarget, ...] = ()
