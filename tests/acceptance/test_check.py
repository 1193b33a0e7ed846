"""``beatd check`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

EXAMPLE = Path(__file__).parents[2] / "config" / "beat.toml"

Beatd = Callable[..., "subprocess.CompletedProcess[str]"]

GOOD = """
[beat_schedule.a]
task = "t"
schedule = "@hourly"
"""

BAD = """[beat_schedule.a]
tsk = "t"
schedule = "61 * * * *"
"""


def test_a_good_file(tmp_path: Path, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(GOOD)
    done = beatd("check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == "beat.toml: 1 entry, 1 file, no errors"
    assert second.startswith("next: a, due at 2")


def test_the_example_is_right_and_without_warnings(tmp_path: Path, beatd: Beatd) -> None:
    done = beatd("check", "--strict", EXAMPLE, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning" not in done.stdout


def test_all_faults_one_line_each_on_standard_error(tmp_path: Path, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(BAD)
    done = beatd("check", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        'beat.toml:2:1: beat_schedule.a.tsk: unknown setting "tsk"; did you mean "task"?',
        'beat.toml:3:1: beat_schedule.a.schedule: "61 * * * *": minute "61": 61 is out of range; '
        "minute goes from 0 to 59",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("timezone =\n", "beat.toml:1:11: not TOML: the value is missing"),
        ("foo = 1\n", 'beat.toml:1:1: foo: unknown setting "foo"'),
        ('timezone = "Europe/Berln"\n', 'beat.toml:1:1: timezone: unknown time zone "Europe/Berln"'),
        (
            '[beat_schedule.a]\ntask = "t"\nschedule = -1\n',
            "beat.toml:3:1: beat_schedule.a.schedule: a duration must not",
        ),
        ("[beat_schedule.a]\nschedule = 1\n", "beat.toml:1:1: beat_schedule.a: task is missing"),
        ('[redis]\nurl = "${NOT_THERE}"\n', "beat.toml:2:1: redis.url: the environment variable NOT_THERE is not set"),
    ],
)
def test_each_kind_of_fault_is_one_line(tmp_path: Path, text: str, fault: str, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(text)
    done = beatd("check", cwd=tmp_path)
    assert done.returncode == 2
    line, *advice = done.stderr.splitlines()
    assert line.startswith(fault)
    assert all(each.startswith("This is beatd ") for each in advice)


def test_files_that_cannot_be_read(tmp_path: Path, beatd: Beatd) -> None:
    for name, fault in {"none.toml": "none.toml: no such file", ".": ".: is a directory; expected a TOML file"}.items():
        done = beatd("check", name, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{fault}\n")


def test_where_the_file_is_looked_for(tmp_path: Path, beatd: Beatd) -> None:
    (tmp_path / "elsewhere.toml").write_text(GOOD)
    assert "elsewhere.toml: 1 entry" in beatd("check", cwd=tmp_path, BEATD_CONFIG="elsewhere.toml").stdout
    if not Path("/etc/beatd/beat.toml").exists():
        done = beatd("check", cwd=tmp_path)
        assert done.returncode == 2
        assert "no configuration file; tried $BEATD_CONFIG (not set), ./beat.toml, /etc/beatd/beat.toml" in done.stderr


def test_json_for_a_good_file(tmp_path: Path, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(GOOD + 'jitter = "2h"\n')
    done = beatd("check", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert done.returncode == 0
    assert (said["ok"], said["entries"], said["enabled"], said["faults"]) == (True, 1, 1, [])
    assert said["files"] == [str(tmp_path / "beat.toml")]
    assert said["next"]["entry"] == "a"
    assert [(warning["line"], warning["path"]) for warning in said["warnings"]] == [(5, "beat_schedule.a.jitter")]


def test_json_for_a_bad_file(tmp_path: Path, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(BAD)
    done = beatd("check", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"], said["exit_code"]) == (2, False, 2)
    assert said["error"] in done.stderr
    assert [(fault["file"], fault["line"]) for fault in said["faults"]] == [("beat.toml", 2), ("beat.toml", 3)]


def test_strict_makes_warnings_count(tmp_path: Path, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(GOOD + 'jitter = "2h"\n')
    relaxed, strict = beatd("check", cwd=tmp_path), beatd("check", "--strict", cwd=tmp_path)
    assert (relaxed.returncode, strict.returncode) == (0, 1)
    assert strict.stdout.startswith("warning: beat.toml:5:1: beat_schedule.a.jitter: ")


def test_wrong_use(tmp_path: Path, beatd: Beatd) -> None:
    done = beatd("check", "a.toml", "--config", "b.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "give the file once" in done.stderr
    assert beatd("check", "--nope", cwd=tmp_path).returncode == 2


APP = """
from beatd import App

app = App("proj")
app.conf.beat_schedule = {"from-app": {"task": "t", "schedule": SCHEDULE}}
"""


def test_the_registrations_of_an_app_are_checked_too(tmp_path: Path, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(GOOD)
    (tmp_path / "proj.py").write_text(APP.replace("SCHEDULE", "30.0"))
    done = beatd("check", "-A", "proj", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 entries" in done.stdout
    (tmp_path / "proj.py").write_text(APP.replace("SCHEDULE", "-1"))
    (tmp_path / "beat.toml").write_text('app = "proj:app"\n' + GOOD)
    done = beatd("check", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("proj.py: beat_schedule.from-app.schedule: a duration must not be negative")
    assert beatd("next", "from-app", "-A", "nowhere", cwd=tmp_path).returncode == 2


def test_connect_names_what_does_not_answer_and_no_password(tmp_path: Path, beatd: Beatd) -> None:
    servers = """
[redis]
url = "redis://:s3cret@127.0.0.1:1/0"
[broker]
url = "amqp://guest:s3cret@127.0.0.1:1//"
"""
    (tmp_path / "beat.toml").write_text(GOOD + servers)
    done = beatd("check", "--connect", cwd=tmp_path)
    assert done.returncode == 1
    store, broker, *steps = done.stderr.splitlines()
    assert store.startswith("store redis://:***@127.0.0.1:1/0: state store 127.0.0.1:1/0: ")
    assert broker.startswith("broker amqp://guest:***@127.0.0.1:1//: ")
    assert len(steps) == 2
    assert "s3cret" not in done.stdout + done.stderr
    said = json.loads(beatd("check", "--connect", "--json", cwd=tmp_path).stdout)
    assert (said["ok"], [one["ok"] for one in said["connections"]]) == (False, [False, False])


def test_a_refused_connection_names_the_next_step(tmp_path: Path, free_port, beatd: Beatd) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    (tmp_path / "beat.toml").write_text(f'[redis]\nurl = "{nowhere}"\n{GOOD}')
    step = 'Start the server, or set url under [redis] to another one; url = "embedded" starts one by itself.'
    for words in (("check", "--connect"), ("status",), ("list",)):
        said = beatd(*words, cwd=tmp_path).stderr
        assert said.count(step) == 1, said
        assert said.endswith(f"{step}\n")
    (tmp_path / "beat.toml").write_text(f'[redis]\nurl = "embedded"\n[broker]\nurl = "{nowhere}"\n{GOOD}')
    said = beatd("check", "--connect", cwd=tmp_path).stderr
    assert said.endswith("\nStart the server, or set url under [broker] to another one.\n")


def test_connect_with_servers_that_answer(tmp_path: Path, redis_url: str, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(GOOD + f'\n[redis]\nurl = "{redis_url}"\n[broker]\nurl = "{redis_url}"\n')
    done = beatd("check", "--connect", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    store, broker = done.stdout.splitlines()[-2:]
    assert store.endswith(": reachable, and the broker, too")
    assert broker.endswith(": reachable, 0 waiting in celery")


def test_connect_tells_which_server_would_be_embedded(tmp_path: Path, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(GOOD + '\n[redis]\nurl = "embedded"\n')
    done = beatd("check", "--connect", cwd=tmp_path)
    assert done.returncode == 0
    assert "store embedded: would be " in done.stdout


def connected(beatd: Beatd, tmp_path: Path, url: str, table: str = GOOD) -> tuple[int, str]:
    (tmp_path / "beat.toml").write_text(table + f'\n[redis]\nurl = "{url}"\n')
    done = beatd("check", "--connect", cwd=tmp_path)
    return done.returncode, done.stdout + done.stderr


def test_connect_names_a_server_that_cannot_keep_state(tmp_path: Path, start_server, free_port, beatd: Beatd) -> None:
    primary = start_server()
    replica = start_server("--replicaof", "127.0.0.1", str(primary.port))
    assert (
        "it is a read-only replica; give the URL of its primary, 127.0.0.1"
        in connected(beatd, tmp_path, replica.url)[1]
    )
    full = start_server("--maxmemory", "100kb")
    assert "its memory is full" in connected(beatd, tmp_path, full.url)[1]
    cluster = start_server("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    assert "write redis+cluster:// instead of redis://" in connected(beatd, tmp_path, cluster.url)[1]


def test_connect_names_each_missing_right_with_its_rule(tmp_path: Path, start_server, beatd: Beatd) -> None:
    server = start_server()
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "beatd", "on", ">pw", "~{beatd}:*", "resetchannels", "+@all", "-eval")
        code, said = connected(beatd, tmp_path, server.url.replace("://", "://beatd:pw@"))
        assert code == 1
        assert "add +eval" in said
        assert "add &{beatd}:wake" in said
        admin.execute_command("ACL", "SETUSER", "beatd", "allchannels", "+eval")
        code, said = connected(beatd, tmp_path, server.url.replace("://", "://beatd:pw@"))
        assert "add ~celery*" in said
        assert admin.keys() == []


def test_connect_names_the_queue_that_a_user_may_not_write_to(tmp_path: Path, start_server, beatd: Beatd) -> None:
    server = start_server()
    table = GOOD + 'queue = "reports"\n'
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "beatd", "on", ">pw", "~{beatd}:*", "~celery*", "allchannels", "+@all")
        url = server.url.replace("://", "://beatd:pw@")
        code, said = connected(beatd, tmp_path, url, table)
        assert code == 1
        assert "add ~reports*" in said
        assert "celery*" not in said
        admin.execute_command("ACL", "SETUSER", "beatd", "%R~reports*")
        code, said = connected(beatd, tmp_path, url, table)
        assert (code, "add ~reports*" in said) == (1, True), "reading is not enough"
        admin.execute_command("ACL", "SETUSER", "beatd", "~reports*")
        assert connected(beatd, tmp_path, url, table)[0] == 0
        assert admin.keys() == []


def test_refused_registrations_are_said_by_every_command(tmp_path: Path, redis_url: str, beatd: Beatd) -> None:
    (tmp_path / "beat.toml").write_text(f'app = "proj:app"\n[redis]\nurl = "{redis_url}"\n{GOOD}')
    (tmp_path / "proj.py").write_text(APP.replace("SCHEDULE", "-1"))
    expected = "! not in force: proj.py: beat_schedule.from-app.schedule: a duration must not be negative"
    for words in (["list"], ["next"], ["next", "--offline"], ["export"], ["export", "--offline", "-A", "proj"]):
        done = beatd(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout + done.stderr, words
        assert "from-app" not in done.stdout.replace(expected, ""), words
    (said,) = json.loads(beatd("list", "--json", cwd=tmp_path).stdout)["faults"]
    assert said.startswith(expected.removeprefix("! not in force: "))


def test_a_refused_registration_hides_no_warning_and_gives_way_to_an_entry_of_the_file(
    tmp_path: Path, beatd: Beatd
) -> None:
    more = '"typo": {"task": "proj.ad", "schedule": 60}}\n@app.task\ndef add(): ...\n'
    app = APP.replace("SCHEDULE", "-1").replace("}}", "}, " + more)
    (tmp_path / "proj.py").write_text(app)
    (tmp_path / "beat.toml").write_text('app = "proj:app"\n')
    done = beatd("check", cwd=tmp_path)
    assert (done.returncode, "a duration must not be negative" in done.stderr) == (2, True)
    assert "warning: proj.py: beat_schedule.typo.task" in done.stdout
    document = json.loads(beatd("check", "--json", cwd=tmp_path).stdout)
    assert (document["ok"], len(document["faults"]), len(document["warnings"])) == (False, 1, 1)
    entry = '[beat_schedule.from-app]\ntask = "proj.add"\nschedule = "1m"\n'
    (tmp_path / "beat.toml").write_text(f'app = "proj:app"\n{entry}')
    done = beatd("check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_errors_of_newcomers_say_what_to_do_next(tmp_path: Path, beatd: Beatd) -> None:
    assert "or write one with beatd init" in beatd("check", cwd=tmp_path).stderr
    (tmp_path / "beat.toml").write_text('[redis]\nurl = "redis://127.0.0.1:1/0"\n')
    assert 'url = "embedded" starts one by itself' in beatd("status", cwd=tmp_path).stderr
    (tmp_path / "beat.toml").write_text("not_yet_known = 1\n")
    assert "a file for a newer version needs that version" in beatd("check", cwd=tmp_path).stderr
    (tmp_path / "beat.toml").unlink()
    (tmp_path / "beat.toml").write_text('\napp = "prj"\n')
    (tmp_path / "proj.py").write_text("import not_installed\n")
    said = beatd("check", cwd=tmp_path).stderr
    assert said.startswith("beat.toml:2:1: app: prj: no module named 'prj'")
    assert 'did you mean "proj"?' in said
    (tmp_path / "beat.toml").unlink()
    assert "This Python has no not_installed; install it here" in beatd("next", "-A", "proj", cwd=tmp_path).stderr
    assert "name the folder with --workdir" in beatd("next", "-A", "shop.tasks", cwd=tmp_path).stderr
    (tmp_path / "of_celery.py").write_text("from celery import Celery\napp = Celery('x')\n")
    done = beatd("worker", "-A", "of_celery", cwd=tmp_path)
    assert "or keep the app as it is and run its tasks with: celery -A of_celery worker" in done.stderr
