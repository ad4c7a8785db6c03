"""Calls and messages over the limits are refused with a reason and counted, and say when to come back."""

import threading
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from service.edge import arrivals

PATIENCE_S = 60
CLASSIFY = "/anther.v1.ImageClassifier/Classify"


@pytest.fixture
def red(pictures) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(image=pictures["daisy"])


@pytest.fixture
def impatient(start_edge, monkeypatch):
    """A server that waits for no message longer than a moment."""
    monkeypatch.setattr(arrivals, "_TICK_S", 0.05)
    return start_edge(arrival_s=0.05)


def test_calls_over_the_limit_are_refused_at_once_and_counted(start_edge, red, failure_of) -> None:
    edge = start_edge(max_calls=4)
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        streams = [edge.stub.ClassifyStream(waits(threading.Event())) for _ in range(2)]
        edge.stub.ListModels.future(pb.ListModelsRequest()).exception(PATIENCE_S)
        failures = [failure_of(lambda: edge.stub.ListModels(pb.ListModelsRequest())) for _ in range(5)]
        assert not running.done()
    assert {(each.code, each.reason) for each in failures} == {("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")}
    assert all(each.retry_after_s > 0 for each in failures)
    assert edge.sample("anther_rejected_total", reason="TOO_MANY_CALLS") >= len(failures)
    assert running.result(PATIENCE_S).predictions
    for stream in streams:
        stream.cancel()


def waits(end: threading.Event) -> Iterator[pb.ClassifyRequest]:
    end.wait(PATIENCE_S)
    yield from ()


def test_a_call_without_a_message_is_told_so(start_edge, failure_of) -> None:
    edge = start_edge()
    failure = failure_of(lambda: edge.channel.stream_unary(CLASSIFY)(iter(()), timeout=PATIENCE_S))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert "expected one message" in failure.message
    assert edge.sample("anther_requests_total", model="", version="", method="Classify", code="INVALID_ARGUMENT") == 1


def test_of_two_messages_the_first_is_the_request(start_edge, red) -> None:
    messages = [red.SerializeToString(), b"\xff"]
    answer = start_edge().channel.stream_unary(CLASSIFY)(iter(messages), timeout=PATIENCE_S)
    assert pb.ClassifyResponse.FromString(answer).predictions[0].label == "daisy"


def test_a_message_that_does_not_arrive_in_time_is_ended_and_counted(impatient, failure_of) -> None:
    end = threading.Event()

    def nothing() -> Iterator[bytes]:
        end.wait(PATIENCE_S)
        yield b""

    failure = failure_of(lambda: impatient.channel.stream_unary(CLASSIFY)(nothing(), timeout=PATIENCE_S))
    end.set()
    assert (failure.code, failure.reason) == ("DEADLINE_EXCEEDED", "ARRIVED_TOO_SLOWLY")
    assert impatient.sample("anther_rejected_total", reason="ARRIVED_TOO_SLOWLY") == 1


def test_a_silent_stream_is_ended_as_one_that_may_be_opened_again(impatient, failure_of) -> None:
    end = threading.Event()
    stream = impatient.stub.ClassifyStream(waits(end))
    failure = failure_of(lambda: next(stream))
    end.set()
    assert (failure.code, failure.reason) == ("UNAVAILABLE", "STREAM_SILENT")
    assert impatient.sample("anther_rejected_total", reason="STREAM_SILENT") == 1


def test_a_question_about_health_is_short(start_edge) -> None:
    stub = health_pb2_grpc.HealthStub(start_edge().channel)
    with pytest.raises(grpc.RpcError) as refusal:
        stub.Check(health_pb2.HealthCheckRequest(service="x" * 10_000), timeout=PATIENCE_S)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_id_a_name_a_label_and_parameters_have_a_length(start_edge, red, failure_of) -> None:
    stub: ImageClassifierStub = start_edge().stub
    for field, length in {"id": 1025, "model": 257, "label": 257}.items():
        asked = pb.ClassifyRequest(image=red.image, **{field: "x" * length})
        failure = failure_of(lambda asked=asked: stub.Classify(asked))
        assert (failure.code, failure.metadata["field"]) == ("INVALID_ARGUMENT", field)
    assert stub.Classify(pb.ClassifyRequest(image=red.image, id="x" * 1024)).id == "x" * 1024
    (item,) = stub.ClassifyStream(iter([pb.ClassifyRequest(image=red.image, id="x" * 10**5)]))
    assert (item.error.reason, len(item.id)) == ("INVALID_ARGUMENT", 1024)
