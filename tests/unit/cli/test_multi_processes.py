"""A pid file is only ever a file that beatd made: nothing else is overwritten, and no link is followed."""

import os

import pytest

from beatd.cli.multi_processes import held, owner_of
from beatd.exceptions import ConfigError


@pytest.mark.parametrize("content", [b'timezone = "UTC"\n', b"1" * 33, b"12 34\n", b"-1\n", b"12\n13\n", b"\xff"])
def test_another_file_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "beat.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a pid file"), held(path):
        pass
    assert path.read_bytes() == content
    assert owner_of(path) is None


def test_no_link_is_followed(tmp_path):
    path, target = tmp_path / "pid", tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(ConfigError, match="symbolic link"), held(path):
        pass
    assert not target.exists()
    assert owner_of(path) is None


def test_a_pipe_and_a_folder_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigError), held(path):
            pass
        assert owner_of(path) is None


@pytest.mark.parametrize("content", [b"", b"999999999\n", b"7"])
def test_a_stale_one_is_taken_over(tmp_path, content):
    path = tmp_path / "pid"
    path.write_bytes(content)
    with held(path):
        assert path.read_bytes() == b"%d\n" % os.getpid()
    assert not path.exists()
