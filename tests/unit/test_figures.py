"""The harness of the benchmarks: medians and spreads, ratios that point the right way, pictures that are XML."""

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "figures.py"
SPEC = importlib.util.spec_from_file_location("benchmark_figures", PATH)
figures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figures)
Figure = figures.Figure

TAKEN = [
    Figure("herd", "messages a second", "beatd", 60_000),
    Figure("herd", "messages a second", "celery beat", 80),
    Figure("herd", "messages a second", "limit: server", 120_000),
    Figure("herd", "messages a second", "beatd", 66_000),
    Figure("herd", "messages a second", "beatd", 63_000),
    Figure("trip", "p50", "beatd", 0.5, "ms", more_is_better=False),
    Figure("trip", "p50", "huey <old>", 1.5, "ms", more_is_better=False),
    Figure("trip", "p50", "worse", float("nan"), "ms", more_is_better=False),
]


def test_a_row_has_medians_spreads_and_ratios():
    herd, trip = figures.table(figures.lines(TAKEN)).splitlines()[2:]
    assert "63,000/s (60,000–66,000)" in herd
    assert "787.5 ×" in herd
    assert "52 %" in herd
    assert "0.500 ms" in trip
    assert "3.0 ×" in trip


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 s"), (0.01234, "0.0123 s"), (1.5, "1.50 s"), (99.9, "99.9 s"), (12_345.6, "12,346 s")]
)
def test_numbers_have_three_digits(value, text):
    assert figures.number(value, "s") == text


def test_what_is_written_can_be_read(tmp_path):
    stale = tmp_path / "quick-99.svg"
    stale.write_text("of an earlier run")
    written = figures.write(TAKEN, tmp_path, "quick", ["a remark"])
    assert "a remark" in written.read_text()
    assert not stale.exists()
    pictures = sorted(tmp_path.glob("*.svg"))
    assert [one.name for one in pictures] == ["quick-00.svg", "quick-01.svg"]
    for one in pictures:
        assert ET.fromstring(one.read_text()).tag.endswith("svg")
        assert f"({one.name})" in written.read_text()
    assert len(json.loads((tmp_path / "quick.json").read_text())) == len(TAKEN)


def test_a_curve_is_a_picture():
    text = figures.curve("memory", "entries", "MB", {"a": [(100, 1.5), (10_000, 160)], "b": [(100, 0), (1_000, 3)]})
    assert len(ET.fromstring(text).findall(".//{*}polyline")) == 2
