"""Messages: short for people, complete for programs, and without secrets."""

from __future__ import annotations

from beatd.model import NotifyTarget
from beatd.notify.message import listed, message, trial
from beatd.planning.alerts import Changes, Condition, Subject, ToldCondition

NOW = 1_800_000_000_000
TARGET = NotifyTarget(name="ops", webhook="https://example.com/SECRET")


def changes(begun=(), over=()) -> Changes:
    return Changes(dict(begun), {}, dict(over), frozenset())


def test_one_failure_is_one_line_with_its_error():
    found = changes({Subject("failure", "invoices"): Condition(NOW - 60_000, 2)}.items())
    body = message(TARGET, found, NOW, {"invoices": "ValueError: password=hunter2\nsecond line"}, "beatd")
    assert body["title"] == "beatd: invoices fails"
    assert body["text"] == (
        "invoices fails since 2027-01-15 07:59:00 UTC (2 in a row): ValueError: password=*** second line"
    )
    assert body["problems"] == [
        {
            "kind": "failure",
            "subject": "invoices",
            "since": "2027-01-15T07:59:00.000+00:00",
            "failures": 2,
            "reason": "ValueError: password=*** second line",
        }
    ]


def test_a_herd_is_a_number_and_ten_names():
    begun = [(Subject("failure", f"entry-{n:05}"), Condition(NOW)) for n in range(10_000)]
    found = changes(begun, [(Subject("overdue", "late"), ToldCondition(NOW - 90_000, NOW))])
    body = message(TARGET, found, NOW, {}, "beatd")
    lines = body["text"].splitlines()
    assert lines[0] == "beatd: 10,000 entries fail; late is not overdue any more"
    assert lines[11] == "and 9,990 more; see beatd status"
    assert lines[12] == "late is not overdue any more; it lasted 1 min 30 s"
    assert (len(lines), len(body["problems"]), body["problems_count"]) == (13, 100, 10_000)
    assert len(listed(found)) == 10


def test_names_cannot_break_lines():
    found = changes([(Subject("held", "a\nb"), Condition(NOW, text="x\ny"))])
    assert message(TARGET, found, NOW, {}, "p")["text"].count("\n") == 0


def test_a_trial_says_so():
    assert trial(TARGET, NOW, "beatd")["text"] == "test message of beatd to the target ops"


def test_reasons_cannot_stop_a_command_or_control_a_terminal():
    found = changes([(Subject("failure", "a"), Condition(NOW))])
    body = message(TARGET, found, NOW, {"a": "no\x00 \x1b[2J\ud800"}, "p")
    assert body["text"].endswith(r"no\x00 \x1b[2J\ud800")
    assert body["problems"][0]["reason"] == r"no\x00 \x1b[2J\ud800"
