"""ModelInfer when something is wrong: all pictures or none, limits, deadlines, and every mistake of a client."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from anther.open_inference import open_inference_pb2 as pb
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.core.requests import ImageRequest

PATIENCE_S = 60


# All or nothing


def test_one_bad_picture_refuses_the_request_and_is_named(client, image_input, red, edge) -> None:
    with pytest.raises(InferenceServerException) as raised:
        client.infer("flowers", [image_input(red.image, red.image, b"<html>", b"")])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert raised.value.message().startswith("image 2: the data is text or markup; allowed formats are")
    assert edge.sample("anther_rejected_total", reason="IMAGE_FORMAT_REFUSED") == 1


@pytest.mark.parametrize("others", [0, 3])
def test_the_index_of_a_bad_picture_is_a_fact_for_programs(stub, image_request, red, failure_of, others: int) -> None:
    request = image_request(*[red.image] * others, b"\xff\xd8\xff\xe0")
    failure = failure_of(lambda: stub.ModelInfer(request))
    assert (failure.reason, failure.metadata["index"]) == ("IMAGE_UNDECODABLE", str(others))
    assert failure.message.startswith(f"image {others}: the JPEG data cannot be decoded")


def test_a_bad_picture_cancels_those_that_wait(edge, stub, image_request, red, failure_of, eventually) -> None:
    """The caller hears of it while the lane is held up; of the others at most the one that had begun is run."""
    before = edge.engine.runs
    with edge.held():
        call = stub.ModelInfer.future(image_request(b"<html>", *[red.image] * 20))
        assert failure_of(lambda: call.result(PATIENCE_S)).metadata["index"] == "0"
    eventually(lambda: edge.lanes.running + edge.lanes.waiting == 0)
    assert edge.engine.runs <= before + 1


def test_a_caller_who_leaves_takes_the_waiting_pictures_along(edge, stub, image_request, red, eventually) -> None:
    before = edge.engine.runs
    with edge.held():
        call = edge.occupied(lambda: stub.ModelInfer.future(image_request(*[red.image] * 20)))
        assert call.cancel()
        eventually(lambda: edge.sample("anther_rejected_total", reason="CANCELLED") == 1)
    eventually(lambda: edge.lanes.running == 0)
    assert edge.engine.runs == before + 1


@pytest.mark.parametrize("pictures", [(b"<html>",), (b"<html>", b"", b"<html>")], ids=["one", "several"])
def test_refused_pictures_are_let_go_without_the_garbage_collector(
    edge, stub, image_request, failure_of, eventually, pictures: tuple[bytes, ...]
) -> None:
    """One caller who sends junk again and again must not fill the server's memory."""
    request = image_request(*pictures)
    failure_of(lambda: stub.ModelInfer(request))
    gc.collect()
    gc.disable()
    others = requests_in_memory()  # of other tests
    try:
        for _ in range(5):
            failure_of(lambda: stub.ModelInfer(request))
            list(stub.ModelStreamInfer(iter([request]), timeout=PATIENCE_S))
        eventually(lambda: requests_in_memory() <= others)
    finally:
        gc.enable()


def requests_in_memory() -> int:
    return sum(type(item) is ImageRequest for item in gc.get_objects())  # `isinstance` would wake lazy modules


# Limits


def test_a_picture_over_the_limits_is_named(start_edge, image_request, make_picture, failure_of) -> None:
    edge = start_edge(max_image_bytes=1000, max_image_pixels=2000)
    stub = GRPCInferenceServiceStub(edge.channel)
    small = make_picture((1, 2, 3), size=(40, 50))
    cases = {
        "IMAGE_TOO_MANY_BYTES": b"x" * 1001,
        "IMAGE_TOO_MANY_PIXELS": make_picture((1, 2, 3), size=(41, 50)),
    }
    for reason, picture in cases.items():
        failure = failure_of(lambda picture=picture: stub.ModelInfer(image_request(small, picture)))
        assert (failure.code, failure.reason, failure.metadata["index"]) == ("INVALID_ARGUMENT", reason, "1")


def test_more_pictures_than_the_queue_could_ever_hold_are_refused(start_edge, image_request, red, failure_of) -> None:
    stub = GRPCInferenceServiceStub(start_edge(queue_limit=2).channel)
    assert stub.ModelInfer(image_request(red.image, red.image)).outputs[0].shape[0] == 2
    failure = failure_of(lambda: stub.ModelInfer(image_request(*[red.image] * 3)))
    assert failure.message == "'image.shape' is [3]; expected [N, 1] or [N] with N from 1 to 2"


def test_a_full_queue_refuses_the_whole_request_with_retry_info(start_edge, image_request, red, failure_of, eventually):
    edge = start_edge(queue_limit=2)
    stub = GRPCInferenceServiceStub(edge.channel)
    before = edge.engine.runs
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        waiting = edge.stub.Classify.future(red)
        eventually(lambda: edge.lanes.waiting == 1)
        failure = failure_of(lambda: stub.ModelInfer(image_request(red.image, red.image)))
        assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert failure.retry_after_s > 0
    assert running.result(PATIENCE_S).predictions
    assert waiting.result(PATIENCE_S).predictions
    eventually(lambda: edge.lanes.running == 0)
    assert edge.engine.runs == before + 2


def test_a_message_over_the_limit_is_refused_unread(start_edge, image_request, failure_of) -> None:
    stub = GRPCInferenceServiceStub(start_edge(max_image_bytes=1000).channel)
    failure = failure_of(lambda: stub.ModelInfer(image_request(b"x" * 200_000)))
    assert failure.code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("by", ["call", "parameter", "both"])
def test_expired_requests_never_reach_the_engine(edge, stub, image_request, red, failure_of, eventually, by) -> None:
    microseconds = {"timeout": pb.InferParameter(int64_param=1)}
    request = image_request(red.image, red.image, parameters=None if by == "call" else microseconds)
    before = edge.engine.runs
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        timeout = {"call": 0.05, "parameter": None, "both": PATIENCE_S}[by]
        late = stub.ModelInfer.future(request, timeout=timeout)
        if by == "call":
            assert failure_of(lambda: late.result(PATIENCE_S)).code == "DEADLINE_EXCEEDED"
        else:
            eventually(lambda: edge.lanes.waiting == 2)
    assert running.result(PATIENCE_S).predictions
    assert failure_of(lambda: late.result(PATIENCE_S)).code == "DEADLINE_EXCEEDED"
    eventually(lambda: edge.lanes.running + edge.lanes.waiting == 0)
    assert edge.engine.runs == before + 1


@pytest.mark.parametrize("connect", ["grpc"], indirect=True)
def test_expired_pixels_never_reach_the_engine(edge, client, pixels_input, prepared, red, eventually) -> None:
    pixels = prepared([red.image])
    before = edge.engine.runs
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(client.infer, "flowers", [pixels_input(pixels)], timeout=1)
            eventually(lambda: edge.lanes.waiting == 1)
            edge.engine.gate.set()
            with pytest.raises(InferenceServerException) as raised:
                late.result(PATIENCE_S)
    assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert running.result(PATIENCE_S).predictions
    assert edge.engine.runs == before + 1


def test_a_draining_server_sends_callers_to_another(edge, client, image_input, red) -> None:
    edge.classifier.drain()
    with pytest.raises(InferenceServerException) as raised:
        client.infer("flowers", [image_input(red.image)])
    assert raised.value.status() == "StatusCode.UNAVAILABLE"


def test_what_nobody_foresaw_is_internal(edge, client, image_input, red, caplog) -> None:
    edge.engine.error = RuntimeError("secret")
    with pytest.raises(InferenceServerException) as raised:
        client.infer("flowers", [image_input(red.image)])
    assert raised.value.message() == "internal error; the trace is in the server's log"
    assert [record.message for record in caplog.records] == ["a call failed"]


# Mistakes through Triton's own client


@pytest.mark.parametrize("connect", ["grpc"], indirect=True)
@pytest.mark.parametrize(
    "datatype",
    ["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64", "BF16"],
)
@pytest.mark.parametrize(("name", "right"), [("image", "BYTES"), ("pixels", "UINT8")])
def test_every_wrong_datatype_is_an_invalid_argument(client, name: str, right: str, datatype: str) -> None:
    array = np.zeros((1, 32, 32, 3), triton_to_np_dtype(datatype))
    tensor = triton.InferInput(name, array.shape, datatype).set_data_from_numpy(array)
    if datatype == right:
        assert client.infer("flowers", [tensor]).as_numpy("logits").shape == (1, 3)
        return
    with pytest.raises(InferenceServerException) as raised:
        client.infer("flowers", [tensor])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert raised.value.message() == f"'{name}.datatype' is '{datatype}'; expected {right}"


def test_a_wrong_size_of_pixels_names_the_models_own(client, pixels_input) -> None:
    with pytest.raises(InferenceServerException, match=r"\[1, 224, 224, 3\].*expected \[N, 32, 32, 3\]"):
        client.infer("flowers", [pixels_input(np.zeros((1, 224, 224, 3), np.uint8))])


def test_shared_memory_is_refused_for_inputs_and_outputs(client, image_input, red) -> None:
    shared = triton.InferInput("image", [1], "BYTES")
    shared.set_shared_memory("region", 100)
    with pytest.raises(InferenceServerException, match=r"'image\.parameters' is 'shared_memory_"):
        client.infer("flowers", [shared])
    output = triton.InferRequestedOutput("logits")
    output.set_shared_memory("region", 100)
    with pytest.raises(InferenceServerException, match=r"'logits\.parameters' is 'shared_memory_"):
        client.infer("flowers", [image_input(red.image)], outputs=[output])
