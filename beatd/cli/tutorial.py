"""``beatd tutorial``: the tutorial of the documentation in the terminal, step by step."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

import click

import beatd
from beatd.cli.output import print_colored, print_line, print_text
from beatd.cli.tutorial_page import Prose, ShellCommand, TextFile, parts
from beatd.cli.tutorial_session import TutorialSession, Unexpected

_PACKAGED = Path(beatd.__file__).parent / "tutorial.md"
_CHECKOUT = Path(beatd.__file__).parents[1] / "docs" / "tutorial.md"
_SHOWN = 12
"""Lines of output that are shown of a process in the background."""
_LINK = re.compile(r"\[([^\[\]]+)\]\([^)]+\)|<(https?://[^<>]+)>")
_ITEM = re.compile(r"\n(?=\* )")
END = "Where to go from here"
"""The heading of the last section, which has links only."""


@click.command("tutorial")
@click.option("--yes", is_flag=True, help="Do all steps without asking.")
def tutorial(*, yes: bool) -> None:
    """Do the tutorial in this terminal: write files, run commands, and see what they do.

    It works in a new temporary folder, with an embedded store, and removes both at the end. Each command is shown
    before it runs. Ctrl-C ends the tutorial.
    """
    if not (yes or sys.stdin.isatty()):
        raise click.UsageError("the tutorial asks before each command, and needs a terminal; --yes does all steps")
    folder = Path(tempfile.mkdtemp(prefix="beatd-tutorial-"))
    try:
        with TutorialSession(folder) as session:
            print_line(f"Folder: {folder}")
            _follow(session, ask=not yes)
    except Unexpected as error:
        raise click.ClickException(f"this step did not do what it should:\n{error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _follow(session: TutorialSession, *, ask: bool) -> None:
    for part in parts(source().read_text(encoding="utf-8")):
        if isinstance(part, Prose):
            text, _, rest = part.text.partition(f"## {END}")
            _show(text)
            if rest:
                break
        elif isinstance(part, TextFile):
            print_text(f"{part.name}:\n\n{textwrap.indent(part.text, '    ')}")
            _wait("write this file", ask=ask)
            session.write(part)
        elif part.how != "not run":
            _run(session, part, ask=ask)
    print_line("That is all. The documentation: https://github.com/beatd/beatd/tree/main/docs")


def source() -> Path:
    """Return the page of the documentation: packaged, or in the checkout."""
    return _PACKAGED if _PACKAGED.exists() else _CHECKOUT


def _show(text: str) -> None:
    width = min(shutil.get_terminal_size().columns, 100)
    for paragraph in (item for block in text.split("\n\n") for item in _ITEM.split(block)):
        flat = " ".join(_LINK.sub(lambda found: found[1] or found[2], paragraph).split())
        if flat.startswith("#"):
            click.echo()
            _bold(flat.lstrip("# "))
        elif flat:
            print_text(textwrap.fill(flat.replace("**", ""), width))
        click.echo()


def _run(session: TutorialSession, command: ShellCommand, *, ask: bool) -> None:
    _bold(f"    $ {command.line}")
    click.echo()
    _wait("start this in the background" if command.how == "background" else "run this", ask=ask)
    lines = session.run(command).rstrip().splitlines()
    for line in lines[-_SHOWN:] if command.how == "background" else lines:
        print_line(f"    {line}")
    click.echo()


def _bold(text: str) -> None:
    print_colored(text, bold=True)


def _wait(what: str, *, ask: bool) -> None:
    if ask:
        click.prompt(f"[Enter: {what}]", default="", show_default=False, prompt_suffix=" ")
        click.echo()
