"""Files of other schedulers: Kubernetes, dkron, cronstable, GitHub Actions, systemd. All that is carried over loads."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from beatd import config
from beatd.config.loader import load_settings
from beatd.config.writer import table_text
from beatd.exceptions import ConfigError
from beatd.importers import FoundSchedule, carry_over
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
    script = "(\nmake\nmake report\n)\n(\ncd 'out'\nexport TOKEN='${{ secrets.TOKEN }}'\n./send it's\n)"
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
        "args": ["/bin/sh", "-c", "{ /usr/bin/tool --a 'b c' 100% || :; } && /bin/second"],
        "kwargs": {"env": {"A": "1", "B": "2 3"}, "cwd": "/srv", "user": "nobody", "timeout": 90},
        "overlap": "skip",
    }
    times = {"schedule": "0 4 * * *", "timezone": "Europe/Berlin"}
    assert tables == {
        "tool": {**program, **times, "jitter": "5m", "catch_up_window": "366d"},
        "poll": {**program, "schedule": "15m"},
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


def one_timer(tmp_path, timer, service="ExecStart=/bin/a\n", unit=""):
    (tmp_path / "x.timer").write_text(f"[Unit]\n{unit}[Timer]\n{timer}")
    (tmp_path / "x.service").write_text(f"[Service]\n{service}")
    tables, notes = carried(read_systemd(tmp_path, timezone="UTC"))
    return tables["x"], "\n".join(notes)


@pytest.mark.parametrize(("span", "schedule"), [("90min", "1h30m"), ("36h", "1d12h"), ("1d", "1d"), ("5s", "5s")])
def test_an_interval_of_systemd_is_as_long_as_it_says(tmp_path, span, schedule):
    table, notes = one_timer(tmp_path, f"OnBootSec=1min\nOnUnitActiveSec={span}\n")
    assert (table["schedule"], table["overlap"]) == (schedule, "skip")
    assert "x: OnBootSec: not carried over: OnUnitActiveSec is the schedule" in notes


def test_every_trigger_of_a_timer_is_carried_over_or_said(tmp_path):
    triggers = "OnCalendar=daily\nOnUnitActiveSec=1h\nOnActiveSec=1min\nOnStartupSec=2min\nOnBootSec=3min\n"
    table, notes = one_timer(tmp_path, triggers)
    assert table["schedule"] == "0 0 * * *"
    for key in ("OnUnitActiveSec", "OnActiveSec", "OnStartupSec", "OnBootSec"):
        assert f"x: {key}: not carried over: OnCalendar is the schedule" in notes
    table, notes = one_timer(tmp_path, "OnUnitInactiveSec=1h\n")
    assert table["schedule"] == "1h"
    assert "x: OnUnitInactiveSec: counts from the end of a run" in notes


@pytest.mark.parametrize(
    ("service", "timeout"),
    [
        ("Type=oneshot\nTimeoutStartSec=0\n", None),
        ("Type=oneshot\nTimeoutStartSec=infinity\n", None),
        ("Type=oneshot\nTimeoutSec=20\nRuntimeMaxSec=5\n", 20),
        ("TimeoutStartSec=20\n", None),
        ("Type=exec\nTimeoutStartSec=20\nRuntimeMaxSec=1min\n", 60),
    ],
)
def test_a_run_is_ended_when_systemd_ends_it(tmp_path, service, timeout):
    table, _ = one_timer(tmp_path, "OnCalendar=daily\n", f"ExecStart=/bin/a\n{service}")
    assert table.get("kwargs", {}).get("timeout") == timeout


@pytest.mark.parametrize(
    ("commands", "args", "kwargs"),
    [
        ("ExecStart=-/bin/a b", ["/bin/a", "b"], {"check": False}),
        ("ExecStart=@/bin/a name b", ["/bin/a", "b"], {}),
        ("ExecStart=/bin/sh -c 'a ; echo $$(date +%%F)'", ["/bin/sh", "-c", "a ; echo $(date +%F)"], {}),
        ("ExecStart=/bin/a ; -/bin/b", ["/bin/sh", "-c", "/bin/a && { /bin/b || :; }"], {}),
        (r"ExecStart=/bin/find /x -exec ls {} \;", ["/bin/find", "/x", "-exec", "ls", "{}", ";"], {}),
        ("ExecStart=/bin/a \\\n# a comment\n; another\n  b", ["/bin/a", "b"], {}),
        ("ExecStart=/bin/a \\", ["/bin/a"], {}),
    ],
)
def test_commands_of_systemd(tmp_path, commands, args, kwargs):
    table, _ = one_timer(tmp_path, "OnCalendar=daily\n", f"User=x\n{commands}")
    assert (table["args"], table["kwargs"]) == (args, {"user": "x", **kwargs})


def test_what_systemd_has_beside_the_program_is_said(tmp_path):
    service = "ExecStart=+/bin/a\nGroup=g\nWorkingDirectory=~\nEnvironment=A=%h\nStandardOutput=append:/var/log/a\n"
    _, notes = one_timer(tmp_path, "OnCalendar=daily\n", service, "ConditionACPower=true\nDescription=x\n")
    for told in (
        "x: ExecStart: its privileges (+ or !) are not carried over",
        "x: Service: not carried over: Group",
        "x: WorkingDirectory: ~ is not carried over",
        "x: Environment: its specifiers",
        "x: StandardOutput: append:/var/log/a is not written",
        "x: User: a unit of the system ran as root",
        "x: Unit.ConditionACPower: not carried over",
    ):
        assert told in notes
    assert "Description" not in notes


def test_drop_ins_and_templates_of_systemd(tmp_path):
    for name, text in {
        "x.timer.d/a.conf": "[Timer]\nOnCalendar=\nOnCalendar=03:00\n",
        "x.service.d/override.conf": "[Service]\nExecStart=\nExecStart=/bin/b\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "t@.timer").write_text("[Timer]\nOnCalendar=daily\n")
    (tmp_path / "t@.service").write_text("[Service]\nExecStart=/bin/a %i\n")
    table, notes = one_timer(tmp_path, "OnCalendar=daily\n")
    assert (table["schedule"], table["args"]) == ("0 3 * * *", ["/bin/b"])
    assert "t@.timer: is a template: write an entry for each of its instances" in notes
    (tmp_path / "x.timer.d" / "a.conf").write_text("[Timer]\n\nOnCalendar=2030..2031-01-01\n")
    (tmp_path / "x.timer").write_text("[Timer]\n")
    _, notes = carried(read_systemd(tmp_path))
    assert any("x.timer: a.conf:3: OnCalendar=2030..2031-01-01: " in note for note in notes)


CRON_JOB = """
kind: CronJob
metadata: {name: x}
spec:
  schedule: "SCHEDULE"
  suspend: yes
  jobTemplate: {spec: {template: {spec: {containers: [
    {name: a, image: b, command: [/bin/x, 12:30, 1.10, 0755, 2026-01-01, no], env: [{name: V, value: 1_000}]}]}}}}
"""


@pytest.mark.parametrize(
    ("written", "schedule"),
    [
        ("0 0 */2 * 1", "0 0 1-31/2 * 1"),
        ("0 0 1 * */2,5", "0 0 1 * 0-6/2,5"),
        ("0 0 */2 * *", "0 0 */2 * *"),
        ("0 0 */1 * 1", "0 0 */1 * 1"),
        ("0 0 ? * 1", "0 0 ? * 1"),
        ("*/5 */2 * * 1", "*/5 */2 * * 1"),
    ],
)
def test_a_star_with_a_step_restricts_the_days_of_kubernetes(written, schedule):
    tables, _ = carried(read_kubernetes(CRON_JOB.replace("SCHEDULE", written).encode(), shown="f"))
    assert tables["x"]["schedule"] == schedule


@pytest.mark.parametrize(("written", "timeout"), [("0s", None), ("0", None), ("1.5s", 1.5)])
def test_no_limit_of_dkron(written, timeout):
    job = {"name": "x", "schedule": "@daily", "executor": "shell"}
    job["executor_config"] = {"command": "a", "timeout": written}
    table = carried(read_dkron(json.dumps(job).encode(), shown="f"))[0]["x"]
    assert table.get("kwargs", {}).get("timeout") == timeout


def test_days_of_dkron():
    job = b'{"name": "x", "schedule": "0 0 0 */2 * 1", "executor": "shell", "executor_config": {"command": "a"}}'
    assert carried(read_dkron(job, shown="f"))[0]["x"]["schedule"] == "0 0 0 1-31/2 * 1"


def test_scalars_of_yaml_stay_as_they_are_written():
    tables, _ = carried(read_kubernetes(CRON_JOB.replace("SCHEDULE", "@daily").encode(), shown="f"))
    assert tables["x"]["args"] == ["/bin/x", "12:30", "1.10", "0755", "2026-01-01", "no"]
    assert tables["x"]["kwargs"] == {"env": {"V": "1_000"}}
    assert tables["x"]["enabled"] is False


def test_defaults_of_cronstable_are_joined():
    text = b"""
defaults:
  environment: [{key: A, value: yes}, {key: B, value: 1}]
  shell: /bin/bash
jobs:
  - {name: x, command: a, schedule: "@daily", enabled: no, environment: [{key: B, value: 2}, {key: C, value: 3.10}]}
"""
    tables, _ = carried(read_cronstable(text, shown="f"))
    assert tables["x"]["kwargs"] == {"env": {"A": "yes", "B": "2", "C": "3.10"}}
    assert (tables["x"]["args"][0], tables["x"]["enabled"]) == ("/bin/bash", False)


WORKFLOW = """
name: W
on: {schedule: [{cron: "0 3 * * *"}]}
concurrency: one
defaults: {run: {working-directory: FOLDER}}
jobs:
  a:
    steps:
      - run: |
          cd sub
          x=1
          exit 0  # enough
      - run: "echo none$x $(basename $PWD) # a comment"
        env: {V: a}
      - run: basename $PWD
        working-directory: FOLDER/sub
"""


def test_each_step_of_github_has_a_shell_of_its_own(tmp_path):
    (tmp_path / "sub").mkdir()
    text = WORKFLOW.replace("FOLDER", str(tmp_path)).encode()
    tables, notes = carried(read_github_actions(text, shown="w.yaml"))
    done = subprocess.run(tables["W"]["args"], check=True, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["none", tmp_path.name, "sub"]
    assert "W: workflow: not carried over: concurrency" in notes


def test_defaults_of_the_file_change_nothing_that_is_carried_over(tmp_path):
    (tmp_path / "x.timer").write_text("[Timer]\nOnCalendar=daily\nPersistent=yes\n")
    (tmp_path / "x.service").write_text("[Service]\nExecStart=/bin/a\n")
    file = '[defaults]\ntimezone = "Asia/Tokyo"\ncatch_up = "none"\noverlap = "queue_one"\n'
    (tmp_path / "beat.toml").write_text(file)
    head = load_settings(tmp_path / "beat.toml")
    found = read_systemd(tmp_path, timezone="UTC")
    done = carry_over(found, timezone=head.settings.timezone, defaults=head.defaults)
    (tmp_path / "beat.toml").write_text(file + table_text("x", done.tables["x"]))
    (entry,) = config.load(tmp_path / "beat.toml").entries
    assert (entry.timezone, entry.policies.catch_up, entry.policies.overlap) == ("UTC", "latest", "skip")


@pytest.mark.parametrize("form", ["beside", "options"])
def test_what_the_source_turns_off_stays_off_beside_defaults_of_the_file(form):
    off = {"queue": False, "expires": False}
    fields = {"task": "t", "schedule": 30, **({"options": off} if form == "options" else off), "ignore_result": False}
    done = carry_over(FoundSchedule({"x": fields}), defaults={"queue": "q", "ignore_result": True, "priority": 3})
    assert done.tables["x"] == {"queue": False, "task": "t", "schedule": "30s", "ignore_result": False}


@pytest.mark.parametrize(("shell", "code"), [("", 0), ("bash", 1), ("sh", 0)])
def test_a_pipe_of_github_fails_where_bash_is_named(shell, code):
    step = {"run": "false | true", **({"shell": shell} if shell else {})}
    document = {"on": {"schedule": [{"cron": "@daily"}]}, "name": "W", "jobs": {"a": {"steps": [step]}}}
    tables, _ = carried(read_github_actions(json.dumps(document).encode(), shown="w.yaml"))
    assert subprocess.run(tables["W"]["args"], check=False, timeout=30).returncode == code


def gap_notes(found):
    return [note for note in carried(found)[1] if ": dst: " in note]


GAPS = [
    ("30 2 * * *", "Europe/Berlin", True),
    ("0,30 1-3 * * *", "Europe/Berlin", True),
    ("30 2 * * sun", "America/New_York", True),
    ("30 2 29 3 *", "Europe/Berlin", True),  # a Sunday in some years only
    ("15 0 * * *", "America/Asuncion", False),
    ("15 0 * * *", "Africa/Cairo", True),  # the clock goes forward at midnight
    ("30 2 * * mon", "Europe/Berlin", False),
    ("30 2 1 6 *", "Europe/Berlin", False),
    ("30 4 * * *", "Europe/Berlin", False),
    ("30 * * * *", "Europe/Berlin", False),
    ("30 2 * * *", "UTC", False),
    ("30 2 * * *", "Asia/Tokyo", False),
    ("30 2 * * *", "Mars/X", False),  # said where the zone is read
]


@pytest.mark.parametrize(("schedule", "zone", "noted"), GAPS)
@pytest.mark.parametrize("own", [True, False])
def test_times_that_a_clock_change_skips_are_noted_of_kubernetes(schedule, zone, noted, own):
    job = CRON_JOB.replace("SCHEDULE", schedule)
    if own:
        job = job.replace("spec:", f"spec:\n  timeZone: {zone}", 1)
    found = read_kubernetes(job.encode(), shown="f", timezone=None if own else zone)
    notes = gap_notes(found)
    assert bool(notes) == noted
    if noted:
        [name] = found.entries
        why = "a time that a clock change skips runs right after it; Kubernetes leaves it out"
        assert notes == [f'f: dst: {name}: {why}, and so does beatd with dst = "skip"']
        assert carry_over(found).lost == 0


@pytest.mark.parametrize(("schedule", "zone", "noted"), GAPS)
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("scheduler", ["dkron", "yacron"])
def test_times_that_a_clock_change_skips_are_noted_of_jobs(scheduler, schedule, zone, noted, own):
    job = {"name": "a", "schedule": schedule, **({"timezone": zone} if own else {})}
    if scheduler == "dkron":
        job |= {"schedule": f"0 {schedule}", "executor": "shell", "executor_config": {"command": "true"}}
        read, document = read_dkron, [job]
    else:
        read, document = read_cronstable, {"jobs": [job | {"command": "true", "utc": False}]}
    found = read(json.dumps(document).encode(), shown="f", timezone=None if own else zone)
    why = f"a time that a clock change skips runs right after it; {scheduler} leaves it out"
    assert gap_notes(found) == [f'f: dst: a: {why}, and so does beatd with dst = "skip"'] * noted


def test_times_that_a_clock_change_skips_are_noted_of_systemd_once(tmp_path):
    for name, calendars in {"night": ["02:30"], "noon": ["12:00"], "both": ["12:00", "Sun 02:15"]}.items():
        lines = "\n".join(f"OnCalendar={calendar} Europe/Berlin" for calendar in calendars)
        (tmp_path / f"{name}.timer").write_text(f"[Timer]\n{lines}\n")
        (tmp_path / f"{name}.service").write_text("[Service]\nExecStart=/bin/true\n")
    [note] = gap_notes(read_systemd(tmp_path))
    assert note.startswith(
        f"{tmp_path}: dst: both, night: a time that a clock change skips runs right after it; systemd"
    )
