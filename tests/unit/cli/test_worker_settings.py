"""Values of the worker's command line mean what they mean for ``celery worker``: both makes read the same words."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

import celery
import click
import pytest
from celery.bin.worker import AUTOSCALE, HOSTNAME
from celery.utils.sysinfo import cpu_budget

from beatd import App
from beatd.app.settings import DEFAULTS
from beatd.cli import worker_settings
from beatd.cli.metrics import MetricsOptions
from beatd.cli.worker import worker
from beatd.cli.worker_settings import settings_of_words
from beatd.exceptions import ConfigError
from beatd.worker.settings import WorkerSettings, node_name, usable_cpus

NAMES = [
    *(f"{before}{at}{after}" for before, at, after in product(("", "w1", "w%%1", "%n"), ("", "@"), ("", "%h", "h.d"))),
    "worker1.%h",
    "a.%n.%d",
    "w%i@%h",
    "w%I@%h",
    "100%%",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_nodes_are_celerys(name: str) -> None:
    assert node_name(name) == HOSTNAME.convert(name, None, None)


def test_a_node_without_a_name_is_celerys() -> None:
    assert node_name(None) == node_name("") == HOSTNAME.convert("", None, None)


def settings(*words: str, **conf: Any) -> WorkerSettings:
    """The settings of a worker with this command line, and an app with this configuration."""
    app = App("x", set_as_current=False)
    app.conf.update(conf)
    options = {**worker.make_context("worker", list(words)).params, "metrics": MetricsOptions()}
    return worker_settings.worker_settings(app, options, None, None)


@pytest.mark.parametrize("text", ["10,3", "3,10", "10", "10,0", "0,10", "5,5", " 4 , 2 "])
def test_bounds_of_autoscaling_are_celerys(text: str) -> None:
    most, least = AUTOSCALE.convert(text, None, None)
    assert settings("--autoscale", text).autoscale == (most, max(1, least))


@pytest.mark.parametrize("text", ["0", "0,0", "ten", "1,2,3", "-1,3"])
def test_what_is_no_bound_of_autoscaling_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--autoscale"):
        settings(f"--autoscale={text}")


@pytest.mark.parametrize("conf", [None, 3, "3", "auto", 0])
@pytest.mark.parametrize("words", [[], ["-c", "0"], ["-c", "5"], ["-c", "AUTO"]])
def test_concurrency_is_celerys(words: list[str], conf: Any) -> None:
    number = words[-1] if words and words[-1] != "0" else conf
    if number in (None, 0):
        expected = os.cpu_count()
    else:
        expected = cpu_budget().count if str(number).lower() == "auto" else int(number)
    assert settings(*words, worker_concurrency=conf).concurrency == expected


def test_what_is_no_concurrency_is_an_error() -> None:
    for text in ("-1", "many", "1.5"):
        with pytest.raises(click.BadParameter, match="auto"):
            settings(f"-c{text}")
        with pytest.raises(ConfigError, match="worker_concurrency"):
            settings(worker_concurrency=text)


QUOTAS = {
    "none": ({"cpu.max": "max 100000"}, None),
    "half": ({"cpu.max": "50000 100000"}, 1),
    "of the group around it": ({"cpu.max": "max 100000", "../cpu.max": "150000 100000"}, 2),
    "the smaller one": ({"cpu.max": "300000 100000", "../cpu.max": "100000 100000"}, 1),
    "broken": ({"cpu.max": "?"}, None),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_the_quota_of_a_control_group_bounds_processes(case: str, tmp_path: Path) -> None:
    files, expected = QUOTAS[case]
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/a/b\n")
    for name, text in files.items():
        (tmp_path / "a/b" / name).write_text(text)
    most = usable_cpus(quota=False)
    found = usable_cpus(quota=True, of=tmp_path / "cgroup", groups=tmp_path)
    assert found == (most if expected is None else min(most, expected))


WORDS = [
    "task_time_limit=30",
    "task.time_limit=30.5",
    "TASK_SERIALIZER=json",
    "broker.url=redis://h:1/2",
    "result_backend=redis://h/1",
    ".max_tasks_per_child=7",
    "task_acks_late=true",
    "task_acks_late=no",
    "task.always_eager=1",
    'accept_content=(list)["json"]',
    "task_default_queue=5",
    "worker_concurrency=auto",
    "task_default_rate_limit=10/s",
    "result_expires=3600",
]


@pytest.mark.parametrize("word", WORDS)
def test_settings_on_the_command_line_are_celerys(word: str) -> None:
    theirs = celery.Celery("x", set_as_current=False).loader.cmdline_config_parser([word], "worker")
    assert dict(settings_of_words([word])) == theirs


@pytest.mark.parametrize("word", ["nonsense", "no_such_setting=1", "=1", ".no=1"])
def test_what_is_no_setting_is_an_error(word: str) -> None:
    with pytest.raises(ConfigError):
        dict(settings_of_words([word]))


def test_settings_on_the_command_line_outweigh_the_app() -> None:
    words = ["--", ".concurrency=4", "task_time_limit=30", "timezone=Asia/Baku"]
    words = worker.make_context("worker", words).params["settings"]
    assert dict(settings_of_words(words)) == {
        "worker_concurrency": 4,
        "task_time_limit": 30,
        "timezone": "Asia/Baku",
    }
    assert {*dict(settings_of_words(words))} <= {*DEFAULTS}


def test_no_limit_turns_off_that_of_the_app() -> None:
    conf = {"worker_max_tasks_per_child": 5, "worker_max_memory_per_child": 6}
    assert settings(**conf).max_tasks_per_child == 5
    none = settings("--max-tasks-per-child=0", "--max-memory-per-child=0", **conf)
    assert (none.max_tasks_per_child, none.max_memory_per_child) == (None, None)
