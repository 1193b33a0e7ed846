"""Global options: handed to commands that have them, else put into force while the command runs."""

import os
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from beatd.cli import main
from beatd.cli.celery_options import foreground_words
from beatd.cli.global_options import GlobalOptions, urls_as_variables
from beatd.cli.multi_nodes import as_arguments, nodes, read_words
from beatd.cli.worker import worker
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
        (
            ["-qCb", "redis://h", "list", "-qA", "p"],
            ["list", "-A", "p"],
            {"BEATD_BROKER_URL": "redis://h", "BEATD_APP_OPTION": "-b", "BEATD_QUIET": "1", "NO_COLOR": "1"},
        ),
        (
            ["history", "-Cqbredis://h"],
            ["history"],
            {"BEATD_BROKER_URL": "redis://h", "BEATD_APP_OPTION": "-b", "BEATD_QUIET": "1", "NO_COLOR": "1"},
        ),
        (["pause", "e", "--reason", "-Cq"], ["pause", "e", "--reason", "-Cq"], {}),
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


FLAGS = [each for each in worker.params if isinstance(each, click.Option) and each.is_flag]
LETTERS = "".join(name[1] for each in FLAGS for name in each.opts if len(name) == 2)
URL = "redis://user:secret@host/0"
PLACES = ([f"-b{URL}"], ["-b", URL], ["--broker", URL], [f"--broker={URL}"], ["--result-backend", URL])


def read_by_click(words: Sequence[str]) -> dict[str, Any]:
    return dict(worker.make_parser(click.Context(worker)).parse_args(list(words))[0])


def bundles() -> Iterator[list[str]]:
    """Command lines with a URL behind any flags of a worker, in all spellings, among other options."""
    assert set("EBD") <= set(LETTERS)
    for count in range(len(LETTERS) + 1):
        for letters in map("".join, permutations(LETTERS, count)):
            urls = [[f"-{letters}b", URL], [f"-{letters}b{URL}"]]
            urls += [[f"-{letters}", *place] for place in PLACES] if letters else []
            for url in urls:
                yield ["-A", "p", *url, "-c", "2"]
                yield [*url, "-fx.log", "-n", "-Eb"]


def test_urls_of_bundled_options_go_by_the_environment() -> None:
    for words in bundles():
        read = read_by_click(words)
        left, variables = urls_as_variables(foreground_words(words, worker))
        assert "secret" not in " ".join(left), words
        given = {"broker": "BEATD_BROKER_URL", "result_backend": "BEATD_RESULT_BACKEND"}
        assert variables == {variable: URL for name, variable in given.items() if read.pop(name, None)}, words
        expected = {name: value for name, value in read.items() if name not in ("detach", "logfile")}
        assert read_by_click(left) == expected, words


def test_urls_of_bundled_options_of_nodes_go_by_the_environment() -> None:
    (node,) = nodes(["web"], host="h")
    for words in bundles():
        parted = read_words(["web", *words], worker)
        left, variables = urls_as_variables(as_arguments(parted.options_of(node)))
        assert (parted.names, list(variables.values())) == (("web",), [URL]), words
        assert "secret" not in " ".join(left), words


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
