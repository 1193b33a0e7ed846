"""``beatd doctor`` as a user runs it: each part is looked at, whatever is wrong with the others."""

import json

import pytest

ENTRY = '[beat_schedule.tick]\ntask = "tasks.tick"\nschedule = 3600\n'


@pytest.fixture
def doctor(beatd, tmp_path):
    """``doctor(text)`` looks at a file with that text; returns the exit code and the findings of each part."""

    def doctor(text=None, *arguments):
        if text is not None:
            (tmp_path / "beat.toml").write_text(text)
        done = beatd("doctor", "--json", *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        document = json.loads(done.stdout)
        assert document["ok"] is (done.returncode == 0)
        parts = {}
        for finding in document["findings"]:
            parts.setdefault(finding["part"], []).append((finding["level"], finding["text"]))
        return done.returncode, parts

    return doctor


def test_without_a_file_the_machine_is_looked_at(doctor):
    code, parts = doctor()
    assert code == 1
    assert parts["machine"][0][0] == "ok"
    assert parts["file"][0][0] == "wrong"
    assert "no configuration file" in parts["file"][0][1]
    assert "store" not in parts


def test_errors_of_the_file_are_findings(doctor):
    code, parts = doctor("[beat_schedule.a]\ntask = 1\nschedule = 0\n")
    assert code == 1
    assert [level for level, _ in parts["file"]] == ["wrong", "wrong"]
    assert "beat.toml:2:1: beat_schedule.a.task" in parts["file"][0][1]


def test_a_store_that_does_not_answer(doctor):
    code, parts = doctor(f'[redis]\nurl = "redis://:tail9zq@127.0.0.1:1/0"\n{ENTRY}')
    assert code == 1
    assert parts["file"][0][0] == "ok"
    assert parts["store"][0][0] == "wrong"
    assert "daemons" not in parts
    assert "tail9zq" not in str(parts)


def test_a_broker_that_does_not_answer_is_no_fault_of_the_store(doctor, redis_url, free_port):
    place = f"127.0.0.1:{free_port()}/0"
    code, parts = doctor(f'[redis]\nurl = "{redis_url}"\n[broker]\nurl = "redis://{place}"\n{ENTRY}')
    assert code == 1
    assert parts["store"] == [("ok", f"{redis_url}: reachable")]
    assert parts["broker"] == [
        (
            "wrong",
            f"redis://{place}: broker {place}: Connection refused. "
            "Start the server, or set url under [broker] to another one.",
        )
    ]


def test_a_fleet_without_and_with_daemons(doctor, start_beatd, redis_url, wait_until):
    text = f'[redis]\nurl = "{redis_url}"\n{ENTRY}'
    code, parts = doctor(text)
    assert code == 1
    assert ("wrong", "no daemon is alive; start one: beatd run") in parts["daemons"]
    assert parts["clock"][0][0] == "ok"
    daemon = start_beatd("run")
    daemon.expect("Leading shard 0", timeout=20)
    code, parts = wait_until(lambda: (seen := doctor())[0] == 0 and seen, what="a daemon that is alive")
    assert any("no standby" in said for _, said in parts["daemons"])
    assert parts["workers"] == [("ok", "nothing waits in 1 queue")]
    assert daemon.end() == 0


def test_the_text_has_a_line_for_each_finding_and_a_sum(beatd, tmp_path):
    (tmp_path / "beat.toml").write_text(f'[redis]\nurl = "embedded"\n{ENTRY}')
    done = beatd("doctor")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert lines[0].startswith("+ machine:  beatd ")
    assert "~ daemons:  none runs, and the embedded store is not up; start one: beatd dev" in lines
    assert lines[-1].startswith("0 problems, ")
