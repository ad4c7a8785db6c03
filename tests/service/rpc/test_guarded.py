"""Reflection answers from our own copy of every file, whatever else the process has registered."""

import pytest
from google.rpc import error_details_pb2, status_pb2
from tritonclient.grpc import service_pb2

from anther.open_inference import open_inference_pb2
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
