"""Every method that reflection tells of, asked with nothing, with nonsense and with what is no message.

The server answers each with a status that says whose fault it was, and goes on.
"""

import contextlib
import itertools
import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from anther.v1 import classifier_pb2 as pb
from tests.faults.garbage import damaged, methods_of, requests_of
from tests.faults.raw import RawClient, framed
from tests.faults.victim import CLASSIFY, PATIENCE_S, Victim

OURS = ["anther.v1.ImageClassifier", "inference.GRPCInferenceService"]
BORROWED = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
IN_FLIGHT, STREAMED = 16, 20
OVER_THE_LIMIT = 21 * 10**6  # bytes
FAULTS_OF_OURS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
ENDS = {grpc.StatusCode.UNKNOWN.value[0], grpc.StatusCode.INTERNAL.value[0]}
WORDS = [
    "flowers",
    "stable",
    "canary",
    "1",
    "image",
    "pixels",
    "BYTES",
    "UINT8",
    "probabilities",
    "grpc.health.v1.Health",
]
UNKNOWN_METHODS = ["/anther.v1.ImageClassifier/Nothing", "/anther.v1.Nothing/Classify", "/x", "/", "//", "/a/b/c"]


@pytest.fixture(scope="module")
def channel(shared_victim: Victim) -> Iterator[grpc.Channel]:
    with shared_victim.channel() as channel:
        yield channel


@pytest.fixture(scope="module")
def methods(channel: grpc.Channel) -> list[MethodDescriptor]:
    return methods_of(channel)


@pytest.fixture(scope="module")
def requests(methods, pictures) -> dict[str, list[bytes]]:
    """The full name of each method → what to send to it."""
    known = list(pictures.values())
    return {method.full_name: requests_of(method.input_type, WORDS, known) for method in methods}


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def codes_of(channel: grpc.Channel, method: MethodDescriptor, requests: Iterable[bytes]) -> Counter[Any]:
    """How the calls ended; of a stream its answers' own codes too."""
    if method.client_streaming:
        return streamed(channel, method, requests)
    if method.server_streaming:
        return Counter(first_end(channel.unary_stream(path_of(method))(request, PATIENCE_S)) for request in requests)
    codes, pending, call = Counter[Any](), deque[Any](), channel.unary_unary(path_of(method))
    for request in requests:
        if len(pending) == IN_FLIGHT:
            codes[pending.popleft().code()] += 1
        pending.append(call.future(request, PATIENCE_S))
    codes.update(call.code() for call in pending)
    return codes


def first_end(call: Any) -> grpc.StatusCode:
    """A watch that was accepted goes on for ever, so it is left after its first answer."""
    try:
        next(call)
    except grpc.RpcError:
        return call.code()
    call.cancel()
    return grpc.StatusCode.OK


def streamed(channel: grpc.Channel, method: MethodDescriptor, requests: Iterable[bytes]) -> Counter[Any]:
    codes, kind = Counter[Any](), GetMessageClass(method.output_type)
    for part in batched(requests):
        call = channel.stream_stream(path_of(method))(iter(part), timeout=PATIENCE_S)
        with contextlib.suppress(grpc.RpcError):  # counted below, as every end is
            codes.update(code for answer in call for code in codes_within(kind.FromString(answer)))
        codes[call.code()] += 1
    return codes


def batched(requests: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(requests)
    while part := list(itertools.islice(rest, STREAMED)):
        yield part


def codes_within(answer: Any) -> Iterator[int]:
    """An answer of `anther.v1`'s stream has an error of its own where its picture failed."""
    if "error" in answer.DESCRIPTOR.fields_by_name and answer.HasField("error"):
        yield answer.error.code


def faults_of(ends: dict[str, Counter[Any]]) -> dict[str, Counter[Any]]:
    return {name: codes for name, codes in ends.items() if codes.keys() & (FAULTS_OF_OURS | ENDS)}


def test_reflection_tells_of_every_service(methods) -> None:
    assert {method.containing_service.full_name for method in methods} == {*OURS, *BORROWED}


@pytest.mark.parametrize("service", [*OURS, *BORROWED])
def test_missing_and_nonsensical_fields_are_never_the_servers_fault(
    shared_victim, pictures, channel, methods, requests, service: str
) -> None:
    asked = [method for method in methods if method.containing_service.full_name == service]
    ends = {method.full_name: codes_of(channel, method, requests[method.full_name]) for method in asked}
    shared_victim.prove(pictures)
    assert faults_of(ends) == {}
    assert all(codes.total() >= len(requests[name]) / STREAMED for name, codes in ends.items())


@pytest.mark.parametrize("service", [*OURS, *BORROWED])
def test_what_is_no_message_is_never_the_servers_fault(
    shared_victim, pictures, channel, methods, requests, service: str
) -> None:
    asked = [method for method in methods if method.containing_service.full_name == service]
    ends = {method.full_name: codes_of(channel, method, damaged(requests[method.full_name])) for method in asked}
    shared_victim.prove(pictures)
    assert faults_of(ends) == {}


def test_nonsense_reaches_every_answer_that_a_picture_can_get(victim, channel, methods, requests) -> None:
    """Or the requests were refused before they could do harm."""
    (method,) = (method for method in methods if path_of(method) == CLASSIFY)
    assert codes_of(channel, method, requests[method.full_name]).keys() >= {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    }


def test_a_message_over_the_limit_is_refused_before_it_is_sent(victim, methods) -> None:
    """By one method of each kind of each service."""
    kinds = {(one.containing_service.full_name, one.client_streaming, one.server_streaming): one for one in methods}
    with RawClient(victim.port) as client:
        for method in kinds.values():
            stream = client.open_call(path_of(method))
            client.send(stream, b"\0" + struct.pack(">I", OVER_THE_LIMIT))
            assert client.answer(stream)["grpc-status"] == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])


@pytest.mark.parametrize("path", UNKNOWN_METHODS)
def test_unknown_methods_are_unimplemented(victim, path: str) -> None:
    with RawClient(victim.port) as client:
        stream = client.open_call(path)
        client.send(stream, framed(b""), end=True)
        assert client.answer(stream)["grpc-status"] == str(grpc.StatusCode.UNIMPLEMENTED.value[0])


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json", "application/grpc-web", "x" * 4000])
def test_another_content_type_is_answered_or_refused(victim, pictures, content_type: str) -> None:
    request = framed(pb.ClassifyRequest(image=pictures["daisy"]).SerializeToString())
    with RawClient(victim.port) as client:
        stream = client.open_call(CLASSIFY, content_type)
        client.send(stream, request, end=True)
        answer = client.answer(stream)
    assert answer[":status"] == "415" or answer["grpc-status"] in {"0", "3"}


@pytest.mark.parametrize(
    "frame",
    [b"\0\xff\xff\xff\xff", b"\0\x7f\xff\xff\xff", b"\0\0\0\0\5abc", b"\1\0\0\0\3abc", b"\2\0\0\0\0", b"\0\0"],
    ids=["four gigabytes", "two gigabytes", "cut off", "falsely compressed", "unknown flag", "half a length"],
)
def test_a_frame_that_lies_harms_nobody(victim, frame: bytes) -> None:
    with RawClient(victim.port) as client:
        client.send(client.open_call(CLASSIFY), frame, end=True)
        stream = client.open_call("/anther.v1.ImageClassifier/ListModels")
        client.send(stream, framed(b""), end=True)
        assert client.answer(stream)["grpc-status"] == "0"
