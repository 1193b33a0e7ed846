"""OpenTelemetry: one trace for each run, from when it was due until it is done.

Spans: *claim* (from when the run was to leave until the state store had it), *publish* (until the broker had its
message), *queued* (until a worker began) and *run*. The ids of the trace and of the daemon's spans are made from the
run id, so a message can carry them before its spans exist, and every attempt at the same run has the same trace.

Traces are on where OpenTelemetry's own variables name an exporter (``OTEL_EXPORTER_OTLP_ENDPOINT`` and others), and
``beatd[otel]`` is installed. Otherwise nothing of it is imported, and messages carry no context.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from hashlib import blake2b
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from beatd.clock import monotonic
from beatd.redaction import redacted_text

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanContext

log = logging.getLogger("beatd.tracing")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
QUEUE_MAX = 20_480
"""Spans that wait to be exported; further ones are dropped."""
_SELDOM_S = 300.0
PARENT, STATE = "traceparent", "tracestate"
"""Headers of W3C's trace context."""
_STATE_KEY = "beatd"


def is_enabled(env: Mapping[str, str] | None = None) -> bool:
    """True if the environment asks for traces and they can be made; logs why not if they cannot."""
    found = os.environ if env is None else env
    has_endpoint = any(found.get(name) for name in _ENDPOINTS)
    exporter = found.get("OTEL_TRACES_EXPORTER") or ("otlp" if has_endpoint else "none")  # empty is as unset
    if found.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if not _is_installed(exporter):
        text = "No traces, although the environment asks for them: pip install 'beatd[otel]'"
        log.warning(text, extra={"event": "traces_unavailable"})
        return False
    return True


def _is_installed(exporter: str) -> bool:
    """True if the packages are here: others bring the SDK alone, or an exporter for gRPC."""
    names = ["opentelemetry.sdk", *(() if exporter == "console" else ("opentelemetry.exporter.otlp.proto.http",))]
    try:
        return all(find_spec(name) is not None for name in names)
    except ModuleNotFoundError:  # the package above it
        return False


def trace_id_of(run_id: str) -> int:
    """The id of a run's trace: random bits in every place, as samplers expect."""
    return int.from_bytes(blake2b(run_id.encode(), digest_size=16, person=b"beatd-trace").digest()) or 1


def span_id_of(run_id: str, span: str) -> int:
    """The id of one of the daemon's spans of a run."""
    return int.from_bytes(blake2b(f"{span} {run_id}".encode(), digest_size=8, person=b"beatd-span").digest()) or 1


def traceparent(run_id: str, *, sampled: bool = True) -> str:
    """The header by which workers continue the trace of a run: their parent is its *publish* span."""
    return f"00-{trace_id_of(run_id):032x}-{span_id_of(run_id, 'publish'):016x}-{int(sampled):02x}"


def tracestate(now_ms: int) -> str:
    """The header that says when the message was made, for the *queued* span."""
    return f"{_STATE_KEY}={now_ms}"


def made_ms(state: object) -> int | None:
    """Read :func:`tracestate`."""
    if not isinstance(state, str):
        return None
    for item in state.split(","):
        key, _, value = item.strip().partition("=")
        if key == _STATE_KEY and value.isdigit() and len(value) < 16:
            return int(value)
    return None


class _Ids:
    """Generator of ids: random, or those that :meth:`use` names for the next span of this thread."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415 - an optional extra

        self._random = RandomIdGenerator()
        self._next = threading.local()

    def use(self, trace_id: int, span_id: int) -> None:
        self._next.ids = trace_id, span_id

    def generate_trace_id(self) -> int:
        ids = getattr(self._next, "ids", None)
        return ids[0] if ids else self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        ids = getattr(self._next, "ids", None)
        self._next.ids = None
        return ids[1] if ids else self._random.generate_span_id()

    def is_trace_id_random(self) -> bool:
        return True


class Tracing:
    """A tracer with an exporter. Import and start cost some hundred milliseconds, so it is made when it is needed."""

    def __init__(self, service: str, exporter: Any = None) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an optional extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

        self._ids = _Ids()
        name = os.environ.get("OTEL_SERVICE_NAME") or service
        resource = Resource.create({"service.name": name})
        ids: Any = self._ids
        self.provider: TracerProvider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
        given = exporter is not None
        processor = SimpleSpanProcessor(exporter) if given else BatchSpanProcessor(_exporter(), QUEUE_MAX)
        self.provider.add_span_processor(processor)
        self.tracer = self.provider.get_tracer("beatd")

    def is_sampled(self, run_id: str) -> bool:
        """True if the trace of a run is recorded: the same answer wherever it is asked."""
        sampler: Any = self.provider.sampler
        return bool(sampler.should_sample(None, trace_id_of(run_id), "claim").decision.is_sampled())

    def span(
        self,
        run_id: str,
        name: str,
        start_ms: int,
        end_ms: int,
        *,
        parent: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Record one of the daemon's spans of a run, below its span ``parent``."""
        from opentelemetry import trace  # noqa: PLC0415

        context = None
        if parent is not None:
            above = self.context_of(trace_id_of(run_id), span_id_of(run_id, parent))
            context = trace.set_span_in_context(trace.NonRecordingSpan(above))
        self._ids.use(trace_id_of(run_id), span_id_of(run_id, name))
        kind = trace.SpanKind.PRODUCER if name == "publish" else trace.SpanKind.INTERNAL
        span = self.tracer.start_span(
            name, context=context, kind=kind, attributes=attributes, start_time=start_ms * 1_000_000
        )
        span.end(end_time=max(end_ms, start_ms) * 1_000_000)

    @staticmethod
    def context_of(trace_id: int, span_id: int) -> SpanContext:
        """The context of a sampled span that was recorded elsewhere."""
        from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415

        return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def stop(self) -> None:
        """Export what waits, for a second at most."""
        self.provider.force_flush(1_000)


class _Seldom(logging.Filter):
    """Filter of the exporter's log: one line in five minutes says that the collector is away."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, _: logging.LogRecord) -> bool:
        now = monotonic()
        passes = now >= self._next
        self._next = now + _SELDOM_S if passes else self._next
        return passes


def made_for(service: str) -> Tracing | None:
    """Tracing as the environment asks for it; without it, or if it cannot be made, None, and the log says why."""
    if not is_enabled():
        return None
    try:
        return Tracing(service)
    except Exception as error:  # noqa: BLE001 - for a variable that it cannot read OpenTelemetry raises anything
        why = redacted_text(f"{type(error).__name__}: {error}", at_most=300)
        text = "No traces: OpenTelemetry cannot use the environment: %s"
        log.warning(text, why, extra={"event": "traces_unavailable"})
        return None


def _exporter() -> Any:
    if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

        return ConsoleSpanExporter()
    from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: PLC0415

    logging.getLogger(trace_exporter.__name__).addFilter(_Seldom())
    return trace_exporter.OTLPSpanExporter()
