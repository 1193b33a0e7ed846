"""Hot reload with a real file system: whatever people and tools do to files, the schedule follows or stays good."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beatd import config, sources
from beatd.config import Config
from beatd.exceptions import ConfigError
from beatd.sources import FileSource, MergedSchedule
from beatd.sources.emptied import emptied
from beatd.store.daemon_registry import Status

WaitUntil = Callable[..., Any]


class Watched:
    """A source under test, and what it reported."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changes: list[Config] = []
        self.broken: list[ConfigError] = []
        self.attempts = 0
        self.source = FileSource(
            path,
            lambda: config.load(path, env={}),
            on_change=self.changes.append,
            on_broken=self.broken.append,
            on_done=self._count,
        )

    def _count(self) -> None:
        self.attempts += 1

    def names(self) -> set[str]:
        """The entries of the last change."""
        return {entry.name for entry in self.changes[-1].entries} if self.changes else set()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[[Path], Watched]]:
    made: list[Watched] = []

    def start(path: Path) -> Watched:
        found = Watched(path)
        found.source.first()
        found.source.start()
        made.append(found)
        return found

    yield start
    for each in made:
        each.source.stop()


@pytest.fixture
def beat_toml(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    return written(tmp_path / "conf" / "beat.toml", "first")


def written(path: Path, *names: str, head: str = "", schedule: object = 30) -> Path:
    """Write a file with entries of these names."""
    path.write_text(head + "".join(f'[beat_schedule.{name}]\ntask = "t"\nschedule = {schedule}\n' for name in names))
    return path


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(record, "event", "") for record in caplog.records]


def test_a_written_file_is_taken(beat_toml: Path, watched: Any, wait_until: WaitUntil) -> None:
    found = watched(beat_toml)
    written(beat_toml, "first", "second")
    wait_until(lambda: found.names() == {"first", "second"}, what="the change")


def test_a_change_before_the_watching_began_is_seen(beat_toml: Path, wait_until: WaitUntil) -> None:
    found = Watched(beat_toml)
    found.source.first()
    written(beat_toml, "second")
    found.source.start()
    wait_until(lambda: found.names() == {"second"}, what="the change")
    found.source.stop()


@pytest.mark.parametrize("where", ["beat.toml", "more/entries.toml", "more/new.toml"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_while_the_files_are_read_is_seen(
    beat_toml: Path, wait_until: WaitUntil, where: str, when: str
) -> None:
    """Until the files are read, the source does not know which are included."""
    (beat_toml.parent / "more").mkdir()
    written(beat_toml.parent / "more" / "entries.toml", "second")
    head = 'include = ["more/*.toml"]\n'
    written(beat_toml, "first", head=head)
    found = Watched(beat_toml)
    read, attempts = found.source._load, iter(("first",))

    def edit(now: str) -> None:
        if now == when and next(attempts, None):
            written(beat_toml.parent / where, "edited", head=head if where == "beat.toml" else "")

    def load() -> Config:
        edit("before")
        config = read()
        edit("after")
        return config

    found.source._load = load
    first = found.source.first()
    found.source.start()
    wait_until(lambda: "edited" in {entry.name for entry in (found.source.config or first).entries}, what="the change")
    found.source.stop()


def test_a_file_renamed_into_place_is_taken(beat_toml: Path, watched: Any, wait_until: WaitUntil) -> None:
    found = watched(beat_toml)
    for name in ("second", "third"):
        written(beat_toml.with_suffix(".tmp"), name).rename(beat_toml)
        wait_until(lambda name=name: found.names() == {name}, what="the change")


def test_the_way_vim_saves_is_one_change(beat_toml: Path, watched: Any, wait_until: WaitUntil) -> None:
    found = watched(beat_toml)
    (beat_toml.parent / "4913").touch()
    (beat_toml.parent / "4913").unlink()
    beat_toml.rename(beat_toml.with_name("beat.toml~"))
    written(beat_toml, "second")
    beat_toml.with_name("beat.toml~").unlink()
    wait_until(lambda: found.names() == {"second"}, what="the change")
    assert len(found.changes) == 1
    assert found.broken == []


def test_a_slow_writer_is_waited_for(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is opened for writing is empty, and an empty file would be a valid one without entries."""
    monkeypatch.setattr("beatd.sources.file.SETTLE_UNFINISHED_S", 30.0)  # the writer may be slower than half a second
    monkeypatch.setattr("beatd.sources.file.SETTLE_AT_MOST_S", 60.0)
    found = watched(beat_toml)
    text = written(beat_toml.with_name("draft"), "first", "second").read_text()
    with beat_toml.open("w") as file:
        threading.Event().wait(0.5)  # what is tested is what happens in this time
        file.write(text)
    wait_until(lambda: found.names() == {"first", "second"}, what="the change")
    assert len(found.changes) == 1
    assert found.broken == []


def test_a_configmap_swap_is_taken(tmp_path: Path, watched: Any, wait_until: WaitUntil) -> None:
    for number, name in ((1, "first"), (2, "second"), (3, "third")):
        (tmp_path / f"..{number}").mkdir()
        written(tmp_path / f"..{number}" / "beat.toml", name)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "beat.toml").symlink_to("..data/beat.toml")
    found = watched(tmp_path / "beat.toml")
    for number, name in ((2, "second"), (3, "third")):
        (tmp_path / "..data_tmp").symlink_to(f"..{number}")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        wait_until(lambda name=name: found.names() == {name}, what="the change")
        shutil.rmtree(tmp_path / f"..{number - 1}")


def test_the_target_of_a_link_is_watched(tmp_path: Path, watched: Any, wait_until: WaitUntil) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "srv").mkdir()
    real = written(tmp_path / "srv" / "real.toml", "first")
    (tmp_path / "etc" / "beat.toml").symlink_to(real)
    found = watched(tmp_path / "etc" / "beat.toml")
    written(real, "second")
    wait_until(lambda: found.names() == {"second"}, what="the change")


def test_a_deleted_file_changes_nothing_until_it_is_back(beat_toml: Path, watched: Any, wait_until: WaitUntil) -> None:
    found = watched(beat_toml)
    beat_toml.unlink()
    wait_until(lambda: found.broken, what="the complaint")
    assert "no such file" in str(found.broken[0])
    assert found.changes == []
    written(beat_toml, "second")
    wait_until(lambda: found.names() == {"second"}, what="the change")


def test_a_directory_that_is_made_again_is_followed(beat_toml: Path, watched: Any, wait_until: WaitUntil) -> None:
    found = watched(beat_toml)
    for name in ("second", "third"):
        shutil.rmtree(beat_toml.parent)
        wait_until(lambda: not beat_toml.parent.exists(), what="the removal")
        beat_toml.parent.mkdir()
        written(beat_toml, name)
        wait_until(lambda name=name: found.names() == {name}, what="the change")


def test_a_directory_that_is_swapped_by_renaming_is_followed(
    beat_toml: Path, tmp_path: Path, watched: Any, wait_until: WaitUntil
) -> None:
    found = watched(beat_toml)
    (tmp_path / "new").mkdir()
    written(tmp_path / "new" / "beat.toml", "second")
    beat_toml.parent.rename(tmp_path / "old")
    (tmp_path / "new").rename(beat_toml.parent)
    wait_until(lambda: found.names() == {"second"}, what="the change")
    written(beat_toml, "third")
    wait_until(lambda: found.names() == {"third"}, what="the change in the new directory")


def test_included_files_come_change_and_go(beat_toml: Path, watched: Any, wait_until: WaitUntil) -> None:
    written(beat_toml, "first", head='include = ["beat.d/*.toml"]\n')
    found = watched(beat_toml)
    (beat_toml.parent / "beat.d").mkdir()
    extra = written(beat_toml.parent / "beat.d" / "extra.toml", "second")
    wait_until(lambda: found.names() == {"first", "second"}, what="the new file")
    written(extra, "third")
    wait_until(lambda: found.names() == {"first", "third"}, what="the changed file")
    other = written(extra.with_name("other.toml"), "fourth")
    wait_until(lambda: found.names() == {"first", "third", "fourth"}, what="the other new file")
    extra.unlink()
    wait_until(lambda: found.names() == {"first", "fourth"}, what="the file's end")
    other.unlink()
    wait_until(lambda: found.broken, what="the last file's end")
    assert found.names() == {"first", "fourth"}
    assert "include[0]: no file matches any more" in str(found.broken[-1])
    written(beat_toml, "first", "fourth", "last", head='include = ["beat.d/*.toml"]\n')
    wait_until(lambda: found.names() == {"first", "fourth", "last"}, what="entries that moved")
    changes = len(found.changes)
    (beat_toml.parent / "noise").touch()
    written(beat_toml, "last")
    wait_until(lambda: found.names() == {"last"}, what="the end of including")
    assert len(found.changes) == changes + 1


def test_a_broken_file_keeps_the_last_good_one(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    found = watched(beat_toml)
    beat_toml.write_text('[beat_schedule.a]\ntask = "t"\nschedule = "61 * * * *"\n[beat_schedule.b]\nschedule = -1\n')
    wait_until(lambda: found.broken, what="the complaint")
    assert found.changes == []
    complaints = [record for record in caplog.records if getattr(record, "event", "") == "config_broken"]
    assert {record.line for record in complaints} >= {3, 5}
    assert all(record.getMessage().startswith(f"{beat_toml}:") for record in complaints)
    written(beat_toml, "first", "second")
    wait_until(lambda: found.names() == {"first", "second"}, what="the repair")


def test_a_new_file_that_is_broken_is_watched_for_its_repair(
    beat_toml: Path, watched: Any, wait_until: WaitUntil
) -> None:
    found = watched(beat_toml)
    (beat_toml.parent / "more").mkdir()
    more = beat_toml.parent / "more" / "more.toml"
    more.write_text("nonsense")
    written(beat_toml, "first", head='include = ["more/more.toml"]\n')
    wait_until(lambda: found.broken, what="the complaint")
    written(more, "second")
    wait_until(lambda: found.names() == {"first", "second"}, what="the repair")


def test_asking_for_it_loads_again_and_finds_nothing_new(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found = watched(beat_toml)
    found.source.reload_now()
    wait_until(lambda: found.attempts, what="the attempt")
    assert found.changes == []
    assert "config_unchanged" in events(caplog)


def test_other_files_in_the_directory_are_nobodys_business(
    beat_toml: Path, watched: Any, wait_until: WaitUntil
) -> None:
    found = watched(beat_toml)
    (beat_toml.parent / "other.txt").write_text("x")
    os.utime(beat_toml)
    wait_until(lambda: found.attempts, what="the look at the touched file")
    assert found.changes == []


def test_a_change_is_told_in_numbers_and_names(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    written(beat_toml, "kept", "changed", "removed")
    watched(beat_toml)
    text = written(beat_toml.with_name("draft"), "kept", "added").read_text()
    beat_toml.write_text(text + '[beat_schedule.changed]\ntask = "t"\nschedule = 60\n')
    wait_until(lambda: "config_reloaded" in events(caplog), what="the report")
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "config_reloaded"]
    assert record.getMessage() == "Schedule reloaded: +1 −1 ~1: +added, −removed, ~changed"
    assert (record.added, record.removed, record.changed) == (1, 1, 1)


@pytest.mark.parametrize(
    ("table", "line"),
    [("redis", 'url = "redis://elsewhere"'), ("results", 'url = "redis://elsewhere"'), ("worker", "output = false")],
)
def test_a_setting_that_waits_for_a_restart_is_named(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture, table: str, line: str
) -> None:
    found = watched(beat_toml)
    written(beat_toml, "first", head=f"[{table}]\n{line}\n")
    wait_until(lambda: found.attempts, what="the attempt")
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "restart_needed"]
    assert record.settings == [table]


def test_what_a_receiver_raises_does_not_end_the_watching(
    beat_toml: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    names: list[str] = []

    def receive(found: Config) -> None:
        names.append(found.entries[0].name)
        raise RuntimeError("boom")

    source = FileSource(beat_toml, lambda: config.load(beat_toml, env={}), on_change=receive)
    source.first()
    source.start()
    for name in ("second", "third"):
        written(beat_toml, name)
        wait_until(lambda name=name: names[-1:] == [name], what="the change")
    source.stop()
    assert "reload_failed" in events(caplog)


def test_a_defect_while_it_watches_does_not_end_the_watching(
    beat_toml: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    names: list[str] = []

    def fail_once() -> None:
        if names == ["second"]:
            raise RuntimeError("boom")

    source = FileSource(
        beat_toml,
        lambda: config.load(beat_toml, env={}),
        on_change=lambda found: names.append(found.entries[0].name),
        on_done=fail_once,
    )
    source.first()
    source.start()
    try:
        for name in ("second", "third"):
            written(beat_toml, name)
            wait_until(lambda name=name: names[-1:] == [name], what="the change")
    finally:
        source.stop()
    (said,) = [record for record in caplog.records if getattr(record, "event", "") == "watch_error"]
    assert said.getMessage() == "Watching files failed in an unexpected way"
    assert said.exc_info, "a defect is reported with its traceback"


def test_files_are_looked_at_when_the_system_has_no_room_to_watch_them(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """Watching needs several file descriptors, reading a file only one. It is watched again when there are more."""
    before, taken = resource.getrlimit(resource.RLIMIT_NOFILE), [os.dup(0)]
    highest = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, before[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        os.close(taken.pop())
        found = watched(beat_toml)
        wait_until(lambda: "watch_failed" in events(caplog), what="the refusal")
        written(beat_toml, "second")
        wait_until(lambda: found.names() == {"second"}, what="the change that nobody reported")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in taken:
            os.close(descriptor)
    written(beat_toml, "third")
    wait_until(lambda: found.names() == {"third"}, what="the change")
    failed = [record for record in caplog.records if getattr(record, "event", "") == "watch_failed"]
    assert all(one.getMessage().startswith("Files cannot be watched, looking instead: ") for one in failed)
    assert "Too many open files" in failed[0].getMessage()
    assert not any(one.exc_info for one in failed)


def test_stopping_is_prompt(beat_toml: Path, watched: Any) -> None:
    found = watched(beat_toml)
    found.source.stop()
    assert not found.source._thread.is_alive(), "it is waited for 5 s"


def test_a_secret_that_is_rotated_is_noticed(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    secret = beat_toml.parent / "url"
    secret.write_text("redis://:one@localhost\n")
    written(beat_toml, "first", head='[redis]\nurl_file = "url"\n')
    watched(beat_toml)
    secret.write_text("redis://:two@localhost\n")
    wait_until(lambda: "restart_needed" in events(caplog))
    assert "two" not in caplog.text


def test_an_app_is_read_again_when_its_code_changes(
    beat_toml: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    code, imported = beat_toml.parent / "watched_tasks.py", beat_toml.parent / "watched_more.py"
    code.write_text(
        "from beatd import App\nfrom watched_more import EVERY\napp = App('t')\n"
        "app.conf.beat_schedule = {'a': {'task': 't', 'schedule': EVERY}}\n"
    )
    imported.write_text("EVERY = 30\n")
    written(beat_toml, head='app = "watched_tasks"\n')
    changes: list[Config] = []
    source = FileSource(beat_toml, lambda: sources.load(beat_toml, env={}), on_change=changes.append)
    source.first()
    source.start()
    try:
        imported.write_text("EVERY = = 60\n")
        wait_until(lambda: "config_kept" in events(caplog))
        imported.write_text("EVERY = 60\n")
        wait_until(lambda: changes)
        assert changes[-1].entries[0].schedule.notation == "1m"
    finally:
        source.stop()


@pytest.mark.parametrize("text", ["", 'timezone = "Asia/Baku"\n[defaults]\nqueue = "q"\n'])
def test_an_emptied_file_changes_nothing(beat_toml: Path, watched: Any, wait_until: WaitUntil, text: str) -> None:
    found = watched(beat_toml)
    beat_toml.write_text(text)
    wait_until(lambda: found.broken, what="the fault")
    fault = found.broken[-1].faults[0]
    assert fault.file == str(beat_toml)
    assert "no entries left, before there were 1; allow_empty = true at the top of" in fault.message
    assert found.changes == []
    assert found.source.config is not None
    assert [entry.name for entry in found.source.config.entries] == ["first"]
    beat_toml.write_text("allow_empty = true\n" + text)
    wait_until(lambda: found.changes, what="the empty schedule")
    assert found.names() == set()
    written(beat_toml, "second")
    wait_until(lambda: found.names() == {"second"}, what="the next entry")


def test_an_app_that_is_emptied_changes_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "emptied_app.py"
    text = "from beatd import App\napp = App('t')\napp.conf.beat_schedule = "
    module.write_text(text + "{'one': {'task': 't', 'schedule': 1}, 'two': {'task': 't', 'schedule': 1}}")
    written(tmp_path / "beat.toml", "first", head='app = "emptied_app"\n')
    before = sources.load("beat.toml", env={})
    module.write_text(text + "{}")
    found = emptied(before, sources.load("beat.toml", env={}))
    assert ["the app registers no entries any more, before there were 2" in str(fault) for fault in found] == [True]
    written(tmp_path / "beat.toml", "first", "one", head='app = "emptied_app"\n')
    assert emptied(before, sources.load("beat.toml", env={})) == []
    written(tmp_path / "beat.toml", "first")
    assert emptied(before, sources.load("beat.toml", env={})) == []


def test_other_targets_of_notifications_are_taken_without_a_restart(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    secret = beat_toml.parent / "hook"
    secret.write_text("https://example.com/one\n")
    head = '[notify.ops]\nwebhook_file = "hook"\n'
    found = watched(beat_toml)
    written(beat_toml, "first", head=head)
    wait_until(lambda: len(found.changes) == 1)
    assert [target.name for target in found.changes[0].settings.notify] == ["ops"]
    secret.write_text("https://example.com/two\n")
    wait_until(lambda: len(found.changes) == 2)
    assert found.changes[1].settings.notify[0].webhook == "https://example.com/two"
    assert events(caplog).count("targets_changed") == 2
    assert not {"config_reloaded", "restart_needed"} & set(events(caplog))
    assert "example.com" not in caplog.text


def test_a_file_whose_name_is_no_utf8_is_named_in_words_that_can_be_stored(tmp_path: Path) -> None:
    """The errors of files are in a daemon's heartbeat, and in the answer to ``beatd reload``."""
    folder = tmp_path / "conf.d"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.toml")).write_text('[beat_schedule.a]\ntask = ""\n')
    (tmp_path / "beat.toml").write_text('include = ["conf.d/*.toml"]\n')
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "beat.toml", env={})
    texts = [*map(str, caught.value.faults), str(caught.value)]
    assert all("caf\\udce9.toml" in text for text in texts)
    assert msgspec.json.encode(Status(id="d", file_faults=texts))


@pytest.mark.parametrize("name", ["more/new.toml", "later/deep/new.toml"])
def test_a_file_that_is_included_before_it_is_written_is_awaited(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, name: str
) -> None:
    """Tools copy files one after another, in any order."""
    found = watched(beat_toml)
    written(beat_toml, "first", "second", head=f'include = ["{name}"]\n')
    wait_until(lambda: found.broken, what="the complaint")
    new = beat_toml.parent / name
    new.parent.mkdir(parents=True)
    written(new, "third")
    wait_until(lambda: found.names() == {"first", "second", "third"}, what="the new file")


def test_a_name_that_is_taken_is_free_when_the_other_file_is_repaired(
    beat_toml: Path, watched: Any, wait_until: WaitUntil
) -> None:
    found = watched(beat_toml)
    (beat_toml.parent / "more").mkdir()
    one = written(beat_toml.parent / "more" / "one.toml", "second")
    written(beat_toml.parent / "more" / "two.toml", "second", "third")
    written(beat_toml, "first", head='include = ["more/*.toml"]\n')
    wait_until(lambda: found.broken, what="the complaint")
    assert "two.toml:1" in str(found.broken[-1]), "the fault is in the one, and the repair in the other"
    written(one, "fourth")
    wait_until(lambda: found.names() == {"first", "second", "third", "fourth"}, what="the repair")


def test_a_secret_that_comes_later_is_awaited(beat_toml: Path, watched: Any, wait_until: WaitUntil) -> None:
    found = watched(beat_toml)
    head = '[redis]\nurl_file = "later/url"\n[notify.ops]\nwebhook_file = "later/hook"\n'
    written(beat_toml, "first", "second", head=head)
    wait_until(lambda: found.broken, what="the complaint")
    (beat_toml.parent / "later").mkdir()
    (beat_toml.parent / "later" / "url").write_text("redis://localhost\n")
    (beat_toml.parent / "later" / "hook").write_text("https://example.com\n")
    wait_until(lambda: found.names() == {"first", "second"}, what="the secrets")


def test_an_app_that_comes_later_is_awaited(beat_toml: Path, wait_until: WaitUntil) -> None:
    changes: list[Config] = []
    broken: list[ConfigError] = []
    load = lambda: sources.load(beat_toml, env={})  # noqa: E731
    source = FileSource(beat_toml, load, on_change=changes.append, on_broken=broken.append)
    source.first()
    source.start()
    try:
        written(beat_toml, "first", head='app = "later_folder.later_tasks:app"\n')
        wait_until(lambda: broken, what="the complaint")
        (beat_toml.parent / "later_folder").mkdir()
        (beat_toml.parent / "later_folder" / "later_tasks.py").write_text(
            "from beatd import App\napp = App('t')\napp.conf.beat_schedule = {'a': {'task': 't', 'schedule': 30}}\n"
        )
        wait_until(lambda: changes, what="the app")
        assert {entry.name for entry in changes[-1].entries} == {"first", "a"}
    finally:
        source.stop()


def test_a_pattern_whose_files_are_gone_is_awaited_where_it_was_moved_to(
    beat_toml: Path, watched: Any, wait_until: WaitUntil
) -> None:
    found = watched(beat_toml)
    beat_toml.write_text('include = ["elsewhere/*.toml"]\n')
    wait_until(lambda: found.broken, what="the complaint")
    (beat_toml.parent / "elsewhere").mkdir()
    written(beat_toml.parent / "elsewhere" / "a.toml", "first", "second")
    wait_until(lambda: found.names() == {"first", "second"}, what="the moved entries")


@pytest.mark.parametrize("pattern", ["beat.d/*.toml", "beat.d/**/*.toml", "**/x.toml", "beat.[d]/?.toml"])
def test_a_pattern_that_is_emptied_is_named(tmp_path: Path, monkeypatch: Any, pattern: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beat.d").mkdir()
    extra = written(tmp_path / "beat.d" / "x.toml", "second")
    written(tmp_path / "beat.toml", "first", head=f'include = ["{pattern}", "none/*.toml"]\n')
    before = config.load("beat.toml", env={})
    extra.unlink()
    [fault] = emptied(before, config.load("beat.toml", env={}))
    assert str(fault).startswith(f"{tmp_path / 'beat.toml'}: include[0]: no file matches any more, before there were 1")


def test_a_pattern_that_is_emptied_beside_another_of_a_folder_below_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beat.d" / "more").mkdir(parents=True)
    extra = written(tmp_path / "beat.d" / "x.toml", "second")
    written(tmp_path / "beat.d" / "more" / "y.toml", "third")
    written(tmp_path / "beat.toml", "first", head='include = ["beat.d/*.toml", "beat.d/more/*.toml"]\n')
    before = config.load("beat.toml", env={})
    extra.unlink()
    assert [fault.path for fault in emptied(before, config.load("beat.toml", env={}))] == ["include[0]"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[defaults]\nqueue = "other"\n'),
        ("", 'timezone = "Asia/Baku"\n'),
        ("[defaults]\nheaders = { x = 1 }\n", "[defaults]\nheaders = { x = true }\n"),
        (
            '[blackout]\nnight = "22:00-06:00"\n[defaults]\nblackout = "night"\n',
            '[blackout]\nnight = "23:00-06:00"\n[defaults]\nblackout = "night"\n',
        ),
    ],
)
def test_what_holds_for_runtime_entries_alone_is_taken(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture, before: str, after: str
) -> None:
    caplog.set_level("INFO")
    beat_toml.write_text(before)
    found = watched(beat_toml)
    merged = MergedSchedule(found.source.config)
    merged.change({"runtime": b'{"task": "t", "schedule": "0 7 * * *"}'})
    old = repr(merged.in_force().entries)
    beat_toml.write_text(after)
    wait_until(lambda: found.changes, what="the change")
    merged.set_base(found.changes[-1])
    again = MergedSchedule(found.changes[-1])
    again.change({"runtime": b'{"task": "t", "schedule": "0 7 * * *"}'})
    assert old != repr(merged.in_force().entries) == repr(again.in_force().entries)
    wait_until(lambda: "config_reloaded" in events(caplog), what="the report")
    assert "Schedule reloaded: +0 −0 ~0, and time zone or defaults of runtime entries" in caplog.text


def test_faults_in_tasks_that_come_and_go_are_told_although_the_schedule_stays(
    beat_toml: Path, wait_until: WaitUntil
) -> None:
    code = beat_toml.parent / "repaired_tasks.py"
    code.write_text("from beatd import App\napp = App('t')\n@app.task(name='other')\ndef other(): pass\n")
    written(beat_toml, "first", head='app = "repaired_tasks"\n')
    changes: list[Config] = []
    source = FileSource(beat_toml, lambda: sources.load(beat_toml, env={}, check_tasks=True), on_change=changes.append)
    assert source.first().task_faults
    source.start()
    try:
        with code.open("a") as file:
            file.write("@app.task(name='t')\ndef t(): pass\n")
        wait_until(lambda: changes, what="the repair")
        assert changes[-1].task_faults == ()
    finally:
        source.stop()


@pytest.mark.parametrize(
    ("head", "setting"),
    [('[results]\nurl = "redis://elsewhere"\n', "results"), ("[worker]\noutput = false\n", "worker")],
)
def test_each_setting_that_waits_for_a_restart_is_named(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture, head: str, setting: str
) -> None:
    found = watched(beat_toml)
    written(beat_toml, "first", head=head)
    wait_until(lambda: found.attempts, what="the attempt")
    assert [record.settings for record in caplog.records if getattr(record, "event", "") == "restart_needed"] == [
        [setting]
    ]


def test_a_folder_that_lets_its_names_be_read_and_nothing_else(
    beat_toml: Path, watched: Any, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after ``chmod -R 644``. Tests may run as root, who may look at everything."""
    (beat_toml.parent / "more" / "folder").mkdir(parents=True)
    written(beat_toml.parent / "more" / "one.toml", "second")
    written(beat_toml, "first", head='include = ["more/*.toml", "more/*"]\n')
    found = watched(beat_toml)
    stat, closed = os.stat, threading.Event()

    def refused(path: Any, *more: Any, **options: Any) -> Any:
        if closed.is_set() and isinstance(path, str | Path) and "/more/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", refused)
    closed.set()
    found.source.reload_now()
    wait_until(lambda: found.broken, what="the complaint")
    assert "more/one.toml: cannot be read: Permission denied" in str(found.broken[-1])
    closed.clear()
    written(beat_toml.parent / "more" / "one.toml", "third")
    wait_until(lambda: found.names() == {"first", "third"}, what="the change")


def test_what_a_receiver_failed_with_is_handed_over_again(beat_toml: Path, wait_until: WaitUntil) -> None:
    received: list[set[str]] = []

    def receive(found: Config) -> None:
        received.append({entry.name for entry in found.entries})
        if len(received) == 1:
            raise RuntimeError("boom")

    source = FileSource(beat_toml, lambda: config.load(beat_toml, env={}), on_change=receive)
    source.first()
    source.start()
    try:
        written(beat_toml, "second")
        wait_until(lambda: received, what="the change")
        source.reload_now()
        wait_until(lambda: len(received) == 2, what="the second attempt")
        assert received == [{"second"}, {"second"}]
    finally:
        source.stop()
