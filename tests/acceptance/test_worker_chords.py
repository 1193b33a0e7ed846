"""Chords whose tasks end in ways that no task can tell of: killed, expired, unknown; and a store that goes away."""

from __future__ import annotations

import re

import pytest

from beatd import App, chord, group
from beatd.exceptions import ChordError

TASKS = """
import os, signal, time
from beatd import App
app = App("proj", broker={url!r}, backend={url!r})

@app.task
def echo(x):
    return x

@app.task
def total(numbers):
    return sum(numbers)

@app.task
def dies():
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(time_limit=0.5)
def endless():
    time.sleep(60)

@app.task(ignore_result=True)
def secret(x):
    return x

@app.task(ignore_result=True)
def unsayable():
    return object()

@app.task
def slow(x):
    time.sleep(1)
    return x
"""


@pytest.fixture
def app(tmp_path, redis_url, start_beatd):
    (tmp_path / "proj.py").write_text(TASKS.format(url=redis_url))
    worker = start_beatd("worker", "-A", "proj", "-c", "2")
    app = App("client", broker=redis_url, backend=redis_url, set_as_current=False)
    app.worker = worker
    worker.expect(r"ready\.")
    yield app
    app.close()


def call(app, name, *args, **options):
    return app.signature(f"proj.{name}", args, **options)


def test_a_header_always_ends(app):
    total = call(app, "total")
    endings = {
        "dies": (call(app, "dies"), "Worker exited prematurely"),
        "endless": (call(app, "endless"), "TimeLimitExceeded"),
        "unknown": (call(app, "nobody"), "NotRegistered"),
        "expired": (call(app, "echo", 1, expires=-5), "expired"),
        "unsayable": (call(app, "unsayable"), "JSON cannot carry"),
    }
    results = {name: chord([call(app, "echo", 1), bad], total)() for name, (bad, _) in endings.items()}
    chains = {
        name: (bad | call(app, "echo") | total).apply_async()
        for name, (bad, _) in endings.items()
        if name != "unsayable"
    }
    for name, result in results.items():
        with pytest.raises(ChordError, match=endings[name][1]):
            result.get(timeout=30, follow_parents=False)
    for name, result in chains.items():
        error = result.get(timeout=30, propagate=False)
        assert re.search(endings[name][1], repr(error)), name
    assert chord([call(app, "secret", 1), call(app, "echo", 2)], total)().get(timeout=30) == 3
    app.worker.expect("Chord .*: Dependency", times=len(endings))
    assert len(app.worker.find("Chord .*: Dependency")) == len(endings)


def test_a_large_header(app):
    result = chord((call(app, "echo", n) for n in range(500)), call(app, "total"))()
    assert result.get(timeout=60) == sum(range(500))
    assert group(call(app, "echo", n) for n in range(300))().get(timeout=60) == list(range(300))


def test_a_store_that_goes_away_loses_no_chord(app, start_beatd, redis_server):
    result = chord([call(app, "slow", n) for n in range(4)], call(app, "total"))()
    app.worker.expect(r"Task proj.slow\[.*received", times=2)
    redis_server.pause()
    try:
        app.worker.expect(r"A server is away", timeout=30)
    finally:
        redis_server.resume()
    assert result.get(timeout=60) == 6
