"""The Debian package: installed, started, upgraded, removed and purged in a clean root folder of the same release."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.containerfile import PACKAGING, ROOT

TOOLS = ("dh", "dpkg-buildpackage", "mmdebstrap", "systemd-analyze", "unshare", "setpriv")

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(900),
    pytest.mark.needs(*TOOLS),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a root folder"),
]

ENTRY = '\n[beat_schedule.tick]\ntask = "beatd.command"\nschedule = 1.0\nargs = ["true"]\n'


def run(*command: object, code: int = 0, **options) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=600, **options
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def build(folder: Path) -> Path:
    run(PACKAGING / "debian" / "build", folder, env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"})
    [package] = folder.glob("*.deb")
    return package


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return build(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="module")
def newer(package, tmp_path_factory):
    """The next revision of the package; the schedule that comes with it is another."""
    tree = tmp_path_factory.mktemp("newer") / "tree"
    run("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"^(Version: .*)-1$", r"\1-2", control.read_text(), flags=re.MULTILINE))
    with (tree / "etc" / "beatd" / "beat.toml").open("a") as file:
        file.write("# new in this revision\n")
    out = tree.with_name("newer.deb")
    run("dpkg-deb", "--root-owner-group", "--build", tree, out)
    return out


class Chroot:
    def __init__(self, root: Path) -> None:
        self.root = root

    def command(self, *words: object) -> list[str]:
        script = 'mount --bind "$ROOT" "$ROOT" && mount -t proc proc "$ROOT/proc" && exec chroot "$ROOT" "$@"'
        inside = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return ["env", f"ROOT={self.root}", *namespaces, "sh", "-c", script, "sh", *inside, *map(str, words)]

    def run(self, *words: object, code: int = 0) -> str:
        return run(*self.command(*words), code=code)

    def install(self, package: Path) -> str:
        shutil.copy(package, self.root / "tmp" / "beatd.deb")
        return self.run("dpkg", "--force-confdef", "--force-confold", "--install", "/tmp/beatd.deb")

    def as_beatd(self, unit: str) -> list[str]:
        """The command of a unit, as the account of the unit, with its state folder as the only one to write in."""
        text = (self.root / "lib" / "systemd" / "system" / unit).read_text()
        [line] = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
        [account] = re.findall(r"^User=(.*)$", text, re.MULTILINE)
        drop = ["setpriv", f"--reuid={account}", f"--regid={account}", "--clear-groups", "--no-new-privs"]
        return self.command(*drop, "env", "STATE_DIRECTORY=/var/lib/beatd", *shlex.split(line))


@pytest.fixture(scope="module")
def chroot(tmp_path_factory):
    release = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    assert release
    root = tmp_path_factory.mktemp("chroot") / "root"
    root.mkdir()
    packages = "python3,adduser,init-system-helpers"
    run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", release[1], root)
    return Chroot(root)


def test_two_builds_have_the_same_files(package, tmp_path):
    again = build(tmp_path)
    assert run("dpkg-deb", "--contents", again) == run("dpkg-deb", "--contents", package)
    assert again.read_bytes() == package.read_bytes()


def test_no_file_names_the_folder_of_the_build(package, tmp_path):
    run("dpkg-deb", "--extract", package, tmp_path)
    assert run("grep", "-rlE", "/tmp/tmp|debian/beatd/usr", tmp_path, code=1) == ""


def test_its_units_are_valid(package, tmp_path):
    run("dpkg-deb", "--extract", package, tmp_path)
    units = [str(path) for path in (tmp_path / "lib" / "systemd" / "system").iterdir()]
    said = run("systemd-analyze", "security", "--offline=yes", "--threshold=30", *units)
    assert said.count("exposure level") == len(units) == 3
    for unit in map(Path, units):
        unit.write_text(unit.read_text().replace("/usr/bin/beatd", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False, timeout=60
    )
    assert [line for line in verified.stderr.splitlines() if "beatd" in line] == []
    assert verified.returncode == 0


def test_from_installation_to_purge(chroot, package, newer, wait_until, tmp_path):
    root, etc = chroot.root, chroot.root / "etc" / "beatd"
    chroot.install(package)
    assert "beatd 0." in chroot.run("beatd", "--version")
    assert chroot.run("stat", "-c", "%U %G %a", "/etc/beatd/beat.toml") == "root beatd 640\n"
    assert chroot.run("stat", "-c", "%U %G %a", "/var/lib/beatd") == "beatd beatd 700\n"
    assert (root / "etc/systemd/system/multi-user.target.wants/beatd.service").is_symlink()
    assert not (root / "etc/systemd/system/multi-user.target.wants/beatd-worker.service").is_symlink()
    chroot.run("beatd", "check", "/etc/beatd/beat.toml")
    assert chroot.run("beatd", "service", "status").count("of the package") == 3
    assert chroot.run("beatd", "service", "uninstall").count("it is of a package") == 3

    with (etc / "beat.toml").open("a") as file:
        file.write(ENTRY)
    with (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen(chroot.as_beatd("beatd.service"), stdout=log, stderr=log)
    try:
        wait_until(lambda: "Dispatched tick" in (tmp_path / "log").read_text(), 60, "a run")
        [child] = run("ps", "--ppid", daemon.pid, "-o", "pid=").split()
        os.kill(int(child), signal.SIGTERM)
        assert daemon.wait(30) == 0, (tmp_path / "log").read_text()
    finally:
        daemon.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert (root / "var/lib/beatd").stat().st_mode & 0o777 == 0o700

    chroot.install(newer)
    assert chroot.run("dpkg-query", "--show", "--showformat", "${Version}", "beatd").endswith("-2")
    assert ENTRY in (etc / "beat.toml").read_text(), "what a person wrote is kept"
    assert "new in this revision" in (etc / "beat.toml.dpkg-dist").read_text()
    assert chroot.run("stat", "-c", "%U %G %a", "/etc/beatd/beat.toml") == "root beatd 640\n"

    chroot.run("dpkg", "--remove", "beatd")
    assert ENTRY in (etc / "beat.toml").read_text()
    assert (root / "var/lib/beatd").is_dir()
    assert not (root / "usr/lib/beatd").exists()
    chroot.run("dpkg", "--purge", "beatd")
    for path in ("etc/beatd", "var/lib/beatd", "usr/lib/beatd", "lib/systemd/system/beatd.service"):
        assert not (root / path).exists(), path
    assert list((root / "etc/systemd/system").rglob("beatd*")) == []
    assert not (ROOT / "debian").exists()
