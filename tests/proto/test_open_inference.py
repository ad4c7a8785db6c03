"""Our text of the standard protocol has the names and numbers that its clients have, and lives beside theirs."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from tritonclient.grpc import model_config_pb2, service_pb2

from anther.open_inference import open_inference_pb2 as pb

OUR_OWN = {"inference.ModelStatistics.reason"}
THEIRS = {
    name: kind
    for file in (service_pb2, model_config_pb2)
    for name, kind in file.DESCRIPTOR.message_types_by_name.items()
}
# Of the calls; of configurations we have a part.
LEFT_OUT = {
    "InferResponseStatistics",
    "MemoryUsage",
    "ModelStatistics.ResponseStatsEntry",
}
SERVICE = "GRPCInferenceService"


def messages(types: Any) -> Iterator[Any]:
    """With those inside."""
    for message in types:
        yield message
        yield from messages(message.nested_types)


def facts(field: Any) -> tuple[Any, ...]:
    """What a field is on the wire and in generated code."""
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return field.number, field.type, field.is_repeated, kind and kind.full_name, oneof and oneof.name, field.json_name


OURS = {message.full_name: message for message in messages(pb.DESCRIPTOR.message_types_by_name.values())}
PUBLISHED = {message.full_name: message for message in messages(THEIRS.values())}


@pytest.mark.parametrize("name", OURS)
def test_every_field_is_the_published_one(name: str) -> None:
    published = PUBLISHED[name].fields_by_name
    for field in OURS[name].fields:
        if field.full_name not in OUR_OWN:
            assert facts(field) == facts(published[field.name]), field.full_name


@pytest.mark.parametrize("name", OURS)
def test_every_enumeration_inside_a_message_is_the_published_one(name: str) -> None:
    for enum in OURS[name].enum_types:
        assert values(enum) == values(PUBLISHED[name].enum_types_by_name[enum.name])


def test_the_data_types_are_the_published_ones() -> None:
    ours, theirs = (file.DESCRIPTOR.enum_types_by_name["DataType"] for file in (pb, model_config_pb2))
    assert list(pb.DESCRIPTOR.enum_types_by_name) == ["DataType"]
    assert values(ours) == values(theirs)


def values(enum: Any) -> dict[str, int]:
    return {value.name: value.number for value in enum.values}


def test_fields_of_our_own_take_numbers_that_nobody_else_uses() -> None:
    for full_name in OUR_OWN:
        message, _, field = full_name.rpartition(".")
        number = OURS[message].fields_by_name[field].number
        assert number >= 1000
        assert number not in PUBLISHED[message].fields_by_number


def test_every_call_is_the_published_one_and_none_is_missing() -> None:
    ours, theirs = (file.DESCRIPTOR.services_by_name[SERVICE] for file in (pb, service_pb2))
    assert ours.full_name == theirs.full_name
    assert calls(ours) == calls(theirs)


def calls(service: Any) -> dict[str, tuple[Any, ...]]:
    return {
        method.name: (
            method.input_type.full_name, method.output_type.full_name, method.client_streaming, method.server_streaming
        )
        for method in service.methods
    }  # fmt: skip


def test_every_message_of_the_calls_is_there() -> None:
    published = {message.full_name for message in messages(service_pb2.DESCRIPTOR.message_types_by_name.values())}
    assert published - set(OURS) == {f"inference.{name}" for name in LEFT_OUT}


def test_the_requests_are_whole() -> None:
    """What a client can say must be seen: a field that is left out would be dropped without a word."""
    for name, message in OURS.items():
        if "Request" in name:
            assert set(message.fields_by_name) == set(PUBLISHED[name].fields_by_name), name


# Two copies in one process


def test_our_messages_live_in_a_pool_of_their_own() -> None:
    shared = descriptor_pool.Default()
    assert pb.DESCRIPTOR.pool is not shared
    assert shared.FindFileContainingSymbol("inference.ModelInferRequest").name == "grpc_service.proto"


@pytest.mark.parametrize("ours_first", [True, False])
def test_both_can_be_imported_in_either_order_and_read_each_other(ours_first: bool) -> None:
    imports = [
        "from anther.open_inference import open_inference_pb2 as ours",
        "from tritonclient.grpc import service_pb2 as theirs",
    ]
    lines = imports if ours_first else imports[::-1]
    check = (
        "sent = theirs.ModelInferRequest(model_name='flowers', inputs=[{'name': 'image', 'shape': [1, -2]}]);"
        "sent.parameters['a'].uint64_param = 7;"
        "read = ours.ModelInferRequest.FromString(sent.SerializeToString());"
        "assert str(read) == str(sent) != '', read;"
        "assert read.SerializeToString() == sent.SerializeToString()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", ";".join([*lines, check])], check=True)
