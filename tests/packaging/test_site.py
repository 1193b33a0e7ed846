"""The documentation as a site: it is built without a warning, and a browser that shows it asks no other host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from beatd.cli import COMMANDS
from beatd.web.operations import OPERATIONS

pytestmark = pytest.mark.timeout(400)  # the first of them builds the site
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return folder


def test_every_page_is_in_the_site_and_can_be_searched(site):
    index = (site / "search" / "search_index.json").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs").with_suffix(".html"))
        assert (site / name).exists(), name
        assert name == "index.html" or f'"{name}' in index, name


def test_reference_pages_are_made_from_the_code(site):
    commands = (site / "reference" / "commands.html").read_text()
    assert {name for name in COMMANDS if f">beatd {name}<" not in commands} == set()
    api = (site / "reference" / "http-api.html").read_text()
    assert {one.path for one in OPERATIONS if f"{one.path}<" not in api} == set()
    assert "Schedules.put" in (site / "reference" / "python-api.html").read_text()


def test_a_page_loads_nothing_from_another_host(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 10
    for page in pages:
        text = page.read_text()
        assert re.findall(r"""<(?:script|img|iframe|link)[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*""", text) == []
        assert "api.github.com" not in text


def test_it_is_light_and_dark(site):
    text = (site / "index.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert 'data-md-color-scheme="slate"' in text
