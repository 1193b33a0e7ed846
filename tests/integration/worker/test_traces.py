"""Traces in workers: beatd's own, and Celery's with OpenTelemetry's instrumentation, continue that of a message."""

from __future__ import annotations

import logging
import time

import pytest
import redis
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from beatd import App, config
from beatd.app.context import Context
from beatd.app.trace import run_task
from beatd.beat.message_builder import MessageBuilder
from beatd.clock import SystemClock
from beatd.message.protocol import open_envelope
from beatd.model import Run
from beatd.tracing import Tracing, span_id_of, trace_id_of, traceparent, tracestate
from beatd.worker.execution.executor import Executor
from beatd.worker.execution.traces import TaskTraces
from beatd.worker.messages import Job
from tests.conftest import needed

NOW = 1_790_000_000_000


def message(task: str) -> tuple[Run, bytes]:
    entry = config.entry("a", {"task": task, "schedule": 30})
    run = Run(entry, NOW, NOW, entry.schedule)
    builder = MessageBuilder("traced", trace=lambda run_id: (traceparent(run_id), tracestate(NOW)))
    return run, builder.render(run, None)


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


def test_the_bundled_worker_continues_the_trace(redis_url, exporter):
    app = App("traced", broker=redis_url)

    @app.task(name="works")
    def works():
        follow.delay()

    @app.task(name="fails")
    def fails():
        raise ValueError("password=geheim")

    @app.task(name="follow")
    def follow():
        """Sent by another one."""

    executor = Executor(app, "w")
    executor.traces = TaskTraces(SystemClock(), lambda: Tracing("beatd-worker", exporter))
    run, raw = message("works")
    assert executor(Job(1, raw, "traced"), lambda _: None).state == "SUCCESS"
    queued, ran = exporter.get_finished_spans()
    assert (queued.name, ran.name) == ("queued", "run")
    for span in (queued, ran):
        assert span.context.trace_id == trace_id_of(run.id)
        assert span.parent.span_id == span_id_of(run.id, "publish")
    assert queued.start_time == NOW * 10**6
    assert ran.attributes["beatd.entry"] == "a"
    with redis.Redis.from_url(redis_url) as client:
        [sent] = [open_envelope(one).headers for one in client.lrange("celery", 0, -1)]
    assert sent["traceparent"].split("-")[1:3] == [f"{run_id:032x}" for run_id in [trace_id_of(run.id)]] + [
        f"{ran.context.span_id:016x}"
    ]
    exporter.clear()
    assert executor(Job(2, message("fails")[1], "traced"), lambda _: None).state == "FAILURE"
    failed = exporter.get_finished_spans()[-1]
    assert (failed.status.is_ok, failed.attributes["error.type"]) == (False, "ValueError")
    assert "geheim" not in failed.to_json()
    app.close()


@pytest.mark.parametrize("header", ["junk", "00-0-0-00", None, 5])
def test_a_context_that_is_none_begins_a_trace_of_its_own(exporter, header):
    traces = TaskTraces(SystemClock(), lambda: Tracing("beatd-worker", exporter))
    app = App("traced")
    works = app.task(name="works")(lambda: 1)
    with traces.run(Context({"id": "1", "task": "works", "traceparent": header})) as done:
        done(
            run_task(works, Context({"id": "1", "task": "works"}, args=(), kwargs={}), lambda fn, *a, **k: fn(*a, **k))
        )
    [span] = exporter.get_finished_spans()
    assert span.parent is None


@pytest.fixture
def root_logger():
    """The root logger, which a worker of Celery takes for itself, is as before after the test."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.usefixtures("root_logger")
def test_celery_continues_the_trace(redis_url, exporter):
    celery = needed("celery")
    from celery.contrib.testing.worker import start_worker
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = celery.Celery("theirs", broker=redis_url)
    app.conf.task_default_queue = "traced"
    done = []

    @app.task(name="theirs")
    def theirs():
        done.append(1)

    run, raw = message("theirs")
    CeleryInstrumentor().instrument(tracer_provider=provider)
    try:
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=20):
            with redis.Redis.from_url(redis_url) as client:
                client.lpush("traced", raw)
            until = time.monotonic() + 20
            while not exporter.get_finished_spans() and time.monotonic() < until:
                time.sleep(0.02)
    finally:
        CeleryInstrumentor().uninstrument()
    [span] = [one for one in exporter.get_finished_spans() if one.name == "run/theirs"]
    assert done
    assert span.context.trace_id == trace_id_of(run.id)
    assert span.parent.span_id == span_id_of(run.id, "publish")
