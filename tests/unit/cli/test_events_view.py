"""The screen of ``beatd events``: the newest task first, never wider than the terminal."""

import pytest

from beatd.cli.events import print_event
from beatd.cli.events_view import KEPT, EventsView
from beatd.cli.output import cell_len


def event(kind: str, number: int = 0, **more: object) -> dict[str, object]:
    return {"type": kind, "hostname": "w@h", "uuid": f"id-{number}", "timestamp": 1_000.0 + number, **more}


def test_tasks_and_workers_are_followed_and_selected() -> None:
    view = EventsView()
    view.take({"type": "worker-heartbeat", "hostname": "w@h"})
    view.take({"type": "worker-offline", "hostname": "x@h"})
    view.take(event("task-received", 1, name="proj.add", args="(1, 2)", kwargs="{}"))
    view.take(event("task-received", 2, name="proj.sub"))
    view.take(event("task-succeeded", 1, result="3", runtime=0.5))
    text = "\n".join(line for line, _ in view.lines(80, 24))
    assert "5 events, 1 of 2 workers online" in text
    assert text.index("proj.add id-1") < text.index("proj.sub id-2")
    assert "succeeded" in text
    view.press("down", 24)
    lines = view.lines(80, 24)
    assert [line.split()[1:3] for line, style in lines if style == "selected"] == [["succeeded", "proj.add"]]
    assert lines[-2][0] == "proj.add id-1: result 3, runtime 0.5"
    view.press("q", 24)
    assert view.is_over


def test_no_line_is_wider_than_the_terminal_and_names_control_nothing() -> None:
    view = EventsView()
    for number in range(100):
        view.take(event("task-started", number, name="日本語\x1b[2J" * 40, hostname="w" * 200))
    view.press("pagedown", 10)
    for width, height in ((80, 24), (40, 10), (20, 5)):
        lines = view.lines(width, height)
        assert len(lines) <= height
        assert max(cell_len(text) for text, _ in lines) < max(width, 42)
        assert all("\x1b" not in text for text, _ in lines)


def test_odd_events_and_many_of_them() -> None:
    view = EventsView()
    view.take({"type": "task-sent"})
    view.take({"type": "task-sent", "uuid": None, "timestamp": float("inf")})
    for number in range(KEPT + 10):
        view.take(event("task-sent", number))
    assert len(view._order()) == KEPT
    assert view.lines(80, 24)


def test_a_terminal_without_room_shows_nothing_and_ends():
    assert [text for text, _ in EventsView().lines(1, 24)] == [""] * 24


@pytest.mark.parametrize("stamp", [float("nan"), float("inf"), 10**400, "x", None, True, -1e300])
def test_a_moment_may_be_anything(stamp: object, capsys: pytest.CaptureFixture[str]) -> None:
    view = EventsView()
    view.take({"type": "task-sent", "uuid": "id", "timestamp": stamp})
    assert view.lines(80, 24)
    print_event({"type": "task-sent", "uuid": "id", "hostname": "w", "timestamp": stamp}, as_json=False)
    assert "task sent (id)" in capsys.readouterr().out
