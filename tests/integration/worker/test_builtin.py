"""The built-in tasks, with real programs and a real server."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from beatd import App
from beatd.exceptions import ConfigError
from beatd.worker.builtin import register
from beatd.worker.builtin.command import OUTPUT_MAX, CommandFailed, command
from beatd.worker.builtin.http import HttpFailed, http


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


def test_the_timeout_ends_the_whole_group(tmp_path, wait_until):
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(CommandFailed, match="took longer than 1s"):
        command(python(code), timeout=1)
    assert time.monotonic() - began < 10
    pid_file = tmp_path / "pid"
    if pid_file.exists():
        wait_until(lambda: not _alive(int(pid_file.read_text())))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


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
