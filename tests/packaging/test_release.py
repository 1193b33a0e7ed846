"""What is released: wheel and sdist are reproducible and complete, and the hooks for CI do what they say."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import yaml

from tests.packaging.containerfile import ROOT

SOURCES = (
    "beatd",
    "config",
    "docs",
    "packaging",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "SECURITY.md",
)
EPOCH = "1767225600"


def build(source: Path, out: Path, *what: str) -> dict[str, Path]:
    """``wheel`` and ``sdist`` of a source tree, built in this environment's index, in isolation."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(out), *what, str(source)],
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if re.search(r"No matching distribution|NewConnectionError", done.stdout + done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    return {"wheel" if path.suffix == ".whl" else "sdist": path for path in out.iterdir()}


def copy(folder: Path) -> Path:
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Two builds, of trees at different places and times; ``build`` makes the wheel from the sdist."""
    made = []
    for number in range(2):
        source = copy(tmp_path_factory.mktemp(f"source{number}"))
        for path in source.rglob("*"):
            os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        made.append(build(source, tmp_path_factory.mktemp(f"dist{number}")))
    return made


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_builds_are_the_same_to_the_byte(releases):
    first, second = (
        {kind: hashlib.sha256(path.read_bytes()).digest() for kind, path in made.items()} for made in releases
    )
    assert first == second
    assert first.keys() == {"wheel", "sdist"}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_metadata_is_complete(releases):
    wheel = releases[0]["wheel"]
    checked = [sys.executable, "-m", "twine", "check", "--strict", *map(str, releases[0].values())]
    done = subprocess.run(checked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [place] = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = message_from_string(archive.read(place).decode())
    assert {name for name in names if name.endswith(".lua")}
    assert {"beatd/py.typed", "beatd/systemd/beatd.service", "beatd/web/assets/page.html"} <= set(names)
    assert not [name for name in names if name.startswith("tests") or "__pycache__" in name]
    description = str(metadata.get_payload())
    assert description.startswith("# beatd")
    for target in re.findall(r"\]\(([^)]+)\)", description):
        assert target.startswith(("https://", "#")), target
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} == {
        url.partition(",")[0] for url in metadata.get_all("Project-URL", ())
    }
    assert {"all", "django", "embedded", "solar", "web"} <= set(metadata.get_all("Provides-Extra", ()))
    with tarfile.open(releases[0]["sdist"]) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"SECURITY.md", "docs/operations.md", "packaging/docker/Dockerfile"} <= inside


def test_the_version_is_one():
    text = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    assert version
    import beatd

    assert beatd.__version__ == version[1]
    base = yaml.safe_load((ROOT / "packaging" / "kubernetes" / "base" / "kustomization.yaml").read_text())
    assert base["images"][0]["newTag"] == version[1]


# -- hooks for CI -----------------------------------------------------------------------------------------------------

GOOD = '[beat_schedule.a]\ntask = "t"\nschedule = "5m"\n'


def environment(**more: str) -> dict[str, str]:
    """This environment's commands first on PATH."""
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **more}


def test_the_hook_of_pre_commit_checks_the_files_that_it_is_given(tmp_path):
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert re.search(hook["files"], "config/beat.toml")
    assert not re.search(hook["files"], "pyproject.toml")
    (tmp_path / "good.toml").write_text(GOOD)
    (tmp_path / "bad.toml").write_text("nonsense")
    for files, code in ((["good.toml"], 0), (["bad.toml", "good.toml"], 2)):
        words = [*shlex.split(hook["entry"]), *files]
        done = subprocess.run(words, cwd=tmp_path, env=environment(), check=False, timeout=60)
        assert done.returncode == code


@pytest.mark.parametrize(
    ("text", "strict", "code"), [(GOOD, "true", 0), ("nonsense", "false", 2), ('timezone = "UTC"\n', "false", 0)]
)
def test_the_last_step_of_the_action_checks_the_file(tmp_path, text, strict, code):
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    step = action["runs"]["steps"][-1]
    assert set(re.findall(r"inputs\.([\w-]+)", str(action["runs"]))) <= action["inputs"].keys()
    (tmp_path / "my schedule.toml").write_text(text)
    inputs = {"FILE": "my schedule.toml", "STRICT": strict}
    assert step["env"].keys() == inputs.keys()
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment(**inputs), check=False, timeout=60
    )
    assert done.returncode == code
