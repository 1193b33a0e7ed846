"""The pages in docs/ and the code say the same: settings, defaults, commands, events, keys, scripts."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, get_args

import click
import pytest
import yaml

from beatd import config
from beatd.cli import COMMANDS, main
from beatd.config.entries import ENTRY
from beatd.config.environment import HANDED_ON, VARIABLES
from beatd.config.fields import OPTIONS, POLICIES, SECTIONS
from beatd.config.settings import BESIDE_URL
from beatd.exceptions import ConfigError
from beatd.metrics.families import FAMILIES
from beatd.model import (
    ALERT_KINDS,
    BrokerSettings,
    HistorySettings,
    LeaderSettings,
    LogSettings,
    MetricsSettings,
    Options,
    Policies,
    RedisSettings,
)
from beatd.planning.problems import Kind
from beatd.store.keys import Keys, type_of
from tests.unit.logged_events import PACKAGE, logged

ROOT = PACKAGE.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("examples/**/README.md"))]
STRUCTS = {
    "redis": RedisSettings,
    "broker": BrokerSettings,
    "leader": LeaderSettings,
    "log": LogSettings,
    "history": HistorySettings,
    "metrics": MetricsSettings,
}
ENVIRONMENT = {"REDIS_PASSWORD": "secret"}

CODE = re.compile(r"`([^`]+)`")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
THREAD = re.compile(r"\bThread\([^\n]*?(?:\n[^\n]*?)?name=\"([a-z-]+)\"")
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][a-z-]*")


class Example(NamedTuple):
    """A piece of code on a page, and where it is."""

    place: str
    text: str


def examples(language: str) -> list[Example]:
    return [
        Example(f"{page.relative_to(ROOT)}:{page.read_text()[: found.start()].count(chr(10)) + 1}", found[2])
        for page in PAGES
        for found in FENCE.finditer(page.read_text())
        if found[1] == language
    ]


def section(page: str, heading: str) -> str:
    """What is under a heading, with what is under the lesser ones inside."""
    text = (DOCS / page).read_text()
    begin = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert begin, f"{page} has no heading {heading!r}"
    end = re.compile(rf"^#{{1,{len(begin[1])}}} ", re.MULTILINE).search(text, begin.end())
    return text[begin.end() : end.start() if end else None]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of each table, without the headers."""
    for line, below in pairwise([*text.splitlines(), ""]):
        if line.startswith("| ") and not line.startswith("| ---") and not below.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def code(cell: str) -> str:
    found = CODE.search(cell)
    return found[1] if found else ""


def by_place(found: list[Example]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", found, ids=[one.place for one in found])


# -- examples ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def load(tmp_path):
    """``load(text)``: the configuration in a file with that text, with secrets where it looks for them."""
    (tmp_path / "secrets").mkdir()
    for name in ("redis-url", "results-url", "broker-url", "redis-password", "password"):
        (tmp_path / "secrets" / name).write_text("redis://localhost\n")
    for name in ("webhook", "notify-url"):
        (tmp_path / "secrets" / name).write_text("https://localhost\n")

    def loaded(text: str) -> config.Config:
        (tmp_path / "beat.toml").write_text(text.replace("/run/secrets", "secrets"))
        return config.load(tmp_path / "beat.toml", env=ENVIRONMENT)

    return loaded


@by_place(examples("toml"))
def test_toml_is_a_configuration(example, load):
    assert load(example.text)


NOTATIONS = [code(row[0]) for row in rows(section("schedules.md", "Notations").partition("###")[0])]


@pytest.mark.parametrize("notation", NOTATIONS)
def test_notations_are_read(notation, load):
    assert load(f'[beat_schedule.example]\ntask = "tasks.add"\n{notation}')


TESTED_TOGETHER = ("docs/testing.md", "docs/how-to/", "examples/")
"""Pages whose examples belong together; tests/integration/testing and test_guides.py and test_examples.py run them."""


@by_place([one for one in examples("python") if not one.place.startswith(TESTED_TOGETHER)])
def test_python_runs(example, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", example.text], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def command_lines() -> Iterator[Example]:
    """What begins with beatd, in the text and after the prompt of consoles."""
    for page in PAGES:
        text = page.read_text()
        spans = CODE.findall(FENCE.sub("", text))
        prompts = re.findall(r"^[$#] (.*)$", "".join(found[2] for found in FENCE.finditer(text)), re.MULTILINE)
        yield from (
            Example(str(page.relative_to(ROOT)), line) for line in (*spans, *prompts) if re.match(r"beatd( |$)", line)
        )


@by_place(list(command_lines()))
def test_commands_and_their_options_exist(example):
    words = shlex.split(example.text, comments=True)[1:]
    if not words or words[0] in {"--help", "--version"}:
        return
    name = "run" if words[0].startswith("-") else words[0]
    assert name in COMMANDS
    unknown = {option for word in words for option in OPTION.findall(word.partition("=")[0])[:1] if word[0] == "-"}
    passed_on = options_of("worker") if name == "multi" else set()
    assert unknown <= options_of(name) | passed_on | {"--help"}


def options_of(name: str) -> set[str]:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    commands = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
    return {opt for one in commands for each in one.params if isinstance(each, click.Option) for opt in each.opts}


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_option_is_documented(name):
    text = section("worker.md", "Options") if name == "worker" else section("operations.md", f"beatd {name}")
    assert {option for row in rows(text) for option in OPTION.findall(row[0])} == options_of(name)


def test_every_command_is_documented():
    listed = list(rows(section("operations.md", "Commands").partition("###")[0]))
    assert {code(row[0]) for row in listed} == {f"beatd {name}" for name in main.list_commands(click.Context(main))}


# -- settings ---------------------------------------------------------------------------------------------------------


def known_to(load, text: str) -> set[str]:
    """The settings beside a misspelt one, as its error lists them."""
    with pytest.raises(ConfigError) as caught:
        load(text + "zzz = 1")
    return set(str(caught.value).partition("; expected ")[2].replace(" or ", ", ").split(", "))


def test_every_top_level_setting_is_documented(load):
    documented = {code(row[0]) for row in rows(section("configuration.md", "Top level"))}
    tables = {*SECTIONS, "notify", "blackout", "defaults", "beat_schedule"}
    assert documented == known_to(load, "") - tables


BESIDE = {
    "user_header": 'trusted_proxies = ["10.0.0.5"]',
    "trusted_proxies": 'user_header = "X-User"',
    "tls_cert": 'tls_key = "web.key"',
    "tls_key": 'tls_cert = "web.crt"',
}
"""Settings that go together with another one."""


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_of_a_section_is_documented(name, load):
    listed = list(rows(section("configuration.md", f"[{name}]")))
    assert {code(row[0]) for row in listed} == known_to(load, f"[{name}]\n")
    for row in listed:
        key = code(row[0])
        url = 'url = "amqp:///"\n' if name == "broker" and key.removesuffix("_file") in BESIDE_URL else ""
        assert load(f"[{name}]\n{url}{code(row[3])}\n{BESIDE.get(key, '')}\n"), row


def test_every_setting_of_a_target_is_documented(load):
    listed = list(rows(section("configuration.md", "[notify.NAME]")))
    assert {code(row[0]) for row in listed} == known_to(load, "[notify.ops]\ncommand = ['x']\n")
    for row in listed:
        name = code(row[0]).removesuffix("_file")
        way = "" if name in ("url", "urls", "webhook", "command") else 'webhook = "https://example.com"\n'
        assert load(f"[notify.ops]\n{way}{code(row[3])}\n"), row


def test_every_setting_of_an_entry_is_documented(load):
    listed = list(rows(section("configuration.md", "Entries")))
    assert {code(row[0]) for row in listed} == set(ENTRY)
    for row in listed:
        needed = {"task": 'task = "tasks.add"', "schedule": "schedule = 30"} | {code(row[0]): code(row[3])}
        assert load("[beat_schedule.example]\n" + "\n".join(needed.values())), row


@pytest.mark.parametrize(
    ("heading", "fields", "defaults"),
    [
        *((f"[{name}]", SECTIONS[name], struct()) for name, struct in STRUCTS.items()),
        ("Policies", POLICIES, Policies()),
        ("The message", OPTIONS, Options()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_defaults_are_those_of_the_code(heading, fields, defaults):
    cells = {code(row[0]): row[1] for row in rows(section("configuration.md", heading))}
    for name, field in fields.items():
        written = code(cells[name])
        said = field.read(tomllib.loads(f"x = {written}")["x"], "UTC") if written else None
        assert said == getattr(defaults, field.into, None), name  # only_on becomes a part of the blackout


# -- events -----------------------------------------------------------------------------------------------------------


def test_every_event_is_documented_and_every_documented_one_is_logged():
    found = logged()
    headings = re.findall(r"^## (beatd\S*)$", (DOCS / "events.md").read_text(), re.MULTILINE)
    assert set(headings) == set(found)
    for package in headings:
        documented = {code(row[0]): set(CODE.findall(row[2])) for row in rows(section("events.md", package))}
        assert set(documented) == set(found[package])
        for name, fields in found[package].items():
            assert fields <= documented[name], name


def test_events_to_page_on_exist():
    watched = {name for row in rows(section("events.md", "Events to page on")) for name in CODE.findall(row[0])}
    assert watched <= {name for events in logged().values() for name in events}


def test_troubleshooting_names_events_that_exist_and_all_to_page_on():
    known = {name for events in logged().values() for name in events}
    helped = {name for row in rows(section("troubleshooting.md", "By log event")) for name in CODE.findall(row[0])}
    paged = {name for row in rows(section("events.md", "Events to page on")) for name in CODE.findall(row[0])}
    assert helped <= known
    assert paged <= helped


def test_every_metric_is_documented_with_its_type_and_labels():
    page = section("operations.md", "The status page, metrics and health")
    text = page + section("deployment.md", "Metrics and health of one process")
    documented = {code(row[0]): row for row in rows(text) if code(row[0]).startswith("beatd_")}
    assert documented.keys() == FAMILIES.keys()
    for name, row in documented.items():
        assert row[1] == FAMILIES[name].kind, name
        labels = row[2].partition(",")[0] if len(row) == 4 else ""  # without labels the cell is not parted
        assert tuple(CODE.findall(labels)) == FAMILIES[name].labels, name


# -- the store --------------------------------------------------------------------------------------------------------


def test_every_key_is_documented_with_its_type():
    keys = Keys("beatd")
    one, shard = "<run id>", keys.shard(0)
    daemon = {key for key in shard if not key.endswith(":")}
    daemon |= {keys.daemons, keys.wake, *keys.runtime(), keys.orders, keys.answers("<id>")}
    daemon |= {keys.history("<entry>"), f"{shard.answered}<id>", f"{shard.sent}{one}", keys.shards}
    daemon |= {keys.notices, keys.notices_due, keys.alerts("<target>"), keys.pinged, keys.led}
    daemon |= {
        keys.present("<daemon id>"),
        f"{shard.refused}{one}",
        keys.outcomes("<entry>"),
        keys.started("<run id>"),
        keys.audit,
        keys.audited_digest,
        keys.format,
        keys.undelivered,
    }
    worker = {*keys.workers(), keys.worker("<id>", "unacked"), keys.worker("<id>", "alive"), f"{shard.finished}{one}"}
    worker.add(keys.deaths("<task id>:<retries>"))
    for heading, expected in (("Keys of the daemon", daemon), ("Keys of the bundled worker", worker)):
        documented = {code(row[0]): row[1] for row in rows(section("state.md", heading))}
        assert set(documented) == expected
        for key, kind in documented.items():
            assert type_of(key) in {kind, None}, key


def test_every_script_is_documented():
    listed = {code(row[0]) for row in rows(section("state.md", "Scripts"))}
    assert listed == {path.name for path in (PACKAGE / "store" / "lua").glob("*.lua")}


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), f"{target}#{anchor}"


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("first", "last", "most"),
    [("| the command reads its options", "| with another broker", 25), ("| messages are taken", "## Processes", 20)],
    ids=["from a line of the file to the broker", "from a message to its result"],
)
def test_the_walks_through_the_code_are_short(first: str, last: str, most: int):
    text = (DOCS / "architecture.md").read_text()
    walk = text[text.index(first) : text.index(last)]
    assert 10 < len(set(re.findall(r"`([\w/]+\.py)`", walk))) <= most


def test_every_file_that_the_architecture_names_exists():
    named = set(re.findall(r"`([\w./]+\.(?:py|lua|md))`", (DOCS / "architecture.md").read_text()))
    assert "beat/elector.py" in named
    roots = (PACKAGE, PACKAGE / "store", ROOT)
    assert not {name for name in named if not any((root / name).exists() for root in roots)}


DJANGO_SETTINGS = {"BEATD_CONFIG", "BEATD_APP", "BEATD_TIMEOUT"}
OF_WRITTEN_FILES = {"BEATD_REDIS_URL", "BEATD_BROKER_URL", "BEATD_RESULTS_URL"}
"""Variables that ``beatd import celery`` writes into a file."""


def test_every_environment_variable_is_documented():
    listed = {name for row in rows(section("operations.md", "Environment variables")) for name in CODE.findall(row[0])}
    assert {name for name in listed if name.startswith("BEATD_")} == set(VARIABLES)


def test_every_environment_variable_is_known():
    sources = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "environment.py")
    used = set(re.findall(r"\"(BEATD_[A-Z_]+)\"", sources))
    assert {"BEATD_DEBUG", "BEATD_CONFIG"} <= used
    assert used - OF_WRITTEN_FILES - DJANGO_SETTINGS == {*VARIABLES, *HANDED_ON} - OF_WRITTEN_FILES - DJANGO_SETTINGS


def test_every_thread_is_in_the_architecture():
    described = CODE.findall(section("architecture.md", "Processes and threads"))
    sources = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in {"cli", "testing"}]
    named = {name for path in sources for name in THREAD.findall(path.read_text())}
    assert {"elector", "outcomes", "soft-limits"} <= named
    assert named <= {*described}


def test_every_page_can_be_reached_by_links_from_the_readme():
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        linked = {(page.parent / target).resolve() for target, _ in LINK.findall(page.read_text()) if target}
        ahead += [each for each in linked if each.suffix == ".md" and each.exists() and each not in reached]
    assert set(PAGES) <= reached


# -- problems ---------------------------------------------------------------------------------------------------------


PROBLEMS = {code(row[0]): row for row in rows(section("troubleshooting.md", "By problem")) if len(row) == 6}
ALERTS = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load((ROOT / "packaging" / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}


def test_every_kind_of_problem_is_documented_and_found_somewhere():
    assert list(PROBLEMS) == list(get_args(Kind))
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.parent.name != "planning")
    shared = (PACKAGE / "planning" / "problems.py").read_text().partition("class Problem")[2]
    assert [kind for kind in PROBLEMS if f'"{kind}"' not in source + shared] == []


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_problem_shows_where_its_row_says(kind):
    _, meaning, remedy, events, alert, notification = PROBLEMS[kind]
    assert meaning
    assert remedy
    assert {*CODE.findall(events)} <= {name for logs in logged().values() for name in logs}
    assert {*CODE.findall(notification)} <= {*ALERT_KINDS}
    [rule] = CODE.findall(alert)
    of_others = re.search(r'kind!~"([^"]*)"', ALERTS["BeatdProblem"])
    assert rule in ALERTS
    assert bool(re.fullmatch(of_others[1], kind)) == (rule != "BeatdProblem"), "each kind has one rule"
