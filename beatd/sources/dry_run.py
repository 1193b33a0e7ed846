"""Configuration of ``beatd run --dry-run``: the same times, and nothing that others would notice.

State, leadership and history are under a prefix of their own. Nobody is notified or pinged. Runs are taken to end at
once, so that none is skipped because of another, or of a queue's length.
"""

from __future__ import annotations

from msgspec import structs

from beatd.config import Config
from beatd.model import Entry, Policies

SUFFIX = "-dry-run"
"""Behind the prefix of the state store's keys."""
KEPT = 1_000
"""Runs of each entry that are kept, for the comparison."""


def for_dry_run(config: Config) -> Config:
    """Return the configuration with which a dry run is made."""
    settings = config.settings
    redis = structs.replace(settings.redis, prefix=dry_run_prefix(settings.redis.prefix))
    history = structs.replace(settings.history, keep=max(settings.history.keep, KEPT))
    return structs.replace(
        config,
        settings=structs.replace(settings, redis=redis, history=history, notify=type(settings.notify)()),
        entries=tuple(map(_quiet, config.entries)),
    )


def dry_run_prefix(prefix: str) -> str:
    """The prefix of a dry run beside that of the real thing."""
    return prefix + SUFFIX


def _quiet(entry: Entry) -> Entry:
    plain, policies = Policies(), entry.policies
    names = (
        "overlap",
        "max_runtime_ms",
        "max_queue_depth",
        "overdue_after_ms",
        "expect_within_ms",
        "notify",
        "ping",
        "sentry",
    )
    changed = {name: getattr(plain, name) for name in names if getattr(policies, name) != getattr(plain, name)}
    return structs.replace(entry, policies=structs.replace(policies, **changed)) if changed else entry
