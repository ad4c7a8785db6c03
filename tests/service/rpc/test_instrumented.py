"""Which version a call is counted for."""

import grpc
import pytest

from anther.open_inference import open_inference_pb2 as inference
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2 as pb


@pytest.fixture
def canary_edge(start_canary):
    return start_canary(1.0)


def counted(edge, version: str, method: str, code: str) -> float:
    return edge.sample("anther_requests_total", model="flowers", version=version, method=method, code=code)


def test_a_canarys_calls_count_for_the_canary_whatever_becomes_of_them(canary_edge, pictures) -> None:
    assert canary_edge.stub.Classify(pb.ClassifyRequest(image=pictures["daisy"])).version == 2
    with pytest.raises(grpc.RpcError):
        canary_edge.stub.Classify(pb.ClassifyRequest(image=b"junk"))
    assert counted(canary_edge, "2", "Classify", "OK") == 1
    assert counted(canary_edge, "2", "Classify", "INVALID_ARGUMENT") == 1
    assert canary_edge.stub.Classify(pb.ClassifyRequest(image=pictures["daisy"], label="stable")).version == 1
    assert counted(canary_edge, "1", "Classify", "OK") == 1


def test_a_streams_items_count_for_the_version_that_answered_them(canary_edge, pictures) -> None:
    stub = GRPCInferenceServiceStub(canary_edge.channel)

    def item(picture: bytes, **fields: str) -> inference.ModelInferRequest:
        contents = inference.InferTensorContents(bytes_contents=[picture])
        image = inference.ModelInferRequest.InferInputTensor(
            name="image", datatype="BYTES", shape=[1], contents=contents
        )
        return inference.ModelInferRequest(inputs=[image], **fields)

    items = [item(pictures["daisy"]), item(b"junk"), item(pictures["daisy"], model_version="1")]
    assert len(list(stub.ModelStreamInfer(iter(items), timeout=60))) == 3
    method = "ModelStreamInfer"
    assert [counted(canary_edge, "2", method, code) for code in ("OK", "INVALID_ARGUMENT")] == [1, 1]
    assert [counted(canary_edge, "1", method, code) for code in ("OK", "INVALID_ARGUMENT")] == [1, 0]


def test_a_call_that_needs_no_version_counts_for_the_one_that_stands_for_the_model(canary_edge) -> None:
    canary_edge.stub.GetModel(pb.GetModelRequest(model="flowers"))
    assert counted(canary_edge, "1", "GetModel", "OK") + counted(canary_edge, "2", "GetModel", "OK") == 1
