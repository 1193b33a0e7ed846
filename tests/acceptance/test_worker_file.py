"""The file of a worker is that of ``--config`` or of ``$BEATD_CONFIG``, as containers name it, and no other."""

import pytest

FILE = """
[redis]
url = "{url}"
[broker]
default_queue = "of-the-file"
[beat_schedule.a]
task = "beatd.command"
schedule = "0.2s"
args = ["true"]
"""
NOWHERE = FILE.format(url="redis://127.0.0.1:1")


@pytest.fixture
def file(tmp_path, redis_url):
    """The file of the variable, beside a beat.toml that nobody has named."""
    (tmp_path / "beat.toml").write_text(NOWHERE)
    path = tmp_path / "etc.toml"
    path.write_text(FILE.format(url=redis_url))
    return str(path)


def test_a_worker_has_the_file_of_the_daemon(file, start_beatd):
    start_beatd("run", BEATD_CONFIG=file).expect("Dispatched a")
    worker = start_beatd("worker", "--builtin", "command", "-c", "1", BEATD_CONFIG=file)
    worker.expect(r"beatd\.command.* succeeded", times=2)
    assert worker.end() == 0


@pytest.mark.parametrize("variable", [{}, {"BEATD_CONFIG": ""}], ids=["unset", "empty"])
def test_it_takes_no_file_that_nobody_names(file, start_beatd, redis_url, variable):
    worker = start_beatd("worker", "--builtin", "command", "-c", "1", "-b", redis_url, **variable)
    worker.expect(r"ready\.")
    assert "of-the-file" not in worker.text
    told = r"beat\.toml is not read: a worker takes the file that --config or \$BEATD_CONFIG names"
    assert bool(worker.find(told)) == (not variable), "an empty variable says that no file is wanted"
    assert worker.end() == 0


def test_a_file_that_is_not_there_is_named(start_beatd, redis_url):
    worker = start_beatd("worker", "--builtin", "command", "-b", redis_url, BEATD_CONFIG="missing.toml")
    assert worker.wait(20) == 2
    worker.expect(r"^missing\.toml: no such file$")
