"""Units fit where things are: a sandbox must not hide what the service needs."""

from pathlib import Path

import click
import pytest

from beatd.cli import main, service
from beatd.cli.service import Install, fitted, source


@pytest.fixture(autouse=True)
def _system_python(monkeypatch):
    for name in ("executable", "prefix", "base_prefix"):
        monkeypatch.setattr(service.sys, name, "/usr/bin/python3" if name == "executable" else "/usr")


def settings(name, config, command="/opt/beatd/bin/beatd"):
    text = fitted(source(name), Install(Path(command), Path(config), "beatd"))
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


@pytest.mark.parametrize("name", service.UNITS)
@pytest.mark.parametrize(
    ("config", "command", "home", "temporary"),
    [
        ("/etc/beatd/beat.toml", "/opt/beatd/bin/beatd", "yes", "yes"),
        ("/home/deploy/beat.toml", "/opt/beatd/bin/beatd", "read-only", "yes"),
        ("/root/beat.toml", "/opt/beatd/bin/beatd", "read-only", "yes"),
        ("/run/user/1000/beat.toml", "/opt/beatd/bin/beatd", "read-only", "yes"),
        ("/etc/beatd/beat.toml", "/home/deploy/venv/bin/beatd", "read-only", "yes"),
        ("/tmp/beat.toml", "/opt/beatd/bin/beatd", "yes", "no"),
        ("/homework/beat.toml", "/opt/beatd/bin/beatd", "yes", "yes"),
    ],
)
def test_a_system_service_sees_its_files(name, config, command, home, temporary):
    found = settings(name, config, command)
    assert (found["ProtectHome"], found["PrivateTmp"]) == (home, temporary)


@pytest.mark.parametrize("name", service.UNITS)
def test_an_interpreter_in_a_home_is_seen(name, monkeypatch):
    monkeypatch.setattr(service.sys, "base_prefix", "/home/deploy/.pyenv/versions/3.12.1")
    assert settings(name, "/etc/beatd/beat.toml")["ProtectHome"] == "read-only"


def test_the_worker_is_as_confined_as_the_daemon():
    daemon, worker = (settings(name, "/etc/beatd/beat.toml") for name in service.UNITS)
    confined = {key for key in daemon if key.startswith(("Protect", "Private", "Restrict", "SystemCall", "Cap"))}
    assert confined >= {"ProtectSystem", "RestrictNamespaces", "SystemCallFilter", "CapabilityBoundingSet"}
    for key in confined - {"RestrictAddressFamilies"}:
        assert worker[key] == daemon[key], key


@pytest.mark.parametrize(
    "started",
    [
        "run --config /etc/beatd/beat.toml",
        "worker --config /etc/beatd/beat.toml --log-format text",
    ],
)
def test_the_command_lines_of_units_from_0_1_0_are_understood(started):
    command, *words = started.split()
    context = main.get_command(click.Context(main), command).make_context(command, words)
    assert "/etc/beatd/beat.toml" in map(str, context.params.values())


@pytest.mark.parametrize("name", service.UNITS)
def test_the_command_lines_of_units_are_understood(name):
    line = settings(name, "/etc/beatd/beat.toml")["ExecStart"]
    _, command, *words = line.split()
    main.get_command(click.Context(main), command).make_context(command, words)
