"""Spans as a collector gets them: the caller's trace, the stages, the batch, and exemplars."""

import itertools
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from anther import Client
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from service.app import App
from service.config import Settings
from service.core.answers import PixelsAnswer, Timings
from service.core.call import Call, Caller
from service.engines.engine import Outputs
from service.scheduling.scheduler import RunTiming
from service.tracing import Tracing

PATIENCE_S = 60
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, as a collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Export)
        self.spans: list[Span] = []
        self.services: set[str] = set()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Export(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.services |= {
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            }
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Requests are not printed."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        yield server
        server.shutdown()


def attributes(span: Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


def test_a_collector_gets_the_request_under_its_caller_with_the_stages_below(
    run, models: Path, pictures, collector: Collector
) -> None:
    server = App(Settings(models=models, grpc_port=0, ops_port=0, lanes=1, otlp_endpoint=collector.url))
    run(server.start())
    target = server.banner().split("gRPC ")[1].split(",")[0]
    try:
        with Client(target) as client:
            stub = ImageClassifierStub(client._channel)
            request = pb.ClassifyRequest(image=pictures["daisy"])
            stub.Classify(request, metadata=(("traceparent", SAMPLED),), timeout=PATIENCE_S)
            stub.Classify(request, metadata=(("traceparent", UNSAMPLED),), timeout=PATIENCE_S)
        assert server._ops is not None
        page = urllib.request.Request(
            f"http://127.0.0.1:{server._ops.port}/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        with urllib.request.urlopen(page, timeout=PATIENCE_S) as answer:
            scraped = answer.read().decode()
    finally:
        run(server.stop())
    (classify,) = [span for span in collector.spans if span.name == "Classify"]
    assert (classify.trace_id.hex(), classify.parent_span_id.hex()) == (TRACE, PARENT)
    assert classify.kind == Span.SPAN_KIND_SERVER
    facts = {"anther.model": "flowers", "anther.version": "1", "anther.code": "OK", "network.protocol.name": "grpc"}
    assert attributes(classify) == facts
    stages = [span for span in collector.spans if span.parent_span_id == classify.span_id]
    assert [span.name for span in stages] == ["queue", "decode", "preprocess", "inference", "postprocess"]
    for before, after in itertools.pairwise(stages):
        assert before.start_time_unix_nano <= before.end_time_unix_nano == after.start_time_unix_nano
    assert collector.services == {"anther"}
    exemplars = [line for line in scraped.splitlines() if f'# {{trace_id="{TRACE}"}}' in line]
    assert {line.partition("_bucket")[0] for line in exemplars} == {
        "anther_request_duration_seconds",
        "anther_stage_duration_seconds",
    }


class Live:
    labels = ("flowers", "1")


def test_requests_of_one_batch_link_to_it_and_it_ends_once() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter, share=1.0)
    batch = tracing.batch(2)
    for first in (True, False):
        trace = tracing.begin("ModelInfer", Call("grpc", Caller("192.0.2.1")))
        run = RunTiming(0.5, 0.25, 2, first, batch)
        outputs: Outputs = Outputs(None, None)  # type: ignore[arg-type]  # nobody draws them
        trace.answered(PixelsAnswer(Live(), outputs, (), Timings(0.5, None, None, 0.25, 0.0), (run,)))  # type: ignore[arg-type]
        trace.ended(Live.labels, "OK", "")
    tracing.close()
    spans = exporter.get_finished_spans()
    (found,) = [span for span in spans if span.name == "batch"]
    assert dict(found.attributes or {}) == {"rows": 2}
    inferences = [span for span in spans if span.name == "inference"]
    assert [link.context for span in inferences for link in span.links] == [found.context, found.context]
    assert {span.name for span in spans} == {"batch", "ModelInfer", "queue", "inference", "postprocess"}
    assert len({span.context.trace_id for span in spans}) == 3


@pytest.mark.parametrize(("code", "error"), [("INTERNAL", True), ("UNAVAILABLE", True), ("INVALID_ARGUMENT", False)])
def test_a_span_is_an_error_where_the_server_is_at_fault(code: str, error: bool) -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter, share=1.0)
    tracing.begin("Classify", Call("http", Caller("192.0.2.1", "shop"))).ended(("", ""), code, "A_REASON")
    tracing.close()
    (span,) = exporter.get_finished_spans()
    assert (not span.status.is_ok and not span.status.is_unset) == error
    assert dict(span.attributes or {}) == {
        "anther.code": code, "anther.reason": "A_REASON", "anther.caller": "shop", "network.protocol.name": "http"
    }  # fmt: skip


def test_the_share_decides_for_callers_who_did_not() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter, share=0.0)
    for traceparent in ("", SAMPLED, "junk"):
        tracing.begin("Classify", Call("grpc", Caller("192.0.2.1"), None, traceparent)).ended(("", ""), "OK", "")
    tracing.close()
    assert [f"{span.context.trace_id:x}".zfill(32) for span in exporter.get_finished_spans()] == [TRACE]
