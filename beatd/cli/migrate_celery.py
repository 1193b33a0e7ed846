"""``beatd migrate celery``: what a project uses of Celery, what is to be changed, and the changes of imports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from beatd import importers
from beatd.cli.output import plural, print_json, print_line, print_table, print_text, rewrite_file, write_file
from beatd.importers.celery_app import read_celery_app
from beatd.importers.celery_usage import Use, Verdict
from beatd.importers.project import Project, read_project
from beatd.importers.report import printable
from beatd.importers.settings_table import with_connections
from beatd.redaction import redacted_text

_SHOWN = 5
"""Places of one feature that are shown, unless all are asked for."""
_TITLES: dict[Verdict, str] = {
    "works": "Works unchanged",
    "change": "To change",
    "by hand": "Without counterpart: to be decided by hand",
}


@click.command("celery", short_help="Report what a project uses of Celery.")
@click.argument("project", default=".")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="The app whose schedule is written; default: the one found.")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write the schedule to this file."
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--rewrite", is_flag=True, help="Show the changes of import lines as a unified diff, and nothing else.")
@click.option("--write", is_flag=True, help="Make these changes.")
@click.option("--all", "show_all", is_flag=True, help=f"Show all places, not the first {_SHOWN} of each kind.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def migrate_celery(
    *,
    project: str,
    app: str | None,
    output: Path | None,
    force: bool,
    rewrite: bool,
    write: bool,
    show_all: bool,
    as_json: bool,
) -> None:
    """Report what PROJECT uses of Celery: what works unchanged, what is to be changed and how, with file and line.

    PROJECT is a folder, a file, or the module of an app such as proj.celery:app; default: the working directory. No
    code of it is run, but for --output: the app is imported then, and its schedule, broker and state store are written
    as a file that "beatd run" takes. Passwords are left out: the file names environment variables for such URLs.
    """
    folder, named = _place(project)
    found = read_project(folder)
    app = app or named or found.app
    if rewrite:
        _print_diff(found)
        return
    if write:
        _write(found, quiet=as_json)
    if as_json:
        print_json(_document(found, app))
    elif not write:
        _report(found, app, show_all=show_all)
    if output is not None:
        _write_schedule(output, app, force=force)


def _place(project: str) -> tuple[Path, str | None]:
    """The folder or file that is looked at, and the app if one is named."""
    path = Path(project)
    if path.exists():
        return path, None
    module = project.partition(":")[0].replace(".", "/")
    if Path(module).is_dir() or Path(f"{module}.py").is_file():
        return Path(), project
    raise click.UsageError(f"{project}: expected a folder, a file, or the module of an app such as proj.celery:app")


def _print_diff(found: Project) -> None:
    for change in found.changes:
        print_text("".join(change.diff), nl=False)
    if not found.changes:
        click.echo("nothing to change", err=True)


def _write(found: Project, *, quiet: bool) -> None:
    for change in found.changes:
        rewrite_file(change.path, change.new.encode(change.encoding))
        if not quiet:
            print_line(f"{change.name}: {plural(change.imports, 'import')} changed")
    if not quiet:
        print_line(f"{plural(len(found.changes), 'file')} changed" if found.changes else "nothing to change")


def _report(found: Project, app: str | None, *, show_all: bool) -> None:
    counted = f"{plural(found.files, 'file')} read, {plural(found.with_celery, 'file')} with Celery"
    print_line(f"{counted}; app: {app or 'none found'}")
    for verdict, title in _TITLES.items():
        uses = [use for use in found.uses if use.verdict == verdict]
        if not uses:
            continue
        click.echo()
        print_line(f"{title} ({len(uses):,})")
        rows = _summary(uses) if verdict == "works" else list(_rows(uses, show_all=show_all))
        columns = ["what", "places", "names"] if verdict == "works" else ["place", "what", "do"]
        print_table(columns, rows)
    for fault in found.unread:
        print_line(f"! {printable(fault)}", err=True)
    click.echo()
    for line in _next_steps(found, app):
        print_line(line)


def _summary(uses: Sequence[Use]) -> list[tuple[str, str, str]]:
    features: dict[str, list[Use]] = {}
    for use in uses:
        features.setdefault(use.feature, []).append(use)
    rows = []
    for feature, several in sorted(features.items()):
        names = list(dict.fromkeys(use.what for use in several))
        more = f", … ({len(names) - _SHOWN} more)" if names[_SHOWN:] else ""
        rows.append((feature, f"{len(several):,}", f"{', '.join(names[:_SHOWN])}{more}"))
    return rows


def _rows(uses: Sequence[Use], *, show_all: bool) -> Iterator[tuple[str, str, str]]:
    counts: dict[str, int] = {}
    for use in uses:
        counts[use.feature] = counts.get(use.feature, 0) + 1
        if show_all or counts[use.feature] <= _SHOWN:
            yield f"{use.file}:{use.line}", redacted_text(use.what), use.advice
    for feature, count in counts.items():
        if count > _SHOWN and not show_all:
            yield "", f"{feature}: {count - _SHOWN} more", "--all shows them"


def _next_steps(found: Project, app: str | None) -> Iterator[str]:
    name = app or "MODULE:APP"
    yield "Next:"
    yield f"  beatd migrate celery {found.shown} -A {name} -o beat.toml"
    yield "      writes the schedule"
    yield f"  beatd check -A {name}"
    yield "      checks the file, with the tasks, arguments and queues of the app"
    yield "  beatd run --dry-run"
    yield "      runs beside celery beat and sends nothing"
    if found.changes:
        yield f"  beatd migrate celery {found.shown} --rewrite"
        yield "      shows the changes of imports; --write makes them, once the schedule is written"
        yield "      only beatd's worker needs them: Celery's workers run the tasks as they are"


def _document(found: Project, app: str | None) -> dict[str, Any]:
    return {
        "files": found.files,
        "app": app,
        "uses": [use._asdict() | {"what": redacted_text(use.what)} for use in found.uses],
        "unread": list(found.unread),
        "changes": [{"file": change.name, "imports": change.imports} for change in found.changes],
    }


def _write_schedule(output: Path, app: str | None, *, force: bool) -> None:
    """Write the schedule and the connections of the app."""
    if app is None:
        raise click.UsageError("no app was found whose schedule could be written: name it with -A MODULE[:APP]")
    found = read_celery_app(app)
    carried = importers.carry_over(found, header=(f"Made of the Celery app {app} by beatd migrate celery.",))
    text, steps = with_connections(carried.toml, app)
    write_file(output, text, force=force)
    for note in carried.notes:
        print_line(f"! {printable(str(note))}", err=True)
    for step in steps:
        print_line(f"! {step}", err=True)
    lost = f", {plural(carried.lost, 'entry')} left behind" if carried.lost else ""
    print_line(f"{output}: {plural(len(carried.entries), 'entry')}{lost}", err=True)
    if carried.lost:
        raise click.exceptions.Exit(1)
