"""``beatd trigger``: a run of an entry, now."""

from __future__ import annotations

import json
from typing import Any

import click

from beatd.cli.completion import entry_names, queue_names
from beatd.cli.errors import add_to_error
from beatd.cli.history import await_ending, histories
from beatd.cli.installation import Installation, hint, installation
from beatd.cli.output import print_json, print_line, read_json
from beatd.client.runs import RunClient
from beatd.exceptions import MessageError, RequestRefused, ScheduleError
from beatd.schedules import duration_ms
from beatd.states import IGNORED, SUCCESS
from beatd.store.audit import whoami
from beatd.store.history_reader import Ending
from beatd.store.result_document import exception_from
from beatd.store.runtime_entries import Runtime
from beatd.timestamps import span_text

WAIT_S = 60.0
"""Seconds that ``--wait`` waits without a number."""


@click.command()
@click.argument("entry", required=False, shell_complete=entry_names)
@click.option("--args", "arguments", metavar="JSON", help='Override, such as "[16, 16]".')
@click.option("--kwargs", metavar="JSON", help='Override, such as \'{"format": "pdf"}\'.')
@click.option("--queue", shell_complete=queue_names, help="Override the queue of the entry.")
@click.option(
    "--wait", metavar="[DURATION]", is_flag=False, flag_value="", help="Wait until the run has ended (default: 60s)."
)
@click.option("--result-backend", metavar="URL", help="Result backend; default: the broker, or the state store.")
@click.option("--request-id", metavar="ID", help="Idempotency key, valid for a day. Default: random.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def trigger(
    *,
    entry: str | None,
    arguments: str | None,
    kwargs: str | None,
    queue: str | None,
    wait: str | None,
    result_backend: str | None,
    request_id: str | None,
    config_file: str | None,
    as_json: bool,
) -> None:
    """Send a run of ENTRY now and print its run id.

    The regular schedule is unaffected; a paused entry can be triggered. The leading daemon sends the run. Exit code 1
    when no daemon leads, when the broker refuses the run, and with --wait when it fails or does not end in time.
    """
    seconds, entry = _seconds(wait, entry)
    if entry is None:
        raise click.UsageError("name the ENTRY")
    args = None if arguments is None else read_json(arguments, "--args", list)
    named = None if kwargs is None else read_json(kwargs, "--kwargs", dict)
    with installation(config_file) as place, histories(place, result_backend) as known:
        try:
            manual = RunClient(place.client, place.keys, via="command")
            sent = manual.trigger(entry, args, named, queue=queue, request_id=request_id, by=whoami())
        except (RequestRefused, MessageError) as error:
            raise in_words(error, entry, place) from None
        if not as_json:
            print_line(sent.run_id)
            if sent.repeated:
                click.echo("This request was carried out before; nothing was sent now.", err=True)
            if sent.in_outbox:
                click.echo("It waits in the outbox; it leaves as soon as the broker takes it.", err=True)
        add_to_error(sent._asdict())
        waits = seconds is not None and sent.refused is None
        ending = await_ending(known, sent.run_id, seconds or 0) if waits else None
    document = sent._asdict() | ({} if seconds is None else _result(ending))
    if sent.refused is not None:
        add_to_error(document)
        raise click.ClickException(f"the broker refused it: {sent.refused}; it is among the dead letters")
    if as_json:
        print_json(document)
    elif seconds is not None:
        print_line(_ending_text(ending, seconds))
    if seconds is not None and (ending is None or ending.state not in (SUCCESS, IGNORED)):
        raise click.exceptions.Exit(1)


def in_words(error: RequestRefused | MessageError, entry: str, place: Installation) -> click.ClickException:
    """Explain a refused request, with near names if the name is unknown."""
    if isinstance(error, MessageError):
        return click.UsageError(str(error))
    if not error.unknown:
        return click.ClickException(str(error))
    return click.UsageError(f"{error}{hint(entry, Runtime(place.client, place.keys).entry_names())}")


def _seconds(wait: str | None, entry: str | None) -> tuple[float | None, str | None]:
    """Return the seconds to wait, and the entry: ``--wait ENTRY`` means it, too."""
    if wait is None:
        return None, entry
    if not wait:
        return WAIT_S, entry
    try:
        return duration_ms(wait) / 1000, entry
    except ScheduleError as error:
        if entry is None:
            return WAIT_S, wait
        raise click.BadParameter(str(error), param_hint="--wait") from None


def _ending_text(ending: Ending | None, seconds: float) -> str:
    if ending is None:
        return f"It has not ended within {seconds:g} s, as far as its result or a bundled worker tells."
    took = "" if ending.runtime_ms is None else f" in {span_text(ending.runtime_ms)}"
    meta = ending.result
    if meta is None:
        return f"{ending.state}{took}"
    if ending.state == SUCCESS:
        return f"{ending.state}{took}: {json.dumps(meta['result'], ensure_ascii=False, default=str)}"
    return f"{ending.state}{took}: {exception_from(meta['result'])!r}"


def _result(ending: Ending | None) -> dict[str, Any]:
    """Return the outcome of a run as JSON; the state is null if it has not ended."""
    if ending is None:
        return {"state": None, "runtime_ms": None, "result": None}
    result = None if ending.result is None else json.loads(json.dumps(ending.result["result"], default=str))
    return {"state": ending.state, "runtime_ms": ending.runtime_ms, "result": result}
