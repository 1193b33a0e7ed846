"""A second load reads only what is written differently, and comes to the same as a first one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from beatd import config
from beatd.config import Config, toml
from beatd.exceptions import ConfigError

ENV = {"QUEUE": "a"}


MANY = toml.PARSED_AT_ONCE + 20
"""Entries of a file that is read in pieces, more than one."""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def load(written: str, before: Config | None = None, **env: str) -> Config:
    Path("beat.toml").write_text(written)
    return config.load("beat.toml", env={**ENV, **env}, before=before)


def entry(name: object, more: str = "") -> str:
    return f'[beat_schedule.e-{name}]\ntask = "t"\nschedule = 30\n{more}\n'


def same(before: Config, after: Config) -> set[str]:
    """The names of entries that are the same objects."""
    known = {each.name: each for each in before.entries}
    return {each.name for each in after.entries if known.get(each.name) is each}


def test_what_is_written_alike_is_the_same_object() -> None:
    first = load("".join(map(entry, range(MANY))))
    again = load("".join(entry(n, "args = [1]" if n == 5 else "") for n in range(MANY)), first)
    assert same(first, again) == {f"e-{n}" for n in range(MANY) if n != 5}
    assert again.entries[5].args == (1,)
    assert again.digest != first.digest


def test_what_has_moved_says_so() -> None:
    first = load("".join(map(entry, range(MANY))))
    again = load("\n\n" + "".join(map(entry, range(MANY))), first)
    assert [each.source for each in again.entries[:2]] == ["beat.toml:3", "beat.toml:7"]
    assert all(new.means(old) for new, old in zip(again.entries, first.entries, strict=True))
    assert again.digest == first.digest


@pytest.mark.parametrize(
    "head", ['timezone = "Asia/Baku"\n', '[defaults]\nqueue = "q"\n', '[defaults]\nqueue = "${QUEUE}"\n']
)
def test_what_holds_for_all_entries_makes_all_of_them_new(head: str) -> None:
    first = load("".join(map(entry, range(MANY))))
    again = load(head + "".join(map(entry, range(MANY))), first)
    assert same(first, again) == set()
    assert again == load(head + "".join(map(entry, range(MANY))))


def test_variables_are_looked_up_again() -> None:
    written = '[defaults]\nshadow = "${QUEUE}"\n' + "".join(
        entry(n, 'queue = "${QUEUE}"' * (n == 1)) for n in range(MANY)
    )
    first = load(written)
    assert load(written, first, QUEUE="b").entries[1].options.queue == "b"
    assert load(written, first, QUEUE="b").entries[0].options.shadow == "b"
    assert same(first, load(written, first)) == {f"e-{n}" for n in range(MANY) if n != 1}


def test_an_entry_that_came_twice_is_found_among_known_ones() -> None:
    first = load("".join(map(entry, range(MANY))))
    with pytest.raises(ConfigError, match="already defined"):
        load("".join(map(entry, range(MANY))) + entry(3), first)


@pytest.mark.parametrize("place", [0, 5, MANY - 1])
def test_a_name_of_an_entry_that_stays_is_found_where_another_was(place: int) -> None:
    """The entries around the one that changed are taken over as they are, and their names count all the same."""
    tables = list(map(entry, range(MANY)))
    first = load("".join(tables))
    tables[place] = entry(9)
    with pytest.raises(ConfigError, match="already defined"):
        load("".join(tables), first)


def test_an_entry_that_is_repeated_in_an_included_file_is_found_there() -> None:
    main = 'include = ["more.toml"]\n' + "".join(map(entry, range(MANY)))
    more = [entry(n) for n in range(MANY, 2 * MANY)]
    Path("more.toml").write_text("".join(more))
    first = load(main)
    assert len(first.entries) == 2 * MANY
    with pytest.raises(ConfigError, match=r"more\.toml:1:.* already defined at beat\.toml:14"):
        load(main.replace("[beat_schedule.e-3]", f"[beat_schedule.e-{MANY}]"), first)


@pytest.mark.parametrize("changed", ["beat.toml", "more.toml"])
def test_a_name_that_stays_in_one_file_is_found_when_it_is_new_in_another(changed: str) -> None:
    """The files are read in their order, and what is new may be in the first or in the last one."""
    texts = {
        "beat.toml": 'include = ["more.toml"]\n' + "".join(map(entry, range(MANY))),
        "more.toml": "".join(entry(n) for n in range(MANY, 2 * MANY)),
    }
    Path("more.toml").write_text(texts["more.toml"])
    first = load(texts["beat.toml"])
    texts[changed] += entry(2 * MANY - 5 if changed == "beat.toml" else 5)
    Path("more.toml").write_text(texts["more.toml"])
    with pytest.raises(ConfigError) as again:
        load(texts["beat.toml"], first)
    with pytest.raises(ConfigError) as anew:
        load(texts["beat.toml"])
    assert str(again.value) == str(anew.value)
    assert "already defined" in str(anew.value)


@pytest.mark.parametrize("seed", range(8))
def test_however_a_file_is_edited_it_comes_to_the_same(seed: int) -> None:
    dice = random.Random(seed)
    variable = 'args = ["${QUEUE}"]' * (seed % 2)
    tables = [
        entry(n, dice.choice(["", "jitter = 3", variable, f"\n[beat_schedule.e-{n}.kwargs]\na = 1"]))
        for n in range(MANY)
    ]
    loaded = load("".join(tables))
    for _ in range(10):
        match dice.randrange(5):
            case 0:
                tables.insert(dice.randrange(len(tables)), entry(f"new-{dice.randrange(10**9)}"))
            case 1:
                del tables[dice.randrange(len(tables))]
            case 2:
                dice.shuffle(tables)
            case 3:
                place = dice.randrange(len(tables))
                tables[place] = tables[place].replace("schedule = 30", f"schedule = {dice.randrange(3, 99)}")
            case 4:
                tables[dice.randrange(len(tables))] += "\n# a comment\n"
        head = dice.choice(["", 'timezone = "Asia/Baku"\n'])
        loaded = load(head + "".join(tables), loaded)
        assert loaded == load(head + "".join(tables))
        assert loaded.digest == config.digest(loaded.entries)


NASTY = [
    entry("text", 'kwargs.a = """\n[beat_schedule.e-3]\ntask = 1\n"""'),
    entry("text", "kwargs.a = '''\n[beat_schedule.in-a-text]\n'''"),
    entry("faulty", "jitter = -1"),
    entry("faulty", "unknown = 1"),
    entry("unclosed", "args = [1,"),
    entry("nested", "args = [1,\n[2, 3]]"),
    entry("crlf").replace("\n", "\r\n"),
    entry("inside", "[beat_schedule.inside.kwargs]\na = 1"),
    "[beat_schedule.e-7.kwargs]\nb = 2\n",
    "  [beat_schedule.indented]\ntask = 't'\nschedule = 3\n",
    '[beat_schedule."in quotes"] # comment\ntask = "t"\nschedule = 3\n',
    "beat_schedule.dotted.task = 1\n",
    "[beat_schedule]\nbare = 1\n",
    "[[beat_schedule.several]]\n",
    "jitter = 3\n",
    "# [beat_schedule.of-a-comment]\n",
    "[defaults]\n",
    "[redis]\n",
    'args = ["${QUEUE}"]\n',
    "[beat_schedule.e-5]\n",
    '"',
    "\n[",
]
"""Texts that make a file wrong, or hard to cut; of most entries around them nothing has changed."""


def loaded_or_faults(written: str, before: Config | None) -> Config | list[str]:
    try:
        return load(written, before)
    except ConfigError as error:
        return list(map(str, error.faults))


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_written_into_a_file_it_comes_to_the_same(seed: int) -> None:
    dice = random.Random(seed)
    head = dice.choice(["", 'timezone = "Asia/Baku"\n', "[defaults]\njitter = 3\n"])
    before = load(head + "".join(map(entry, range(MANY))))
    tables = list(map(entry, range(MANY)))
    kept = 0
    for _ in range(30):
        edited = list(tables)
        for _ in range(dice.choice([1, 1, 2])):
            edited.insert(dice.choice([0, len(edited), dice.randrange(len(edited))]), dice.choice(NASTY))
        if dice.random() < 0.3:
            del edited[dice.randrange(len(edited))]
        found, whole = (loaded_or_faults(head + "".join(edited), known) for known in (before, None))
        if "not TOML" in str(whole):  # the words for it, and its place, depend on what is parsed together
            assert isinstance(found, list)
            continue
        assert found == whole
        if isinstance(found, Config):
            assert found.digest == config.digest(found.entries)
            if kept_now := len(same(before, found)):  # else the file is one that must be parsed as a whole
                before, tables, kept = found, edited, kept + kept_now
    assert kept > 0
