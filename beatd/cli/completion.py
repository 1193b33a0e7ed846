"""``beatd completion``: scripts with which shells complete commands, options and the names of entries."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete

from beatd import config
from beatd.cli.output import print_text
from beatd.config.loader import load
from beatd.exceptions import BeatdError

_VARIABLE = "_BEATD_COMPLETE"
_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_SHOWN = 200
"""Names that are offered at most."""


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_SHELLS)))
def completion(shell: str) -> None:
    """Print the completion script of SHELL, which completes commands, options and the names of the file's entries.

    bash: beatd completion bash > ~/.local/share/bash-completion/completions/beatd
    """
    from beatd.cli import main  # noqa: PLC0415 - which imports this module

    script = _SHELLS[shell](main, {}, "beatd", _VARIABLE)
    print_text(script.source_template % script.source_vars())


def queue_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The queues that the file names and that begin as typed."""
    try:
        loaded = load(config.find(ctx.params.get("config_file") or ctx.params.get("config")))
    except (BeatdError, OSError):
        return []
    queues = {loaded.settings.broker.default_queue, *(entry.options.queue or "" for entry in loaded.entries)}
    return [CompletionItem(name) for name in sorted(queues - {""}) if name.startswith(incomplete)][:_SHOWN]


def entry_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the entries in the file that begin as typed; no file, or a wrong one, has none."""
    try:
        entries = load(config.find(ctx.params.get("config_file"))).entries
    except (BeatdError, OSError):
        return []
    names = sorted(entry.name for entry in entries if entry.name.startswith(incomplete))
    return [CompletionItem(name) for name in names[:_SHOWN]]
