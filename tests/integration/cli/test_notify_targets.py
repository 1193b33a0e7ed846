"""Targets in commands: what ``check`` says of URLs, and what ``add`` refuses. No address is shown."""

from __future__ import annotations

from click.testing import CliRunner

from beatd.cli import main


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, list(words))
    return done.exit_code, done.output


def test_check_warns_of_urls_that_apprise_cannot_read(tmp_path):
    path = tmp_path / "beat.toml"
    path.write_text(
        '[notify.good]\nurl = "json://localhost"\n[notify.one]\nurl = "nonsense://SECRET"\n'
        '[notify.many]\nurls = [\n  "json://localhost",\n  "slack://SECRET",\n]\n'
        '[beat_schedule.a]\ntask = "t"\nschedule = 30\n'
    )
    code, text = run("check", str(path), "--strict")
    assert code == 1
    assert f"warning: {path}:4:1: notify.one.url: apprise cannot read this URL" in text
    assert "notify.many.urls" in text
    assert "notify.good" not in text
    assert "SECRET" not in text


def test_add_refuses_a_target_that_is_not_in_the_file(tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(f'[redis]\nurl = "{redis_url}"\n[notify.ops]\ncommand = ["true"]\n')
    words = ("add", "x", "--task", "t", "--schedule", "30", "--config", str(path))
    code, text = run(*words, "--set", 'notify=["opps"]')
    assert code == 2
    assert 'x: notify: there is no target "opps"; did you mean "ops"?' in text
    assert run(*words, "--set", 'notify=["ops"]')[0] == 0
