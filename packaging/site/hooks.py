"""Hooks of MkDocs: reference pages made from the code, and links to files that are not pages."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from beatd import client
from beatd.cli import COMMANDS, GROUPS, main
from beatd.web.openapi import document
from beatd.web.operations import OPERATIONS

SOURCE = "https://github.com/beatd/beatd/blob/main/"
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that the navigation does not name under "More": a new page is never out of reach."""
    named = set(_pages(config.nav))
    pages = sorted(str(path.relative_to(config.docs_dir)) for path in Path(config.docs_dir).rglob("*.md"))
    if more := [page for page in pages if page not in named]:
        config.nav = [*(config.nav or ()), {"More": more}]
    return config


def _pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav or ():
            yield from _pages(each)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, text in {
        "reference/commands.md": commands(),
        "reference/http-api.md": http_api(),
        "reference/python-api.md": python_api(),
    }.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Let links that leave the documentation lead to the repository."""
    folder = os.path.dirname(page.file.src_uri)  # noqa: PTH120 - a URI, not a path

    def linked(found: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(folder, found[1]))  # noqa: PTH118
        return f"]({SOURCE}{target[3:]}{found[2] or ''})" if target.startswith("../") else found[0]

    return _LINK.sub(linked, markdown)


def commands() -> str:
    """Return the help of each command, in the groups of ``beatd --help``."""
    lines = ["# Commands", "`beatd COMMAND --help` prints the same. [Running beatd](../operations.md) explains more."]
    parent = click.Context(main, info_name="beatd")
    for group, names in GROUPS.items():
        lines.append(f"## {group}")
        for name in names:
            lines += [f"### beatd {name}", COMMANDS[name].summary, *_help(main, parent, name)]
    return "\n\n".join(lines)


def _help(group: click.Group, parent: click.Context, name: str) -> Iterator[str]:
    if command := group.get_command(parent, name):
        context = click.Context(command, info_name=name, parent=parent, terminal_width=90, max_content_width=90)
        yield f"```text\n{command.get_help(context)}\n```"
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                yield from _help(command, context, each)


def http_api() -> str:
    """Return the operations of the page's API, from its OpenAPI document."""
    lines = [
        "# HTTP API",
        "The page serves this document at `/api/v1/openapi.json`. [The page](../page.md) explains access.",
    ]
    for path, methods in document(OPERATIONS)["paths"].items():
        for method, operation in methods.items():
            lines += [f"## {method.upper()} {path}", operation.get("summary", ""), operation.get("description", "")]
            if parameters := operation.get("parameters"):
                lines.append(_table("| parameter | in | type | meaning |", map(_parameter, parameters)))
            answers = (f"| {code} | {_cell(one['description'])} |" for code, one in operation["responses"].items())
            lines.append(_table("| status | answer |", answers))
    return "\n\n".join(lines)


def _table(head: str, rows: Iterable[str]) -> str:
    return "\n".join([head, "|" + " --- |" * (head.count("|") - 1), *rows])


def _parameter(each: dict[str, Any]) -> str:
    required = " (required)" if each.get("required") else ""
    kind = each.get("schema", {}).get("type", "")
    return f"| `{each['name']}`{required} | {each['in']} | {kind} | {_cell(each.get('description', ''))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def python_api() -> str:
    """Return the classes of ``beatd.client`` with their methods, from their docstrings."""
    lines = ["# Python client", "The module `beatd.client`. [Entries at run time](../client.md) has examples."]
    for name in sorted(client.__all__):
        each = getattr(client, name)
        lines += [f"## {name}", *_documented(name, each)]
        for method, function in inspect.getmembers(each, inspect.isfunction):
            if not method.startswith("_"):
                lines += [f"### {name}.{method}", *_documented(method, function)]
    return "\n\n".join(lines)


def _documented(name: str, each: Any) -> tuple[str, str]:
    signature = str(inspect.signature(each)).replace("'", "")
    return f"```python\n{name}{signature}\n```", (inspect.getdoc(each) or "").replace("``", "`")
