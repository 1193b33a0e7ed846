"""Each example runs as its README says, with real processes, in a copy of its folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.acceptance.pages import EXAMPLES, ROOT, follow, name_of

QUICK = "package"
"""The example that runs with the other tests; all run with those that are slow."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page.parent.name == QUICK else pytest.mark.slow) for page in EXAMPLES],
    ids=name_of,
)
def test_an_example_runs_as_its_readme_says(page, request):
    of_celery = page.parent.name == "celery"  # Celery knows no embedded store
    more = {"REDIS_URL": request.getfixturevalue("redis_url")} if of_celery else {}
    # Short: the path of a socket has 107 bytes at most. A store may write a last file while its folder is removed.
    with tempfile.TemporaryDirectory(prefix="beatd-", ignore_cleanup_errors=True) as folder:
        work = Path(folder) / "work"
        shutil.copytree(page.parent, work, ignore=shutil.ignore_patterns(".beatd", "__pycache__"))
        follow(page, work, **more)


def test_the_list_of_examples_is_complete():
    listed = (ROOT / "examples" / "README.md").read_text()
    assert [page for page in EXAMPLES if f"({page.parent.name}/README.md)" not in listed] == []
    assert [page for page in EXAMPLES if len(page.read_text().splitlines()) > 40] == []
