"""The folders of the embedded store are its own: no link leads it, or a change of mode, elsewhere."""

import pytest

from beatd.exceptions import StoreRefused
from beatd.store.embedded import _private, _socket_path


def test_no_link_is_followed(tmp_path):
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    (tmp_path / "store").symlink_to(target)
    with pytest.raises(StoreRefused, match="a link"):
        _private(tmp_path / "store")
    assert target.stat().st_mode & 0o777 == 0o755


def test_nor_in_the_folder_for_temporary_files(tmp_path):
    directory = tmp_path / ("long" * 30)
    runtime = tmp_path / "run"
    place = _socket_path(directory, runtime).parent
    place.rmdir()
    (tmp_path / "target").mkdir(mode=0o755)
    place.symlink_to(tmp_path / "target")
    with pytest.raises(StoreRefused, match="a link"):
        _socket_path(directory, runtime)
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o755


def test_an_open_one_is_closed_to_others(tmp_path):
    (tmp_path / "store").mkdir(mode=0o755)
    assert _private(tmp_path / "store").stat().st_mode & 0o777 == 0o700
