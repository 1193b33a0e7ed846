"""``beatd diff --git``: the file against itself at a commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from beatd.cli import main

ENTRY = '[beat_schedule.{name}]\ntask = "t"\nschedule = "{schedule}"\n'


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True, timeout=60)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a schedule in a folder, which includes another file."""
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    folder = tmp_path / "my config"
    folder.mkdir()
    (folder / "beat.toml").write_text('include = ["more.toml"]\n' + ENTRY.format(name="a", schedule="5m"))
    (folder / "more.toml").write_text(ENTRY.format(name="b", schedule="0 7 * * *"))
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    return tmp_path


def diff(*words: object) -> Result:
    return CliRunner().invoke(main, ["diff", *map(str, words)])


def test_the_same_file(repository):
    done = diff("my config/beat.toml", "--git", "HEAD")
    assert (done.exit_code, done.output) == (0, "No difference.\n")


def test_included_files_are_those_of_the_commit(repository):
    (repository / "my config" / "more.toml").write_text(ENTRY.format(name="b", schedule="0 8 * * *"))
    done = diff("my config/beat.toml", "--git", "HEAD")
    assert done.exit_code == 1
    assert '    schedule: "0 7 * * *" → "0 8 * * *"' in done.output
    assert "Runs in 7 days: 0 more, 0 fewer, 7 moved." in done.output


def test_a_file_that_is_new(repository):
    (repository / "new.toml").write_text(ENTRY.format(name="c", schedule="1h"))
    done = diff("new.toml", "--git", "HEAD")
    assert done.exit_code == 1
    assert "note: new.toml is not in HEAD: all entries are new\n" in done.output
    assert "+ c (added)" in done.output


def test_errors_of_the_commit_name_it(repository):
    (repository / "my config" / "beat.toml").write_text("[x\n")
    git(repository, "commit", "--quiet", "-am", "broken")
    (repository / "my config" / "beat.toml").write_text(ENTRY.format(name="a", schedule="5m"))
    done = diff("my config/beat.toml", "--git", "HEAD")
    assert (done.exit_code, done.output) == (2, "HEAD:beat.toml:1:3: not TOML: unclosed table, expected `]`\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--git", "none"], 'there is no commit "none" here; in a shallow clone: git fetch'),
        (["--git", "--output=x"], 'there is no commit "--output=x" here'),
        (["--git", "HEAD", "--against", "x.toml"], "give --against or --git, not both"),
    ],
)
def test_wrong_use(repository, words, said):
    done = diff("my config/beat.toml", *words)
    assert done.exit_code == 2
    assert said in done.output


def test_a_file_outside_of_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "beat.toml").write_text(ENTRY.format(name="a", schedule="5m"))
    done = diff(tmp_path / "beat.toml", "--git", "HEAD")
    assert done.exit_code == 2
    assert "is in no repository of git" in done.output


def test_links_that_lead_elsewhere_are_no_matter(repository, tmp_path):
    """Many repositories have some: to data, to an environment of Python."""
    (repository / "data").symlink_to("/var/lib")
    (repository / "my config" / "up").symlink_to("../../..")
    (repository / "inside").symlink_to("my config/more.toml")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "links")
    (repository / "my config" / "more.toml").write_text(ENTRY.format(name="b", schedule="0 8 * * *"))
    done = diff("my config/beat.toml", "--git", "HEAD")
    assert done.exit_code == 1
    assert '    schedule: "0 7 * * *" → "0 8 * * *"' in done.output


def test_a_file_that_is_a_link_out_of_the_repository(repository, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "beat.toml"
    elsewhere.write_text(ENTRY.format(name="a", schedule="5m"))
    (repository / "link.toml").symlink_to(elsewhere)
    done = diff("link.toml", "--git", "HEAD")
    assert done.exit_code == 2
    assert "link.toml is a link to a file outside of the repository" in done.output


def test_secrets_are_in_no_difference(repository, monkeypatch):
    """The output is read by reviewers, and is in the summary of the GitHub action."""
    monkeypatch.setenv("KEY", "hunter2-key")
    monkeypatch.setenv("TOKEN", "hunter2-token")
    text = """
[blackout]
team = [{{ ics = "https://calendar.example.com/${{TOKEN}}/x.ics" }}, "2026-{0}"]
[defaults]
ping = "https://hc-ping.com/${{KEY}}/{0}"
[beat_schedule.a]
task = "t"
schedule = "5m"
blackout = "team"
kwargs = {{ say = "${{TOKEN}} {0}", password = "hunter2" }}
headers = {{ x = "{0}", authorization = "hunter2" }}
queue = "{0}"
"""
    (repository / "beat.toml").write_text(text.format("01-01"))
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "secrets")
    (repository / "old.toml").write_text(text.format("01-01"))
    (repository / "beat.toml").write_text(text.format("02-02"))
    for words in (["--git", "HEAD"], ["--git", "HEAD", "--json"], ["--against", "old.toml"]):
        done = diff("beat.toml", *words)
        assert done.exit_code == 1, done.output
        assert "hunter2" not in done.output
        for key in ("ping", "kwargs", "headers", "queue", "blackout"):
            assert key in done.output
        assert "${TOKEN} 02-02" in done.output
        assert "02-02" in done.output.partition("queue")[2]
