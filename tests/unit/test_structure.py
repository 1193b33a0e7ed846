"""The structure that makes code easy to find: names of files, first words of docstrings, lines of Lua, one clock."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "beatd"
FILES = sorted(ROOT.rglob("*.py"))

NOUNS = """
    access actions active add address admin admission advice advise alerts amqp api app apprise apps apscheduler
    assignment asyncio audit autoscale back backend backends backfill badge banner base beat beatd binary bindings
    blackout blackouts blocks body bootstrap broker builder builtin bus cache calendar calendars call callbacks canvas
    catchup celery celerybeat chains channels check checks child chord chords claims cli client clock cluster codec
    collected command commands commit compare comparison completion composition compression conditions conf config
    connection connections consumers context contrib control counters credentials cron croniter cronstable crontab
    current daemon dead deadline decode delayed delivery describe dev diff digest dispatch dispatcher django dkron
    doctor document documents down dry due dump duration eager edit editor effects elector embedded emptied ended
    endpoint entries entry entrypoints envelope environment errors event events exceptions execution executor explain
    export exporter families field fields file find fixup form format github global graph group groups healthcheck
    heap heatmap held history holidays http import importers imports info information init inspect installation
    interval job json keyprefix keys kombu kubernetes lease letters limits lines lint list listen literals load loader
    log logfile logging loop management manual members memory merge message messages metrics migrate migration mingle
    model models moments monitors multi next node nodes notation notices notifications notifier notify openapi
    operations options outage outbox outcome outcomes outlet output overdue page pages panel parameters parking parse
    parser parts pause pending phrase pickles pidfile pings pipeline places plan planning plugin poison policies
    poller pool pools prefork presence preview problems process processes project protocol proxies publisher
    publishing purge pydantic queues rabbitmq rate rates reader reason record recoveries redaction redbeat redis
    references registration registry reload remote renames replacement replica report request requests result results
    retry revoked rights routing rows rpc run runs runtime schedule schedules schema schemas script sdnotify seams
    search secret security selection sender sent sentinels serialization server service session settings settlement
    shard shared shell shutdown signals signature simulate simulation site snapshot solar solo source sources spec
    stamps state states status step stop store strategy stream subprocess support system systemd table tables targets
    task tasks template term testing threads timeline timers times timestamps timezone tls tokens toml top topology
    trace traces tracing trigger tutorial types unacked undelivered units unlock url urls usage values view watch
    watchdog web why words worker workers writer yaml
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


def test_no_test_skips_by_itself_where_a_program_is_missing():
    """CI would not notice: ``@pytest.mark.needs`` fails there."""
    texts = {path.name: path.read_text() for path in (Path(__file__).parents[1]).rglob("test_*.py")}
    assert [name for name, text in texts.items() if re.search(r"skip\w*\([^\n]*which\b", text)] == []
