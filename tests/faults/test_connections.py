"""Clients that are slow, silent, half done or suddenly gone: they cost little, block nobody, leave nothing behind."""

import contextlib
import struct
import subprocess
import sys

import grpc
import pytest

from anther.v1 import classifier_pb2 as pb
from tests.faults.raw import RawClient, framed
from tests.faults.victim import Victim

MEGABYTE = 2**20
LARGEST = 20 * 10**6  # bytes of a picture that the server takes
CLIENTS = 30
FIRST_BYTES = 60_000  # what HTTP/2 lets a client send before the server says more
METHOD = "/anther.v1.ImageClassifier/GetModel"


@pytest.fixture
def left_as_it_was(victim: Victim, pictures, eventually):
    """After the test the server has no connection, thread or request more than before it."""
    victim.prove(pictures)
    before = victim.vitals()
    yield
    eventually(lambda: victim.vitals().descriptors <= before.descriptors)
    eventually(lambda: victim.sample("anther_inflight_requests") == 0)
    assert victim.vitals().threads <= before.threads + 1  # one of the operations port may be at work
    assert victim.vitals().memory - before.memory < 64 * MEGABYTE


def claim_of(size: int) -> bytes:
    """The start of a message that says that it has `size` bytes."""
    return b"\0" + struct.pack(">I", size) + bytes(FIRST_BYTES)


def half_uploads(stack: contextlib.ExitStack, port: int) -> list[RawClient]:
    """Connections that announced the largest message, sent the start of it, and stopped."""
    clients = [stack.enter_context(RawClient(port)) for _ in range(CLIENTS)]
    for client in clients:
        client.send(client.open_call(), claim_of(LARGEST))
    return clients


# Slow and silent


def test_half_uploads_hold_neither_memory_nor_others_up(victim, left_as_it_was, pictures) -> None:
    before = victim.vitals().memory
    with contextlib.ExitStack() as stack:
        half_uploads(stack, victim.port)
        victim.prove(pictures)
        assert victim.vitals().memory - before < 64 * MEGABYTE  # and not the 600 that they announced


def test_half_a_frame_and_silence_harm_nobody(victim, left_as_it_was, pictures) -> None:
    beginnings = [b"", b"PRI * HT", b"GET / HTTP/1.1\r\nHost:", b"\x16\x03\x01\x02\0\x01", bytes(100), b"\xff" * 100]
    with contextlib.ExitStack() as stack:
        for beginning in beginnings * 5:
            client = stack.enter_context(RawClient(victim.port))
            client.send_raw(struct.pack(">I", 16_000)[1:] + b"\0\0\0\0\0\1" + beginning)
        victim.prove(pictures)


def test_an_upload_byte_by_byte_is_answered_in_the_end(victim, left_as_it_was, pictures) -> None:
    message = framed(pb.ClassifyRequest(image=pictures["tulips"]).SerializeToString())
    with RawClient(victim.port) as client:
        stream = client.open_call()
        for number in range(len(message)):
            client.send(stream, message[number : number + 1], end=number + 1 == len(message))
        assert client.answer(stream)["grpc-status"] == "0"


def test_a_client_that_reads_no_answer_costs_no_more_than_its_answers(victim, left_as_it_was, pictures) -> None:
    """Its window is zero: every answer waits in the server."""
    request = framed(pb.GetModelRequest().SerializeToString())
    before = victim.vitals().memory
    with RawClient(victim.port, window=0) as client:
        for _ in range(500):
            client.send(client.open_call(METHOD), request, end=True)
        victim.prove(pictures)
        assert victim.vitals().memory - before < 64 * MEGABYTE


@pytest.mark.parametrize("path", [METHOD, "/grpc.health.v1.Health/Watch", "/anther.v1.ImageClassifier/ClassifyStream"])
def test_a_client_that_reads_no_answer_does_not_keep_the_process_from_ending(start_victim, pictures, path: str) -> None:
    victim = start_victim("--grace-s", "2")
    with RawClient(victim.port, window=0) as client:
        for _ in range(50):
            client.send(client.open_call(path), framed(b""), end=path == METHOD)
        victim.prove(pictures)
        assert victim.stop() == 0
    victim.prove_log()


# Gone


def test_clients_that_reset_their_connection_are_forgotten(victim, left_as_it_was, pictures) -> None:
    """Half of them in the middle of an upload, half while their picture waits."""
    request = framed(pb.ClassifyRequest(image=pictures["roses"]).SerializeToString())
    with contextlib.ExitStack() as stack:
        for client in half_uploads(stack, victim.port):
            client.vanish()
        waiting = [stack.enter_context(RawClient(victim.port)) for _ in range(CLIENTS)]
        for client in waiting:
            for _ in range(20):
                client.send(client.open_call(), request, end=True)
            client.vanish()


KILLED_CLIENTS = 10
KILLED = f"""
import sys, time
from tests.faults.raw import RawClient
from tests.faults.test_connections import claim_of, LARGEST

clients = [RawClient(int(sys.argv[1])) for _ in range({KILLED_CLIENTS})]
for client in clients:
    client.send(client.open_call(), claim_of(LARGEST))
print("half done", flush=True)
time.sleep(600)
"""


def test_a_client_process_killed_in_its_uploads_is_forgotten(victim, left_as_it_was, eventually) -> None:
    before = victim.vitals().descriptors
    command = [sys.executable, "-c", KILLED, str(victim.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client, contextlib.ExitStack() as stack:
        stack.callback(client.kill)
        assert client.stdout is not None
        assert client.stdout.readline() == "half done\n"
        eventually(lambda: victim.vitals().descriptors > before + KILLED_CLIENTS // 2)


def test_connections_that_come_and_go_leave_nothing(victim, left_as_it_was) -> None:
    """Each with a stream that is closed without a message, which gRPC itself answers with nothing."""
    for _ in range(100):
        with RawClient(victim.port) as client:
            stream = client.open_call()
            client.send(stream, b"", end=True)


def test_more_connections_than_anybody_needs_are_served(victim, left_as_it_was, pictures) -> None:
    request = framed(pb.ClassifyRequest(image=pictures["daisy"]).SerializeToString())
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(victim.port)) for _ in range(200)]
        streams = [client.open_call() for client in clients]
        for client, stream in zip(clients, streams, strict=True):
            client.send(stream, request, end=True)
        ends = {client.answer(stream)["grpc-status"] for client, stream in zip(clients, streams, strict=True)}
    assert ends <= {str(grpc.StatusCode.OK.value[0]), str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])}
