"""``beatd tutorial``: every step is shown and done, and nothing is left behind."""

from __future__ import annotations

import pytest

from tests.forked import environment, run_python


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_all_steps_are_done_without_asking(tmp_path):
    words = ["-m", "beatd", "tutorial", "--yes"]
    done = run_python("beatd", words, cwd=tmp_path, env=environment(TMPDIR=str(tmp_path)), timeout=200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    for expected in ("$ beatd trigger report --wait", "No such file or directory", "Kill the leader", "term 2"):
        assert expected in done.stdout, expected
    assert "**" not in done.stdout
    assert "](" not in done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("beatd-tutorial-")] == []


def test_it_asks_and_so_needs_a_terminal(beatd):
    done = beatd("tutorial")
    assert done.returncode == 2
    assert "--yes does all steps" in done.stderr
