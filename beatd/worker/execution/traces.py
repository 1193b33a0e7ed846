"""Traces in the worker: the spans *queued* and *run*, which continue the trace that a message carries.

What a task does within *run* belongs to it: messages that it sends carry the trace on, and so do the libraries that
OpenTelemetry instruments. Each process makes its tracer with its first task, as a tracer has threads and would not
survive a fork.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from beatd import signals, tracing
from beatd.app.context import Context
from beatd.app.trace import Outcome
from beatd.clock import Clock
from beatd.states import FAILURE, REJECTED, RETRY

Done = Callable[[Outcome], None]
"""Called with the outcome, within the span."""

_UNTRACED: AbstractContextManager[Done] = nullcontext(lambda _: None)


def task_traces(clock: Clock) -> TaskTraces | NoTraces:
    """Return the traces of a worker, as its environment asks for them."""
    return TaskTraces(clock) if tracing.is_enabled() else NoTraces()


class NoTraces:
    """Traces that are off."""

    def run(self, _: Context) -> AbstractContextManager[Done]:
        """Trace nothing."""
        return _UNTRACED

    def stop(self) -> None:
        """Nothing waits."""


class TaskTraces:
    """Traces of tasks in this process and in those that it forks. ``make`` gives a tracing, or None for no traces."""

    def __init__(
        self, clock: Clock, make: Callable[[], tracing.Tracing | None] = lambda: tracing.made_for("beatd-worker")
    ) -> None:
        self._clock = clock
        self._make = make
        self._made: tracing.Tracing | None = None
        self._pid = 0

    @contextmanager
    def run(self, context: Context) -> Iterator[Done]:
        """Trace one attempt."""
        if (made := self._tracing()) is None:
            yield lambda _: None
            return
        from opentelemetry import trace  # noqa: PLC0415 - an optional extra

        now_ms, tracer = self._clock.now_ms(), made.tracer
        headers = {name: str(getattr(context, name, None) or "") for name in (tracing.PARENT, tracing.STATE)}
        parent = _extracted(headers)
        attributes: dict[str, Any] = {
            "messaging.system": "celery",
            "messaging.message.id": str(context.id),
            "celery.task_name": str(context.task),
            "beatd.attempt": context.retries + 1,
        }
        if (entry := getattr(context, "beatd-entry", None)) is not None:
            attributes["beatd.entry"] = str(entry)
        sent_ms = tracing.made_ms(headers[tracing.STATE])
        if sent_ms is not None and not context.retries:
            queued = tracer.start_span(
                "queued", context=parent, attributes=attributes, start_time=min(sent_ms, now_ms) * 1_000_000
            )
            queued.end(end_time=now_ms * 1_000_000)
        with tracer.start_as_current_span(
            "run",
            context=parent,
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield lambda outcome: _set_outcome(span, outcome)

    def stop(self) -> None:
        """Export what waits: this process ends."""
        if self._made is not None and self._pid == os.getpid():
            self._made.stop()

    def _tracing(self) -> tracing.Tracing | None:
        if self._pid != os.getpid():
            self._made, self._pid = self._make(), os.getpid()
            if self._made is not None:
                _share(self._made)
                atexit.register(self.stop)
        return self._made


def _share(made: tracing.Tracing) -> None:
    """Let libraries and the app's own messages take part."""
    from opentelemetry import trace  # noqa: PLC0415

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(made.provider)
    signals.before_task_publish.connect(_inject, dispatch_uid="beatd.traces", weak=False)


def _inject(headers: dict[str, Any], **_: Any) -> None:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    headers.pop(tracing.STATE, None)  # of the message that is being run: the time in it is not that of this one
    TraceContextTextMapPropagator().inject(headers)


def _extracted(headers: dict[str, str]) -> Any:
    from opentelemetry.context import Context as TraceContext  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract(headers, context=TraceContext())


def _set_outcome(span: Any, outcome: Outcome) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    span.set_attribute("celery.state", outcome.state)
    if outcome.state in (FAILURE, REJECTED, RETRY):
        span.set_attribute("error.type", type(outcome.value).__name__)
        if outcome.state != RETRY:
            span.set_status(Status(StatusCode.ERROR, type(outcome.value).__name__))
