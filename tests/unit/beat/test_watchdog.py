"""The watchdog: a loop that hangs is said with the place where it hangs, one that turns is left alone."""

import logging
import threading

from beatd.beat.watchdog import LOOKS, Watchdog


def hang_here(watchdog, release):
    watchdog.start()
    release.wait(30)


def test_a_loop_that_hangs_is_found_and_said_once_with_its_stack(caplog):
    found, release = threading.Event(), threading.Event()
    watchdog = Watchdog(found.set, every=0.005, say_within=30)
    thread = threading.Thread(target=hang_here, args=(watchdog, release))
    thread.start()
    assert found.wait(10)
    release.set()
    thread.join(10)
    [record] = caplog.records
    assert record.event == "loop_hangs"
    assert "hang_here" in record.stack


def test_a_log_that_hangs_keeps_nobody():
    """A full pipe with nobody at its other end: what hangs the loop would hang the watchdog, too."""
    found, release = threading.Event(), threading.Event()

    class FullPipe(logging.Handler):
        def emit(self, record):
            release.wait(30)

    handler = FullPipe()
    logging.getLogger("beatd.beat.watchdog").addHandler(handler)
    try:
        Watchdog(found.set, every=0.001, say_within=0.01).start()
        assert found.wait(10)
    finally:
        release.set()
        logging.getLogger("beatd.beat.watchdog").removeHandler(handler)


def test_every_turn_begins_the_count_again():
    hangs = []
    watchdog = Watchdog(lambda: hangs.append(True))
    for _ in range(3):
        assert not any(watchdog.look() for _ in range(LOOKS - 1))
        watchdog()
        assert not watchdog.look()
    assert [watchdog.look() for _ in range(LOOKS)] == [*[False] * (LOOKS - 1), True]


def test_a_stopped_watchdog_finds_nothing():
    hangs = []
    watchdog = Watchdog(lambda: hangs.append(True), every=0.001)
    watchdog.stop()
    watchdog.start()
    watchdog._thread.join(10)
    assert not watchdog._thread.is_alive()
    assert hangs == []


def test_the_thread_has_ended_when_it_was_stopped():
    watchdog = Watchdog(lambda: None)
    watchdog.start()
    watchdog.stop()
    assert not watchdog._thread.is_alive()


def test_a_process_without_further_threads_is_ended_without_a_word(monkeypatch):
    found = threading.Event()
    watchdog, start = Watchdog(found.set, every=0.001), threading.Thread.start

    def limited(thread):
        if thread.name == "watchdog-log":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    watchdog.start()
    assert found.wait(10)
