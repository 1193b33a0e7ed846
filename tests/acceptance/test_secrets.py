"""No output of any command holds a password, whatever is wrong with the value around it."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis

from beatd import config
from beatd.exceptions import ConfigError
from tests.acceptance.conftest import Running
from tests.forked import environment, run_python

MARKER = "tail9zq"
JUNK = "/?#@%:;,[]&= '\"\\ab47.\u00e4"
REDIS_SCHEMES = ["redis", "rediss", "unix", "sentinel", "redis+socket", "http", "redi"]
BROKER_SCHEMES = [*REDIS_SCHEMES, "amqp", "amqps", "pyamqp", "sqs", "mongodb", "x+y"]
HOSTS = ["127.0.0.1:1", "127.0.0.1", "[::1]:1", "", "127.0.0.1:port", "127.0.0.1:1,127.0.0.1:2", "[::1"]
TAILS = ["/0", "", "//", "/abc", "/main/0", "/0?foo=bar", "?db=x", "?password=tail9zq", "/0?ssl_cert_reqs=tail9zq"]


class Case(NamedTuple):
    """A ``beat.toml`` with the marker in a secret, the files and variables beside it, and the URL in question."""

    text: str
    files: dict[str, str]
    env: dict[str, str]
    url: str | None


def strange_url(dice: random.Random, schemes: list[str]) -> str:
    before, after = ("".join(dice.choices(JUNK, k=dice.choice([0, 0, 1, 3]))) for _ in "12")
    user = dice.choice(["", "user"])
    return f"{dice.choice(schemes)}://{user}:{before}{MARKER}{after}@{dice.choice(HOSTS)}{dice.choice(TAILS)}"


def strange_case(dice: random.Random) -> Case:
    section = dice.choice(["redis", "redis", "broker"])
    url = strange_url(dice, REDIS_SCHEMES if section == "redis" else BROKER_SCHEMES)
    password = "".join(dice.choices(JUNK + "\n\x1b", k=2)) + MARKER + "".join(dice.choices(JUNK, k=2))
    plain = f"{'redis' if section == 'redis' else 'amqp'}://127.0.0.1:1/0"
    values: dict[str, Any]
    files, env, asked = {}, {}, None
    match dice.choice(["url", "url", "variable", "url_file", "password", "password_file", "type"]):
        case "url":
            values, asked = {"url": url}, url
        case "variable":
            values, env, asked = {"url": "${SECRET_URL}"}, {"SECRET_URL": url}, url
        case "url_file":
            values, files, asked = {"url_file": "secret"}, {"secret": f"{url}\n"}, url
        case "password":
            values = {"url": dice.choice([plain, "redis://h:x", url]), "password": password}
        case "password_file":
            values, files = {"url": plain, "password_file": "secret"}, {"secret": password}
        case _:
            values = {"url": dice.choice([[url], {"a": url}]), "username": dice.choice([MARKER, f"a\n{MARKER}"])}
    tables = {"redis": {"url": "redis://127.0.0.1:1/0"}, section: values}
    lines = [
        f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    ]
    return Case("".join([*lines, '[beat_schedule.a]\ntask = "t"\nschedule = 3600\n']), files, env, asked)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


class Done(NamedTuple):
    """The end of one command line."""

    code: int
    output: str


Run = Callable[..., Done]
StartBeatd = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run("check", within=20, VARIABLE="value")`` in the test's folder."""

    def run(*arguments: str, within: float = 30, **env: str) -> Done:
        words = ["-m", "beatd", *arguments]
        done = run_python("beatd", words, cwd=tmp_path, env=environment(**env), timeout=within, merged=True)
        return Done(done.returncode, done.stdout)

    return run


def put(case: Case, folder: Path) -> None:
    for name, text in {"beat.toml": case.text, **case.files}.items():
        (folder / name).write_text(text)


LOOKS = [
    ["check"],
    ["check", "--json"],
    ["check", "--connect"],
    ["check", "--connect", "--json"],
    ["run", "--fail-fast", "--log-level", "debug", "--log-format", "text"],
    ["run", "--fail-fast", "--log-level", "debug", "--log-format", "json"],
    ["status"],
    ["status", "--json"],
    ["list"],
    ["next"],
    ["history"],
    ["export"],
    ["trigger", "a"],
    ["pause", "a"],
    ["inspect", "ping"],
    ["dead-letters", "list"],
]


def assert_clean(case: Case, words: list[str], done: Done, codes: set[int]) -> None:
    assert MARKER not in done.output, (case, words, done)
    assert "Traceback" not in done.output, (case, words, done)
    assert "internal error" not in done.output, (case, words, done)
    assert done.code in codes, (case, words, done)


def try_all(case: Case, run: Run, folder: Path, looks: list[list[str]]) -> bool:
    """Run these commands with the case's file; True if the file is sound."""
    put(case, folder)
    env = {**case.env, "COLUMNS": "200"}
    sound = run("check", **env).code == 0
    for words in looks:
        done = run(*words, within=20, **env)
        codes = {2}
        if sound:
            codes = {0, 1} if words[0] != "run" else {1}
        assert_clean(case, words, done, codes)
    assert_values_are_silent(case, folder)
    return sound


def assert_values_are_silent(case: Case, folder: Path) -> None:
    """Neither settings nor errors show the marker, printed or logged by whoever embeds them."""
    try:
        settings = config.load(folder / "beat.toml", env=case.env).settings
    except ConfigError as error:
        shown = [str(error), repr(error), repr(error.args), repr(error.faults)]
    else:
        shown = [f"{value} {value!r}" for value in (settings, settings.redis, settings.broker)]
    assert not any(MARKER in text for text in shown), (case, shown)


def cases(seed: str, count: int) -> Iterator[Case]:
    dice = random.Random(seed)
    for _ in range(count):
        yield strange_case(dice)


@pytest.mark.timeout(120)
def test_no_command_shows_a_secret(run: Run, tmp_path: Path) -> None:
    sound = [try_all(case, run, tmp_path, LOOKS[2:6:3]) for case in cases("quick", 20)]
    assert any(sound)
    assert not all(sound)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_commands_show_no_secret(run: Run, tmp_path: Path) -> None:
    for case in cases("slow", 10):
        try_all(case, run, tmp_path, LOOKS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(10))
def test_no_command_shows_a_secret_in_many_cases(part: int, run: Run, tmp_path: Path) -> None:
    for case in cases(f"long {part}", 40):
        try_all(case, run, tmp_path, LOOKS)


def worker(start_beatd: StartBeatd, url: str, backend: str | None = None, *, by_variable: bool, ends: bool) -> Done:
    """A worker whose URLs end it, or that is told to stop when it has found out that there is no broker."""
    words = ["worker", "--builtin", "command", "-P", "solo", "-l", "debug"]
    variables = {"BEATD_BROKER_URL": url} | ({"BEATD_RESULT_BACKEND": backend} if backend else {})
    if not by_variable:
        words += ["-b", url, *(["--result-backend", backend] if backend else [])]
        variables = {}
    process = start_beatd(*words, **variables)
    if not ends:
        process.expect("Trying again", timeout=30)
        process.send(signal.SIGTERM)
    return Done(process.wait(30), process.text)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("by_variable", [False, True], ids=["option", "variable"])
@pytest.mark.parametrize(
    ("url", "code"),
    [
        (f"redis://:a/{MARKER}@127.0.0.1:1/0", 2),
        (f"redis://127.0.0.1:1/{MARKER}", 2),
        (f"redis://127.0.0.1:1/0?password={MARKER}&foo=bar", 2),
        (f"amqp://u:4711#{MARKER}@127.0.0.1:1//", 2),
        (f"amqp://u:4711;{MARKER}@127.0.0.1:1//", 2),
        (f"amqp://u:{MARKER}@127.0.0.1:1//?connection_attempts=3", 2),
        (MARKER, 2),
        (f"sentinel://:{MARKER}@127.0.0.1:port/main/0", 2),
        (f"redis://:{MARKER}%2F@127.0.0.1:1/0", 0),
    ],
)
def test_no_worker_shows_the_secret_in_its_urls(
    url: str, code: int, by_variable: bool, start_beatd: StartBeatd
) -> None:
    for done in (
        worker(start_beatd, url, by_variable=by_variable, ends=code != 0),
        worker(start_beatd, "redis://127.0.0.1:1/0", url, by_variable=by_variable, ends=code != 0),
    ):
        assert MARKER not in done.output, done
        assert "Traceback" not in done.output, done
        assert done.code == code, done


@pytest.mark.timeout(120)
def test_a_worker_that_waits_for_rabbitmq_shows_no_secret(start_beatd: StartBeatd) -> None:
    url = f"amqp://u:{MARKER}%2F@127.0.0.1:1//"
    waiting = worker(start_beatd, url, by_variable=True, ends=False)
    assert waiting.code == 0, waiting
    assert "amqp://u:***@127.0.0.1:1//" in waiting.output
    refused = worker(start_beatd, "redis://127.0.0.1:1/0", url, by_variable=True, ends=True)
    assert refused.code == 2, refused
    assert "no such result backend" in refused.output
    assert MARKER not in waiting.output + refused.output


def pages(web: Running) -> Iterator[str]:
    """What the status page answers at each of its addresses."""
    url = web.expect(r"Status page at (http://\S+)")[0][1]
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        for path in ("/", "/healthz", "/readyz", "/metrics", "/api/status", "/api/entries", "/api/entries/a/history"):
            answer = client.get(path)
            yield f"{answer.status_code} {answer.headers} {answer.text}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{MARKER}%2F@127.0.0.1:1/0",
        f"redis://{MARKER}@127.0.0.1:1/0",
        f"sentinel://u:{MARKER}@127.0.0.1:1/main/0?sentinel_password={MARKER}",
        f"unix://:{MARKER}@/tmp/there-is-no-such.sock?password={MARKER}x",
    ],
)
def test_no_page_shows_the_secret(
    url: str, start_beatd: Callable[..., Running], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    text = '[redis]\nurl = "{}"\n[beat_schedule.a]\ntask = "t"\nschedule = 3600\n'
    file = tmp_path / "beat.toml"
    file.write_text(text.format(url.replace(f"?password={MARKER}x", "")))
    web = start_beatd("web", "--port", "0", "--config", str(file), "--log-level", "debug")
    for answer in pages(web):
        assert MARKER not in answer
    file.write_text(text.format(f"redis://:a/{MARKER}@127.0.0.1:1/0"))
    wait_until(lambda: "percent-encode" in next(pages(web)), 20, "the page to name the fault")
    assert all(MARKER not in answer for answer in pages(web))
    assert MARKER not in web.text


def test_the_secret_in_a_url_that_a_task_asks_for_is_in_no_log_and_no_result(
    start_beatd: Callable[..., Running], beatd: Callable[..., Any], redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "beat.toml").write_text(
        f"""
[redis]
url = "{redis_url}"
[beat_schedule.get]
task = "beatd.http"
schedule = 3600
kwargs = {{ url = "http://u:{MARKER}@127.0.0.1:1/?a=1&token={MARKER}", headers = {{ X-Api-Key = "{MARKER}" }} }}
"""
    )
    daemon = start_beatd("run", "--log-level", "debug")
    worker = start_beatd("worker", "--config", "beat.toml", "--builtin", "http", "-P", "solo", "-l", "debug", "-E")
    worker.expect("ready")
    daemon.expect("Leading")
    outputs = [beatd("trigger", "get", "--wait", "20"), beatd("history"), beatd("history", "--json"), beatd("list")]
    worker.expect("failed|raised")
    for done in outputs:
        assert MARKER not in done.stdout + done.stderr, done
    assert "127.0.0.1" in outputs[0].stdout + outputs[0].stderr
    assert MARKER not in worker.text
    assert MARKER not in daemon.text
    with redis.Redis.from_url(redis_url) as client:
        for key in client.keys("celery-task-meta-*"):
            assert MARKER.encode() not in client.get(key)
        assert client.keys("celery-task-meta-*")
