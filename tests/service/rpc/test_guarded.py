"""Reflection answers from our own copy of every file; health answers everybody, and names no model."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from anther.open_inference import open_inference_pb2
from service.rpc import server as rpc_server
from service.rpc.guarded import copied

SERVICE = "inference.GRPCInferenceService"


def test_what_a_file_imports_is_copied_too() -> None:
    pool = copied([status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR])
    assert pool.FindMessageTypeByName("google.rpc.Status").fields_by_name["details"].message_type.name == "Any"
    assert pool.FindFileContainingSymbol("google.rpc.RetryInfo").name == "google/rpc/error_details.proto"
    with pytest.raises(KeyError):
        pool.FindFileContainingSymbol(SERVICE)


def test_our_text_of_a_service_is_shown_and_not_another_librarys() -> None:
    assert service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == SERVICE
    pool = copied([open_inference_pb2.DESCRIPTOR])
    assert pool.FindFileContainingSymbol(SERVICE).name == "inference/open_inference.proto"
    assert pool.FindMessageTypeByName("inference.ModelStatistics").fields_by_name["reason"].number == 1000


def test_a_list_of_what_is_healthy_names_no_model(start_edge) -> None:
    stub = health_pb2_grpc.HealthStub(start_edge().channel)
    assert set(stub.List(health_pb2.HealthListRequest()).statuses) == {"", rpc_server.SERVICE, SERVICE}
    assert stub.Check(health_pb2.HealthCheckRequest(service="model:flowers")).status == 1


def test_whoever_watches_takes_no_place_of_those_who_probe(start_edge, monkeypatch) -> None:
    monkeypatch.setattr(rpc_server, "_PROBES", 4)
    stub = health_pb2_grpc.HealthStub(start_edge().channel)
    watching = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(3)]
    assert [next(each).status for each in watching] == [1, 1, 1]
    with pytest.raises(grpc.RpcError, match="the caller has 3 calls"):
        next(stub.Watch(health_pb2.HealthCheckRequest()))
    assert stub.Check(health_pb2.HealthCheckRequest()).status == 1
    for each in watching:
        each.cancel()
