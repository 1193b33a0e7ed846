"""Every command and option of Celery's command line is one of beatd's, or its absence is answered in words."""

from collections.abc import Iterator

import click
import pytest
from celery.bin.celery import celery
from click.testing import CliRunner

from beatd.cli import ALIASES, UNSUPPORTED, main
from beatd.cli.global_options import FLAGS, VALUES


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


def spellings(command: click.Command) -> set[str]:
    options = (each for each in command.params if isinstance(each, click.Option))
    return {word for each in options for word in (*each.opts, *each.secondary_opts)}


def ours(words: tuple[str, ...]) -> click.Command:
    words = ("migrate", "messages") if words == ("migrate",) else words
    command = main.get_command(click.Context(main), ALIASES.get(words[0], words[0]))
    assert command is not None
    if isinstance(command, click.Group) and words[1:]:
        command = command.commands[words[1]]
    return command


@pytest.mark.parametrize(("words", "theirs"), [*commands(celery)])
def test_options_of_celerys_commands_are_accepted(words, theirs):
    if words[0] in UNSUPPORTED:
        return
    missing = spellings(theirs) - spellings(ours(words)) - {*FLAGS, *VALUES, "--help"}
    assert sorted(missing) == []


def test_options_of_all_commands_are_accepted():
    assert spellings(celery) - {*FLAGS, *VALUES} == {"--version"}


@pytest.mark.parametrize("word", sorted(UNSUPPORTED))
def test_commands_of_celery_that_are_missing_are_answered_in_words(word):
    done = CliRunner().invoke(main, ["-A", "proj", word])
    assert done.exit_code == 2
    assert f'no command "{word}": ' in done.stderr


def test_what_has_no_effect_is_said():
    done = CliRunner().invoke(main, ["--loader", "celery.loaders.app:AppLoader", "--skip-checks", "schema", "--help"])
    assert done.exit_code == 0, done.output
    assert "--loader has no effect" in done.stderr
