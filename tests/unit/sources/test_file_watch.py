"""Which directories are watched for a file, and what counts as a change."""

from __future__ import annotations

import os
from pathlib import Path

from beatd import config
from beatd.sources.file_watch import directories, identities, snapshot, unfinished


def test_a_plain_file_is_seen_in_its_directory(tmp_path: Path) -> None:
    (tmp_path / "beat.toml").touch()
    assert directories([str(tmp_path / "beat.toml")]) == {str(tmp_path)}


def test_a_link_is_seen_at_both_ends(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "real.toml").touch()
    (tmp_path / "etc" / "beat.toml").symlink_to("../srv/real.toml")
    found = directories([str(tmp_path / "etc" / "beat.toml")])
    assert found == {str(tmp_path / "etc"), str(tmp_path / "srv")}


def test_a_configmap_is_seen_where_its_link_is_swapped(tmp_path: Path) -> None:
    (tmp_path / "..2026_1").mkdir()
    (tmp_path / "..2026_1" / "beat.toml").touch()
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "beat.toml").symlink_to("..data/beat.toml")
    assert directories([str(tmp_path / "beat.toml")]) == {str(tmp_path), str(tmp_path / "..2026_1")}


def test_a_linked_directory_on_the_way_is_seen(tmp_path: Path) -> None:
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "releases" / "1" / "beat.toml").touch()
    (tmp_path / "current").symlink_to("releases/1")
    found = directories([str(tmp_path / "current" / "beat.toml")])
    assert found == {str(tmp_path), str(tmp_path / "releases" / "1")}


def test_a_missing_directory_is_awaited_in_the_nearest_that_exists(tmp_path: Path) -> None:
    assert directories([str(tmp_path / "a" / "b" / "beat.toml")]) == {str(tmp_path)}


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert directories([str(tmp_path / "a" / "beat.toml")]) == {str(tmp_path)}


def test_a_pattern_is_seen_where_its_files_come(tmp_path: Path) -> None:
    (tmp_path / "beat.d" / "team").mkdir(parents=True)
    found = directories([], [str(tmp_path / "beat.d" / "*" / "*.toml"), str(tmp_path / "later" / "*.toml")])
    assert found == {str(tmp_path / "beat.d"), str(tmp_path / "beat.d" / "team"), str(tmp_path)}


def test_a_look_changes_with_content_and_with_new_files(tmp_path: Path) -> None:
    pattern = str(tmp_path / "*.toml")
    (tmp_path / "a.toml").write_text("1")
    first = snapshot([str(tmp_path / "main")], [pattern])
    assert snapshot([str(tmp_path / "main")], [pattern]) == first
    (tmp_path / "b.toml").touch()
    second = snapshot([str(tmp_path / "main")], [pattern])
    assert second != first
    os.utime(tmp_path / "a.toml", ns=(1, 1))
    assert snapshot([str(tmp_path / "main")], [pattern]) != second


def test_missing_and_empty_files_are_perhaps_being_written(tmp_path: Path) -> None:
    file = tmp_path / "beat.toml"
    assert unfinished(snapshot([str(file)]))
    file.touch()
    assert unfinished(snapshot([str(file)]))
    file.write_text("x = 1")
    assert not unfinished(snapshot([str(file)]))


def test_a_directory_that_was_made_again_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    before = identities([str(tmp_path / "conf")])
    (tmp_path / "conf").rename(tmp_path / "old")
    assert identities([str(tmp_path / "conf")]) == {str(tmp_path / "conf"): None}
    (tmp_path / "conf").mkdir()
    assert identities([str(tmp_path / "conf")]) != before


def test_circular_links_end_the_search_and_each_file_is_found_once(tmp_path):
    below = tmp_path / "beat.d" / "eu"
    below.mkdir(parents=True)
    main = tmp_path / "beat.toml"
    main.write_text('include = ["beat.d/**/*.toml"]\n')
    for folder in (below.parent, below):
        (folder / f"{folder.name}.toml").write_text(f'[beat_schedule."{folder.name}"]\ntask = "t"\nschedule = 30\n')
        for link in ("up", "again"):  # two in each: by their names there are more ways than anybody can go
            (folder / link).symlink_to(below.parent, target_is_directory=True)
    files = [str(below.parent / "beat.d.toml"), str(below / "eu.toml")]
    for pattern in ("**/*.toml", "**"):
        named = {name for name in snapshot((), [f"{tmp_path}/beat.d/{pattern}"]) if name.endswith(".toml")}
        assert sorted(named) == files
    assert {str(below), str(below.parent)} <= directories((), [f"{tmp_path}/beat.d/**/*.toml"])
    assert sorted(entry.name for entry in config.load(main).entries) == ["beat.d", "eu"]
