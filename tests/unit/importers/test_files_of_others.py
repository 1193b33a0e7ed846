"""Files of other schedulers: Kubernetes, dkron, cronstable, GitHub Actions, systemd. All that is carried over loads."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from beatd.exceptions import ConfigError
from beatd.importers import carry_over
from beatd.importers.cronstable import read_cronstable
from beatd.importers.dkron import read_dkron
from beatd.importers.github_actions import read_github_actions
from beatd.importers.kubernetes import read_kubernetes
from beatd.importers.systemd_timers import read_systemd

DATA = Path(__file__).parents[2] / "data" / "importers"


def carried(found):
    done = carry_over(found)
    return tomllib.loads(done.toml).get("beat_schedule", {}), [str(note) for note in done.notes]


def read(name, reader, **more):
    return reader((DATA / name).read_bytes(), shown=name, **more)


def test_kubernetes():
    found = read("kubernetes.yaml", read_kubernetes)
    tables, notes = carried(found)
    assert tables == {
        "report": {
            "task": "beatd.command",
            "schedule": "*/15 8-18 * * 1-5",
            "timezone": "Europe/Berlin",
            "args": ["python", "-m", "shop.report", "--day", "$(DAY)"],
            "kwargs": {"env": {"DAY": "mon"}, "cwd": "/srv", "timeout": 600},
            "overlap": "skip",
            "catch_up_window": "2m",
        },
        "clean": {
            "task": "beatd.command",
            "schedule": "1h30m",
            "args": ["clean"],
            "enabled": False,
            "overlap": "skip",
        },
    }
    assert found.last_runs == {"report": 1_795_688_100_000}
    assert "report: image: shop:1.2 is not used: the program must be in the image of the worker" in notes
    assert "report: env: PASSWORD: from a secret or config map; give it to the worker, which passes it on" in notes
    assert "report: backoffLimit: a failed run is not repeated" in notes
    assert "report: template: not carried over: serviceAccountName" in notes
    assert any(note.startswith("clean: concurrencyPolicy: Replace ends the run before") for note in notes)
    assert any(note.startswith("kubernetes.yaml:42: its container has no command") for note in notes)


def test_dkron():
    found = read("dkron.json", read_dkron)
    tables, notes = carried(found)
    assert tables == {
        "backup": {
            "task": "beatd.command",
            "schedule": "0 30 2 * * *",
            "timezone": "Europe/Berlin",
            "args": ["/bin/backup", "--all", "a b"],
            "kwargs": {"env": {"A": "1", "B": "2"}, "cwd": "/srv", "timeout": 60},
            "overlap": "skip",
        },
        "ping": {
            "task": "beatd.http",
            "schedule": "1m30s",
            "args": ["https://example.com/x", "POST"],
            "kwargs": {"body": "{}", "headers": {"A": "b"}, "expect": [200, 204], "timeout": 30},
        },
        "spread": {
            "task": "beatd.command",
            "schedule": "0 48 19 * * *",
            "args": ["/bin/sh", "-c", "echo $X | cat"],
            "enabled": False,
        },
        "once": {"task": "beatd.command", "schedule": {"at": "2035-01-02T15:04:05Z"}, "args": ["true"]},
    }
    assert found.last_runs == {"backup": 1_795_656_601_500}
    assert "backup: job: not carried over: tags" in notes
    assert "by-hand: schedule: @manually: it has no time; beatd trigger runs entries by hand" in notes
    assert "child: it runs after backup: make them one entry whose task is a chain" in notes
    assert "kafka: the executor kafka has no counterpart" in notes


def test_cronstable():
    tables, notes = carried(read("cronstable.yaml", read_cronstable))
    assert tables == {
        "first": {
            "task": "beatd.command",
            "schedule": "*/5 * * * *",
            "timezone": "Europe/Berlin",
            "args": ["/bin/bash", "-c", 'echo "$${A}"'],
            "kwargs": {"env": {"A": "1"}, "timeout": 30, "kill_after": 2.5},
            "overlap": "skip",
            "catch_up": "all",
            "catch_up_window": "1h",
        },
        "fields": {
            "task": "beatd.command",
            "schedule": "30 0 6 * * mon-fri",
            "args": ["/bin/true", "-x"],
            "kwargs": {"env": {"A": "1"}, "user": "nobody"},
            "enabled": False,
        },
        "seconds": {
            "task": "beatd.command",
            "schedule": "*/10 * * * * *",
            "args": ["/bin/bash", "-c", "true"],
            "kwargs": {"env": {"A": "1"}},
        },
    }
    assert "cronstable.yaml: include: other.yaml is not read: import it, too" in notes
    assert "first: job: not carried over: onFailure" in notes
    assert 'cronstable.yaml:23: schedule: the year "2030" has no field: use start and end' in notes
    assert "cronstable.yaml:26: schedule: @reboot is not supported: it is not a time" in notes
    assert any(note.startswith("seconds: utc: is false") for note in notes)


def test_github_actions():
    tables, notes = carried(read("workflow.yaml", read_github_actions))
    script = "make\nmake report\n(cd 'out'\nexport TOKEN='${{ secrets.TOKEN }}'\n./send it's)"
    assert tables == {
        "Nightly build": {
            "task": "beatd.command",
            "schedule": ["30 5 * * 1,3", "0 12 * * *"],
            "args": ["/bin/bash", "-e", "-c", script.replace("${{", "$${{")],
            "kwargs": {"env": {"MODE": "fast"}, "timeout": 600},
        }
    }
    assert any("actions/checkout@v4" in note for note in notes)
    assert "Nightly build: steps: left out: acme/notify@v1" in notes
    assert any("secrets.X" in note for note in notes)
    assert any(note.startswith("workflow.yaml:21: the job other is another workflow") for note in notes)


TIMER = """
[Unit]
Description=x
[Timer]
OnCalendar=Mon..Fri *-*-* 07:30:00 Europe/Berlin
OnCalendar=
OnCalendar=*-*-* 04:00 Europe/Berlin
Persistent=true
RandomizedDelaySec=5min
"""
SERVICE = """
[Service]
Type=oneshot
ExecStartPre=/bin/x
ExecStart=-/usr/bin/tool --a "b c" \\
  100%%
ExecStart=/bin/second
User=nobody
WorkingDirectory=/srv
Environment=A=1 "B=2 3"
TimeoutStartSec=1min 30s
"""


def test_systemd(tmp_path):
    (tmp_path / "tool.timer").write_text(TIMER)
    (tmp_path / "tool.service").write_text(SERVICE)
    (tmp_path / "poll.timer").write_text("[Timer]\nOnBootSec=1min\nOnUnitActiveSec=15min\nUnit=tool.service\n")
    (tmp_path / "boot.timer").write_text("[Timer]\nOnBootSec=1min\nUnit=tool.service\n")
    (tmp_path / "alone.timer").write_text("[Timer]\nOnCalendar=daily\n")
    (tmp_path / "odd.timer").write_text("\n[Timer]\nOnCalendar=2030..2031-01-01\nUnit=tool.service\n")
    (tmp_path / "bad.timer").write_text("[Timer]\nwhat is this\n")
    tables, notes = carried(read_systemd(tmp_path))
    program = {
        "task": "beatd.command",
        "args": ["/bin/sh", "-c", "/usr/bin/tool --a 'b c' 100% && /bin/second"],
        "kwargs": {"env": {"A": "1", "B": "2 3"}, "cwd": "/srv", "user": "nobody", "timeout": 90},
    }
    assert tables == {
        "tool": {**program, "schedule": "0 4 * * *", "timezone": "Europe/Berlin", "jitter": "5m"},
        "poll": {**program, "schedule": {"every": "15m", "relative": True}},
    }
    joined = "\n".join(notes)
    assert "tool: Service: not carried over: ExecStartPre" in joined
    assert "boot.timer: it has no OnCalendar and no OnUnitActiveSec" in joined
    assert "alone.timer: its unit alone.service is not beside it" in joined
    assert "odd.timer: line 3: OnCalendar=2030..2031-01-01: " in joined
    assert "bad.timer:2: is no setting of a unit: what is this" in joined


@pytest.mark.parametrize(
    ("reader", "data", "told"),
    [
        (read_kubernetes, b"a: [1\n", "f:2: is no YAML: "),
        (read_kubernetes, b"a: !Ref x\n", "f:1: is no YAML: could not determine a constructor"),
        (read_kubernetes, b"\x00", "f: is no YAML: "),
        (read_kubernetes, b"a: &a [*a]\nb: [*c]\n", "f:2: is no YAML: found undefined alias"),
        (read_dkron, b"[1,\n{]", "f:2:2: is no JSON: "),
        (read_dkron, b"3", "expected a list of jobs, or one job"),
        (read_dkron, b"[" * 100_000, "is no JSON: "),
        (read_cronstable, b"{" * 300, "is no YAML"),
        (read_github_actions, b"\xff\xfe\xfd", "is no YAML"),
    ],
)
def test_what_is_no_file_of_that_kind_is_refused_in_a_line(reader, data, told):
    with pytest.raises(ConfigError) as refused:
        reader(data, shown="f")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("reader", [read_kubernetes, read_cronstable, read_github_actions, read_dkron])
@pytest.mark.parametrize(
    "data", [b"{}", b"[]", b'[1, "a", null]', b'{"jobs": 3, "on": 3, "kind": "CronJob", "spec": []}']
)
def test_what_has_nothing_in_it_is_noted(reader, data):
    tables, _ = carried(reader(data, shown="f"))
    assert tables == {}


def test_kubernetes_lists_and_templates():
    tables, notes = carried(read("kubernetes-mixed.yaml", read_kubernetes))
    assert {name: table["schedule"] for name, table in tables.items()} == {
        "shop-report": "30 2 * * *",
        "old": "@hourly",
    }
    assert (tables["shop-report"]["timezone"], tables["old"]["enabled"]) == ("Europe/Paris", False)
    assert "shop-report: container: not carried over: envFrom, resources" in notes
    assert any(
        note.startswith('inlist (kubernetes-mixed.yaml:49): timezone: unknown time zone "Mars/X"') for note in notes
    )
    assert any(note.startswith("tz (kubernetes-mixed.yaml:55): schedule: ") for note in notes)
    with pytest.raises(ConfigError, match=r"kubernetes-helm.yaml:7: is no YAML: .*Import what helm template prints"):
        read("kubernetes-helm.yaml", read_kubernetes)


def test_an_export_of_dkron():
    tables, notes = carried(read("dkron-export.json", read_dkron))
    assert {name: table["schedule"] for name, table in tables.items()} == {
        "job1": "10s",
        "j3": "0 0 2 * * *",
        "j5": "@yearly",
        "j7": "0 30 9 * * *",
        "j8": "0 0 0 ? * MON-FRI",
    }
    assert tables["j7"]["timezone"] == "Asia/Tokyo"
    assert "j3: executor_config: not carried over: expectBody, tlsNoVerifyPeer" in notes
    assert "j3: headers: Authorization is in the file now: write ${NAME} and set that variable" in notes
    assert "j8: executor_config: not carried over: allowed_exitcodes, mem_limit_kb, project" in notes
    assert not any(note.startswith(("job1: timezone", "j7: timezone")) for note in notes)


def test_github_actions_that_no_shell_can_run():
    tables, notes = carried(read("github-mixed.yaml", read_github_actions))
    assert tables.keys() == {"CI gated"}
    told = "the job build has a step for the shell python: only bash and sh have a counterpart"
    assert f"github-mixed.yaml:13: {told}" in notes
    document = (DATA / "github-mixed.yaml").read_bytes().replace(b"shell: python", b"shell: bash -e {0}")
    document = document.replace(b"- cron: '0 0 * * 0'", b"- cron: '0 0 * * 0'\n      timezone: Asia/Tokyo")
    tables, notes = carried(read_github_actions(document, shown="x.yaml"))
    assert not tables
    assert "x.yaml:14: on.schedule: several time zones in one workflow: write an entry for each" in notes
    document = document.replace(b"* 1,3'\n    - cron", b"* 1,3'\n      timezone: Asia/Tokyo\n    - cron")
    tables, notes = carried(read_github_actions(document, shown="x.yaml"))
    assert tables["CI build"]["timezone"] == "Asia/Tokyo"
    assert "CI build: steps: not carried over: continue-on-error" in notes
    _, notes = carried(read("kubernetes.yaml", read_github_actions))
    assert notes[0] == "kubernetes.yaml:1: expected a workflow with a cron under on.schedule"


def test_a_file_without_jobs():
    _, notes = carried(read("github-mixed.yaml", read_cronstable))
    assert "github-mixed.yaml: has no jobs: expected a list under jobs" in notes
