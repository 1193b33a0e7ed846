"""What is wrong with a command line is said before anything is asked of a store."""

import pytest
from click.testing import CliRunner

from beatd.cli import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trigger"], "name the ENTRY"),
        (["trigger", "a", "--args", "{}"], "expected a list such as '[1, \"text\"]', got {}"),
        (["trigger", "a", "--args", "[1,"], "not JSON"),
        (["trigger", "a", "--kwargs", "x=1"], "expected an object such as '{\"key\": 1}'"),
        (["trigger", "a", "--kwargs", "[]"], "expected an object such as '{\"key\": 1}', got []"),
        (["trigger", "a", "--wait", "soon"], "expected seconds"),
        (["trigger", "a", "--wait=-1"], "-1"),
        (["trigger", "a", "--wait", "nan"], "expected seconds"),
        (["backfill", "a"], "--from"),
        (["backfill", "--from", "-1d"], "ENTRY"),
        (["backfill", "a", "--from", "-1d", "--rate", "fast"], "expected runs per second"),
        (["backfill", "a", "--from", "-1d", "--max", "0"], "--max"),
        (["backfill", "a", "--from", "-1d", "--overlap", "never"], "--overlap"),
        (["history", "-n", "0"], "-n"),
    ],
)
def test_wrong_use_is_exit_code_2(words, said):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert said in done.stderr
