"""The gRPC port as clients meet it: a real server on a free port, a real channel."""

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from bundle.manifest import Manifest
from service.classifier import Request
from service.rpc.pb.anther.v1 import classifier_pb2 as pb

SERVICE = "anther.v1.ImageClassifier"
CLASSIFY = f"/{SERVICE}/Classify"
WHERE = {"model": "flowers", "version": "1"}
PATIENCE_S = 60


@pytest.fixture(scope="session")
def red(make_picture) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(image=make_picture((255, 0, 0)))


@pytest.fixture
def edge(start_edge):
    return start_edge()


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
    "a name of a megabyte": (pb.ClassifyRequest(model="花" * 10**6), "NOT_FOUND", "MODEL_NOT_FOUND", "no model '花花"),
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
    "method", [f"/{SERVICE}/Explain", "/anther.v1.Nothing/Classify", "/inference.GRPCInferenceService/ModelInfer", "/x"]
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
    assert ends == {"Classify": "INVALID_ARGUMENT", "ListModels": "OK", "GetModel": "OK"}


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


# Overload, deadlines, callers who leave


def test_a_full_queue_refuses_at_once_with_retry_info(start_edge, failure_of, red) -> None:
    edge = start_edge(queue_limit=1)
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        waiting = [edge.stub.Classify.future(red) for _ in range(2)]
        refused = next(as_they_end(waiting))
        failure = failure_of(refused.result)
        assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert failure.metadata == {"found": "1", "limit": "1", "unit": "requests"}
        assert failure.retry_after_s > 0
        assert edge.sample("anther_rejected_total", reason="QUEUE_FULL") == 1
        assert not running.done()
    accepted = [running, *(call for call in waiting if call is not refused)]
    assert all(call.result(PATIENCE_S).predictions for call in accepted)


def as_they_end(calls: list[Any]) -> Iterator[Any]:
    """Calls in the order in which they end."""
    ended, done = [], threading.Semaphore(0)
    for call in calls:
        call.add_done_callback(lambda call: (ended.append(call), done.release()))
    for index in range(len(calls)):
        assert done.acquire(timeout=PATIENCE_S)
        yield ended[index]


def test_a_queue_full_of_bytes_refuses_too(start_edge, failure_of, red, eventually) -> None:
    edge = start_edge(queue_bytes=2 * len(red.image) - 1)
    with edge.held():
        calls = [edge.occupied(lambda: edge.stub.Classify.future(red)), edge.stub.Classify.future(red)]
        eventually(lambda: edge.lanes.waiting == 1)
        failure = failure_of(lambda: edge.stub.Classify(red))
        assert (failure.code, failure.metadata["unit"]) == ("RESOURCE_EXHAUSTED", "bytes")
    assert all(call.result(PATIENCE_S).predictions for call in calls)


def test_expired_work_never_reaches_the_engine(edge, failure_of, red, eventually) -> None:
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        runs = edge.engine.runs
        assert failure_of(lambda: edge.stub.Classify(red, timeout=0.05)).code == "DEADLINE_EXCEEDED"
        assert failure_of(lambda: edge.stub.Classify(red, timeout=1e-6)).code == "DEADLINE_EXCEEDED"
        counted = {**WHERE, "method": "Classify", "code": "DEADLINE_EXCEEDED"}
        eventually(lambda: edge.sample("anther_requests_total", **counted) >= 1)
    assert running.result(PATIENCE_S).predictions
    assert edge.stub.Classify(red, timeout=PATIENCE_S).predictions
    assert edge.engine.runs == runs + 1
    assert edge.sample("anther_rejected_total", reason="DEADLINE_EXPIRED") >= 1


def test_a_caller_who_leaves_the_queue_is_forgotten(edge, red, eventually) -> None:
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        runs = edge.engine.runs
        leaving = edge.stub.Classify.future(red)
        eventually(lambda: edge.lanes.waiting == 1)
        assert leaving.cancel()
        counted = {**WHERE, "method": "Classify", "code": "CANCELLED"}
        eventually(lambda: edge.sample("anther_requests_total", **counted) == 1)
    assert running.result(PATIENCE_S).predictions
    assert edge.stub.Classify(red).predictions
    assert edge.engine.runs == runs + 1


def test_a_caller_who_leaves_during_the_work_harms_nobody(edge, red, eventually) -> None:
    with edge.held():
        assert edge.occupied(lambda: edge.stub.Classify.future(red)).cancel()
        counted = {**WHERE, "method": "Classify", "code": "CANCELLED"}
        eventually(lambda: edge.sample("anther_requests_total", **counted) == 1)
    assert edge.stub.Classify(red).predictions


@pytest.mark.parametrize("image", [b"junk", b"\xff\xd8\xff\xe0 half a photo"])
def test_refused_pictures_are_let_go_without_the_garbage_collector(edge, failure_of, eventually, image) -> None:
    """One caller who sends 20 MB of junk again and again must not fill the server's memory."""
    failure_of(lambda: edge.stub.Classify(pb.ClassifyRequest(image=image)))
    gc.collect()
    gc.disable()
    others = requests_in_memory()  # of other tests
    try:
        for _ in range(5):
            failure_of(lambda: edge.stub.Classify(pb.ClassifyRequest(image=image)))
        eventually(lambda: requests_in_memory() <= others)
    finally:
        gc.enable()


def requests_in_memory() -> int:
    return sum(type(item) is Request for item in gc.get_objects())  # `isinstance` would wake lazy modules


# Health, reflection, metrics


def test_health_is_told_for_the_server_the_service_and_each_model(edge, failure_of) -> None:
    health = health_pb2_grpc.HealthStub(edge.channel)
    for service in ("", SERVICE, "model:flowers"):
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == 1  # SERVING
    failure = failure_of(lambda: health.Check(health_pb2.HealthCheckRequest(service="model:trees")))
    assert failure.code == "NOT_FOUND"


def test_reflection_lists_the_services_and_their_methods(edge) -> None:
    database = ProtoReflectionDescriptorDatabase(edge.channel)
    services = set(database.get_services())
    assert services == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    found = database.FindFileContainingSymbol(SERVICE)
    assert [method.name for method in found.service[0].method] == ["Classify", "ListModels", "GetModel"]


def test_calls_are_counted_with_labels_of_loaded_models_alone(edge, failure_of, red) -> None:
    edge.stub.Classify(red)
    edge.stub.ListModels(pb.ListModelsRequest())
    for number in range(20):
        failure_of(lambda number=number: edge.stub.Classify(pb.ClassifyRequest(model=f"made-up-{number}")))
    assert edge.sample("anther_requests_total", **WHERE, method="Classify", code="OK") == 1
    assert edge.sample("anther_requests_total", **WHERE, method="ListModels", code="OK") == 1
    unknown = {"model": "", "version": "", "method": "Classify", "code": "NOT_FOUND"}
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


# The end


def test_a_draining_server_refuses_with_unavailable(edge, failure_of, red) -> None:
    edge.classifier.drain()
    failure = failure_of(lambda: edge.stub.Classify(red))
    assert (failure.code, failure.reason) == ("UNAVAILABLE", "DRAINING")


def test_health_says_not_serving_before_the_port_closes(edge, run) -> None:
    health = health_pb2_grpc.HealthStub(edge.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    run(edge.server.announce_stop())
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


def test_stopping_answers_what_was_accepted(edge, run, red, eventually) -> None:
    with ThreadPoolExecutor(1) as pool:
        with edge.held():
            running = edge.occupied(lambda: edge.stub.Classify.future(red))
            waiting = edge.stub.Classify.future(red)
            eventually(lambda: edge.lanes.waiting == 1)
            stopping = pool.submit(run, edge.server.stop(PATIENCE_S))
            assert not running.done()
        assert all(call.result(PATIENCE_S).predictions for call in (running, waiting))
        stopping.result(PATIENCE_S)


def test_stopping_waits_for_calls_alone(edge, run, red) -> None:
    """A health watcher, a silent connection and half a request stay for ever, if one lets them."""
    watch = health_pb2_grpc.HealthStub(edge.channel).Watch(health_pb2.HealthCheckRequest())
    next(watch)
    enough = threading.Event()

    def half_a_request() -> Iterator[bytes]:
        enough.wait(PATIENCE_S)
        yield red.SerializeToString()

    half = edge.channel.stream_unary(CLASSIFY).future(half_a_request())
    edge.stub.Classify(red)  # on the same connection: the server has met the half by now
    with socket.create_connection(("127.0.0.1", edge.port)):
        run(edge.server.stop(10 * PATIENCE_S))  # `run` itself waits for less
    enough.set()
    assert half.code() is grpc.StatusCode.UNAVAILABLE
    assert watch.code() is grpc.StatusCode.UNAVAILABLE


def test_stopping_refuses_callers_until_they_stay_away(edge, run, red) -> None:
    """gRPC ends a call that crosses its closing as CANCELLED, which no client takes for a reason to ask another."""
    edge.classifier.drain()
    ends: list[str] = []

    def ask_thrice() -> None:
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as refusal:
                edge.stub.Classify(red, timeout=PATIENCE_S)
            ends.append(refusal.value.code().name)

    edge.stub.ListModels(pb.ListModelsRequest())  # somebody was here a moment ago
    with ThreadPoolExecutor(2) as pool:
        stopping = pool.submit(run, edge.server.stop(PATIENCE_S))
        pool.submit(ask_thrice).result(PATIENCE_S)
        stopping.result(PATIENCE_S)
    assert ends == ["UNAVAILABLE"] * 3


def test_callers_who_never_rest_do_not_hold_up_the_end(edge, run, red) -> None:
    edge.classifier.drain()
    refused, ended = threading.Semaphore(0), threading.Event()

    def hammer() -> None:
        while not ended.is_set():
            with pytest.raises(grpc.RpcError):
                edge.stub.Classify(red, timeout=PATIENCE_S)
            refused.release()

    with ThreadPoolExecutor(1) as pool:
        hammering = pool.submit(hammer)
        assert refused.acquire(timeout=PATIENCE_S)
        run(edge.server.stop(0.7))
        ended.set()
        hammering.result(PATIENCE_S)


def test_stopping_cancels_what_outlives_the_grace_period(edge, run, failure_of, red) -> None:
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        run(edge.server.stop(0.05))
        assert failure_of(lambda: running.result(PATIENCE_S)).code == "UNAVAILABLE"
