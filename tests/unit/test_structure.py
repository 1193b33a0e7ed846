"""The structure that makes code easy to find: names of files, first words of docstrings, lines of Lua, one clock."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "beatd"
FILES = sorted(ROOT.rglob("*.py"))

NOUNS = """
    active admission amqp app assignment autoscale address asyncio backfill base beat binary blackout bootstrap
    banner broker builder builtin bus call callbacks canvas catchup celery chains check child chord chords claims cli
    client clock codec command commands compression completion conf config connection connections consumers context
    contrib control cron crontab current daemon dead deadline decode delivery describe dev digest dispatch dispatcher
    django duration dump effects elector embedded emptied entries entry environment envelope errors events exceptions
    execution executor export field fields file find fixup format graph group groups heap held history http importers
    info information init inspect installation interval json keys kombu lease letters lint list literals loader log
    logging loop management manual members merge message messages metrics mingle model multi next node options outbox
    outcome outcomes output overdue
    pages panel parking parse parser pause planning poison policies poller pools prefork preview problems process
    processes protocol publisher publishing pydantic queues rabbitmq rate limits redaction redbeat redis references
    registry renames reload remote report request requests result results retry revoked rights routing run runs runtime
    schedule schedules schema script sdnotify seams search security serialization server service settings settlement
    shard shutdown signals signature simulate simulation solar solo source sources spec state states status step down
    store strategy subprocess support system task template term threads timeline times timestamps timezone toml
    counters endpoint exporter families healthcheck listen snapshot
    lines trace trigger types url urls document nodes pool parts systemd units values view watch watchdog web
    worker writer import inspect add back backend beatd stamps
    comparison completion diff explain phrase reason why
""".split()  # noqa: SIM905 - a list of 200 lines would be no easier to read
"""The words of which names of files are made: nouns of the field, Celery's and AMQP's words, and commands."""


def names() -> Iterator[str]:
    for path in FILES:
        name = path.parent.name if path.name in {"__init__.py", "__main__.py"} else path.stem
        yield from (word for word in name.split("_") if word)


def test_file_names_are_standard_nouns():
    assert sorted(set(names()) - set(NOUNS)) == []


def test_no_docstring_begins_with_a_riddle():
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if re.match(r"(What|Whether|Those|Who|How|Where)\b", text):
                    found.append(f"{path.relative_to(ROOT)}:{node.body[0].lineno}: {text.splitlines()[0]}")
    assert found == []


def test_files_are_short_enough_to_read():
    assert [(str(path), n) for path in FILES if (n := path.read_text().count("\n")) > 400] == []


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.lua")), ids=lambda path: path.stem)
def test_lua_scripts_have_a_header_and_short_lines(path: Path):
    text = path.read_text()
    assert text.startswith("-- ")
    assert [line for line in text.splitlines() if len(line) > 120] == []


def test_one_module_reads_the_hosts_clock():
    """``import time`` anywhere else would bring back clocks that a test cannot set, and sleeps that it cannot see."""
    readers = [
        path for path in FILES if re.search(r"^\s*(import time\b|from time import)", path.read_text(), re.MULTILINE)
    ]
    assert readers == [ROOT / "clock.py"]
