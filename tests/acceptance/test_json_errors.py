"""Errors with ``--json`` while the store is there: names that it does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from beatd.cli import main

UNKNOWN = (
    *(
        ["describe", "nobody"],
        ["next", "nobody"],
        ["why", "nobody", "now"],
        ["history", "nobody"],
        ["run-info", "0" * 36],
    ),
    *(
        ["pause", "nobody"],
        ["resume", "nobody"],
        ["remove", "nobody"],
        ["stop-run", "0" * 36],
        ["notify", "test", "nobody"],
    ),
    *(["dead-letters", "show", "nobody"], ["backfill", "nobody", "--from", "-1h"], ["trigger", "nobody"], ["reload"]),
    *(["diff"], ["step-down"], ["inspect", "ping", "-t", "0.2"]),
)


@pytest.mark.parametrize("words", UNKNOWN, ids=" ".join)
def test_a_name_that_nothing_has(
    words: list[str], start_beatd: Any, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("beat.toml").write_text(f'[redis]\nurl = "{redis_url}"\n[beat_schedule.entry]\ntask = "t"\nschedule = "1h"\n')
    if words[0] in ("backfill", "trigger"):  # the leader says no
        start_beatd("run").expect("in force")
    done = CliRunner().invoke(main, [*words, "--json"])
    document = json.loads(done.stdout)
    if words[0] == "resume":  # a pattern may match nothing
        assert (done.exit_code, "error" in document) == (0, False)
        return
    assert done.exit_code == document["exit_code"] != 0
    assert " ".join(document["error"].split()) in " ".join(done.stderr.split())
