"""Settings of an app in place of a file: broker, state store, time zone."""

import sys
from pathlib import Path

import pytest

from beatd import sources
from beatd.app.app import App
from beatd.cli.app import import_name
from beatd.exceptions import ConfigError
from beatd.sources.app_settings import choose_store, find

REDIS, RABBIT = "redis://h:1/2", "amqp://h//"


@pytest.mark.parametrize(
    ("broker", "results", "store", "url"),
    [
        (REDIS, "redis://other", None, REDIS),
        (f"{REDIS};redis://second", None, None, REDIS),
        (RABBIT, REDIS, None, REDIS),
        (RABBIT, "rpc://", None, "embedded"),
        (RABBIT, None, None, "embedded"),
        (REDIS, None, "redis://store", "redis://store"),
    ],
)
def test_the_state_store_of_an_app(broker: str, results: str | None, store: str | None, url: str) -> None:
    assert choose_store(broker, results, store).url == url


@pytest.mark.parametrize("library", ["from beatd import App", "from celery import Celery as App"])
def test_an_app_in_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fileless.py").write_text(
        f"{library}\napp = App('fileless', broker='redis://:pa$$w${{x}}@h/3', timezone='Asia/Baku')\n"
        "app.conf.task_default_queue = 'q'\n"
        "app.conf.beat_schedule = {'a': {'task': 't', 'schedule': 60.0}}\n"
    )
    path = find(None, app="fileless", env={})
    loaded = sources.load(path, app="fileless")
    assert [entry.name for entry in loaded.entries] == ["a"]
    assert (loaded.settings.timezone, loaded.settings.broker.default_queue) == ("Asia/Baku", "q")
    assert loaded.settings.redis.url == loaded.settings.broker.url == "redis://:pa$$w${x}@h/3"
    note = sources.note_of(path) or ""
    assert "the app's broker" in note
    assert "pa$$w" not in note
    with pytest.raises(ConfigError, match="or an app with -A"):
        find(None, env={})
    assert find(None, env={"BEATD_APP": "fileless", "BEATD_BROKER_URL": REDIS}) == path
    assert sources.load(path).settings.redis.url == REDIS


def test_the_name_by_which_an_app_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App("here", set_as_current=False)
    with pytest.raises(ConfigError, match="no attribute of a module"):
        import_name(app)
    monkeypatch.setattr(sys.modules[__name__], "known", app, raising=False)
    assert import_name(app) == f"{__name__}:known"
