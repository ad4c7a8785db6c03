"""`ModelStreamInfer`: the same answers as calls give, in the order of the requests, and errors as items."""

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from anther.open_inference import open_inference_pb2 as pb
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub

WHERE = {"model": "flowers", "version": "1"}
PATIENCE_S = 60


# ModelStreamInfer


@pytest.fixture
def connect() -> Any:
    """Over HTTP there are no streams."""
    return lambda edge: triton.InferenceServerClient(f"127.0.0.1:{edge.port}")


@pytest.fixture
def streamed(client) -> Iterator[Any]:
    """`streamed(*asks)`: results and errors, as Triton's client calls back, of `client.async_stream_infer(**ask)`."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))

    def ask(*asks: dict[str, Any]) -> list[Any]:
        for each in asks:
            client.async_stream_infer(**{"model_name": "flowers", **each})
        return [answers.get(timeout=PATIENCE_S) for _ in asks]

    yield ask
    client.stop_stream()


def test_a_stream_gives_the_same_answers_as_calls_do(streamed, client, image_input, colourful) -> None:
    asks = [{"inputs": [image_input(colourful[n % 5])], "request_id": str(n)} for n in range(40)]
    for number, (result, error) in enumerate(streamed(*asks)):
        assert error is None
        assert result.get_response().id == str(number)
        expected = client.infer("flowers", [image_input(colourful[number % 5])]).as_numpy("probabilities")
        assert np.array_equal(result.as_numpy("probabilities"), expected)


def test_a_bad_request_is_answered_by_an_error_and_ends_nothing(edge, stub, image_request, red) -> None:
    requests = [
        image_request(red.image, id="good"),
        image_request(b"<html>", id="bad picture"),
        image_request(red.image, id="bad model", model_name="trees"),
        pb.ModelInferRequest(id="nothing"),
        image_request(red.image, id="good again"),
    ]
    responses = list(stub.ModelStreamInfer(iter(requests), timeout=PATIENCE_S))
    assert [response.infer_response.id for response in responses] == [request.id for request in requests]
    assert [response.error_message.partition(";")[0] for response in responses] == [
        "",
        "image 0: the data is text or markup",
        "no model 'trees'",
        "'inputs' is 'empty'",
        "",
    ]
    assert [len(response.infer_response.outputs) for response in responses] == [2, 0, 0, 0, 2]
    counted = {"method": "ModelStreamInfer"}
    assert edge.sample("anther_requests_total", **WHERE, **counted, code="OK") == 2
    assert edge.sample("anther_requests_total", **WHERE, **counted, code="INVALID_ARGUMENT") == 2
    assert edge.sample("anther_requests_total", model="", version="", **counted, code="NOT_FOUND") == 1


def test_every_response_of_a_stream_says_that_it_is_the_only_one(streamed, image_input, red) -> None:
    ((result, _),) = streamed({"inputs": [image_input(red.image)], "enable_empty_final_response": True})
    assert result.get_response().parameters["triton_final_response"].bool_param


def test_what_nobody_foresaw_is_an_error_item_with_a_fixed_text(edge, stub, image_request, red, caplog) -> None:
    edge.engine.error = RuntimeError("secret")
    (response,) = stub.ModelStreamInfer(iter([image_request(red.image)]), timeout=PATIENCE_S)
    assert response.error_message == "internal error; the trace is in the server's log"
    assert [record.message for record in caplog.records] == ["a call failed"]


def test_an_empty_stream_has_no_answers(stub) -> None:
    assert list(stub.ModelStreamInfer(iter([]), timeout=PATIENCE_S)) == []


def test_data_that_is_no_message_ends_the_stream(edge, failure_of) -> None:
    call = edge.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    failure = failure_of(lambda: list(call(iter([b"\xff\xff\xff"]), timeout=PATIENCE_S)))
    assert failure.code == "INVALID_ARGUMENT"


def test_a_caller_who_leaves_takes_the_waiting_requests_along(edge, stub, image_request, red, eventually) -> None:
    before = edge.engine.runs
    with edge.held():
        asked = queue.SimpleQueue()
        for _ in range(4):
            asked.put(image_request(red.image))
        call = edge.occupied(lambda: stub.ModelStreamInfer(iter(asked.get, None)))
        call.cancel()
        eventually(lambda: edge.sample("anther_rejected_total", reason="CANCELLED") == 1)
        asked.put(None)
    eventually(lambda: edge.lanes.running + edge.lanes.waiting == 0)
    assert edge.engine.runs == before + 1


def test_a_server_that_shuts_down_answers_what_it_read_and_ends_the_stream(
    run, edge, stub, image_request, red, eventually
) -> None:
    asked = queue.SimpleQueue()
    with edge.held():
        for number in range(2):
            asked.put(image_request(red.image, id=str(number)))
        call = edge.occupied(lambda: stub.ModelStreamInfer(iter(asked.get, None), timeout=PATIENCE_S))
        eventually(lambda: edge.lanes.waiting == 1)
        edge.classifier.drain()
        run(edge.server.announce_stop())
    assert [next(call).infer_response.id for _ in range(2)] == ["0", "1"]
    with pytest.raises(grpc.RpcError) as raised:
        next(call)
    asked.put(None)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_stream_that_meets_a_draining_classifier_ends_as_unavailable(edge, stub, image_request, red) -> None:
    edge.classifier.drain()
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.ModelStreamInfer(iter([image_request(red.image)]), timeout=PATIENCE_S))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    counted = {"method": "ModelStreamInfer", "code": "UNAVAILABLE"}
    assert edge.sample("anther_requests_total", **WHERE, **counted) == 1


def test_batches_keep_their_order_too(stub, image_request, colourful) -> None:
    requests = [image_request(*colourful[: 1 + n % 5], id=str(n)) for n in range(30)]
    responses = list(stub.ModelStreamInfer(iter(requests), timeout=PATIENCE_S))
    assert [response.infer_response.id for response in responses] == [str(n) for n in range(30)]
    assert [response.infer_response.outputs[0].shape[0] for response in responses] == [1 + n % 5 for n in range(30)]


def test_a_stream_with_more_pictures_than_the_queue_holds_waits_for_room(start_edge, image_request, colourful) -> None:
    edge = start_edge(queue_limit=8, stream_in_flight=4)
    requests = [image_request(*colourful, id=str(n)) for n in range(12)]
    responses = list(GRPCInferenceServiceStub(edge.channel).ModelStreamInfer(iter(requests), timeout=PATIENCE_S))
    assert [response.error_message for response in responses] == [""] * 12
    assert [response.infer_response.id for response in responses] == [str(n) for n in range(12)]


def test_a_stream_item_that_will_never_fit_is_told(start_edge, image_request, red) -> None:
    edge = start_edge(queue_bytes=len(red.image))
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        requests = iter([image_request(red.image, red.image)])
        (response,) = GRPCInferenceServiceStub(edge.channel).ModelStreamInfer(requests, timeout=PATIENCE_S)
    assert response.error_message.startswith("the queue is full")
    assert running.result(PATIENCE_S).predictions


def test_a_stream_item_that_finds_no_room_until_its_deadline_is_told(start_edge, image_request, red) -> None:
    edge = start_edge(queue_limit=1)
    late = image_request(red.image)
    late.parameters["timeout"].int64_param = 50_000  # microseconds
    with edge.held():
        calls = [edge.occupied(lambda: edge.stub.Classify.future(red)), edge.stub.Classify.future(red)]
        (response,) = GRPCInferenceServiceStub(edge.channel).ModelStreamInfer(iter([late]), timeout=PATIENCE_S)
    assert response.error_message.startswith("the deadline passed")
    assert all(call.result(PATIENCE_S).predictions for call in calls)


def test_a_stream_that_waits_for_room_holds_up_no_other(start_edge, image_request, red, eventually) -> None:
    """The other's item is read, and its own time limit counts."""
    edge = start_edge(queue_limit=1)
    stub, patient, late = GRPCInferenceServiceStub(edge.channel), image_request(red.image), image_request(red.image)
    late.parameters["timeout"].int64_param = 50_000  # microseconds
    with edge.held():
        calls = [edge.occupied(lambda: edge.stub.Classify.future(red)), edge.stub.Classify.future(red)]
        eventually(lambda: edge.lanes.waiting == 1)
        waiting = stub.ModelStreamInfer(iter([patient]), timeout=PATIENCE_S)
        (response,) = stub.ModelStreamInfer(iter([late]), timeout=PATIENCE_S)
    assert response.error_message.startswith("the deadline passed")
    assert not next(waiting).error_message
    assert all(call.result(PATIENCE_S).predictions for call in calls)


def test_the_client_goes_on_with_its_stream_after_an_error(streamed, image_input, red) -> None:
    ((_, error),) = streamed({"inputs": [triton.InferInput("image", [1], "BYTES")]})
    assert "'image.contents' is '0 elements'" in error.message()
    ((result, _),) = streamed({"inputs": [image_input(red.image)]})
    assert result.as_numpy("probabilities").shape == (1, 3)
