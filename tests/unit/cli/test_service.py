"""systemd units: fitted to the paths of an installation, confined, recognised and compared."""

import contextlib
import grp
import json
import os
import pwd
import re
import subprocess
import tempfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from beatd.cli import main, service, systemd_units
from beatd.cli.systemd_units import (
    DAEMON,
    MARKER,
    SYSUSERS,
    UNITS,
    WEB,
    WORKER,
    Install,
    fitted,
    install_for,
    installed_as,
    source,
    unreadable,
)

STARTED = {name: main.get_command(click.Context(main), name) for name in ("run", "worker", "web")}
EXPOSURE_MAX = 3.0
"""The exposure that `systemd-analyze security` may find: 0 is none, 10 is all."""


@pytest.fixture(autouse=True)
def _system_python(monkeypatch):
    for name in ("executable", "prefix", "base_prefix"):
        monkeypatch.setattr(systemd_units.sys, name, "/usr/bin/python3" if name == "executable" else "/usr")
    monkeypatch.setattr(systemd_units.sys, "path", ["/usr/lib/python3"])


def unit(name, install):
    return dict(line.split("=", 1) for line in fitted(source(name), install).splitlines() if re.match(r"\w+=", line))


def settings(name, config, command="/opt/beatd/bin/beatd"):
    return unit(name, Install(Path(command), Path(config), "beatd"))


@pytest.mark.parametrize("name", UNITS)
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


@pytest.mark.parametrize("name", UNITS)
def test_an_interpreter_in_a_home_is_seen(name, monkeypatch):
    monkeypatch.setattr(systemd_units.sys, "base_prefix", "/home/deploy/.pyenv/versions/3.12.1")
    assert settings(name, "/etc/beatd/beat.toml")["ProtectHome"] == "read-only"


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize(
    ("text", "home", "temporary"),
    [
        ('include = ["/home/deploy/schedules/*.toml"]', "read-only", "yes"),
        ('include = ["/tmp/more.toml"]', "yes", "no"),
        ('[redis]\nurl_file = "/root/redis-url"', "read-only", "yes"),
        ('[redis]\nurl = "unix:///tmp/redis.sock?db=0"', "yes", "no"),
        ('[redis]\nurl = "rediss://h/0?ssl_ca_certs=/home/deploy/ca.pem"', "read-only", "yes"),
        ('[broker]\nurl = "redis+socket://:secret@/home/deploy/redis.sock"', "read-only", "yes"),
        ('state_dir = "/home/deploy/state"', "read-only", "yes"),
        ('app = "proj.tasks:app"', "read-only", "yes"),
        ('app = "nowhere:app"', "yes", "yes"),
        ('include = ["more/*.toml"]\n[redis]\nurl = "redis://${HOST}/0"', "yes", "yes"),
        ("include = 5\nredis = 3\napp = []", "yes", "yes"),
        ("not toml", "yes", "yes"),
    ],
)
def test_what_the_file_names_is_seen_too(name, text, home, temporary, monkeypatch):
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, *given: text if path.name == "beat.toml" else read(path, *given)
    )
    place = ["/home/deploy/proj"]
    monkeypatch.setattr(
        systemd_units.PathFinder,
        "find_spec",
        lambda name, _: type("Spec", (), {"submodule_search_locations": place}) if name == "proj" else None,
    )
    found = unit(name, install_for(Path("/opt/beatd/bin/beatd"), Path("/etc/beatd/beat.toml"), "beatd"))
    assert (found["ProtectHome"], found["PrivateTmp"]) == (home, temporary)
    assert found.get("ReadWritePaths") == ("-/home/deploy/state" if "state_dir" in text else None)


@pytest.mark.parametrize("setting", ["tokens_file", "tls_cert", "tls_key"])
def test_files_of_the_page_open_its_unit_alone(tmp_path, setting):
    file = tmp_path / "beat.toml"
    file.write_text(f'[web]\n{setting} = "/home/ann/page"\n')
    install = install_for(Path("/opt/beatd/bin/beatd"), file, "beatd")._replace(config=Path("/etc/beatd/beat.toml"))
    assert {name: unit(name, install)["ProtectHome"] for name in UNITS} == {
        DAEMON: "yes",
        WORKER: "yes",
        WEB: "read-only",
    }
    assert Path("/home/ann/page") in install.with_page().needed


def test_the_code_of_an_app_is_found_beside_the_file(tmp_path):
    (tmp_path / "proj").mkdir()
    (tmp_path / "proj" / "__init__.py").write_text("raise RuntimeError('it is not imported')\n")
    (tmp_path / "beat.toml").write_text('app = "proj.tasks:app"\n')
    needed = install_for(Path("/opt/beatd"), tmp_path / "beat.toml", None).needed
    assert tmp_path / "proj" in needed


SANDBOX = {
    "AmbientCapabilities": "",
    "CapabilityBoundingSet": "",
    "LockPersonality": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateMounts": "yes",
    "PrivateTmp": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RemoveIPC": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
}
"""What keeps the exposure low, for hosts without systemd-analyze."""


@pytest.mark.parametrize("name", UNITS)
def test_every_unit_is_confined(name):
    found = settings(name, "/etc/beatd/beat.toml")
    assert {key: found.get(key) for key in SANDBOX} == SANDBOX
    assert set(found["RestrictAddressFamilies"].split()) <= {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}
    assert (found["User"], found["RestartPreventExitStatus"]) == ("beatd", "2")


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("user", ["beatd", None])
def test_systemd_never_gives_up(name, user):
    found = unit(name, Install(Path("/opt/beatd"), Path("/etc/beatd/beat.toml"), user))
    assert (found["Restart"], found["StartLimitIntervalSec"]) == ("on-failure", "0")


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_little_exposed(name, tmp_path):
    path = tmp_path / name
    path.write_text(fitted(source(name), Install(Path("/bin/true"), Path("/etc/beatd/beat.toml"), "beatd")))
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) < EXPOSURE_MAX


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("user", ["beatd", None])
@pytest.mark.parametrize("config", ["/etc/beatd/beat.toml", "/home/a b 100%/beat.toml"])
def test_systemd_reads_every_setting(name, user, config, tmp_path):
    path = tmp_path / name
    path.write_text(fitted(source(name), Install(Path("/bin/true"), Path(config), user)))
    command = ["systemd-analyze", "verify", *([] if user else ["--user"]), str(path)]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")


def test_files_that_the_account_cannot_read_are_named(monkeypatch):
    monkeypatch.setattr(systemd_units.sys, "executable", "/bin/true")
    with tempfile.TemporaryDirectory() as closed:  # its mode is 700
        config = Path(closed) / "beat.toml"
        install = Install(Path("/bin/true"), config, "nobody")
        assert list(unreadable(install)) == [
            f"the account nobody cannot read {config}, because {closed} is closed to it; "
            "move it, for example to /opt or /etc, or choose another account with --account"
        ]
        assert list(unreadable(install._replace(user="no-such-account"))) != []
        assert list(unreadable(install._replace(user="root"))) == []
        assert list(unreadable(install._replace(user=None))) == []
        Path(closed).chmod(0o755)
        assert list(unreadable(install)) == []


@pytest.mark.parametrize("user", ["beatd", None])
@pytest.mark.parametrize("config", ["/etc/beatd/beat.toml", '/srv/a "b" 100% $c\\d/beat.toml'])
def test_the_parameters_of_a_unit_are_read_back(user, config):
    for name in UNITS:
        text = fitted(source(name), Install(Path("/opt/be atd/bin/beatd"), Path(config), user))
        assert installed_as(text) == Install(Path("/opt/be atd/bin/beatd"), Path(config), user)
    assert installed_as("[Service]\nExecStart=/bin/true 'open\n") is None


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *words: runner.invoke(service.service, list(map(str, words)))


def test_a_worker_without_tasks_is_named_and_built_in_ones_can_be_had(tmp_path, run):
    file = tmp_path / "beat.toml"
    file.write_text('[beat_schedule.x]\ntask = "beatd.command"\nschedule = 60\n')
    base = ("install", "--force", "--config", str(file), "--to", str(tmp_path / "units"))
    text = "warning: the worker has no tasks: set app in"
    assert text in run(*base).stderr
    assert text not in run(*base, "--no-worker").stderr
    assert text not in run(*base, "--builtin", "command,http").stderr
    units = {name: (tmp_path / "units" / name).read_text() for name in UNITS[:2]}
    [started] = re.findall(r"^ExecStart=.*", units["beatd-worker.service"], re.MULTILINE)
    assert started.endswith(" --log-format text --builtin command,http")
    assert "--builtin" not in units["beatd.service"]
    assert installed_as(units["beatd-worker.service"]).builtin == "command,http"
    wrong = run(*base, "--builtin", "shell")
    assert (wrong.exit_code, "--builtin shell: expected command or http" in wrong.stderr) == (2, True)
    file.write_text('app = "proj"\n')
    assert text not in run(*base).stderr


def test_what_was_installed_is_removed_and_nothing_else(tmp_path, run):
    (tmp_path / "beatd.service.d").mkdir()
    assert run("install", "--web", "--config", "/etc/beatd/beat.toml", "--to", tmp_path).exit_code == 0
    written = {*UNITS, SYSUSERS}
    assert {path.name for path in tmp_path.iterdir()} == {*written, "beatd.service.d"}
    assert all((tmp_path / name).read_text().startswith(MARKER) for name in written)
    (tmp_path / "beatd-worker.service").write_text("[Service]\nExecStart=/usr/bin/mine\n")
    (tmp_path / "multi-user.target.wants").mkdir()
    link = tmp_path / "multi-user.target.wants" / "beatd.service"
    link.symlink_to(tmp_path / "beatd.service")

    tried = run("uninstall", "--to", tmp_path, "--dry-run")
    assert f"would remove {tmp_path}/beatd.service\n" in tried.output
    assert link.exists()

    done = run("uninstall", "--to", tmp_path)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"removed {link}",
        f"removed {tmp_path}/beatd.service",
        f"kept {tmp_path}/beatd.service.d: your changes",
        f"kept {tmp_path}/beatd-worker.service: beatd did not write it",
        f"removed {tmp_path}/{WEB}",
        f"removed {tmp_path}/{SYSUSERS}",
        "Next:",
        "  systemctl daemon-reload",
    ]
    assert (tmp_path / "beatd-worker.service").exists()
    assert not link.is_symlink()
    (tmp_path / "beatd-worker.service").unlink()
    assert "Nothing to remove" in run("uninstall", "--to", tmp_path).output


def test_status_tells_what_is_installed_and_what_differs(tmp_path, run, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    nothing = run("status", "--to", tmp_path)
    assert (nothing.exit_code, nothing.output.count("not installed")) == (1, 3)
    run("install", "--web", "--config", "/etc/beatd/beat.toml", "--to", tmp_path)
    same = run("status", "--to", tmp_path)
    assert (same.exit_code, same.output.count("up to date; state unknown")) == (0, 3)
    path = tmp_path / "beatd.service"
    path.write_text(path.read_text().replace("WatchdogSec=30s", "WatchdogSec=5s"))
    differs = run("status", "--to", tmp_path)
    assert differs.exit_code == 1
    assert "  - WatchdogSec=5s\n  + WatchdogSec=30s\n" in differs.output


def test_what_systemd_says_of_a_unit(tmp_path, run, monkeypatch):
    run("install", "--user", "--config", "/etc/beatd/beat.toml", "--to", tmp_path / "systemd" / "user")
    systemctl = tmp_path / "systemctl"
    systemctl.write_text('#!/bin/sh\n[ "$1" = --user ] && echo ActiveState=active && echo UnitFileState=enabled\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "beatd.service         up to date; active, enabled\n" in run("status", "--user").output
    refused = run("uninstall", "--user")
    assert refused.exit_code == 1
    assert "stop it first: systemctl --user disable --now beatd beatd-worker" in refused.output
    assert (tmp_path / "systemd" / "user" / "beatd.service").exists()


@pytest.mark.parametrize(
    "started",
    [
        "run --config /etc/beatd/beat.toml",
        "worker --config /etc/beatd/beat.toml --log-format text",
    ],
)
def test_the_command_lines_of_units_from_0_1_0_are_understood(started):
    command, *words = started.split()
    context = STARTED[command].make_context(command, words)
    assert "/etc/beatd/beat.toml" in map(str, context.params.values())


@pytest.mark.parametrize("name", UNITS)
def test_the_command_lines_of_units_are_understood(name):
    line = settings(name, "/etc/beatd/beat.toml")["ExecStart"]
    _, command, *words = line.split()
    STARTED[command].make_context(command, words)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """The folders of a host on which the package is installed."""
    units = tmp_path / "usr"
    units.mkdir()
    for name in UNITS:
        (units / name).write_text(source(name).replace("/opt/beatd/bin/beatd", "/usr/bin/beatd"))
    (tmp_path / "lib").symlink_to(units)
    monkeypatch.setattr(service, "PACKAGES", (units, tmp_path / "lib"))
    monkeypatch.setattr(service, "SYSTEM", tmp_path / "etc")
    monkeypatch.setattr(service, "SYSUSERS_FOLDER", tmp_path / "sysusers")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_units_of_the_package_are_known_and_left_alone(packaged, run):
    done = run("status")
    assert (done.exit_code, done.output.count("  of the package; state unknown")) == (0, 3)
    facts = json.loads(run("status", "--json").output)["units"]
    assert [unit["packaged"] for unit in facts] == [f"{packaged}/usr/{name}" for name in UNITS]
    kept = run("uninstall")
    assert kept.exit_code == 0
    assert kept.output.count("it is of a package; remove that with the package manager, as in apt remove beatd") == 3
    assert "Nothing to remove" not in kept.output
    assert len([*(packaged / "usr").iterdir()]) == 3


def test_units_in_place_of_those_of_the_package_are_named_and_removed(packaged, run):
    run("install", "--config", "/etc/beatd/beat.toml")
    output = run("status").output
    assert output.count("up to date, in place of the package's") == 2
    assert f"to use that of the package ({packaged}/usr/beatd.service): beatd service uninstall" in output
    assert run("uninstall").exit_code == 0
    assert run("status").output.count("  of the package;") == 3


def test_the_group_is_that_of_the_account():
    for account in ("root", "nobody", "no-such-account"):
        found = unit(DAEMON, Install(Path("/opt/beatd/bin/beatd"), Path("/etc/beatd/beat.toml"), account))
        expected = account
        with contextlib.suppress(KeyError):
            expected = grp.getgrgid(pwd.getpwnam(account).pw_gid).gr_name
        assert found["Group"] == expected
