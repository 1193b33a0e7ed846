# ruff: noqa
"""Like Airflow and Superset: a class as configuration, names of tasks given apart, states of the project's own."""

import os
from celery import Celery, states
from celery.schedules import crontab
from kombu import Exchange, Queue
from waiting import WAIT


class CeleryConfig:
    broker_url = os.environ["BROKER_URL"]
    result_backend = os.environ["RESULT_BACKEND"]
    imports = ()
    worker_prefetch_multiplier = 1
    task_acks_late = True
    task_track_started = True
    task_default_queue = "default"
    task_queues = (Queue("default", Exchange("default"), routing_key="default"), Queue("reports"))
    task_routes = {"airflow.reports.*": {"queue": "reports"}}
    task_annotations = {"airflow.execute": {"rate_limit": "100/s"}}
    beat_schedule = {"reports.prune": {"task": "airflow.reports.prune", "schedule": crontab(minute=10, hour=0)}}


app = Celery("airflow")
app.config_from_object(CeleryConfig)


@app.task(name="airflow.execute", bind=True)
def execute_command(self, command):
    self.update_state(state="QUEUED", meta={"command": command})
    assert states.STARTED in states.UNREADY_STATES
    return [execute_command.rate_limit, self.acks_late, self.request.delivery_info["routing_key"]]


@app.task(name="airflow.reports.prune")
def prune():
    return prune.request.delivery_info["routing_key"]


def calls():
    return [
        execute_command.apply_async(args=[["ls"]], queue="default").get(timeout=WAIT),
        execute_command.delay(["ls"]).get(timeout=WAIT),
        prune.delay().get(timeout=WAIT),
        app.signature("airflow.reports.prune").apply_async().get(timeout=WAIT),
    ]


EXPECTED = [["100/s", True, "default"], ["100/s", True, "default"], "reports", "reports"]
