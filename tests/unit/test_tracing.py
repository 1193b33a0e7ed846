"""Traces: ids that every process computes alike, spans that hang together, nothing without the environment's word."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from beatd import config, tracing
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.run_traces import RunTraces
from beatd.model import Run
from beatd.tracing import Tracing, made_ms, span_id_of, trace_id_of, traceparent, tracestate
from beatd.worker.execution.traces import TaskTraces
from tests.fakes import NOW, FakeClock

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}


@pytest.mark.parametrize(
    ("env", "on"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": ""}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": ""}, True),
    ],
)
def test_the_environment_decides(env, on):
    assert tracing.is_enabled(env) is on


def test_a_missing_extra_is_said(monkeypatch, caplog):
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)
    assert not tracing.is_enabled(ENDPOINT)
    assert "pip install 'beatd[otel]'" in caplog.text


@pytest.mark.parametrize("error", [None, ModuleNotFoundError("opentelemetry.exporter")])
def test_an_exporter_that_is_missing_beside_the_sdk_is_said(monkeypatch, caplog, error):
    def find(name):
        if "exporter" not in name:
            return object()
        if error is not None:
            raise error
        return None

    monkeypatch.setattr(tracing, "find_spec", find)
    assert not tracing.is_enabled(ENDPOINT)
    assert "pip install 'beatd[otel]'" in caplog.text
    assert tracing.is_enabled({"OTEL_TRACES_EXPORTER": "console"})


def test_ids_are_valid_and_the_same_everywhere():
    parent = traceparent("07ab9fd7-1f9b-56cc-ad2b-3cabc12ccb9c")
    version, trace, span, flags = parent.split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    assert parent == traceparent("07ab9fd7-1f9b-56cc-ad2b-3cabc12ccb9c")
    assert traceparent("x", sampled=False).endswith("-00")
    low = [trace_id_of(str(n)) & (2**64 - 1) for n in range(200)]
    assert 60 < sum(value < 2**63 for value in low) < 140, "samplers by ratio look at these bits"


@pytest.mark.parametrize(("state", "ms"), [("beatd=5", 5), ("a=b, beatd=7,c=d", 7), ("beatd=x", None), (None, None)])
def test_the_time_of_a_message_is_read_back(state, ms):
    assert made_ms(state) == ms
    assert made_ms(tracestate(5)) == 5


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter):
    return RunTraces(Tracing("beatd", exporter), FakeClock())


def run(name: str = "a", due_ms: int = NOW) -> Run:
    entry = config.entry(name, {"task": "t", "schedule": 30})
    return Run(entry, due_ms, due_ms, entry.schedule)


def test_claim_and_publish_hang_together(traces, exporter):
    one = run()
    traces.claimed([one], NOW + 20)
    traces.published([one], NOW + 50)
    traces.record()
    claim, publish = exporter.get_finished_spans()
    assert (claim.name, publish.name) == ("claim", "publish")
    assert claim.context.trace_id == publish.context.trace_id == trace_id_of(one.id)
    assert claim.parent is None
    assert publish.parent.span_id == claim.context.span_id
    assert publish.context.span_id == span_id_of(one.id, "publish")
    assert [(claim.start_time, claim.end_time), (publish.start_time, publish.end_time)] == [
        (NOW * 10**6, (NOW + 20) * 10**6),
        ((NOW + 20) * 10**6, (NOW + 50) * 10**6),
    ]
    assert claim.attributes["beatd.entry"] == "a"


def test_messages_carry_the_context_only_when_traced(traces):
    one = run()
    plain = json.loads(MessageBuilder("q").render(one, None))["headers"]
    traced = json.loads(MessageBuilder("q", trace=traces.context).render(one, None))["headers"]
    assert "traceparent" not in plain
    assert traced["traceparent"] == traceparent(one.id)
    assert made_ms(traced["tracestate"]) == NOW
    assert plain.keys() | {"traceparent", "tracestate"} == traced.keys()


def test_a_run_that_is_made_up_for_does_not_stretch_its_trace(traces, exporter):
    traces.published([run(due_ms=NOW - 7 * 86_400_000)], NOW)
    traces.record()
    assert {span.start_time for span in exporter.get_finished_spans()} == {NOW * 10**6}


def test_a_run_whose_spans_cannot_be_made_costs_no_other_its_trace(exporter, caplog):
    """A processor of somebody else fails with some spans, as those of OpenTelemetry's extensions may."""

    class Processor(SpanProcessor):
        def on_start(self, span, parent_context=None):
            if span.attributes["beatd.entry"] == "bad":
                raise ZeroDivisionError("a defect")

    tracing = Tracing("beatd", exporter)
    tracing.provider.add_span_processor(Processor())
    traces = RunTraces(tracing, FakeClock())
    bad = run("bad")
    traces.start()
    traces.published([bad, *[run("bad", NOW + due) for due in range(1, 100)], run("good")], NOW)
    traces.stop()
    assert [span.attributes["beatd.entry"] for span in exporter.get_finished_spans()] == ["good", "good"]
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (said.event, said.entry, said.run_id) == ("traces_failed", "bad", bad.id)
    assert said.getMessage() == "A run of bad has no trace"
    assert said.exc_info, "a defect is reported with its traceback"


def test_a_sampler_holds_for_the_whole_trace(exporter, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    traces = RunTraces(Tracing("beatd", exporter), FakeClock())
    runs = [run(f"e{n}") for n in range(100)]
    flags = {one.id: traces.context(one.id)[0].endswith("01") for one in runs}
    traces.published(runs, NOW)
    traces.record()
    recorded = {span.attributes["beatd.run_id"] for span in exporter.get_finished_spans()}
    assert recorded == {run_id for run_id, sampled in flags.items() if sampled}
    assert 20 < len(recorded) < 80


def test_nothing_is_imported_while_traces_are_off():
    text = "import beatd.daemon, beatd.worker.bootstrap, sys; print('opentelemetry.sdk.trace' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


def test_a_variable_that_opentelemetry_cannot_read_costs_no_run(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT["OTEL_EXPORTER_OTLP_ENDPOINT"])
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "ten")
    assert RunTraces.if_enabled(FakeClock()) is None
    assert "No traces: OpenTelemetry cannot use the environment: ValueError" in caplog.text
    traces, ended = TaskTraces(FakeClock()), []
    for _ in range(2):
        with traces.run(None) as done:
            done(None)
            ended.append(True)
    assert ended == [True, True]
    assert caplog.text.count("No traces") == 2
