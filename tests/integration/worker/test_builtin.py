"""The built-in tasks, with real programs and a real server."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from beatd import App
from beatd.exceptions import ConfigError, TimeLimitExceeded
from beatd.message.protocol import build
from beatd.worker.builtin import register
from beatd.worker.builtin.command import OUTPUT_MAX, CommandFailed, command
from beatd.worker.builtin.http import RETRIES_MAX, HttpFailed, http
from beatd.worker.execution.call import Calling


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_only_those_that_were_asked_for_are_registered():
    app = App("x")
    register(app, ["command"])
    assert "beatd.command" in app.tasks
    assert "beatd.http" not in app.tasks
    with pytest.raises(ConfigError, match="no built-in task 'shell'"):
        register(app, ["shell"])


def test_a_command_returns_its_output():
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
    assert command(python(code)) == {"exit_code": 0, "output": "out\nerr\n", "truncated": False}


def test_a_command_may_be_given_word_by_word():
    assert command("echo", "a b", "$HOME")["output"] == "a b $HOME\n"


def test_directory_and_environment(tmp_path):
    code = "import os; print(os.getcwd(), os.environ['ADDED'], 'PATH' in os.environ)"
    assert command(python(code), cwd=str(tmp_path), env={"ADDED": "x"})["output"] == f"{tmp_path} x True\n"


def test_a_failing_command_shows_the_end_of_its_output():
    with pytest.raises(CommandFailed, match=r"exit code 3\. The end of its output:\nlast words"):
        command(python("print('last words'); raise SystemExit(3)"))


def test_other_exit_codes_may_be_fine():
    assert command(python("raise SystemExit(3)"), expect=[0, 3])["exit_code"] == 3
    assert command(python("raise SystemExit(4)"), check=False)["exit_code"] == 4


def test_a_command_killed_by_a_signal_says_so():
    with pytest.raises(CommandFailed, match="signal SIGKILL"):
        command(python("import os; os.kill(os.getpid(), 9)"))


@pytest.mark.parametrize("argv", [[], [[]], [[1, 2]], [["echo", None]]])
def test_a_command_that_is_none_is_refused(argv):
    with pytest.raises(CommandFailed, match="must be a list of strings"):
        command(*argv)


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(CommandFailed, match="cannot run no-such-program: No such file"):
        command(["no-such-program"])


def test_much_output_is_cut_at_the_front():
    result = command(python("print('x' * 200_000); print('end')"))
    assert len(result["output"]) == OUTPUT_MAX
    assert result["output"].endswith("end\n")
    assert result["truncated"]


def test_the_timeout_ends_the_whole_group(tmp_path, wait_until, monkeypatch):
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"

    class Patient(subprocess.Popen):  # type: ignore[type-arg]
        """A program whose time begins when its child has written the file."""

        def wait(self, timeout: float | None = None) -> int:
            wait_until(lambda: pid_file.exists() and pid_file.read_text(), 30, "the child to be under way")
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Patient)
    with pytest.raises(CommandFailed, match=r"took longer than 0\.5s"):
        command(python(code), timeout=0.5)
    wait_until(lambda: not _alive(int(pid_file.read_text())))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # while it is read, too
        return False


class Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        seen = {
            "method": self.command,
            "body": self.rfile.read(length).decode(),
            "type": self.headers.get("Content-Type"),
            "tenant": self.headers.get("X-Tenant"),
        }
        status = int(self.path.rpartition("/")[2])
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        self.end_headers()
        self.wfile.write(b"x" * 100_000 if self.path.startswith("/big") else json.dumps(seen).encode())

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_returns_status_and_body(web):
    answer = http(f"{web}/200", headers={"X-Tenant": "a"})
    assert answer["status"] == 200
    assert json.loads(answer["body"]) == {"method": "GET", "body": "", "type": None, "tenant": "a"}


def test_json_is_posted(web):
    seen = json.loads(http(f"{web}/201", json={"a": 1})["body"])
    assert (seen["method"], seen["type"], json.loads(seen["body"])) == ("POST", "application/json", {"a": 1})
    assert json.loads(http(f"{web}/200", "put", body="text")["body"])["body"] == "text"


def test_redirects_are_followed(web):
    assert http(f"{web}/302")["status"] == 200


@pytest.mark.parametrize(
    ("path", "expect", "fine"),
    [
        ("/204", None, True),
        ("/404", None, False),
        ("/404", 404, True),
        ("/500", [200, 404], False),
        ("/200", 201, False),
    ],
)
def test_the_status_decides(web, path, expect, fine):
    if fine:
        assert http(web + path, expect=expect)["status"] == int(path[1:])
    else:
        with pytest.raises(HttpFailed, match=f"answered {path[1:]}, expected"):
            http(web + path, expect=expect)


def test_a_large_answer_is_cut(web):
    answer = http(f"{web}/big/200")
    assert len(answer["body"]) == 64 * 1024
    assert answer["truncated"]


@pytest.mark.parametrize(
    ("url", "words"), [("ftp://x", "no http:// or https:// URL"), ("http://127.0.0.1:1/", "Connection refused")]
)
def test_what_cannot_be_asked_is_explained(url, words):
    with pytest.raises(HttpFailed, match=words):
        http(url)


# -- environment, limits, log --------------------------------------------------------------------------------------


def test_a_shell_line(tmp_path):
    (tmp_path / "a").write_text("3\n1\n2\n")
    assert command("sort < a | head -n 2", shell=True, cwd=str(tmp_path))["output"] == "1\n2\n"
    with pytest.raises(CommandFailed, match="must be one string"):
        command(["sort", "a"], shell=True)


def test_the_environment_may_be_chosen(monkeypatch):
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    monkeypatch.setenv("APP_MODE", "test")
    show = python(
        "import os; print(sorted(n for n in os.environ if n in ('BROKER_PASSWORD', 'APP_MODE', 'PATH', 'X')))"
    )
    assert command(show)["output"] == "['APP_MODE', 'BROKER_PASSWORD', 'PATH']\n"
    assert command(show, inherit_env=False)["output"] == "['PATH']\n"
    assert command(show, inherit_env=["PATH", "APP_*"], env={"X": "1"})["output"] == "['APP_MODE', 'PATH', 'X']\n"


def test_there_is_no_standard_input():
    assert command(python("import sys; print(repr(sys.stdin.read()))"))["output"] == "''\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user():
    show = ["/bin/sh", "-c", 'echo "$(id -un) $(id -Gn) $HOME"']
    assert command(show, user="nobody", cwd="/")["output"].split()[:2] == ["nobody", "nogroup"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"user": "no-such-user"}, "user: there is no 'no-such-user'"),
        ({"cwd": "/no/such/folder"}, "cwd: there is no folder"),
        ({"env": {"X": [1]}}, "env: the value of X must be a string"),
        ({"env": ["X=1"]}, "env must be a table"),
        ({"inherit_env": "PATH"}, "inherit_env must be true, false or a list"),
        ({"timeout": "soon"}, "timeout must be a number"),
        ({"expect": "0"}, "expect must be an exit code"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(wrong, words, tmp_path):
    with pytest.raises(CommandFailed, match=words):
        command(["touch", str(tmp_path / "ran")], **wrong)
    assert not (tmp_path / "ran").exists()


def test_a_program_that_minds_no_sigterm_is_killed():
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    with pytest.raises(CommandFailed, match="on"):
        command(python(code), timeout=1.5, kill_after=0.2)


@pytest.mark.parametrize("ignores", [False, True])
def test_a_program_does_not_outlive_a_hard_limit_in_the_solo_pool(tmp_path, wait_until, ignores):
    pid_file = tmp_path / "pid"
    line = f"{'trap : TERM; ' if ignores else ''}echo $$ > {pid_file}; while :; do sleep 1; done"
    with pytest.raises(TimeLimitExceeded):
        Calling(1.0 if ignores else None, 2.0).call(command, (line,), {"shell": True, "kill_after": 30})
    wait_until(lambda: not _alive(int(pid_file.read_text())))


def test_a_program_does_not_outlive_the_process_that_started_it(tmp_path, wait_until):
    pid_file = tmp_path / "pid"
    starter = f"""
from pathlib import Path
from beatd.worker.builtin.command import DeadMansSwitch, command

guard = DeadMansSwitch.guard

def noted(switch, group):
    guard(switch, group)  # a program is guarded a moment after it has begun
    Path({str(pid_file)!r}).write_text(str(group))

DeadMansSwitch.guard = noted
command("sleep 60; :", shell=True)
"""
    process = subprocess.Popen(python(starter))
    pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), 20))
    process.kill()
    process.wait()
    wait_until(lambda: not _alive(pid))


def test_a_program_does_not_outlive_a_task_that_has_no_thread_for_its_output(tmp_path, wait_until, monkeypatch):
    pid_file, start = tmp_path / "pid", threading.Thread.start

    def refuse(thread):
        if thread.name == "command-output":
            wait_until(lambda: pid_file.exists() and pid_file.read_text().strip())
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        command(f"echo $$ > {pid_file}; sleep 60; :", shell=True)
    wait_until(lambda: not _alive(int(pid_file.read_text())))


def test_output_is_logged_line_by_line(caplog):
    caplog.set_level("INFO")
    command(python("print('one'); print('two', end='')"))
    command(python("print('\\n'.join(map(str, range(1200))))"), log=True)
    command(python("print('unsaid')"), log=False)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].endswith(": one")
    assert lines[1].endswith(": two")
    assert lines[-1].endswith("… 200 lines more")
    assert len(lines) == 2 + 1000 + 1
    assert {record.event for record in caplog.records} == {"command_output"}


# -- requests that are tried again, and looked at more closely ------------------------------------------------------


class Scripted(BaseHTTPRequestHandler):
    """Answers as the paths of the server's ``script`` say, one after the other, and notes what it was asked."""

    def _answer(self) -> None:
        server: Any = self.server
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        server.asked.append((self.command, self.path, dict(self.headers), body))
        status, headers, answer = server.script.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_HEAD = _answer

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def scripted():
    """``scripted((status, headers, body), …)`` starts a server that says this; returns its URL and its notes."""
    servers = []

    def start(*script):
        server: Any = HTTPServer(("127.0.0.1", 0), Scripted)
        server.script, server.asked = list(script), []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}", server.asked

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_failures_that_may_pass_are_tried_again(scripted, caplog):
    url, asked = scripted((503, {}, b"busy"), (429, {"Retry-After": "0"}, b"slower"), (200, {}, b"fine"))
    assert http(f"{url}/x", retries=2, backoff=0.01)["body"] == "fine"
    assert len(asked) == 3
    assert [record.message for record in caplog.records if "Trying again in 0.0s" in record.message]


def test_attempts_have_an_end(scripted):
    url, asked = scripted((503, {}, b"a"), (502, {}, b"b"))
    with pytest.raises(HttpFailed, match="answered 502"):
        http(url, retries=1, backoff=0.01)
    assert len(asked) == 2


@pytest.mark.parametrize(("retries", "attempts"), [(0.5, 1), (RETRIES_MAX + 10, RETRIES_MAX + 1)])
def test_the_last_attempt_fails_as_any_other(scripted, retries, attempts):
    url, asked = scripted(*[(503, {}, b"a")] * attempts)
    with pytest.raises(HttpFailed, match="answered 503"):
        http(url, retries=retries, backoff=0)
    assert len(asked) == attempts


def test_what_will_not_pass_is_not_tried_again(scripted):
    url, asked = scripted((404, {}, b""))
    with pytest.raises(HttpFailed, match="answered 404"):
        http(url, retries=5, backoff=0.01)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("wanted", "fine"),
    [
        ({"ok": True}, True),
        ({"data": {"count": 3}}, True),
        ({"data": {"count": 4}}, False),
        ({"missing": 1}, False),
        ([1], False),
    ],
)
def test_the_answers_json_decides(scripted, wanted, fine):
    url, _ = scripted((200, {}, b'{"ok": true, "data": {"count": 3, "more": 1}}'))
    if fine:
        assert http(url, expect_json=wanted)["status"] == 200
    else:
        with pytest.raises(HttpFailed, match=r"other JSON at \$"):
            http(url, expect_json=wanted)


def test_an_answer_that_is_no_json(scripted):
    url, _ = scripted((200, {}, b"<html>"))
    with pytest.raises(HttpFailed, match="answered no JSON: <html>"):
        http(url, expect_json={})


def test_credentials_stay_with_their_host(scripted):
    other, asked_other = scripted((200, {}, b""))
    url, asked = scripted((302, {"Location": f"{other}/y"}, b""))
    http(f"{url}/x", headers={"Authorization": "Bearer sesame", "X-Tenant": "a"})
    assert asked[0][2]["Authorization"] == "Bearer sesame"
    assert "Authorization" not in asked_other[0][2]
    assert asked_other[0][2]["X-Tenant"] == "a"


def test_a_redirect_with_its_body(scripted):
    url, asked = scripted((307, {"Location": "/again"}, b""), (201, {}, b""))
    assert http(url, json={"a": 1}, expect=201)["status"] == 201
    assert [(method, body) for method, _, _, body in asked] == [("POST", '{"a": 1}')] * 2


@pytest.mark.parametrize(
    ("redirects", "location", "words"),
    [
        (False, "/a", "answered 302"),
        (1, "/a", "redirect"),
        (True, "ftp://127.0.0.1/etc/passwd", "not on the web"),
    ],
)
def test_redirects_that_are_not_followed(scripted, redirects, location, words):
    url, _ = scripted((302, {"Location": location}, b""), (302, {"Location": "/b"}, b""), (200, {}, b""))
    with pytest.raises(HttpFailed, match=words):
        http(url, redirects=redirects)


@pytest.mark.parametrize("char", ["\x1b[2J", "\x9b31m", "\n", "\r", "\x07", "\x7f", "\u2028", "\u202e"])
@pytest.mark.parametrize("place", ["path", "query", "host", "scheme", "location", "body"])
def test_errors_cannot_control_a_terminal(scripted, place, char, caplog):
    away = {"Location": f"ftp://h/a{char.strip() if char.isascii() else ''}b"}
    answers = [(302, away, b"") if place == "location" else (503, {}, f"<{char}>".encode())] * 2
    url = scripted(*answers)[0] if place in ("location", "body") else "http://127.0.0.1:1"
    written = {
        "path": f"{url}/a{char}b",
        "query": f"{url}/?a={char}b",
        "host": f"http://h{char}/",
        "scheme": f"x{char}://",
    }
    with pytest.raises(HttpFailed) as caught:
        http(written.get(place, url), retries=0 if place == "location" else 1, backoff=0.0)
    told = [str(caught.value), *(record.getMessage() for record in caplog.records)]
    assert [text for text in told if not text.replace("\n", "").isprintable()] == []
    assert place == "body" or not any("\n" in text for text in told)


def test_secrets_are_not_shown(scripted):
    url, asked = scripted((200, {"Set-Cookie": "session=sesame", "X-Rate": "1"}, b""), (500, {}, b""))
    answer = http(url)
    assert answer["headers"]["Set-Cookie"] == "***"
    assert answer["headers"]["X-Rate"] == "1"
    with pytest.raises(HttpFailed, match="answered 500") as caught:
        http(url.replace("http://", "http://user:sesame@"))
    assert "sesame" not in str(caught.value)
    assert asked[1][2]["Authorization"] == f"Basic {base64.b64encode(b'user:sesame').decode()}"
    message = build("beatd.http", "1", (), {"url": url, "headers": {"Authorization": "Bearer sesame"}})
    assert "sesame" not in str(message.headers)
    assert b"sesame" in message.body


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"timeout": "x"}, "timeout must be"),
        ({"retries": -1}, "retries must be"),
        ({"body": "a", "json": 1}, "not both"),
    ],
)
def test_wrong_arguments_of_a_request(wrong, words):
    with pytest.raises(HttpFailed, match=words):
        http("http://127.0.0.1:1/", **wrong)
