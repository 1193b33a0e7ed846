"""The daemon as its operator meets it: start, reload, a broken file, a store that is not there, the end."""

import signal
import socket

import pytest

TICK = '[redis]\nurl = "{url}"\n\n[beat_schedule.tick]\ntask = "tasks.tick"\nschedule = 0.2\n'


@pytest.fixture
def file(tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(TICK.format(url=redis_url))
    return path


def replace(path, text):
    """As editors and deployments do: another file takes the name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.mark.parametrize("how", ["written", "renamed"])
def test_a_changed_file_is_in_force_within_seconds(start_beatd, file, how, client, wait_until):
    daemon = start_beatd("--config", str(file))
    daemon.expect("Dispatched tick")
    text = file.read_text() + '[beat_schedule.more]\ntask = "tasks.more"\nschedule = 0.1\nqueue = "more"\n'
    file.write_text(text) if how == "written" else replace(file, text)
    wait_until(lambda: client.llen("more"), what="a run of the new entry")
    daemon.expect(r"\+1 −0 ~0: \+more")  # said after it is in force
    before = client.llen("celery")
    wait_until(lambda: client.llen("celery") >= before + 5, what="runs of the entry that was there")


def test_a_broken_file_keeps_the_last_good_schedule_and_says_every_fault(start_beatd, file, client, wait_until):
    good = file.read_text()
    daemon = start_beatd("--config", str(file))
    daemon.expect("Dispatched tick")
    file.write_text(good + '[beat_schedule.bad]\ntask = "t"\nschedule = "61 * * * *"\nqueeu = "x"\n')
    daemon.expect(r"beat\.toml:9:1: beat_schedule\.bad\.schedule: ")
    daemon.expect(r"beat\.toml:10:1: beat_schedule\.bad\.queeu: .*queue")
    before = client.llen("celery")
    wait_until(lambda: client.llen("celery") >= before + 5, what="runs of the last good schedule")
    file.write_text(good.replace("tick]", "tock]"))
    daemon.expect("Dispatched tock")


def test_sighup_reads_the_file_again(start_beatd, file):
    daemon = start_beatd("--config", str(file))
    daemon.expect("Dispatched tick")
    daemon.send(signal.SIGHUP)
    daemon.expect(r"Reload requested \(SIGHUP\)")
    daemon.expect("Configuration unchanged")


def test_a_broken_file_at_the_start_is_exit_code_2(beatd, file):
    file.write_text(file.read_text().replace("0.2", '"10x"'))
    done = beatd("--config", str(file))
    assert done.returncode == 2
    assert f"{file}:6:1: beat_schedule.tick.schedule: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_exit_code_2(beatd):
    done = beatd("--config", "nowhere.toml")
    assert done.returncode == 2
    assert "nowhere.toml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_store_that_is_not_there_is_waited_for(start_beatd, file, start_server):
    server = start_server()
    server.kill()
    file.write_text(TICK.format(url=server.url))
    daemon = start_beatd("--config", str(file), "--log-level", "debug")
    daemon.expect(rf"127\.0\.0\.1:{server.port}/0: .*refused.*trying again in")
    daemon.expect(rf"127\.0\.0\.1:{server.port}/0: .*refused since 20\d\d-.*trying again in", timeout=25)
    server.start()
    daemon.expect("Dispatched tick", timeout=20)
    assert daemon.end(signal.SIGTERM) == 0


def test_fail_fast_exits_with_1(beatd, file, free_port):
    file.write_text(TICK.format(url=f"redis://:s3cret@127.0.0.1:{free_port()}/0"))
    done = beatd("--config", str(file), "--fail-fast")
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_daemon_that_waits_for_its_store_stops_when_told(start_beatd, file, free_port):
    file.write_text(TICK.format(url=f"redis://127.0.0.1:{free_port()}/0"))
    daemon = start_beatd("--config", str(file))
    daemon.expect("trying again")
    assert daemon.end(signal.SIGTERM) == 0


def test_the_service_manager_hears_of_it(start_beatd, file, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        daemon = start_beatd("--config", str(file), NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        heard = ""
        while heard.count("WATCHDOG=1") < 3:
            heard += manager.recv(4096).decode() + "\n"
        assert "READY=1" in heard
        daemon.send(signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard += manager.recv(4096).decode() + "\n"
        assert daemon.wait() == 0


def test_a_restart_goes_on_where_it_stopped(start_beatd, file, client):
    file.write_text(file.read_text().replace("0.2", '"1h"'))
    for _ in range(2):
        daemon = start_beatd("--config", str(file))
        daemon.expect("1 entry in force")
        assert daemon.end(signal.SIGTERM) == 0
    assert client.llen("celery") == 0
