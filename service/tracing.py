"""Requests as spans of OpenTelemetry, sent to a collector by OTLP over HTTP.

A span begins where `service.edge.calls` begins to record a request and ends with the record. Nothing of OpenTelemetry
is imported unless the settings name a collector.
"""

import time
from urllib.parse import urlsplit

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.core.answers import STAGES, AnyAnswer
from service.core.call import Call

_FLUSH_MS = 2000
# A server's span is an error where the server is at fault:
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/#grpc-status
_SERVERS_FAULT = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """`share` is the part of the requests that is recorded, 0 to 1; a caller's own decision goes before it."""

    def __init__(self, exporter: SpanExporter, share: float) -> None:
        resource = Resource.create({"service.name": "anther"})  # OTEL_SERVICE_NAME goes before it
        self._provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("anther")

    def begin(self, method: str, call: Call) -> "RequestTrace":
        """A span for a request; its parent is the caller's, as the header `traceparent` names it."""
        headers = {"traceparent": call.traceparent}
        context = _PROPAGATOR.extract(headers) if call.traceparent else None
        facts: dict[str, str] = {"network.protocol.name": call.protocol}
        if call.caller.name:
            facts["anther.caller"] = call.caller.name
        return RequestTrace(self._tracer, self._tracer.start_span(method, context, SpanKind.SERVER, facts))

    def batch(self, rows: int) -> api.Span:
        """A span for a batch of several requests, which theirs link to."""
        return self._tracer.start_span("batch", api.set_span_in_context(api.INVALID_SPAN), attributes={"rows": rows})

    def close(self) -> None:
        """Send what is left, for two seconds at most where the collector does not answer."""
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()


class RequestTrace:
    """One request's span. Times in nanoseconds since the epoch, as OpenTelemetry has them."""

    def __init__(self, tracer: api.Tracer, span: api.Span) -> None:
        self._tracer = tracer
        self._span = span
        self.trace_id = api.format_trace_id(span.get_span_context().trace_id) if span.is_recording() else ""

    def answered(self, answer: AnyAnswer) -> None:
        """Draw the stages of an answer, one after the other, back from now."""
        if not self.trace_id:
            return
        seconds = {stage: getattr(answer.timings, stage) or 0.0 for stage in STAGES}
        parent, start = api.set_span_in_context(self._span), time.time_ns() - int(sum(seconds.values()) * 1e9)
        for stage in STAGES:
            end = start + int(seconds[stage] * 1e9)
            if getattr(answer.timings, stage) is not None:
                links = _batches(answer) if stage == "inference" else ()
                self._tracer.start_span(stage, parent, links=links, start_time=start).end(end)
            start = end

    def ended(self, where: tuple[str, str], code: str, reason: str) -> None:
        model, version = where
        facts = {"anther.model": model, "anther.version": version, "anther.code": code, "anther.reason": reason}
        self._span.set_attributes({name: value for name, value in facts.items() if value})
        if code in _SERVERS_FAULT:
            self._span.set_status(StatusCode.ERROR, reason)
        self._span.end()


def _batches(answer: AnyAnswer) -> list[Link]:
    """Links to the batches that an answer's rows ran in. The piece that is a batch's first ends the batch's span."""
    links = []
    for run in answer.runs:
        if isinstance(run.batch, Span):
            links.append(Link(run.batch.get_span_context()))
            if run.first:
                run.batch.end()
    return links


def to_collector(endpoint: str, share: float) -> Tracing:
    """Spans go to the collector at a URL; one without a path gets the protocol's own, /v1/traces."""
    url = endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + "/v1/traces"
    return Tracing(OTLPSpanExporter(url), share)
