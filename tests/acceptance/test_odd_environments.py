"""Environments as containers and service managers have them: no passwd entry, no HOME, closed streams, a full disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import Running

UID = 12345
"""A user that has no entry in passwd."""
SCHEDULE = '[beat_schedule.a]\ntask = "t"\nschedule = 1\n'
EMBEDDED = f'state_dir = "state"\n[redis]\nurl = "embedded"\n{SCHEDULE}'

AS_STRANGER = f"""
set -e
base={sys.base_prefix} hidden=
for path in {" ".join(str(parent) for parent in reversed(Path(sys.base_prefix).parents))}; do
    [ $(( 0$(stat -c %a "$path") & 1 )) = 1 ] || {{ hidden=$path; break; }}
done
if [ "$hidden" ]; then
    copy=$(mktemp -d)
    mount --bind "$base" "$copy"
    mount -t tmpfs -o mode=755 tmpfs "$hidden"
    mkdir -p "$base"
    mount --bind "$copy" "$base"
fi
exec setpriv --reuid={UID} --regid={UID} --clear-groups env -i PATH=/usr/local/bin:/usr/bin:/bin "$@"
"""
"""Runs a command as a user without passwd entry and HOME, who can reach this interpreter wherever it is."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of root's that other users can read."""
    path = Path(tempfile.mkdtemp(prefix="beatd-odd-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def command_of_stranger(*arguments: str) -> list[str]:
    """The command line of beatd as the stranger: one process from the beginning to the end."""
    return ["unshare", "-m", "bash", "-c", AS_STRANGER, "bash", sys.executable, "-m", "beatd", *arguments]


def stranger(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run beatd as the stranger, to its end."""
    command = command_of_stranger(*arguments)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.needs("unshare", "setpriv")
@pytest.mark.namespaces
def test_a_user_without_passwd_entry_and_home(folder: Path, wait_until: Callable[..., object]) -> None:
    (folder / "beat.toml").write_text(EMBEDDED)
    (folder / "state").mkdir()
    os.chown(folder / "state", UID, UID)
    checked = stranger(folder, "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    log = folder / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(command_of_stranger("run"), cwd=folder, stdout=output, stderr=output)
    try:
        wait_until(lambda: "Dispatched a (t)" in log.read_text(), 60, "a run")
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(30) == 0, log.read_text()
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait(10)
    assert "beatd stopped" in log.read_text()
    assert (folder / "state" / "store").stat().st_uid == UID


@pytest.mark.needs("unshare", "setpriv")
@pytest.mark.namespaces
def test_a_user_who_may_not_write_the_state_is_told(folder: Path) -> None:
    (folder / "beat.toml").write_text(EMBEDDED.replace('state_dir = "state"\n', ""))
    done = stranger(folder, "run")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"Error: the embedded store needs {folder}/.beatd/store for itself: Permission denied; "
        "name another folder with state_dir"
    )


@pytest.mark.needs("unshare", "setpriv")
@pytest.mark.namespaces
@pytest.mark.parametrize(
    "words", [["check"], ["run"], ["list"], ["worker", "--builtin", "command", "--config", "beat.toml"]]
)
def test_files_of_others_are_not_read(words: list[str], folder: Path) -> None:
    file = folder / "beat.toml"
    file.write_text(SCHEDULE)
    file.chmod(0o600)
    done = stranger(folder, *words)
    assert (done.returncode, done.stderr) == (2, "beat.toml: cannot be read: Permission denied\n")
    (folder / "url").write_text("redis://localhost")
    (folder / "url").chmod(0o600)
    file.write_text(f'[redis]\nurl_file = "url"\n{SCHEDULE}')
    file.chmod(0o644)
    done = stranger(folder, *words)
    assert (done.returncode, done.stderr) == (
        2,
        'beat.toml:2:1: redis.url_file: "url" cannot be read: Permission denied\n',
    )


@pytest.mark.needs("unshare", "setpriv")
@pytest.mark.namespaces
def test_a_full_disk_is_named_with_its_folder(folder: Path) -> None:
    (folder / "beat.toml").write_text(EMBEDDED)
    script = f"""
    mkdir state && mount -t tmpfs -o size=64k tmpfs state
    head -c 65536 /dev/zero > state/filler 2> /dev/null
    {sys.executable} -m beatd run
    """
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"Error: the embedded store cannot use {folder}/state/store: No space left on device"


CLOSED = {"input": "<&-", "output": ">&-", "errors": "2>&-", "all": "<&- >&- 2>&-"}


@pytest.mark.parametrize(
    "closed",
    [pytest.param(how, id=name, marks=() if name == "all" else pytest.mark.slow) for name, how in CLOSED.items()],
)
def test_a_daemon_whose_streams_are_closed_runs(closed: str, tmp_path: Path, wait_until: Callable[..., object]) -> None:
    (tmp_path / "beat.toml").write_text(EMBEDDED)
    process = subprocess.Popen(
        ["bash", "-c", f"exec {sys.executable} -m beatd run {closed}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def history() -> str:
        words = [sys.executable, "-m", "beatd", "history", "a"]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False).stdout

    try:
        wait_until(lambda: "sent" in history(), 40, "a run")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("words", "code"), [("run -c missing.toml", 2), ("run -c broken.toml", 2), ("check broken.toml", 2)]
)
@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED.keys())
def test_exit_codes_do_not_depend_on_streams(words: str, code: int, closed: str, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[beat_schedule.a]\n")
    script = f"{sys.executable} -m beatd {words} {closed}"
    assert subprocess.run(["bash", "-c", script], cwd=tmp_path, timeout=30, check=False).returncode == code


@pytest.fixture
def no_zones(tmp_path: Path) -> dict[str, str]:
    """The environment of a host without time zone data, neither of the system nor of the package tzdata."""
    (tmp_path / "none" / "tzdata").mkdir(parents=True)
    (tmp_path / "none" / "tzdata" / "__init__.py").write_text("raise ImportError\n")
    return {"PYTHONPATH": str(tmp_path / "none"), "PYTHONTZPATH": str(tmp_path / "none")}


def test_utc_needs_no_time_zone_data(
    no_zones: dict[str, str], start_beatd: Callable[..., Running], tmp_path: Path, redis_url: str
) -> None:
    (tmp_path / "beat.toml").write_text(f'[redis]\nurl = "{redis_url}"\n{SCHEDULE}')
    daemon = start_beatd("run", **no_zones)
    daemon.expect("Dispatched a", times=2)
    worker = start_beatd("worker", "--config", "beat.toml", "--builtin", "command", "-c", "1", **no_zones)
    worker.expect("Received unregistered task of type 't'")
    assert (daemon.end(), worker.end()) == (0, 0)
    assert "Traceback" not in daemon.text + worker.text


def test_missing_time_zone_data_is_named(
    no_zones: dict[str, str], beatd: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "beat.toml").write_text(f'{SCHEDULE}timezone = "Asia/Baku"\n')
    done = beatd("check", **no_zones)
    wrong = 'time zone "Asia/Baku": this host has no time zone data; install it: pip install tzdata'
    assert (done.returncode, done.stderr) == (2, f"beat.toml:4:1: beat_schedule.a.timezone: {wrong}\n")
