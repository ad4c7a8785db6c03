"""Every call of the protocol: with every field missing, with data that is no message, and those without an answer."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.utils import InferenceServerException

from anther.open_inference import open_inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
PATIENCE_S = 60
CALLS = {method.name: method for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
EMPTY = {  # what a request with every field missing ends with, where one model serves
    "ServerLive": "OK",
    "ServerReady": "OK",
    "ModelReady": "OK",
    "ServerMetadata": "OK",
    "ModelMetadata": "OK",
    "ModelInfer": "INVALID_ARGUMENT",
    "ModelStreamInfer": "OK",  # the error is an item of it
    "ModelConfig": "OK",
    "ModelStatistics": "OK",
    "RepositoryIndex": "OK",
    "RepositoryModelLoad": "PERMISSION_DENIED",
    "RepositoryModelUnload": "PERMISSION_DENIED",
    "SystemSharedMemoryStatus": "UNIMPLEMENTED",
    "SystemSharedMemoryRegister": "UNIMPLEMENTED",
    "SystemSharedMemoryUnregister": "UNIMPLEMENTED",
    "CudaSharedMemoryStatus": "UNIMPLEMENTED",
    "CudaSharedMemoryRegister": "UNIMPLEMENTED",
    "CudaSharedMemoryUnregister": "UNIMPLEMENTED",
    "TraceSetting": "UNIMPLEMENTED",
    "LogSettings": "UNIMPLEMENTED",
}
AMBIGUOUS = {"ModelMetadata": "INVALID_ARGUMENT", "ModelConfig": "INVALID_ARGUMENT"}  # where several serve


@pytest.fixture
def ends():
    """`ends(channel, call, data)`: how a call of these bytes ends."""

    def end(channel: grpc.Channel, call: str, data: bytes) -> str:
        try:
            if CALLS[call].client_streaming:
                list(channel.stream_stream(f"/{SERVICE}/{call}")(iter([data]), timeout=PATIENCE_S))
            else:
                channel.unary_unary(f"/{SERVICE}/{call}")(data, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    return end


def test_every_call_answers_a_request_with_every_field_missing(edge, ends, caplog) -> None:
    assert {call: ends(edge.channel, call, b"") for call in CALLS} == EMPTY
    assert caplog.records == []


def test_where_several_models_serve_a_request_must_name_one(start_edge, tmp_path, publish_bundle, ends) -> None:
    publish_bundle(tmp_path, "trees")
    publish_bundle(tmp_path, "flowers")
    channel = start_edge(tmp_path).channel
    assert {call: ends(channel, call, b"") for call in CALLS} == EMPTY | AMBIGUOUS


@pytest.mark.parametrize("call", CALLS)
def test_data_that_is_no_message_is_the_callers_fault(edge, ends, call: str, caplog) -> None:
    for data in (b"\xff\xff\xff", b"\x0a\xff", b"\x07"):
        assert ends(edge.channel, call, data) == "INVALID_ARGUMENT"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda client: client.get_system_shared_memory_status(), "has no shared memory; send tensors in the message"),
        (lambda client: client.register_system_shared_memory("a", "b", 1), "SystemSharedMemoryRegister is not offered"),
        (lambda client: client.unregister_system_shared_memory(), "SystemSharedMemoryUnregister is not offered"),
        (lambda client: client.get_cuda_shared_memory_status(), "CudaSharedMemoryStatus is not offered"),
        (lambda client: client.register_cuda_shared_memory("a", b"", 0, 1), "CudaSharedMemoryRegister is not offered"),
        (lambda client: client.unregister_cuda_shared_memory(), "CudaSharedMemoryUnregister is not offered"),
        (lambda client: client.get_trace_settings(), "has no trace settings"),
        (lambda client: client.update_trace_settings("flowers", {"trace_level": "OFF"}), "has no trace settings"),
        (lambda client: client.get_log_settings(), "has no log settings"),
        (lambda client: client.update_log_settings({"log_info": False}), "has no log settings"),
    ],
)
def test_what_this_server_does_not_have_is_said(client, ask, message: str) -> None:
    with pytest.raises(InferenceServerException) as raised:
        ask(client)
    assert raised.value.status() == "StatusCode.UNIMPLEMENTED"
    assert message in raised.value.message()


def test_health_and_reflection_know_the_service(edge) -> None:
    health = health_pb2_grpc.HealthStub(edge.channel)
    assert health.Check(health_pb2.HealthCheckRequest(service=SERVICE)).status == 1  # SERVING
    database = ProtoReflectionDescriptorDatabase(edge.channel)
    assert SERVICE in set(database.get_services())
    found = database.FindFileContainingSymbol(SERVICE)
    assert [method.name for method in found.service[0].method] == list(CALLS)
    assert database.FindFileContainingSymbol("inference.ModelStatistics").name == "inference/open_inference.proto"
