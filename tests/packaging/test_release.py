"""What is released: wheel and sdist are reproducible and complete, and the hooks for CI do what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from tests.conftest import wait_for
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


def copy(folder: Path) -> None:
    for name in SOURCES:
        if (ROOT / name).is_dir():
            compiled = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=compiled, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A clone of this tree, as it is here, with its release in ``dist``."""
    clone = tmp_path_factory.mktemp("release") / "clone"
    git(clone.parent, "clone", "--quiet", "--no-tags", f"file://{ROOT}", "clone")
    copy(clone)
    if git(clone, "status", "--porcelain"):
        git(clone, "add", ".")
        git(clone, "commit", "--quiet", "-m", "as it is here")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [clone / "packaging" / "release"], env=env, capture_output=True, text=True, check=False, timeout=880
    )
    if re.search(r"No matching distribution|NewConnectionError", done.stdout + done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    return clone


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first of them makes the release
def test_the_metadata_is_complete(release):
    [wheel], [sdist] = ((release / "dist").glob(kind) for kind in ("*.whl", "*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [place] = [name for name in names if name.endswith(".dist-info/METADATA")]
        facts = message_from_string(archive.read(place).decode())
    assert {name for name in names if name.endswith(".lua")}
    assert {"beatd/py.typed", "beatd/systemd/beatd.service", "beatd/web/assets/page.html"} <= set(names)
    assert not [name for name in names if name.startswith("tests") or "__pycache__" in name]
    description = str(facts.get_payload())
    assert description.startswith("# beatd")
    for target in re.findall(r"\]\(([^)]+)\)", description):
        assert target.startswith(("https://", "#")), target
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} == {
        url.partition(",")[0] for url in facts.get_all("Project-URL", ())
    }
    assert {"all", "django", "embedded", "solar", "web"} <= set(facts.get_all("Provides-Extra", ()))
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"SECURITY.md", "docs/operations.md", "packaging/docker/Dockerfile"} <= inside


# -- the version ------------------------------------------------------------------------------------------------------

VERSION = ROOT / "packaging" / "version.py"


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path):
    """A small source tree in which 1.2.0 is the last release."""
    (tmp_path / "packaging").mkdir()
    shutil.copy(VERSION, tmp_path / "packaging")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 1.2.0\n\n## 1.1.0\n")
    return tmp_path


def version_of(folder: Path, **env: str) -> str:
    words = [sys.executable, folder / "packaging" / "version.py"]
    done = subprocess.run(words, env={"PATH": os.environ["PATH"]} | env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_version_comes_from_the_tag(tree):
    assert version_of(tree) == "1.3.0.dev0", "no repository"
    git(tree, "init", "--quiet")
    assert version_of(tree) == "1.3.0.dev0", "no commit"
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "-m", "one")
    assert re.fullmatch(r"1\.3\.0\.dev1\+g[0-9a-f]{8}", version_of(tree)), "no tag"
    git(tree, "tag", "other")
    git(tree, "tag", "v1.3.0")
    assert version_of(tree) == "1.3.0"
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "two")
    assert version_of(tree).startswith("1.3.0.dev2+g")
    assert version_of(tree, BEATD_VERSION="9.8.7") == "9.8.7"
    (tree / "inside").mkdir()
    shutil.copytree(tree / "packaging", tree / "inside" / "packaging")
    shutil.copy(tree / "CHANGELOG.md", tree / "inside")
    assert version_of(tree / "inside") == "1.3.0.dev0", "the repository around it is another"


def test_the_installed_version_is_the_one_that_is_shown():
    import beatd

    assert beatd.__version__ == metadata.version("beatd")


def test_a_tree_that_is_not_installed_has_a_version(tmp_path):
    shutil.copytree(ROOT / "beatd", tmp_path / "beatd", ignore=shutil.ignore_patterns("__pycache__"))
    program = "import beatd; print(beatd.__version__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "0+unknown\n", done.stderr


def test_the_last_release_is_named_everywhere():
    released = re.search(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released
    base = yaml.safe_load((ROOT / "packaging" / "kubernetes" / "base" / "kustomization.yaml").read_text())
    assert base["images"][0]["newTag"] == released[1]
    for name in ("action.yml", ".pre-commit-hooks.yaml", "docs/how-to/ci.md", "docs/how-to/kubernetes.md"):
        assert set(re.findall(r"v(\d+\.\d+\.\d+)", (ROOT / name).read_text())) == {released[1]}, name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_make_release_makes_all_of_it_from_the_commit(release):
    version, dist = version_of(release), release / "dist"
    assert {path.name for path in dist.iterdir()} == {
        f"beatd-{version}-py3-none-any.whl",
        f"beatd-{version}.tar.gz",
        f"beatd-{version}.cdx.json",
        "SHA256SUMS",
    }
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=dist, check=True, capture_output=True)
    sbom = json.loads((dist / f"beatd-{version}.cdx.json").read_text())
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["version"]) == ("CycloneDX", version)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[\[>=<;~! ]", each)[0].replace("-", "_") for each in project["dependencies"]}
    assert needed <= {each["name"].lower().replace("-", "_") for each in sbom["components"]}
    assert all(each["purl"].startswith("pkg:pypi/") for each in sbom["components"])
    assert str(release) not in json.dumps(sbom)


def test_a_release_is_made_of_commits_alone(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "packaging").mkdir()
    for name in ("release", "version.py"):
        shutil.copy(ROOT / "packaging" / name, tmp_path / "packaging")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    (tmp_path / "new").touch()
    done = subprocess.run([tmp_path / "packaging" / "release"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "not committed" in done.stderr) == (1, True), done.stderr


# -- installed without extras -----------------------------------------------------------------------------------------


def pip(place: Path, *words: str | Path) -> None:
    """This environment's pip in another environment, which has none."""
    command = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def bare(release, tmp_path_factory):
    """An environment with the wheel alone, in the versions of the lock."""
    place = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=120)
    [wheel] = (release / "dist").glob("*.whl")
    pip(place, "install", "--quiet", "--constraint", ROOT / "packaging" / "requirements.lock", wheel)
    return place


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_without_extras_init_and_dev_run_or_say_what_to_install(bare, tmp_path):
    def beatd(*words: str, path: str = "/nowhere") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [bare / "bin" / "beatd", *words],
            cwd=tmp_path,
            env={"PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = beatd("init")
    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install 'beatd[embedded,web]'" in done.stdout, "there is no server on this PATH"
    assert beatd("check").returncode == 0
    for words in (("dev", "--builtin", "command", "--no-web"), ("run",), ("doctor",)):
        done = beatd(*words)
        assert "beatd[embedded]" in done.stdout + done.stderr
        assert done.returncode in (1, 2), done.stderr
        assert "Traceback" not in done.stderr
    server = shutil.which("valkey-server") or shutil.which("redis-server")
    if server is None:
        return
    path = f"{Path(server).parent}:/usr/bin:/bin"
    with (tmp_path / "log").open("w") as log:
        dev = subprocess.Popen(
            [bare / "bin" / "beatd", "dev", "--builtin", "command"],
            cwd=tmp_path,
            env={"PATH": path},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(
            lambda: "beatd.command" in (said := (tmp_path / "log").read_text()) and "succeeded" in said, 60, "a run"
        )
        dev.send_signal(signal.SIGINT)
        assert dev.wait(30) == 0
    finally:
        dev.kill()
    text = (tmp_path / "log").read_text()
    assert "pip install 'beatd[web]'" in text
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_without_rtoml_all_is_read_by_the_standard_library(bare, tmp_path):
    pip(bare, "uninstall", "--quiet", "--yes", "rtoml")
    (tmp_path / "beat.toml").write_text(GOOD + "[beat_schedule.b\n")
    done = subprocess.run(
        [bare / "bin" / "beatd", "check"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (2, "beat.toml:4:17: not TOML: unclosed table, expected `]`\n")


# -- hooks for CI -----------------------------------------------------------------------------------------------------

GOOD = '[beat_schedule.a]\ntask = "t"\nschedule = "5m"\n'


def environment(**more: str) -> dict[str, str]:
    """This environment's commands first on PATH."""
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **more}


HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["id"]: step for step in ACTION["runs"]["steps"] if "id" in step}


def test_the_action_is_one_for_github():
    done = subprocess.run(
        ["check-jsonschema", "--builtin-schema", "vendor.github-actions", ROOT / "action.yml"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"inputs\.([\w-]+)", str(ACTION["runs"]))) == ACTION["inputs"].keys()


@pytest.fixture
def repository(tmp_path):
    """A repository whose last commit has a schedule; the one in the working tree is another."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "beat.toml").write_text(GOOD)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    (tmp_path / "beat.toml").write_text(GOOD.replace("5m", "10m"))
    return tmp_path


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_hooks_of_pre_commit_run_for_schedules(hook):
    assert re.search(hook["files"], "config/beat.toml")
    assert not re.search(hook["files"], "pyproject.toml")


@pytest.mark.parametrize(("files", "code"), [(["good.toml"], 0), (["bad.toml", "good.toml"], 2)])
def test_the_hook_checks_the_files_that_it_is_given(tmp_path, files, code):
    (tmp_path / "good.toml").write_text(GOOD)
    (tmp_path / "bad.toml").write_text("nonsense")
    words = [*shlex.split(HOOKS["beatd-check"]["entry"]), *files]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), check=False, timeout=60)
    assert done.returncode == code


def test_the_hook_shows_what_a_commit_changes(repository):
    (repository / "bad.toml").write_text("nonsense")
    for files, code in ((["beat.toml"], 0), (["bad.toml", "beat.toml"], 2)):
        words = [*shlex.split(HOOKS["beatd-diff"]["entry"]), *files]
        done = subprocess.run(
            words, cwd=repository, env=environment(), capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code, done.stderr
        assert '    schedule: "5m" → "10m"' in done.stdout


@pytest.mark.parametrize(
    ("text", "strict", "code"), [(GOOD, "true", 0), ("nonsense", "false", 2), ('timezone = "UTC"\n', "false", 0)]
)
def test_the_action_checks_the_file(tmp_path, text, strict, code):
    (tmp_path / "my schedule.toml").write_text(text)
    done, _ = action("check", tmp_path, FILE="my schedule.toml", STRICT=strict)
    assert done.returncode == code


def action(step: str, folder: Path, **inputs: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A step of the action as a runner runs it, and the folder of the files that it has written for the runner."""
    runner = folder / "runner"
    runner.mkdir()
    assert STEPS[step]["env"].keys() == inputs.keys()
    files = {"RUNNER_TEMP": runner, "GITHUB_OUTPUT": runner / "output", "GITHUB_STEP_SUMMARY": runner / "summary"}
    env = environment(**inputs, **{name: str(path) for name, path in files.items()})
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", STEPS[step]["run"]],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done, runner


def test_the_action_shows_what_a_pull_request_changes(repository):
    done, runner = action("diff", repository, FILE="beat.toml", BASE=git(repository, "rev-parse", "HEAD"))
    assert done.returncode == 0, done.stderr
    assert (runner / "output").read_text() == "changed=true\n"
    summary = (runner / "summary").read_text()
    assert summary.startswith("### beat.toml\n\n~~~~~~diff\n~ a\n")
    assert '    schedule: "5m" → "10m"' in summary


def test_the_action_fetches_the_base_of_a_shallow_clone(repository, tmp_path):
    git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")
    base = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "--quiet", "-am", "two")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "three")
    git(repository, "clone", "--quiet", "--depth=1", f"file://{repository}", "shallow")
    done, runner = action("diff", repository / "shallow", FILE="beat.toml", BASE=base)
    assert (done.returncode, (runner / "output").read_text()) == (0, "changed=true\n"), done.stderr


def test_the_action_says_when_nothing_differs(repository):
    (repository / "beat.toml").write_text(GOOD + "# a comment\n")
    done, runner = action("diff", repository, FILE="beat.toml", BASE="HEAD")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"::stop-commands::(\w{32})\nNo difference\.\n\n::\1::\n", done.stdout)
    assert (runner / "output").read_text() == "changed=false\n"


def carried_out(text: str) -> list[str]:
    """The lines of a step's output that GitHub's runner takes for commands, but for those that stop and resume them."""
    lines, token = [], None
    for line in text.splitlines():
        if token is not None:
            token = None if line == f"::{token}::" else token
        elif line.startswith("::stop-commands::"):
            token = line.removeprefix("::stop-commands::")
        elif line.lstrip().startswith("::") or "##[" in line:
            lines.append(line)
    assert token is None, "commands of later steps would not be carried out"
    return lines


@pytest.mark.parametrize("more", ["", '"##[error]x" = 1\n'], ids=["valid", "refused"])
@pytest.mark.parametrize(("step", "inputs"), [("check", {"STRICT": "false"}), ("diff", {"BASE": "HEAD"})])
def test_no_text_of_the_file_is_a_command_of_the_runner(repository, step, inputs, more):
    file = "::error::beat.toml"
    git(repository, "mv", "beat.toml", file)
    git(repository, "commit", "--quiet", "-am", "two")
    entry = GOOD.replace(".a]", '."##[error]a"]').replace('"t"', '"##[add-mask]t"')
    (repository / file).write_text(entry + more)
    done, _ = action(step, repository, FILE=file, **inputs)
    assert "##[" in done.stdout or file in done.stdout
    assert carried_out(done.stdout + done.stderr) == []
    assert done.returncode == (2 if more else 0)


@pytest.mark.parametrize("base", ["", "0" * 40])
def test_the_action_passes_where_there_is_nothing_to_compare_with(repository, base):
    done, runner = action("diff", repository, FILE="beat.toml", BASE=base)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no commit to compare with" in done.stdout
    assert (runner / "output").read_text() == "changed=false\n"


def test_no_input_of_the_action_is_an_option(repository):
    given = environment(BASE="--upload-pack=touch stolen", FILE="beat.toml", RUNNER_TEMP=str(repository),
                        GITHUB_OUTPUT=str(repository / "out"), GITHUB_STEP_SUMMARY=str(repository / "sum"))  # fmt: skip
    git(repository, "remote", "add", "origin", str(repository))
    words = ["bash", "-e", "-c", STEPS["diff"]["run"]]
    done = subprocess.run(words, cwd=repository, env=given, capture_output=True, check=False, timeout=60)
    assert done.returncode
    assert not (repository / "stolen").exists()
