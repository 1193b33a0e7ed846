"""Logging of a worker: formats, task loggers, signals, and redirected prints."""

from __future__ import annotations

import io
import logging
import re
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd import App, get_task_logger, signals
from beatd.app.context import Context, running
from beatd.log import get_logger
from beatd.worker import task_logging
from beatd.worker.task_logging import CeleryFormatter, Redirected


@pytest.fixture
def root(monkeypatch):
    """The root logger with one handler, as before a worker has loaded its app."""
    root = logging.getLogger()
    kept, level = list(root.handlers), root.level
    of_celery = [logging.getLogger(name) for name in ("celery", "celery.task", "celery.worker")]
    before = [(list(logger.handlers), logger.propagate) for logger in of_celery]
    for logger in of_celery:  # a worker of Celery's in this process may have set them up
        logger.handlers[:], logger.propagate = [], True
    handler = logging.StreamHandler(io.StringIO())
    root.handlers[:] = [handler]
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    yield root
    root.handlers[:] = kept
    root.setLevel(level)
    for logger, (handlers, propagate) in zip(of_celery, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture
def app():
    return App("x", set_as_current=False)


def written(root):
    return root.handlers[0].stream.getvalue()


def test_task_loggers_have_a_format_of_their_own(root, app):
    app.conf.worker_log_format = "%(levelname)s %(message)s"
    app.conf.worker_task_log_format = "%(task_name)s[%(task_id)s] %(message)s"
    task_logging.set_up(app, "info", ours=root.handlers[:], celery_format=True)
    logger = get_task_logger("my.tasks")
    logger.setLevel(logging.INFO)
    task = app.task(name="t")(lambda: None)
    with running(task, Context(id="1")):
        logger.info("inside")
    logger.info("outside")
    logging.getLogger("celery.worker").warning("of the worker")
    assert written(root) == "t[1] inside\n???[???] outside\nWARNING of the worker\n"


@pytest.mark.parametrize(("hijack", "kept"), [(True, "ours"), (False, "theirs")])
def test_handlers_of_the_apps_modules_are_removed_with_worker_hijack_root_logger(root, app, hijack, kept):
    handlers = {"ours": root.handlers[0], "theirs": logging.StreamHandler(io.StringIO())}
    app.conf.worker_hijack_root_logger = hijack

    @app.on_after_finalize.connect
    def configure(**_):
        root.handlers[:] = [handlers["theirs"]]
        root.setLevel(logging.ERROR)
        logging.getLogger("celery.worker").disabled = True

    task_logging.set_up(app, "info", ours=[handlers["ours"]], celery_format=True)
    assert root.handlers == [handlers[kept]]
    assert (root.level, logging.getLogger("celery.worker").disabled) == (
        (logging.INFO, False) if hijack else (logging.ERROR, True)
    )
    logging.getLogger("celery.worker").disabled = False


def test_task_loggers_belong_to_celerys():
    logger = get_task_logger("some.module")
    assert (logger.name, logger.parent.name) == ("some.module", "celery.task")
    with pytest.raises(RuntimeError, match="reserved"):
        get_task_logger("celery.task")
    assert callable(logger.warn)


def test_printed_text_is_logged(root, app):
    task_logging.set_up(app, "info", ours=root.handlers[:], celery_format=True)
    root.handlers[0].setFormatter(logging.Formatter("%(levelname)s %(name)s event=%(event)s %(message)s"))
    print("one", 2, end="")
    print("!")
    print("on the other", file=sys.stderr)
    print("unfinished", end="", flush=True)
    assert written(root).splitlines() == [
        "WARNING celery.redirected event=printed one 2!",
        "WARNING celery.redirected event=printed on the other",
        "WARNING celery.redirected event=printed unfinished",
    ]


def test_redirecting_can_be_turned_off_and_its_level_chosen(root, app):
    app.conf.worker_redirect_stdouts = False
    task_logging.set_up(app, "info", ours=root.handlers[:], celery_format=True)
    assert not isinstance(sys.stdout, Redirected)
    app.conf.update(worker_redirect_stdouts=True, worker_redirect_stdouts_level="INFO")
    task_logging.set_up(app, "info", ours=root.handlers[:], celery_format=True)
    root.setLevel(logging.WARNING)
    print("too quiet")
    assert written(root) == ""


def test_a_handler_that_prints_does_not_recurse():
    behind, logger = io.StringIO(), logging.getLogger("circles")
    stream = Redirected(behind, logger, logging.WARNING)
    logger.propagate = False
    logger.handlers[:] = [handler := logging.Handler()]
    handler.emit = lambda record: stream.write(f"<{record.getMessage()}>\n")
    stream.write("hello\n")
    assert behind.getvalue() == "<hello>\n"
    assert not stream.isatty()


def test_lines_of_threads_are_not_mixed():
    lines, logger = [], logging.getLogger("threads")
    logger.propagate = False
    logger.handlers[:] = [handler := logging.Handler()]
    handler.emit = lambda record: lines.append(record.getMessage())
    stream = Redirected(io.StringIO(), logger, logging.WARNING)
    stream.write("mine ")
    other = threading.Thread(target=stream.write, args=("theirs\n",))
    other.start()
    other.join()
    stream.write("too\n")
    assert lines == ["theirs", "mine too"]


def test_a_line_that_never_ends_is_logged_in_pieces():
    pieces, logger = [], logging.getLogger("points")
    logger.propagate = False
    logger.handlers[:] = [handler := logging.Handler()]
    handler.emit = lambda record: pieces.append(record.getMessage())
    stream = Redirected(io.StringIO(), logger, logging.WARNING)
    for _ in range(30_000):
        stream.write(".")
    assert [len(piece) for piece in pieces] == [8_193] * 3
    stream.flush()
    assert len("".join(pieces)) == 30_000


def test_a_receiver_of_setup_logging_replaces_the_setup(root, app):
    seen = []

    def configure(loglevel, **_):
        seen.append((loglevel, list(root.handlers)))

    signals.setup_logging.connect(configure)
    try:
        task_logging.set_up(app, "debug", ours=root.handlers[:], celery_format=True)
    finally:
        signals.setup_logging.disconnect(configure)
    assert seen == [(logging.DEBUG, [])]
    assert not isinstance(sys.stdout, Redirected)


def test_loggers_can_be_changed_after_set_up(root, app):
    seen = []

    def changed(logger, **_):
        seen.append(logger.name)
        logging.getLogger().handlers[0].setFormatter(logging.Formatter("changed %(message)s"))

    signals.after_setup_logger.connect(changed)
    signals.after_setup_task_logger.connect(changed)
    try:
        task_logging.set_up(app, "info", ours=root.handlers[:], celery_format=True)
    finally:
        signals.after_setup_logger.disconnect(changed)
        signals.after_setup_task_logger.disconnect(changed)
    assert seen == ["root", "celery.task"]
    logging.getLogger().warning("x")
    assert written(root) == "changed x\n"


def test_other_formats_are_left_alone(root, app):
    root.handlers[0].setFormatter(own := logging.Formatter("own %(message)s"))
    task_logging.set_up(app, "info", ours=root.handlers[:], celery_format=False)
    assert root.handlers[0].formatter is own
    assert not isinstance(own, CeleryFormatter)


RECORDED = re.compile(r"\A\[LEVEL\] ")


TEXTS = st.text(alphabet=st.characters() | st.sampled_from("\n\r\x1b\x0b\u2028\x85\t"), max_size=30)


def raised(text):
    """Return the exc_info of an exception with this text."""
    try:
        int("no number")
    except ValueError as error:
        error.args = (text,)
        return type(error), error, error.__traceback__


@given(st.lists(TEXTS, min_size=4, max_size=4))
def test_no_text_from_a_message_forges_a_record_or_controls_a_terminal(texts):
    formatter = CeleryFormatter("[LEVEL] %(message)s", "[LEVEL] %(task_name)s[%(task_id)s] %(message)s")
    forged = "\n[LEVEL] forged"
    for extra in ({}, {"task_name": texts[0] + forged, "task_id": texts[1] + forged}):
        record = logging.makeLogRecord({"msg": "%s %s", "args": (texts[2] + forged, texts[3]), **extra})
        record.exc_info = raised(texts[3] + forged)
        lines = formatter.format(record).split("\n")
        assert all(line.isprintable() for line in lines)
        assert [bool(RECORDED.match(line)) for line in lines] == [True] + [False] * (len(lines) - 1)


def test_a_traceback_is_readable_and_other_formatters_still_get_the_exception():
    formatter = CeleryFormatter("%(message)s", "%(message)s")
    record = logging.makeLogRecord({"msg": "failed", "exc_info": raised("no")})
    lines = formatter.format(record).split("\n")
    assert (lines[0], lines[1], lines[-1]) == ("failed", "  Traceback (most recent call last):", "  ValueError: no")
    assert logging.Formatter("%(message)s").format(record).split("\n")[1] == "Traceback (most recent call last):"


def test_the_root_logger_is_no_child_of_its_child():
    root = logging.getLogger()
    assert get_logger(root) is root
    assert root.parent is None
    assert get_logger("some-name-at-the-top").parent is logging.getLogger("celery")
