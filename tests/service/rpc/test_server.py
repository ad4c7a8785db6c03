"""The gRPC port as clients meet it: a real server on a free port, a real channel."""

import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from anther.v1 import classifier_pb2 as pb
from bundle.manifest import Manifest
from service.rpc import options as options_module
from tests.faults.raw import RawClient

SERVICE = "anther.v1.ImageClassifier"
OPEN_INFERENCE = "inference.GRPCInferenceService"
WHERE = {"model": "flowers", "version": "1"}
PATIENCE_S = 60


@pytest.fixture
def call_raw(edge) -> Callable[..., bytes]:
    """`call_raw(method, data)` sends bytes that need not be a message."""

    def call(method: str, data: bytes) -> bytes:
        return edge.channel.unary_unary(method)(data, timeout=PATIENCE_S)

    return call


# Answers


@pytest.mark.parametrize(
    ("colour", "label", "index"),
    [((255, 0, 0), "daisy", 0), ((0, 255, 0), "tulips", 1), ((0, 0, 255), "roses", 2), ((250, 30, 30), "daisy", 0)],
)
def test_a_picture_gets_the_class_of_its_colour(edge, make_picture, colour, label, index) -> None:
    answer = edge.stub.Classify(pb.ClassifyRequest(image=make_picture(colour), top_k=2))
    assert (answer.model, answer.version, answer.execution_provider) == ("flowers", 1, "CPUExecutionProvider")
    assert (answer.predictions[0].label, answer.predictions[0].index) == (label, index)
    assert answer.predictions[0].probability > 0.9
    assert len(answer.predictions) == 2
    assert answer.confident


def test_an_answer_tells_where_the_time_went(edge, red) -> None:
    timings = edge.stub.Classify(red).timings
    seconds = {field.name: getattr(timings, field.name) for field in timings.DESCRIPTOR.fields}
    assert seconds.keys() == {"queue", "decode", "preprocess", "inference", "postprocess"}
    assert all(0 < value < PATIENCE_S for value in seconds.values())


def test_many_callers_at_once_each_get_their_own_answer(start_edge, make_picture) -> None:
    edge, colours = start_edge(lanes=2), [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    requests = [pb.ClassifyRequest(image=make_picture(colours[number % 3])) for number in range(60)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(edge.stub.Classify, requests))
    assert [answer.predictions[0].index for answer in answers] == [number % 3 for number in range(60)]


def test_models_are_listed_by_name(start_edge, tmp_path, publish_bundle) -> None:
    publish_bundle(tmp_path, "trees", labels=("oak", "elm"))
    publish_bundle(tmp_path, "flowers")
    models = start_edge(tmp_path).stub.ListModels(pb.ListModelsRequest()).models
    assert [(model.name, model.version, list(model.labels)) for model in models] == [
        ("flowers", 1, ["daisy", "tulips", "roses"]),
        ("trees", 1, ["oak", "elm"]),
    ]


def test_a_model_is_described_with_its_whole_manifest(edge) -> None:
    model = edge.stub.GetModel(pb.GetModelRequest(model="flowers", version=1)).model
    manifest = Manifest.from_json(model.manifest_json)
    assert model.sha256 == manifest.files["model.onnx"]
    assert (model.architecture, model.precision, model.threshold) == ("colours", "fp32", 0.7)
    assert model.execution_provider == "CPUExecutionProvider"
    assert (model.test_metrics.photos, model.test_metrics.top1) == (30, 1.0)
    assert (model.test_metrics.top1_low, model.test_metrics.top1_high) == (0.9, 1.0)
    assert edge.stub.GetModel(pb.GetModelRequest()).model == model


# Refusals


REFUSED = {
    "no picture": (pb.ClassifyRequest(), "INVALID_ARGUMENT", "IMAGE_FORMAT_REFUSED", "the data is empty"),
    "text": (
        pb.ClassifyRequest(image=b"<html>"),
        "INVALID_ARGUMENT",
        "IMAGE_FORMAT_REFUSED",
        "the data is text or markup",
    ),
    "half a file": (
        pb.ClassifyRequest(image=b"\xff\xd8\xff\xe0"),
        "INVALID_ARGUMENT",
        "IMAGE_UNDECODABLE",
        "the JPEG data cannot be decoded",
    ),
    "unknown model": (
        pb.ClassifyRequest(model="trees"),
        "NOT_FOUND",
        "MODEL_NOT_FOUND",
        "no model 'trees'; available: flowers",
    ),
    "unknown version": (
        pb.ClassifyRequest(version=9),
        "NOT_FOUND",
        "VERSION_NOT_FOUND",
        "model 'flowers' has no version 9; available: 1",
    ),
    "negative version": (pb.ClassifyRequest(version=-1), "NOT_FOUND", "VERSION_NOT_FOUND", "no version -1"),
    "negative top_k": (pb.ClassifyRequest(top_k=-1), "INVALID_ARGUMENT", "INVALID_ARGUMENT", "'top_k' is -1"),
    "a name in control characters": (
        pb.ClassifyRequest(model="a\n\0b"),
        "NOT_FOUND",
        "MODEL_NOT_FOUND",
        "no model 'a\n\0b'",
    ),
    "a name of a megabyte": (
        pb.ClassifyRequest(model="花" * 10**6),
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "expected at most 256 characters",
    ),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_a_refused_request_gets_code_reason_and_message(edge, failure_of, refused: str) -> None:
    request, code, reason, message = REFUSED[refused]
    failure = failure_of(lambda: edge.stub.Classify(request))
    assert (failure.code, failure.reason) == (code, reason)
    assert message in failure.message
    assert edge.sample("anther_rejected_total", reason=reason) == 1


def test_facts_of_a_refusal_are_readable_by_programs(edge, failure_of) -> None:
    failure = failure_of(lambda: edge.stub.GetModel(pb.GetModelRequest(model="flowers", version=7)))
    assert failure.metadata == {"model": "flowers", "version": "7", "available": "1"}
    assert failure_of(lambda: edge.stub.GetModel(pb.GetModelRequest(model="trees"))).code == "NOT_FOUND"


def test_a_picture_over_the_limit_is_refused_with_the_limit(start_edge, failure_of) -> None:
    edge = start_edge(max_image_bytes=1000)
    failure = failure_of(lambda: edge.stub.Classify(pb.ClassifyRequest(image=b"x" * 1001)))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "IMAGE_TOO_MANY_BYTES")
    assert failure.metadata == {"found": "1001", "limit": "1000"}


def test_a_message_over_the_limit_is_refused_unread(start_edge, failure_of, red) -> None:
    edge = start_edge(max_image_bytes=1000)
    large = pb.ClassifyRequest(image=b"x" * 200_000)
    assert failure_of(lambda: edge.stub.Classify(large)).code == "RESOURCE_EXHAUSTED"
    assert edge.stub.Classify(red).predictions


def test_a_compressed_message_may_not_expand_over_the_limit(start_edge, failure_of, red) -> None:
    edge = start_edge(max_image_bytes=1000)
    bomb = pb.ClassifyRequest(image=b"\0" * 50_000_000)
    failure = failure_of(lambda: edge.stub.Classify(bomb, compression=grpc.Compression.Gzip))
    assert failure.code == "RESOURCE_EXHAUSTED"
    assert edge.stub.Classify(red, compression=grpc.Compression.Gzip).predictions


@pytest.mark.parametrize(
    "method", [f"/{SERVICE}/Nothing", "/anther.v1.Nothing/Classify", "/inference.GRPCInferenceService/Nothing", "/x"]
)
def test_unknown_methods_are_unimplemented(call_raw, failure_of, method: str) -> None:
    assert failure_of(lambda: call_raw(method, b"")).code == "UNIMPLEMENTED"


@pytest.mark.parametrize("method", ["Classify", "GetModel"])
@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff", b"\x12\x02\xff\xfe", b"\x0a\xff", b"\x07"], ids=["varint", "UTF-8", "length", "wire type"]
)
def test_data_that_is_no_message_is_the_callers_fault(edge, call_raw, failure_of, caplog, method, data) -> None:
    if (method, data[0]) == ("GetModel", 0x12):
        data = b"\x0a\x02\xff\xfe"
    failure = failure_of(lambda: call_raw(f"/{SERVICE}/{method}", data))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert "'request' is" in failure.message
    assert "Error" not in failure.message
    assert caplog.records == []
    counted = {"model": "", "version": "", "method": method, "code": "INVALID_ARGUMENT"}
    assert edge.sample("anther_requests_total", **counted) == 1


def test_every_method_answers_a_request_with_every_field_missing(edge, call_raw, failure_of) -> None:
    service = pb.DESCRIPTOR.services_by_name["ImageClassifier"]
    ends = {}
    for method in service.methods:
        try:
            call_raw(f"/{SERVICE}/{method.name}", b"")
            ends[method.name] = "OK"
        except grpc.RpcError as error:
            ends[method.name] = error.code().name
    assert ends == {
        "Classify": "INVALID_ARGUMENT",
        "ClassifyStream": "OK",  # its one item says INVALID_ARGUMENT
        "Explain": "INVALID_ARGUMENT",
        "ListModels": "OK",
        "GetModel": "OK",
    }


def test_where_several_models_serve_the_request_must_name_one(
    start_edge, tmp_path, publish_bundle, failure_of, red
) -> None:
    publish_bundle(tmp_path, "trees")
    publish_bundle(tmp_path, "flowers")
    edge = start_edge(tmp_path)
    failure = failure_of(lambda: edge.stub.Classify(red))
    assert (failure.code, failure.metadata["field"]) == ("INVALID_ARGUMENT", "model")
    assert "one of flowers, trees" in failure.message
    assert edge.stub.Classify(pb.ClassifyRequest(image=red.image, model="trees")).model == "trees"
    assert start_edge(tmp_path, default_model="flowers").stub.Classify(red).model == "flowers"


def test_what_nobody_foresaw_is_internal_and_its_trace_is_in_the_log(edge, failure_of, caplog, red) -> None:
    edge.engine.error = RuntimeError("CUDA error 700 at /secret/path")
    failure = failure_of(lambda: edge.stub.Classify(red))
    assert (failure.code, failure.reason) == ("INTERNAL", "INTERNAL")
    assert failure.message == "internal error; the trace is in the server's log"
    (record,) = caplog.records
    assert "CUDA error 700" in str(record.exc_info[1])
    edge.engine.error = None
    assert edge.stub.Classify(red).predictions


# Health, reflection, metrics


def test_health_is_told_for_the_server_the_service_and_each_model(edge, failure_of) -> None:
    health = health_pb2_grpc.HealthStub(edge.channel)
    for service in ("", SERVICE, OPEN_INFERENCE, "model:flowers"):
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == 1  # SERVING
    failure = failure_of(lambda: health.Check(health_pb2.HealthCheckRequest(service="model:trees")))
    assert failure.code == "NOT_FOUND"


def test_reflection_lists_the_services_and_their_methods(edge) -> None:
    database = ProtoReflectionDescriptorDatabase(edge.channel)
    services = set(database.get_services())
    assert services == {SERVICE, OPEN_INFERENCE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    found = database.FindFileContainingSymbol(SERVICE)
    assert [method.name for method in found.service[0].method] == [
        "Classify",
        "ClassifyStream",
        "Explain",
        "ListModels",
        "GetModel",
    ]


def test_calls_are_counted_with_labels_of_loaded_models_alone(edge, failure_of, red) -> None:
    edge.stub.Classify(red)
    edge.stub.ListModels(pb.ListModelsRequest())
    for number in range(20):
        failure_of(lambda number=number: edge.stub.Classify(pb.ClassifyRequest(model=f"made-up-{number}")))
    assert edge.sample("anther_requests_total", **WHERE, method="Classify", code="OK") == 1
    none = {"model": "", "version": ""}
    assert edge.sample("anther_requests_total", **none, method="ListModels", code="OK") == 1
    unknown = {**none, "method": "Classify", "code": "NOT_FOUND"}
    assert edge.sample("anther_requests_total", **unknown) == 20
    labels = {
        label
        for family in edge.metrics.registry.collect()
        for sample in family.samples
        for label in sample.labels.values()
    }
    assert not any("made-up" in label for label in labels)


def test_an_answer_counts_its_label_and_confidence(edge, red) -> None:
    edge.stub.Classify(red)
    assert edge.sample("anther_predictions_total", **WHERE, label="daisy") == 1
    assert edge.sample("anther_confidence_count", **WHERE) == 1
    assert edge.sample("anther_stage_duration_seconds_count", **WHERE, stage="inference") == 1


# Callers who fall silent


def test_a_stream_whose_caller_no_longer_answers_is_let_go(start_edge, monkeypatch, eventually) -> None:
    """As where a machine lost its power: nothing is closed, nothing comes any more.

    Whether it counts as CANCELLED is open: gRPC may first say that no message is left, then that the caller is gone.
    """
    monkeypatch.setattr(options_module, "_SILENCE_S", 0.2)
    monkeypatch.setattr(options_module, "_PATIENCE_S", 0.2)
    edge = start_edge()
    with RawClient(edge.port) as caller:
        caller.open_call(f"/{SERVICE}/ClassifyStream")
        eventually(lambda: len(edge.server._streams.waiting) == 1)
        eventually(lambda: len(edge.server._streams.waiting) == 0)
        eventually(edge.server._calls.idle.is_set)


def test_a_caller_may_be_silent_as_long_as_its_machine_answers(start_edge, monkeypatch, red) -> None:
    monkeypatch.setattr(options_module, "_SILENCE_S", 0.1)
    monkeypatch.setattr(options_module, "_PATIENCE_S", 0.5)
    edge = start_edge()
    asked: queue.SimpleQueue[pb.ClassifyRequest | None] = queue.SimpleQueue()
    answers = edge.stub.ClassifyStream(iter(asked.get, None), timeout=PATIENCE_S)
    time.sleep(1.5)
    asked.put(red)
    assert next(answers).answer.predictions
    asked.put(None)
    assert list(answers) == []
