"""What is said about every kind of mistake: the whole text of each fault, with its line (``faults.txt``)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from beatd import config
from beatd.config.toml_lines import PositionIndex
from beatd.exceptions import ConfigError, Fault

SECRET = "hunter2"


class Case(NamedTuple):
    """A file, and its faults without the file's name."""

    name: str
    text: str
    faults: str


def _cases() -> list[Case]:
    golden = (Path(__file__).parent / "faults.txt").read_text()
    return [Case(*found) for found in re.findall(r"^=== (.+)\n((?:.*\n)*?)---\n((?:.+\n)+)", golden, re.MULTILINE)]


CASES = _cases()


def faults_of(text: str | bytes, path: Path) -> tuple[Fault, ...]:
    """The faults of a file with that text; none may be missing."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(path, env={"SECRET": SECRET})
    return caught.value.faults


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("beat.toml")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_golden(case: Case, file: Path) -> None:
    said = "".join(f"{fault}\n" for fault in faults_of(case.text, file))
    assert said.replace("beat.toml:", "") == case.faults
    assert SECRET not in said


def test_the_golden_file_is_read_as_a_whole() -> None:
    golden = (Path(__file__).parent / "faults.txt").read_text()
    assert len(CASES) == golden.count("\n=== ") + 1 >= 80


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        config.load(tmp_path / "none.toml")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory; expected a TOML file"):
        config.load(tmp_path)


def test_a_device() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: is not a regular file"):
        config.load("/dev/zero")


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load("a\0b")


def test_a_huge_file_is_refused_by_its_size(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(300 << 20)
    with pytest.raises(ConfigError, match="has 300 MiB; expected at most 256 MiB"):
        config.load(file)


def test_invalid_utf8_names_the_line(file: Path) -> None:
    (fault,) = faults_of(b'timezone = "UTC"\napp = "\xff"\n', file)
    assert (fault.line, fault.message) == (2, "not UTF-8: byte 0xff; TOML files are always UTF-8")


def test_a_control_character(file: Path) -> None:
    (fault,) = faults_of('timezone = "UTC"\napp = "a\x01"\n', file)
    assert (fault.line, fault.message.split(":")[0]) == (2, "not TOML")


def test_deep_nesting_is_a_fault_and_no_crash(file: Path) -> None:
    (fault,) = faults_of("include = " + "[" * 100_000, file)
    assert fault.message.startswith("not TOML")


def test_a_thousand_faults_are_enough(file: Path) -> None:
    faults = faults_of("".join(f"unknown{n} = 1\n" for n in range(1200)), file)
    assert len(faults) == 1001
    assert str(faults[-1]) == "beat.toml: and 200 more errors"


def test_faults_of_all_files_come_at_once_with_the_main_file_first(file: Path) -> None:
    Path("b.toml").write_text('[beat_schedule.x]\ntask = "t"\n')
    Path("a.toml").write_text("[beat_schedule\n")
    faults = faults_of('include = ["*.toml", "[ab].toml"]\nfoo = 1\n', file)
    assert [(fault.file, fault.line) for fault in faults] == [
        ("beat.toml", 1),
        ("beat.toml", 2),
        ("a.toml", 1),
        ("b.toml", 1),
    ]


def test_a_name_defined_twice_names_both_places(file: Path) -> None:
    entry = '[beat_schedule.x]\ntask = "t"\nschedule = 1\n'
    Path("other.toml").write_text("\n" + entry)
    (fault,) = faults_of('include = ["other.toml"]\n' + entry, file)
    assert str(fault) == 'other.toml:2:1: beat_schedule.x: the entry "x" is already defined at beat.toml:2'


def test_an_included_file_has_no_settings_and_no_includes(file: Path) -> None:
    Path("other.toml").write_text('include = []\n[redis]\nurl = "embedded"\n[foo]\n')
    assert [str(fault) for fault in faults_of('include = ["other.toml"]\n', file)] == [
        "other.toml:1:1: include: an included file cannot include others; list them all in beat.toml",
        "other.toml:2:1: redis: allowed only in beat.toml; "
        "an included file may have beat_schedule, defaults and timezone",
        f'other.toml:4:1: foo: unknown setting "foo"{_KNOWN}',
    ]


_KNOWN = (
    "; expected allow_empty, app, beat_schedule, blackout, broker, defaults, history, include, leader, log, metrics"
)
_KNOWN += ", notify, redis, results, state_dir, timezone, web or worker"


def test_an_included_directory(file: Path) -> None:
    Path("beat.d").mkdir()
    (fault,) = faults_of('include = ["beat.d"]\n', file)
    assert str(fault) == "beat.d: is a directory; expected a TOML file"


def test_a_byte_order_mark_is_no_fault(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbftimezone = "Asia/Baku"\n')
    assert config.load(file).settings.timezone == "Asia/Baku"


def test_a_link_to_itself(file: Path) -> None:
    file.symlink_to(file)
    with pytest.raises(ConfigError, match=r"beat\.toml: cannot be read: Too many levels of symbolic links"):
        config.load(file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(file: Path) -> None:
    file.touch(0o200)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        config.load(file)


def test_an_included_file_that_cannot_be_used_is_named_with_the_faults_of_others(file: Path) -> None:
    Path("d").mkdir()
    Path("d/a.toml").symlink_to("a.toml")
    Path("d/b.toml").write_bytes(b"\xff")
    Path("d/c.toml").write_bytes(b'app = "a\0b"\n')
    with Path("d/d.toml").open("wb") as sparse:
        sparse.truncate(1 << 30)
    Path("d/e.toml").mkdir()
    Path("d/f.toml").write_text('[beat_schedule.f]\ntask = "t"\n')
    said = [str(fault).partition(", expected")[0] for fault in faults_of('include = ["d/*.toml"]\n', file)]
    assert said == [
        "d/a.toml: cannot be read: Too many levels of symbolic links",
        "d/b.toml:1: not UTF-8: byte 0xff; TOML files are always UTF-8",
        "d/c.toml:1:9: not TOML: invalid basic string",
        "d/d.toml: has 1024 MiB; expected at most 256 MiB",
        "d/e.toml: is a directory; expected a TOML file",
        "d/f.toml:1:1: beat_schedule.f: schedule is missing: "
        'expected seconds (30), a duration ("1h30m"), or a cron string ("30 7 * * mon")',
    ]


def test_what_is_repeated_in_a_message_stays_on_one_line_and_is_cut(file: Path) -> None:
    (fault,) = faults_of(f'[beat_schedule.a]\ntask = "t"\nschedule = "{"x" * 5000}\\n\\u202e* * * *"\n', file)
    assert fault.message.isprintable()
    assert len(fault.message) < 1000


def test_tens_of_thousands_of_faults_are_few_lines(file: Path) -> None:
    faults = faults_of(
        "".join(f'[beat_schedule.e-{n}]\ntsk = "t"\nschedule = "61 * * * *"\n' for n in range(20_000)), file
    )
    assert len(faults) == 1001
    assert (faults[0].line, faults[998].line) == (2, 1499)
    assert str(faults[-1]) == "beat.toml: and 39000 more errors"


def test_a_large_file_with_one_entry_twice_names_both_places(file: Path) -> None:
    text = "".join(f'[beat_schedule.e-{n}]\ntask = "t"\nschedule = 30\n' for n in range(2_000))
    (fault,) = faults_of(text + '[beat_schedule.e-7]\ntask = "t"\nschedule = 60\n', file)
    assert str(fault) == 'beat.toml:6001:1: beat_schedule.e-7: the entry "e-7" is already defined at beat.toml:22'


def test_invalid_utf8_after_a_byte_order_mark_names_the_line_and_the_byte(file: Path) -> None:
    for text in (b'timezone = "UTC"\n\xff = 1\n', b'timezone = "UTC"\napp = "\xfe"\n', b"\xfd"):
        (fault,) = faults_of(b"\xef\xbb\xbf" + text, file)
        wrong = next(byte for byte in text if byte > 127)
        assert (fault.line, fault.message.split(";")[0]) == (text.count(b"\n") or 1, f"not UTF-8: byte 0x{wrong:02x}")


@pytest.mark.parametrize("order", [("bad", "good"), ("good", "bad"), ("bad", "bad"), ("good", "good")])
def test_a_name_that_comes_twice_is_named_also_where_an_entry_is_wrong(file: Path, order: tuple[str, str]) -> None:
    texts = {"good": '[beat_schedule.x]\ntask = "t"\nschedule = 1\n', "bad": '[beat_schedule.x]\ntask = "t"\n'}
    for name, kind in zip("ab", order, strict=True):
        Path(f"{name}.toml").write_text(texts[kind])
    faults = faults_of('include = ["a.toml", "b.toml"]\n', file)
    twice = [str(fault) for fault in faults if "already defined" in str(fault)]
    assert twice == ['b.toml:1:1: beat_schedule.x: the entry "x" is already defined at a.toml:1']
    assert len(faults) == 1 + order.count("bad")


def test_an_included_file_that_breaks_off_blames_no_other(file: Path) -> None:
    bad = "".join(f'[beat_schedule.e-{n}]\ntask = "t"\nschedule = -1\n' for n in range(1_100))
    Path("a.toml").write_text(f"{bad}[beat_schedule.e-x]\ntask = \n")
    Path("b.toml").write_text('[beat_schedule.y]\ntask = "t"\n')
    faults = faults_of('include = ["a.toml", "b.toml"]\n', file)
    assert [fault.file for fault in faults if "already" in fault.message] == []
    assert [str(fault).partition(": ")[0] for fault in faults if fault.file == "b.toml"] == ["b.toml:1:1"]


def test_many_files_with_errors_take_time_in_proportion(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    source = property(lambda entry: asked.append(entry.name) or f"{entry.file}:{entry.line}")
    monkeypatch.setattr("beatd.model.Entry.source", source)
    for number in range(100):
        good = "".join(f'[beat_schedule.e-{number}-{n}]\ntask = "t"\nschedule = 1\n' for n in range(20))
        Path(f"{number:03}.toml").write_text(f'[beat_schedule.bad-{number}]\ntask = "t"\n{good}')
    faults = faults_of('include = ["*[0-9].toml"]\n', file)
    assert len(faults) == 100
    assert len(asked) < 100


def test_all_entries_of_a_large_file_that_name_an_unknown_target_are_named(file: Path) -> None:
    text = "".join(f'[beat_schedule.e-{n}]\ntask = "t"\nschedule = 30\nnotify = ["x"]\n' for n in range(1_800))
    faults = faults_of(text, file)
    assert len(faults) == 1001
    assert str(faults[-1]) == "beat.toml: and 800 more errors"


def test_a_state_directory_in_a_circle_of_links(file: Path) -> None:
    Path("loop").symlink_to("loop")
    file.write_text('state_dir = "loop/state"\n')
    assert config.load(file, env={}).settings.state_dir.endswith("loop/state")


def test_a_place_that_may_not_be_looked_at_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``/etc/beatd`` is for its services only: a user without a file of his own is told so."""
    monkeypatch.chdir(tmp_path)
    closed = tmp_path / "etc" / "beat.toml"
    monkeypatch.setattr("beatd.config.search.PLACES", ("beat.toml", str(closed)))
    stat = os.stat

    def refused(path: object, *more: object, **options: object) -> object:
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refused)
    assert config.find(env={}) == closed
    with pytest.raises(ConfigError, match=r"beat\.toml: cannot be read: Permission denied"):
        config.load(config.find(env={}))


def test_many_errors_of_one_entry_of_a_large_file_are_placed_at_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Counted(PositionIndex):
        def __init__(self, text: str) -> None:
            made.append(len(text))
            super().__init__(text)

    monkeypatch.setattr("beatd.config.toml.PositionIndex", Counted)
    args = ",\n".join(['"${MISSING}"'] * 900)
    others = "".join(f'[beat_schedule.e-{n}]\ntask = "t"\nschedule = 30\n' for n in range(600))
    faults = faults_of(f'{others}[beat_schedule.last]\ntask = "t"\nschedule = 30\nargs = [\n{args}]\n', file)
    assert [fault.line for fault in faults] == [*range(1805, 2705)]
    assert len(made) == 1
