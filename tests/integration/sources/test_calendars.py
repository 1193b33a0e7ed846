"""Calendars of files and servers: read again, the last good one kept, and shared blackouts by name."""

import contextlib
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from beatd.exceptions import ConfigError
from beatd.redaction import redacted
from beatd.schedules import zone
from beatd.schedules.calendars import EventCalendar, event_window
from beatd.sources import load
from beatd.sources.calendars import COPIES_MAX, Calendars

EVENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//x//y//EN
BEGIN:VEVENT
UID:1
DTSTART:{0}T000000Z
DTEND:{0}T230000Z
END:VEVENT
END:VCALENDAR
"""
NOON = 43_200_000
DAY_1, DAY_2 = 1_767_225_600_000 + NOON, 1_767_312_000_000 + NOON


def blackout_of(path, name="a"):
    return next(entry.policies.blackout for entry in load(path).entries if entry.name == name)


def test_a_file_is_read_again_and_its_last_good_state_kept(tmp_path):
    (tmp_path / "beat.toml").write_text(
        '[beat_schedule.a]\ntask = "t"\nschedule = "@daily"\nblackout = { ics = "days.ics" }\n'
    )
    (tmp_path / "days.ics").write_text(EVENT.format("20260101"))
    blackout = blackout_of(tmp_path / "beat.toml")
    assert (blackout.covers_ms(DAY_1), blackout.covers_ms(DAY_2)) == (True, False)
    calendars = Calendars(str(tmp_path))
    (tmp_path / "days.ics").write_text("not a calendar")
    [fault] = calendars.look()
    assert "the calendar days.ics cannot be read" in str(fault)
    assert "is used" in str(fault)
    assert blackout.covers_ms(DAY_1)
    (tmp_path / "days.ics").write_text(EVENT.format("20260102"))
    assert calendars.look() == []
    assert (blackout.covers_ms(DAY_1), blackout.covers_ms(DAY_2)) == (False, True)
    (tmp_path / "days.ics").unlink()
    assert len(calendars.look()) == 1
    assert len(load(tmp_path / "beat.toml").remarks) == 1


def test_a_defect_of_who_is_told_does_not_end_the_reading(tmp_path, wait_until, monkeypatch, caplog):
    monkeypatch.setattr("beatd.sources.calendars.LOOK_S", 0.05)
    (tmp_path / "beat.toml").write_text(
        '[beat_schedule.a]\ntask = "t"\nschedule = "@daily"\nblackout = { ics = "days.ics" }\n'
    )
    (tmp_path / "days.ics").write_text(EVENT.format("20260101"))
    blackout, looks = blackout_of(tmp_path / "beat.toml"), []

    def told(faults):
        looks.append(faults)
        if len(looks) == 1:
            raise ZeroDivisionError("a defect")

    calendars = Calendars(str(tmp_path))
    calendars.start(told)
    try:
        wait_until(lambda: len(looks) > 1, what="the next look")
        (tmp_path / "days.ics").write_text(EVENT.format("20260102"))
        wait_until(lambda: blackout.covers_ms(DAY_2), what="the changed calendar")
    finally:
        calendars.stop()
    (said,) = [record for record in caplog.records if getattr(record, "event", "") == "calendars_error"]
    assert said.getMessage() == "Reading calendars failed in an unexpected way"
    assert said.exc_info, "a defect is reported with its traceback"


def test_a_url_is_fetched_and_its_query_is_not_shown(tmp_path):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if "hunter2" in self.path else 403)
            self.end_headers()
            self.wfile.write(EVENT.format("20260101").encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/days.ics?token="
        entry = '[beat_schedule.{}]\ntask = "t"\nschedule = "@daily"\nblackout = {{ ics = "{}" }}\n'
        (tmp_path / "beat.toml").write_text(entry.format("a", url + "hunter2") + entry.format("b", url + "other"))
        loaded = load(tmp_path / "beat.toml")
        server.shutdown()
    first, second = (entry.policies.blackout for entry in loaded.entries)
    assert first.covers_ms(DAY_1)
    assert not second.covers_ms(DAY_1)
    [fault] = loaded.remarks
    assert "403" in str(fault)
    assert "token" not in str(fault)


def test_shared_blackouts_have_names(tmp_path):
    (tmp_path / "more.toml").write_text(
        '[beat_schedule.c]\ntask = "t"\nschedule = "@daily"\nblackout = ["nights", "2026-01-01"]\n'
    )
    (tmp_path / "beat.toml").write_text(
        'include = ["more.toml"]\n[blackout]\n'
        'nights = "22:00-06:00"\nnoon = [{ cron = "0 12 * * *", duration = "1h" }]\n'
        '[blackout.both]\nwindows = ["22:00-06:00", "2026-01-02"]\n[defaults]\nblackout = "noon"\n'
        '[beat_schedule.a]\ntask = "t"\nschedule = "@daily"\n'
        '[beat_schedule.b]\ntask = "t"\nschedule = "@daily"\nblackout = "both"\nonly_on = "business-days"\n'
    )
    path = tmp_path / "beat.toml"
    assert blackout_of(path, "a").notation == [{"cron": "0 12 * * *", "duration": "1h"}]
    assert blackout_of(path, "b").notation == ["22:00-06:00", "2026-01-02", {"only_on": "business-days"}]
    assert blackout_of(path, "c").notation == ["22:00-06:00", "2026-01-01"]
    path.write_text(path.read_text().replace('"both"', '"bath"'))
    with pytest.raises(ConfigError, match=r'beat_schedule.b.blackout: "bath" is not a blackout'):
        load(path)
    path.write_text('[blackout]\n"1 x" = "22:00-06:00"\ny = "25:00-26:00"\nz = { windows = [] }\n')
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [fault.path for fault in caught.value.faults] == ['blackout."1 x"', "blackout.y", "blackout.z.windows"]


def test_the_copy_of_a_url_survives_a_restart(tmp_path, caplog):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(EVENT.format("20260101").encode())

        def log_message(self, *_):
            pass

    copies = tmp_path / "state" / "calendars"
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        calendar = EventCalendar(f"http://127.0.0.1:{server.server_port}/restart.ics?token=hunter2")
        Calendars(str(tmp_path), copies)._look_at(calendar)
        assert not copies.exists()  # only a daemon writes
        Calendars(str(tmp_path), copies, writes=True)._look_at(calendar)
        server.shutdown()
    [copy] = copies.iterdir()
    assert (copy.stat().st_mode & 0o777, copies.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "hunter2" not in copy.name

    after = EventCalendar(calendar.place)
    Calendars(str(tmp_path), copies, writes=True)._look_at(after)
    assert "refused" in after.error
    assert after.stretches(2026, zone("UTC")) == calendar.stretches(2026, zone("UTC")) != ()
    copy.write_text("broken")
    broken = EventCalendar(calendar.place)
    Calendars(str(tmp_path), copies)._look_at(broken)
    assert (broken.read_ms, broken.stretches(2026, zone("UTC"))) == (None, ())


def test_copies_are_bounded_and_a_directory_that_cannot_be_written_is_told(tmp_path, caplog):
    calendars = Calendars(str(tmp_path), tmp_path / "copies", writes=True)
    for number in range(COPIES_MAX + 5):
        calendars._keep(f"http://x/{number}", b"x")
    assert len(list((tmp_path / "copies").iterdir())) == COPIES_MAX
    (tmp_path / "file").write_text("")
    Calendars(str(tmp_path), tmp_path / "file" / "copies", writes=True)._keep("http://x/", b"x")
    assert caplog.records[-1].event == "calendar_not_kept"


@pytest.mark.parametrize("says_length", [False, True])
def test_a_server_that_answers_for_ever_is_waited_for_a_while_only(tmp_path, monkeypatch, says_length):
    """A byte now and then exceeds no timeout of a socket. A reload waits for this."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            if says_length:
                self.send_header("Content-Length", "1000000")
            self.end_headers()
            text = EVENT.format("20260101").encode()
            with contextlib.suppress(OSError):
                self.wfile.write(text)
                while not ended.wait(0.1):
                    self.wfile.write(b"\n")

        def log_message(self, *_):
            pass

    monkeypatch.setattr("beatd.sources.calendars.URL_TIMEOUT_S", 1.0)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        calendar = EventCalendar(f"http://127.0.0.1:{server.server_port}/slow.ics")
        looking = threading.Thread(target=Calendars(str(tmp_path))._look_at, args=(calendar,), daemon=True)
        looking.start()
        looking.join(10)
        is_over = not looking.is_alive()
        ended.set()
        server.shutdown()
    assert is_over
    assert "no whole answer within 1 s" in calendar.error
    assert calendar.read_ms is None


def test_the_address_of_a_private_calendar_is_shown_nowhere(caplog):
    """Its path is the secret, as of Google's "secret address in iCal format"."""
    caplog.set_level("INFO")
    calendars = Calendars(".")
    places = [f"http://127.0.0.1:1/private-hunter{number}/basic.ics?own=hunter{number}" for number in range(2)]
    made = [event_window(place, zone("UTC")).calendar for place in [*places, "http://127.0.0.1:1/hunter 2/x.ics"]]
    faults = calendars.look()
    assert len(faults) == 3
    texts = [*map(str, faults), *(calendar.error for calendar in made), repr(redacted({"ics": places[0]}))]
    assert all("hunter" not in text for text in texts), texts
    assert all("http://127.0.0.1:1/***" in text for text in texts[:3])
    said = {calendar.place: f"{number}" for number, calendar in enumerate(made)}
    calendars._log_changes(said)
    calendars._log_changes({places[0]: "0"})
    assert [record.event for record in caplog.records] == ["calendar_unreadable"] * 3 + ["calendar_read"] * 2
    assert "hunter" not in caplog.text


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.ics")
    made = event_window("pipe.ics", zone("UTC")).calendar
    Calendars(str(tmp_path))._look_at(made)
    assert made.error == "it is not a regular file"


def test_a_reload_fetches_no_calendar_that_was_fetched_lately(tmp_path, monkeypatch):
    """Else each change of the file would wait for each server, for ten seconds if it is away."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if "good" in self.path else 500)
            self.end_headers()
            self.wfile.write(EVENT.format("20260101").encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        places = [f'{{ ics = "{url}/{name}.ics" }}' for name in ("good", "bad")]
        text = f'[beat_schedule.a]\ntask = "t"\nschedule = "@daily"\nblackout = [{", ".join(places)}]\n'
        (tmp_path / "beat.toml").write_text(text)
        loads = [load(tmp_path / "beat.toml") for _ in range(3)]
        assert sorted(asked) == ["/bad.ics", "/good.ics"]
        assert [len(loaded.remarks) for loaded in loads] == [1, 1, 1]
        daemon = Calendars(str(tmp_path), tmp_path / "copies", writes=True)
        for _ in range(3):
            daemon.look()
        assert sorted(asked) == ["/bad.ics"] * 2 + ["/good.ics"] * 2, "once more, for the copy"
        monkeypatch.setattr("beatd.sources.calendars.URL_AGAIN_S", 0.0)
        daemon.look()
        assert asked.count("/bad.ics") == 3, "what failed is tried again soon"
        assert asked.count("/good.ics") == 2
        server.shutdown()
