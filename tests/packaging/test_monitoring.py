"""Dashboard and alert rules: valid, and about metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from beatd.metrics.families import FAMILIES
from tests.packaging.containerfile import PACKAGING

RULES = PACKAGING / "prometheus" / "alerts.yaml"
DASHBOARD = json.loads((PACKAGING / "grafana" / "beatd.json").read_text())
RUNBOOK = "https://github.com/beatd/beatd/blob/main/docs/troubleshooting.md#by-alert"
OF_HISTOGRAMS = ("_bucket", "_count", "_sum")


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))


def names(expression: str) -> set[str]:
    return set(re.findall(r"\bbeatd_\w+", expression))


def exists(name: str) -> bool:
    return name in FAMILIES or any(
        name == f"{known}{end}"
        for known, metric in FAMILIES.items()
        if metric.kind == "histogram"
        for end in OF_HISTOGRAMS
    )


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_metrics_and_labels_exist(title, expression):
    assert names(expression) or "process_" in expression, title
    for name in names(expression):
        assert exists(name), name
    known = {label for name in names(expression) for label in labels(name)} | {"le", "job", "instance"}
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= known, title
    for matcher in re.findall(r"\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matcher)) <= known, title


def labels(name: str) -> tuple[str, ...]:
    return FAMILIES[re.sub(r"_(bucket|count|sum)$", "", name) if name not in FAMILIES else name].labels


def test_every_metric_of_daemon_and_worker_is_on_the_dashboard_or_in_an_alert():
    used = {re.sub(r"_(bucket|count|sum)$", "", name) for _, expression in expressions() for name in names(expression)}
    own = {name for name in FAMILIES if name.startswith(("beatd_daemon_", "beatd_worker_"))}
    assert own - used == set()


def test_panels_have_a_place_of_their_own():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_says_what_is_wrong_and_how_bad_it_is():
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert {rule["labels"]["severity"] for rule in rules} == {"critical", "warning"}
    assert all(rule["annotations"]["summary"] for rule in rules)


def test_every_alert_leads_to_a_table_that_says_what_to_do():
    guide = (PACKAGING.parent / "docs" / "troubleshooting.md").read_text()
    table = guide.partition("\n## By alert\n")[2].partition("\n## ")[0]
    alerts = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert sorted(re.findall(r"`(Beatd\w+)`", table)) == sorted(rule["alert"] for rule in alerts)
    assert {rule["annotations"]["runbook_url"] for rule in alerts} == {RUNBOOK}


@pytest.mark.needs("promtool")
def test_promtool_accepts_the_rules_and_the_configuration(tmp_path):
    subprocess.run(["promtool", "check", "rules", RULES], check=True, capture_output=True, timeout=60)
    config = (PACKAGING / "docker" / "prometheus.yaml").read_text().replace("/etc/prometheus/alerts.yaml", str(RULES))
    (tmp_path / "prometheus.yaml").write_text(config)
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yaml"], check=True, timeout=60)


UNITS = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{ series: 'beatd_daemon_leading{{shard="0", instance="a"}}', values: '1x4 0x40' }}
      - {{ series: 'beatd_daemon_leading{{shard="0", instance="b"}}', values: '0x44' }}
      - {{ series: 'beatd_daemon_ready{{instance="a"}}', values: '1x44' }}
      - {{ series: 'beatd_late_seconds{{daemon="a"}}', values: '0x44' }}
      - {{ series: 'beatd_entry_failures{{entry="bad"}}', values: '_x8 2x36' }}
      - {{ series: 'beatd_entry_overdue_seconds{{entry="slow"}}', values: '_x8 15+15x36' }}
      - {{ series: 'beatd_entry_next_due_timestamp_seconds{{entry="stuck", instance="a"}}', values: '30x44' }}
      - {{ series: 'beatd_dead_letters{{instance="a"}}', values: '7x80' }}
      - {{ series: 'beatd_queue_oldest_message_seconds{{queue="q", instance="a"}}', values: '600+15x80' }}
      - {{ series: 'beatd_notifications_undelivered_seconds{{target="ops", job="daemon"}}', values: '_x8 15+15x80' }}
      - {{ series: 'beatd_notifications_undelivered_seconds{{target="ops", job="web"}}', values: '_x8 15+15x80' }}
      - {{ series: 'beatd_daemon_notifications_total{{target="ops", outcome="failed"}}', values: '0+1x44' }}
      - {{ series: 'beatd_daemon_notifications_total{{target="fine", outcome="failed"}}', values: '0+1x44' }}
      - {{ series: 'beatd_daemon_notifications_total{{target="fine", outcome="sent"}}', values: '0+1x44' }}
    alert_rule_test:
      - {{ eval_time: 1m, alertname: BeatdNobodyLeads }}
      - {{ eval_time: 2m, alertname: BeatdEntryFails }}
      - eval_time: 5m
        alertname: BeatdEntryFails
        exp_alerts:
          - exp_labels: {{ severity: warning, entry: bad }}
            exp_annotations: {{ summary: "bad fails; beatd describe has the error" }}
      - eval_time: 5m
        alertname: BeatdEntryOverdue
        exp_alerts:
          - exp_labels: {{ severity: warning, entry: slow }}
            exp_annotations: {{ summary: "A run of slow has been overdue for 3m 15s" }}
      - {{ eval_time: 5m, alertname: BeatdRunTooLong }}
      - {{ eval_time: 1m, alertname: BeatdEntryNotSent }}
      - eval_time: 4m
        alertname: BeatdEntryNotSent
        exp_alerts:
          - exp_labels: {{ severity: critical, entry: stuck }}
            exp_annotations: {{ summary: "stuck was to be sent 3m 30s ago, and is not" }}
      - {{ eval_time: 20m, alertname: BeatdDeadLetters }}
      - {{ eval_time: 5m, alertname: BeatdQueueOld }}
      - eval_time: 15m
        alertname: BeatdQueueOld
        exp_alerts:
          - exp_labels: {{ severity: warning, queue: q }}
            exp_annotations: {{ summary: "The oldest message of queue q is 25m 0s old: do its workers run?" }}
      - eval_time: 5m
        alertname: BeatdNotificationsFail
        exp_alerts:
          - exp_labels: {{ severity: warning, target: ops }}
            exp_annotations:
              summary: "Notifications to ops fail; the log of the leader has the reason (notice_failed)"
      - {{ eval_time: 10m, alertname: BeatdNotificationsUndelivered }}
      - eval_time: 20m
        alertname: BeatdNotificationsUndelivered
        exp_alerts:
          - exp_labels: {{ severity: warning, target: ops }}
            exp_annotations:
              summary: "ops has got no notifications for 18m 15s; beatd status has the reason"
      - eval_time: 4m
        alertname: BeatdNobodyLeads
        exp_alerts:
          - exp_labels: {{ severity: critical, shard: "0" }}
            exp_annotations:
              summary: "No daemon leads shard 0: no run is sent"
              description: "Look at beatd status, and at the log of the daemons."
      - {{ eval_time: 4m, alertname: BeatdNoDaemon }}
      - {{ eval_time: 4m, alertname: BeatdRunsLate }}
"""


@pytest.mark.needs("promtool")
def test_alerts_fire_when_they_should(tmp_path):
    units = yaml.safe_load(UNITS.format(rules=RULES))
    for unit in units["tests"][0]["alert_rule_test"]:
        for alert in unit.get("exp_alerts", ()):
            alert["exp_annotations"]["runbook_url"] = RUNBOOK
    (tmp_path / "units.yaml").write_text(yaml.safe_dump(units))
    done = subprocess.run(
        ["promtool", "test", "rules", "units.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
