"""Public imports: every name that 0.1.0 documented, or listed in an ``__all__``, is still importable."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

import beatd
from tests.unit.logged_events import PACKAGE

PAGES = [PACKAGE.parent / "README.md", *sorted((PACKAGE.parent / "docs").rglob("*.md"))]

CANVAS = "Signature chain chord chunks group maybe_signature signature xmap xstarmap"
PUBLIC = {
    "beatd": f"""
        App AsyncResult GroupResult Request ResultSet Task allow_join_result crontab current_app current_task every
        get_task_logger shared_task solar states {CANVAS}
        """,
    "beatd.canvas": CANVAS,
    "beatd.client": "Backfilled Change Pause Record Schedules Stored Triggered",
    "beatd.contrib.django": "install",
    "beatd.exceptions": """
        BeatdError BackendError BrokerError CeleryError ChordError ConfigError EncodeError Ignore InvalidTaskError
        MaxRetriesExceededError MessageError NobodyLeads NotRegistered OperationalError QueueNotFound Reject
        RequestError RequestRefused Retry ScheduleError SoftTimeLimitExceeded StoreError StoreRefused StoreUnavailable
        TaskError TaskRevokedError TimeLimitExceeded TimeoutError WorkerLostError
        """,
    "beatd.log": "get_task_logger",
    "beatd.result": "AsyncResult EagerResult GroupResult ResultSet allow_join_result result_from_tuple",
    "beatd.schedules": "Schedule crontab every once parse solar",
    "beatd.signals": """
        Signal after_setup_logger after_setup_task_logger after_task_publish beat_embedded_init beat_init
        before_task_publish celeryd_after_setup celeryd_init eventlet_pool_apply eventlet_pool_postshutdown
        eventlet_pool_preshutdown eventlet_pool_started heartbeat_sent import_modules setup_logging task_failure
        task_internal_error task_postrun task_prerun task_received task_rejected task_retry task_revoked task_success
        task_unknown user_preload_options worker_before_create_process worker_init worker_process_init
        worker_process_shutdown worker_ready worker_shutdown worker_shutting_down
        """,
    "beatd.states": """
        EXCEPTION_STATES FAILURE IGNORED PENDING PROPAGATE_STATES READY_STATES RECEIVED REJECTED RETRY REVOKED STARTED
        SUCCESS
        """,
    "beatd.worker.request": "Request",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_names_of_0_1_0_are_importable_in_a_fresh_process(module):
    names = ", ".join(PUBLIC[module].split())
    command = [sys.executable, "-W", "error", "-c", f"from {module} import {names}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", sorted(PUBLIC.keys() - {"beatd.contrib.django"}))
def test_a_star_import_offers_what_0_1_0_documented(module):
    offered = getattr(importlib.import_module(module), "__all__", None)
    if offered is not None:
        assert set(PUBLIC[module].split()) - {"states"} <= set(offered)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PACKAGE.parent)))
def test_imports_on_the_pages_work(page):
    for module, names in re.findall(r"from (beatd[\w.]*) import ([\w, ]+)", page.read_text()):
        for name in names.replace(",", " ").split(" as ")[0].split():
            found = importlib.import_module(module)
            assert hasattr(found, name) or importlib.import_module(f"{module}.{name}"), f"{module}.{name}"


def test_modules_of_celerys_names_need_no_import_of_their_own():
    code = "import beatd as celery; celery.signals.task_failure; celery.exceptions.Retry; celery.states.SUCCESS; "
    code += "celery.result.AsyncResult; celery.canvas.chain; celery.schedules.crontab"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_name_that_never_was_is_refused():
    with pytest.raises(AttributeError, match="module 'beatd' has no attribute 'Celery'"):
        _ = beatd.Celery
