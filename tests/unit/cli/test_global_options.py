"""Global options: handed to commands that have them, else put into force while the command runs."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from beatd.cli import main
from beatd.cli.global_options import GlobalOptions
from beatd.config.loader import load_settings
from beatd.sources import app_file


@pytest.mark.parametrize(
    ("written", "left", "variables"),
    [
        (["-A", "p", "status"], ["status"], {"BEATD_APP": "p"}),
        (["status", "--app=p", "-C"], ["status"], {"BEATD_APP": "p", "NO_COLOR": "1"}),
        (
            ["-q", "-b", "redis://h", "list", "-Ap"],
            ["list", "-Ap"],
            {"BEATD_BROKER_URL": "redis://h", "BEATD_APP_OPTION": "-b", "BEATD_QUIET": "1"},
        ),
        (["inspect", "ping", "-b", "u"], ["inspect", "ping", "-b", "u"], {}),
        (["multi", "start", "1", "-A", "p", "-q"], ["multi", "start", "1", "-A", "p", "-q"], {}),
        (["trigger", "e", "--", "-q"], ["trigger", "e", "--", "-q"], {}),
        (["-A", "p"], ["run", "-A", "p"], {}),
        (["migrate", "-q", "a", "r://1", "r://2"], ["migrate", "messages", "-q", "a", "r://1", "r://2"], {}),
        (["migrate", "r://1", "r://2", "-q", "celery"], ["migrate", "messages", "r://1", "r://2", "-q", "celery"], {}),
        (["migrate", "-q", "celery", "r://1", "r://2"], ["migrate", "messages", "-q", "celery", "r://1", "r://2"], {}),
        (["-A", "p", "migrate", "r://1", "r://2"], ["migrate", "messages", "-A", "p", "r://1", "r://2"], {}),
    ],
)
def test_where_they_go(
    written: list[str], left: list[str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BEATD_APP", "BEATD_BROKER_URL", "BEATD_QUIET", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with click.Context(main) as ctx:
        assert GlobalOptions(ctx, lambda name: main.get_command(ctx, name)).applied(written, "run") == left
        assert {name: value for name, value in os.environ.items() if before.get(name) != value} == variables
    assert dict(os.environ) == before


def test_the_folder_is_changed_for_the_command(tmp_path: Path) -> None:
    before = Path.cwd()
    with click.Context(main) as ctx:
        GlobalOptions(ctx, lambda name: main.get_command(ctx, name)).applied(
            ["--workdir", str(tmp_path), "status"], "run"
        )
        assert Path.cwd() == tmp_path
    assert Path.cwd() == before


def test_a_folder_that_is_missing_is_wrong_use() -> None:
    with click.Context(main) as ctx, pytest.raises(click.BadParameter, match="No such file"):
        GlobalOptions(ctx, lambda name: main.get_command(ctx, name)).applied(["status", "--workdir", "/nope"], "run")


def test_a_broker_in_place_of_the_one_of_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere.py").write_text("from beatd import App\napp = App('elsewhere', broker='amqp://h//')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEATD_APP_STORE_URL", "")  # put back at the end
    monkeypatch.setenv("BEATD_BROKER_URL", "redis://h:1/2")
    monkeypatch.delenv("BEATD_CONFIG", raising=False)
    found = app_file.find(None, "elsewhere")
    assert found.origin.endswith("its broker, redis://h:1/2")
    assert load_settings(found.path).settings.redis.url == "redis://h:1/2"


def test_an_option_of_apps_without_a_file_is_refused_beside_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beat.toml").write_text("[beat_schedule]\n")
    done = CliRunner().invoke(main, ["-b", "redis://h/0", "status"])
    assert done.exit_code == 2
    assert "beat.toml: -b has no effect beside this file" in done.output
