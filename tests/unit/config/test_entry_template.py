"""Entries that are written alike: what a template says must be what the parser says of the same text."""

import pytest

from beatd import config
from beatd.config import toml
from beatd.config.entry_template import EntryTemplates
from beatd.exceptions import ConfigError
from beatd.model import Entry

TIMES = 3
"""So often is an entry written: the first one is learned from."""

BODIES = (
    'task = "t"\nschedule = 30\nargs = {}\nqueue = "q"\n',
    "task = 't'\nschedule = 30\nargs = {}\n",
    'args = {}\ntask = "t"\nschedule = "5 4 * * *"\n\n# said below\nkwargs = {{ a = [1, 2] }}\n',
    'task = "t"\nschedule = "H 4 * * *"\nargs = {}\n',
    'task = "t"\nschedule = 30\nargs = {}  # a comment\n',
    'task = "t"\nschedule = 30\nkwargs = {{\nargs = {}\n}}\n',
    'task = "t"\nschedule = 30\nargs={}\n',
    'task = "t"\nschedule = 30\nargs = {}\r\n',
    'task = "t"\nschedule = 30\nargs = {}\n[beat_schedule.NAME.options]\npriority = 3\n',
)
ARGUMENTS = (
    "[]",
    "[ ]",
    '[5, "x"]',
    "[1, 1.0, true, false, -0, -7]",
    "[1.50, 1e3, 0x10, 1_000]",
    '["ä", "\\u00e4", "\\\\", "null", "a, b]"]',
    "['x', [1, [2]], {a = 1}]",
    "[1, 2, ]",
    "[0.1, +1, 0o7]",
    "[999999999999999999, 99999999999999999999999]",
    "[\n  1,\n  2,\n]",
)


def texts():
    for body in BODIES:
        for arguments in ARGUMENTS:
            yield body.format(arguments)


def written(names, body):
    return "".join(f"[beat_schedule.{name}]\n{body.replace('NAME', name)}" for name in names)


@pytest.fixture
def load(tmp_path):
    def load(text):
        (tmp_path / "beat.toml").write_text(text, newline="")
        return config.load(tmp_path / "beat.toml", env={})

    return load


def test_an_entry_means_what_it_means_alone(load):
    text, alone = "", {}
    for number, body in enumerate(texts()):
        names = [f"e{number}-{time}" for time in range(TIMES)]
        text += written(names, body)
        for name in names:
            alone[name] = load(written([name], body)).entries[0]
    names = [f"filler-{number}" for number in range(toml.PARSED_AT_ONCE * 2)]
    found = load(text + written(names, BODIES[0].format("[1]"))).entries[: len(alone)]
    assert [entry.name for entry in found] == list(alone)
    for entry in found:
        other = alone[entry.name]
        assert entry.means(other), entry.name
        assert repr((entry.args, entry.kwargs)) == repr((other.args, other.kwargs))


def test_lines_names_and_faults_are_those_of_the_text(load):
    names = [f"e{number}" for number in range(toml.PARSED_AT_ONCE * 2)]
    text = written(names, BODIES[0].format("[1]"))
    assert load(text).entries[-1].source.endswith(f":{5 * (len(names) - 1) + 1}")
    with pytest.raises(ConfigError, match=r'5001.*"e7" is already defined at .*:36'):
        load(text + written(["e7"], BODIES[0].format("[2]")))
    with pytest.raises(ConfigError, match="name has 251"):
        load(text + written(["e" * 251], BODIES[0].format("[2]")))
    for arguments in ("[2", "[null]", "[2 3]", '["\x07"]'):
        with pytest.raises(ConfigError, match="not TOML"):
            load(text + written(["last"], BODIES[0].format(arguments)))


def learned(body):
    templates, entry = EntryTemplates(), Entry(name="a", task="t", schedule=None)
    templates.learn(written(["a"], body), entry)
    return templates.entry(written(["c"], body), "file", 1)


def test_only_text_that_ends_where_a_statement_does_is_learned():
    assert learned('task = "t"\nargs = [1]\n').args == (1,)
    assert learned("kwargs = {\nargs = [1]\n}\n") is None
    assert learned('tags = [\n"a",\nargs = [1]\n]\n') is None
