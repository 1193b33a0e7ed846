"""Renamed modules: an old path of 0.1.0 says where the module is now."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest

from beatd.renames import PACKAGE, RENAMED


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_an_old_path_names_the_new_one(old: str) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(PACKAGE + old)
    assert str(caught.value) == f"{PACKAGE}{old} moved to {PACKAGE}{RENAMED[old]}"
    assert importlib.util.find_spec(PACKAGE + RENAMED[old]) is not None


@pytest.mark.parametrize(
    "statement",
    [
        "import beatd.config.loading",
        "from beatd.config import loading",
        "from beatd.config.loading import load",
    ],
)
def test_each_kind_of_import_names_the_new_path(statement: str) -> None:
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: beatd.config.loading moved to beatd.config.loader"


def test_a_path_below_a_renamed_package_names_the_package() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^beatd\.importing moved to beatd\.importers$"):
        importlib.import_module("beatd.importing.crontab")


@pytest.mark.parametrize("name", ["beatd.nothing", "beatd.config.nothing", "config.loading"])
def test_a_path_that_never_was_is_reported_by_python(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named"):
        importlib.import_module(name)


def test_a_missing_attribute_stays_an_import_error() -> None:
    with pytest.raises(ImportError, match=r"cannot import name 'nothing' from 'beatd\.config'"):
        exec("from beatd.config import nothing", {})


def test_a_normal_start_does_not_load_the_list() -> None:
    program = "import sys, beatd.cli; sys.exit('beatd.renames' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
