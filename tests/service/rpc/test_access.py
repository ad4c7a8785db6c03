"""Tokens at the gRPC port: every method asks for its scope, health is free, and who is over a quota is told to wait."""

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from anther.open_inference import open_inference_pb2 as oip
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2 as pb
from service.edge.calls import SCOPES
from service.identity.tokens import Token, digest, dumped

TOKENS = (
    Token("reader", digest("t-reader"), ("models",)),
    Token("shop", digest("t-shop"), ("classify",), models=("flowers",)),
    Token("stranger", digest("t-stranger"), ("classify", "models"), models=("trees",)),
    Token("slow", digest("t-slow"), ("classify",), images_per_second=0.001),
    Token("quick", digest("t-quick"), ("classify",), images_per_second=20),
    Token("single", digest("t-single"), ("classify", "models"), in_flight=1),
)


def bearer(name: str) -> Any:
    return (("authorization", f"Bearer t-{name}"),)


@pytest.fixture
def edge(start_edge: Callable[..., Any], tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "tokens.json"
    path.write_bytes(dumped(TOKENS))
    return start_edge(tokens=str(path), lanes=2)


def test_every_method_is_in_the_table() -> None:
    services = (pb.DESCRIPTOR.services_by_name.values(), oip.DESCRIPTOR.services_by_name.values())
    names = {method.name for found in services for service in found for method in service.methods}
    assert names <= SCOPES.keys()
    assert {name for name, needed in SCOPES.items() if needed == "free"} == {
        "ServerLive", "ServerReady", "ModelReady", "OpenApi",
    }  # fmt: skip


def test_no_method_answers_a_stranger_but_those_that_are_free(edge: Any) -> None:
    """Each method of both protocols and of reflection, asked with an empty message over the wire."""
    codes = {}
    for file in (pb.DESCRIPTOR, oip.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        for service in file.services_by_name.values():
            for method in service.methods:
                call = edge.channel.stream_stream(f"/{service.full_name}/{method.name}")(iter([b""]), timeout=60)
                try:
                    list(call)
                except grpc.RpcError as error:
                    codes[method.name] = error.code().name
    assert {name: code for name, code in codes.items() if SCOPES[name] != "free"} == {
        name: "UNAUTHENTICATED" for name, needed in SCOPES.items() if needed != "free"
    }
    assert "UNAUTHENTICATED" not in [code for name, code in codes.items() if SCOPES[name] == "free"]


def test_a_call_needs_a_token_that_is_for_it(edge: Any, pictures: dict[str, bytes], failure_of: Any) -> None:
    stub, inference = edge.stub, GRPCInferenceServiceStub(edge.channel)
    request = pb.ClassifyRequest(image=pictures["daisy"])
    index = oip.RepositoryIndexRequest()

    for metadata in (None, bearer("wrong"), (*bearer("shop"), *bearer("shop"))):
        found = failure_of(lambda metadata=metadata: stub.Classify(request, metadata=metadata))
        assert (found.code, found.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        assert "t-wrong" not in found.message
    found = failure_of(lambda: stub.Classify(request, metadata=bearer("reader")))
    assert (found.code, found.reason, found.metadata["caller"]) == ("PERMISSION_DENIED", "PERMISSION_DENIED", "reader")
    found = failure_of(lambda: list(stub.ClassifyStream(iter([request]))))
    assert found.code == "UNAUTHENTICATED"
    found = failure_of(lambda: inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest(), metadata=bearer("shop")))
    assert found.code == "PERMISSION_DENIED"

    assert stub.Classify(request, metadata=bearer("shop")).model == "flowers"
    assert inference.RepositoryIndex(index, metadata=bearer("reader")).models
    assert edge.sample("anther_caller_requests_total", caller="shop", code="OK") == 1
    assert edge.sample("anther_caller_requests_total", caller="reader", code="PERMISSION_DENIED") == 1
    assert edge.sample("anther_rejected_total", reason="UNAUTHENTICATED") == 4


def test_a_token_for_other_models_learns_nothing_of_these(edge: Any, pictures: Any, failure_of: Any) -> None:
    stub, inference, metadata = edge.stub, GRPCInferenceServiceStub(edge.channel), bearer("stranger")
    for model in ("", "flowers", "nothing"):
        request = pb.ClassifyRequest(image=pictures["daisy"], model=model)
        found = failure_of(lambda request=request: stub.Classify(request, metadata=metadata))
        assert found.code == "PERMISSION_DENIED"
    found = failure_of(lambda: stub.Classify(pb.ClassifyRequest(model="trees"), metadata=metadata))
    assert (found.code, found.message) == ("NOT_FOUND", "no model 'trees'; available: none")
    assert not stub.ListModels(pb.ListModelsRequest(), metadata=metadata).models
    assert not inference.RepositoryIndex(oip.RepositoryIndexRequest(), metadata=metadata).models
    assert not inference.ModelStatistics(oip.ModelStatisticsRequest(), metadata=metadata).model_stats


def test_evidence_in_a_tensor_needs_the_scope_of_explanations(edge: Any, failure_of: Any) -> None:
    evidence = oip.ModelInferRequest.InferRequestedOutputTensor(name="evidence")
    request = oip.ModelInferRequest(model_name="flowers", outputs=[evidence])
    found = failure_of(lambda: GRPCInferenceServiceStub(edge.channel).ModelInfer(request, metadata=bearer("shop")))
    assert (found.code, found.metadata["missing"]) == ("PERMISSION_DENIED", "the scope 'explain'")


def test_probes_are_free_and_reflection_is_for_callers(edge: Any, failure_of: Any) -> None:
    health = health_pb2_grpc.HealthStub(edge.channel)
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    assert GRPCInferenceServiceStub(edge.channel).ServerReady(oip.ServerReadyRequest()).ready
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    reflection = reflection_pb2_grpc.ServerReflectionStub(edge.channel)
    assert failure_of(lambda: next(reflection.ServerReflectionInfo(iter(asked)))).code == "UNAUTHENTICATED"
    assert next(reflection.ServerReflectionInfo(iter(asked), metadata=bearer("shop"))).list_services_response.service


def test_a_batch_is_charged_for_each_image_and_told_how_long_to_wait(edge: Any, pictures: Any, failure_of: Any) -> None:
    inference = GRPCInferenceServiceStub(edge.channel)
    image = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[4, 1])
    image.contents.bytes_contents.extend([pictures["daisy"]] * 4)
    request = oip.ModelInferRequest(model_name="flowers", inputs=[image])
    inference.ModelInfer(request, metadata=bearer("slow"))
    found = failure_of(lambda: inference.ModelInfer(request, metadata=bearer("slow")))
    assert (found.code, found.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert found.retry_after_s == pytest.approx(4000, rel=0.1)


def test_a_stream_over_its_rate_goes_slower_and_loses_nothing(edge: Any, pictures: dict[str, bytes]) -> None:
    requests = [pb.ClassifyRequest(image=pictures["daisy"], id=str(number)) for number in range(24)]
    answers = list(edge.stub.ClassifyStream(iter(requests), metadata=bearer("quick"), timeout=60))
    assert {answer.id for answer in answers if answer.HasField("answer")} == {request.id for request in requests}


def test_calls_in_flight_are_counted_until_they_are_answered(edge: Any, pictures: Any, failure_of: Any) -> None:
    request, metadata = pb.ClassifyRequest(image=pictures["daisy"]), bearer("single")
    with edge.held():
        pending = edge.occupied(lambda: edge.stub.Classify.future(request, metadata=metadata))
        found = failure_of(lambda: edge.stub.ListModels(pb.ListModelsRequest(), metadata=metadata))
        assert (found.code, found.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
        assert found.retry_after_s
    assert pending.result().model == "flowers"
    edge.stub.ListModels(pb.ListModelsRequest(), metadata=metadata)


def test_a_revoked_token_ends_within_a_stream(edge: Any, pictures: dict[str, bytes], tmp_path: Path) -> None:
    sent: queue.SimpleQueue[pb.ClassifyRequest | None] = queue.SimpleQueue()
    answers = edge.stub.ClassifyStream(iter(sent.get, None), metadata=bearer("shop"), timeout=60)
    sent.put(pb.ClassifyRequest(image=pictures["daisy"]))
    assert next(answers).answer.model == "flowers"
    (tmp_path / "tokens.json").write_bytes(dumped(TOKENS[:1]))
    edge.follower.check()
    sent.put(pb.ClassifyRequest(image=pictures["daisy"]))
    assert next(answers).error.reason == "UNAUTHENTICATED"
    sent.put(None)
    assert list(answers) == []
    assert edge.sample("anther_caller_requests_total", caller="shop", code="OK") == 0, "its series have left the page"
