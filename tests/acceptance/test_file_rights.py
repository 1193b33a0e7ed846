"""Files and folders whose rights are lost while a daemon runs: it keeps its schedule, says why and goes on."""

import os
import re
import signal
import subprocess
import sys

import pytest

MAIN = """
include = ["more/*.toml"]
[redis]
url = "{url}"
[beat_schedule.main]
task = "t"
schedule = 0.2
"""
MORE = '[beat_schedule.more]\ntask = "t"\nschedule = 0.2\n'
MAY_LESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
"""Root without capabilities is an owner as others."""
PLACES = [
    ("beat.toml", 0, r"beat\.toml: cannot be read: Permission denied"),
    ("more", 0, r"include\[0\]: the folder \S*more cannot be read: Permission denied"),
    ("more", 0o600, r"more/a\.toml: cannot be read: Permission denied"),
    ("more/a.toml", 0, r"more/a\.toml: cannot be read: Permission denied"),
]


@pytest.fixture
def daemon(tmp_path, redis_url):
    (tmp_path / "beat.toml").write_text(MAIN.format(url=redis_url))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.toml").write_text(MORE)
    with (tmp_path / "log").open("wb") as log:
        command = [*MAY_LESS, sys.executable, "-m", "beatd", "run"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    yield process
    for path in (tmp_path / "more", tmp_path / "more" / "a.toml"):
        path.chmod(0o700)
    process.kill()
    process.wait(10)


@pytest.mark.parametrize(("place", "mode", "said"), PLACES)
def test_lost_rights_are_named_and_come_back(daemon, tmp_path, wait_until, place, mode, said):
    log = tmp_path / "log"
    count = lambda text: len(re.findall(text, log.read_text()))  # noqa: E731

    def says(text, times=1):
        wait_until(lambda: count(text) >= times, timeout=20, what=text)

    says("Dispatched more", 3)
    (tmp_path / place).chmod(mode)
    says(said)
    says("1 error in .* the last valid schedule stays in force")
    daemon.send_signal(signal.SIGHUP)
    says("the last valid schedule stays in force", 2)
    says("Dispatched more", count("Dispatched more") + 5)
    (tmp_path / place).chmod(0o700)
    says("Configuration unchanged")
    with (tmp_path / "more" / "a.toml").open("a") as file:
        file.write(MORE.replace("more", "new"))
    says("Dispatched new", 3)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(15) == 0
    assert not count("Traceback|unexpected|died")
