"""``beatd history``: past runs, their outcomes, and waiting for the outcome of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import click

from beatd import broker
from beatd.cli.completion import entry_names
from beatd.cli.installation import Installation, hint, installation, is_glob, matching_names
from beatd.cli.output import plural, print_folded, print_json, print_table, read_moment
from beatd.client.history import counts, facts
from beatd.client.moments import local_time
from beatd.client.outcomes import OutcomeReader, RunDetail, detail_facts
from beatd.clock import SystemClock, monotonic, sleep
from beatd.state_store import result_urls
from beatd.store.client import connect
from beatd.store.history import REASONS, Record, RecordFilter
from beatd.store.history_reader import Ending, Histories, Totals
from beatd.store.keys import Keys
from beatd.store.pipeline import joint_reads
from beatd.store.run_record import REFUSED
from beatd.store.runtime_entries import Runtime
from beatd.timestamps import span_text
from beatd.url_keyprefix import result_prefix

_LOOK_S = 0.05
_ERROR_SHOWN = 100
"""Characters of an error in a table."""


@contextmanager
def histories(place: Installation, result_backend: str | None) -> Iterator[Histories]:
    """The histories of an installation, with outcomes that Celery's workers store: in ``result_backend``, in what
    ``[results]`` names or the broker if that is a Redis, or in the state store."""
    settings, keys = place.head.settings, place.keys
    urls = result_urls(settings)
    if result_backend and broker.is_redis(result_backend):
        urls.insert(0, broker.redis_url(result_backend))
        keys = Keys(keys.prefix, parts=keys.parts, results=result_prefix(result_backend)).without(keys.away)
    with ExitStack() as stack:
        timeout_ms = settings.redis.timeout_ms
        clients = [stack.enter_context(connect(url, timeout_ms=timeout_ms, role="result backend")) for url in urls]
        yield Histories(place.client, keys, results=clients)


def await_ending(known: Histories, run_id: str, seconds: float) -> Ending | None:
    """Wait for the end of a run and return it; ``None`` if it has not ended within so many seconds."""
    until = monotonic() + seconds
    while (ending := known.endings([run_id])[0]) is None and monotonic() < until:
        sleep(min(_LOOK_S, max(until - monotonic(), 0.0)))
    if ending is not None and ending.runtime_ms is None:  # the bundled worker stores a result first, then says the rest
        sleep(_LOOK_S)
        ending = known.endings([run_id])[0] or ending
    return ending


@click.command()
@click.argument("name", metavar="[ENTRY|GLOB]", required=False, default="*", shell_complete=entry_names)
@click.option("-n", "count", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Number of runs.")
@click.option("--failed", is_flag=True, help="Only runs that failed or were refused.")
@click.option("--skipped", is_flag=True, help="Only skipped or missed runs.")
@click.option("--since", metavar="TIME", help="Only runs that were due since then: a time, or a distance such as -2h.")
@click.option("--result-backend", metavar="URL", help="Result backend; default: the broker and the state store.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def history(
    *,
    name: str,
    count: int,
    failed: bool,
    skipped: bool,
    since: str | None,
    result_backend: str | None,
    config_file: str | None,
    as_json: bool,
) -> None:
    """Show past runs, newest first: of ENTRY, of the entries that match GLOB, or of all.

    Times are in the time zone of the file. Outcomes come from the bundled worker; those of Celery workers are shown
    while their results are in a Redis that beatd knows.
    """

    now_ms = SystemClock().now_ms()
    with installation(config_file) as place, histories(place, result_backend) as known:
        zone_name = place.head.settings.timezone
        since_ms = 0
        if since is not None:
            at = {"base_ms": now_ms, "now_ms": now_ms}
            since_ms = read_moment(since, option="--since", timezone=zone_name, **at)
        every = Runtime(place.client, place.keys).entry_names()
        names, without = matching_names([name], every)
        if without and not (name == "*" or is_glob(name)):
            raise click.UsageError(f'no daemon has seen an entry "{name}"{hint(name, every)}')
        outcomes, wanted = OutcomeReader(place.client, place.keys, known), RecordFilter(since_ms, failed, skipped)
        with joint_reads() as read:
            details = read(lambda: outcomes.detailed(known.newest(names, count, wanted), now_ms))
            counted = read(known.totals, names)
        runs, totals = details.result(), counted.result()
    if as_json:
        documents = [{**facts(run.record), **detail_facts(run)} for run in runs]
        print_json({"runs": documents, "totals": {each: counts(totals[each]) for each in sorted(totals)}})
        return
    if runs:
        _print(runs, zone_name, with_name=len(names) > 1)
        click.echo()
    print_folded(_summed_up(name if len(names) == 1 else plural(len(names), "entry"), list(totals.values())))


def _print(runs: Sequence[RunDetail], timezone: str, *, with_name: bool) -> None:
    lines = [run.record for run in runs]
    columns = {
        "entry": [one.entry if with_name else "" for one in lines],
        "due": _moments(lines, timezone),
        "late": [span_text(one.late_ms) if one.kind == "scheduled" else "" for one in lines],
        "outcome": [_outcome(one, timezone) for one in runs],
        "took": ["" if one.runtime_ms is None else span_text(one.runtime_ms) for one in lines],
        "run": [(one.run_id or "")[:8] for one in lines],
        "error": list(map(error_line, runs)),
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    print_table(list(shown), zip(*shown.values(), strict=True))


def _moments(lines: Sequence[Record], timezone: str) -> list[str]:
    """When runs were due, with the year if they are not all of one."""
    dues = [local_time(one.due_ms, timezone) for one in lines]
    form = "%m-%d %H:%M:%S %Z" if len({due.year for due in dues}) == 1 else "%Y-%m-%d %H:%M:%S %Z"
    return [due.strftime(form) for due in dues]


def _outcome(run: RunDetail, timezone: str) -> str:
    one = run.record
    match one.kind:
        case "skipped":
            return f"skipped: {one.reason}"
        case "missed":
            return f"missed to {local_time(one.at_ms, timezone):%m-%d %H:%M:%S %Z}"
        case "scheduled":
            return _ended(run)
        case by_hand:
            return f"{_ended(run)}, {by_hand}"


def _ended(run: RunDetail) -> str:
    """Outcome of a run, in words."""
    if run.record.outcome == REFUSED:
        return f"refused: {run.record.reason}" if run.record.reason else "refused"
    return run.word


def error_line(run: RunDetail) -> str:
    """The error of a run in one line, and how many attempts there were."""
    last = run.last
    if last is None or not last.type or run.word in ("success", "running") or run.record.outcome == REFUSED:
        return ""
    text = " ".join(f"{last.type}: {last.message}".split())
    attempts = f" (attempt {last.attempt})" if last.attempt > 1 else ""
    return (text if len(text) <= _ERROR_SHOWN else f"{text[: _ERROR_SHOWN - 1]}…") + attempts


def _summed_up(what: str, totals: Sequence[Totals]) -> str:
    scheduled, counts = sum(one.scheduled for one in totals), sum((one.counts for one in totals), start=Counter[str]())
    by_hand = [f"{counts[word]:,} {word}" for word in ("triggered", "backfilled") if counts[word]]
    reasons = [f"{counts[reason]:,} {reason}" for reason in REASONS if counts[reason]]
    skipped = [f"{sum(counts[reason] for reason in REASONS):,} skipped ({', '.join(reasons)})"] if reasons else []
    late = [f"{counts['late']:,} more than 1 s late"] if counts["late"] else []
    refused = [f"{counts['refused']:,} refused by the broker"] if counts["refused"] else []
    return f"{what}: {', '.join([f'{scheduled:,} sent by schedule', *late, *by_hand, *refused, *skipped])}"
