"""Log lines as people and programs read them, and what the service manager is told."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from beatd import log_format
from beatd.cli.sdnotify import ServiceManager, watchdog_period

Configure = Callable[..., io.StringIO]


@pytest.fixture
def configured() -> Iterator[Configure]:
    """Configure logging into a buffer; everything is put back afterwards."""
    root = logging.getLogger()
    kept = root.handlers[:], root.level, sys.excepthook, threading.excepthook

    def configure(level: str = "info", style: Literal["text", "json"] = "text", color: bool = False) -> io.StringIO:
        stream = io.StringIO()
        log_format.configure(level, style, stream=stream, color=color)
        return stream

    yield configure
    logging.captureWarnings(False)
    root.handlers[:], root.level, sys.excepthook, threading.excepthook = kept


def test_a_line_of_text_has_time_level_logger_sentence_and_facts(configured: Configure) -> None:
    stream = configured()
    record = logging.makeLogRecord(
        {"name": "beatd.beat", "levelno": 20, "levelname": "INFO", "msg": "Dispatched %d runs", "args": (3,)}
        | {"created": 1795334401.1239, "event": "dispatched", "entry": "daily report", "lateness_ms": 4}
    )
    logging.getLogger().handle(record)
    assert stream.getvalue() == (
        '2026-11-22 08:00:01.123 INFO  beatd.beat  Dispatched 3 runs  entry="daily report"  lateness_ms=4\n'
    )


def test_a_line_of_text_says_nothing_twice(configured: Configure) -> None:
    stream = configured()
    extra = {"event": "dispatched", "entry": "report", "count": 1, "seconds": 0.12345678, "note": ""}
    logging.getLogger("beatd").info("Dispatched report", extra=extra)
    assert stream.getvalue().endswith("beatd  Dispatched report  count=1  seconds=0.123457\n")


def test_json_lines_cannot_control_a_terminal(configured: Configure) -> None:
    stream = configured(style="json")
    for text in ("\x1b[2J", "\x7f", "\x9b31m", "\u2028", "\u202e", "caf\xe9 → ☃"):
        logging.getLogger("x").info("Named %s", text, extra={"event": "e", "entry": text})
        line = stream.getvalue().splitlines()[-1]
        assert line.isprintable()
        assert json.loads(line)["entry"] == text
    assert "café → ☃" in line


def test_json_has_the_same_as_one_object(configured: Configure) -> None:
    stream = configured(style="json")
    logging.getLogger("beatd.beat").warning("Dispatched %d", 3, extra={"event": "dispatched", "path": Path("/x")})
    found = json.loads(stream.getvalue())
    assert found.pop("ts").endswith("+00:00")
    assert found == {
        "level": "warning",
        "logger": "beatd.beat",
        "event": "dispatched",
        "message": "Dispatched 3",
        "path": "/x",
    }


def test_an_exception_is_shown_in_both_formats(configured: Configure) -> None:
    for style in ("text", "json"):
        stream = configured(style=style)
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logging.getLogger("beatd").exception("It broke")
        assert "ZeroDivisionError: " in stream.getvalue()
        assert "Traceback" in stream.getvalue()
        assert style == "text" or len(stream.getvalue().splitlines()) == 1


def test_what_is_below_the_level_is_not_written(configured: Configure) -> None:
    stream = configured("warning")
    logging.getLogger("beatd").info("unseen")
    assert stream.getvalue() == ""


def test_configuring_again_replaces_the_first(configured: Configure) -> None:
    first, second = configured(), configured()
    logging.getLogger("beatd").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_an_unknown_level_is_refused(configured: Configure) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configured("loud")


def test_colour_is_an_argument(configured: Configure) -> None:
    plain, painted = configured(), configured(color=True)
    logging.getLogger("beatd").error("red")
    assert "\x1b[31m" in painted.getvalue()
    plain = configured()
    logging.getLogger("beatd").error("plain")
    assert "\x1b" not in plain.getvalue()


def test_control_characters_of_others_do_not_reach_the_terminal(configured: Configure) -> None:
    stream = configured()
    logging.getLogger("beatd").info("name %s", "\x1b[2J", extra={"entry": "a\nb"})
    assert stream.getvalue().endswith('name \\x1b[2J  entry="a\\nb"\n')


def test_a_thread_that_dies_is_logged(configured: Configure) -> None:
    stream = configured(style="json")

    def die() -> None:
        raise RuntimeError("boom")

    thread = threading.Thread(target=die, name="renewer")
    thread.start()
    thread.join()
    found = json.loads(stream.getvalue())
    assert (found["event"], found["message"]) == ("thread_died", "Thread renewer died of RuntimeError: boom")
    assert "in die" in found["trace"]


def test_an_exception_that_nobody_catches_is_logged_without_its_secrets() -> None:
    program = "\n".join(
        [
            "from beatd import log_format",
            "log_format.configure('info', 'json')",
            "def fail(): raise {}",
            "fail()",
        ]
    )
    raised = "ConnectionError('redis://:hunter2@h/0 is away')", "KeyboardInterrupt"
    ended = [
        subprocess.run([sys.executable, "-c", program.format(one)], capture_output=True, text=True, check=False)
        for one in raised
    ]
    (line,) = ended[0].stderr.splitlines()
    found = json.loads(line)
    assert (found["level"], found["event"]) == ("critical", "uncaught")
    assert found["message"].startswith("Uncaught ConnectionError: redis://")
    assert "in fail" in found["trace"]
    assert "hunter2" not in line
    assert (ended[0].returncode, ended[1].stderr) == (1, "")


def test_warnings_are_logged(configured: Configure) -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    assert "old ways" in stream.getvalue()


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    if abstract and not sys.platform.startswith("linux"):
        pytest.skip("abstract sockets are Linux's")
    address = f"@beatd-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if abstract else address)
        manager.settimeout(5)
        notifier = ServiceManager(address)
        notifier.ready("3 entries,\nleading")
        assert manager.recv(200) == b"READY=1\nSTATUS=3 entries, leading"
        notifier.watchdog()
        assert manager.recv(200) == b"WATCHDOG=1"
        notifier.stopping()
        assert manager.recv(200) == b"STOPPING=1"


def test_a_manager_that_is_gone_is_mentioned_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = ServiceManager(str(tmp_path / "nobody"))
    notifier.watchdog()
    notifier.watchdog()
    assert [getattr(record, "event", "") for record in caplog.records] == ["notify_failed"]


def test_without_a_manager_nothing_is_sent() -> None:
    notifier = ServiceManager(None)
    assert not notifier
    notifier.ready()


@pytest.mark.parametrize(
    ("microseconds", "pid", "period"),
    [
        ("30000000", None, 15.0),
        ("30000000", "7", 15.0),
        ("30000000", "8", None),
        (None, None, None),
        ("0", "", None),
        ("soon", "", None),
    ],
)
def test_the_watchdog_wants_a_sign_twice_per_period(
    microseconds: str | None, pid: str | None, period: float | None
) -> None:
    assert watchdog_period(microseconds, pid, 7) == period


def test_a_line_that_utf_8_cannot_carry_is_in_the_file_all_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = log_format.FileLog(tmp_path / "log")
    handler.setFormatter(log_format.JsonFormatter())
    handler.handle(logging.makeLogRecord({"name": "beatd", "msg": "Read caf\udce9.toml"}))
    handler.close()
    assert json.loads((tmp_path / "log").read_text())["message"] == "Read caf\udce9.toml"
    assert capfd.readouterr().err == ""
