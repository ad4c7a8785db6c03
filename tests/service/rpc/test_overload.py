"""More calls than there is time for, callers who leave, and the end: who is answered, who is refused, who is let go."""

import gc
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from anther.v1 import classifier_pb2 as pb
from service.core.requests import ImageRequest

SERVICE = "anther.v1.ImageClassifier"
CLASSIFY = f"/{SERVICE}/Classify"
WHERE = {"model": "flowers", "version": "1"}
PATIENCE_S = 60


# Overload, deadlines, callers who leave


def test_a_full_queue_refuses_at_once_with_retry_info(start_edge, failure_of, red) -> None:
    edge = start_edge(queue_limit=1)
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        waiting = [edge.stub.Classify.future(red) for _ in range(2)]
        refused = next(as_they_end(waiting))
        failure = failure_of(refused.result)
        assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert failure.metadata == {"found": "1", "limit": "1", "unit": "requests"}
        assert failure.retry_after_s > 0
        assert edge.sample("anther_rejected_total", reason="QUEUE_FULL") == 1
        assert not running.done()
    accepted = [running, *(call for call in waiting if call is not refused)]
    assert all(call.result(PATIENCE_S).predictions for call in accepted)


def as_they_end(calls: list[Any]) -> Iterator[Any]:
    """Calls in the order in which they end."""
    ended, done = [], threading.Semaphore(0)
    for call in calls:
        call.add_done_callback(lambda call: (ended.append(call), done.release()))
    for index in range(len(calls)):
        assert done.acquire(timeout=PATIENCE_S)
        yield ended[index]


def test_a_queue_full_of_bytes_refuses_too(start_edge, failure_of, red, eventually) -> None:
    edge = start_edge(queue_bytes=2 * len(red.image) - 1)
    with edge.held():
        calls = [edge.occupied(lambda: edge.stub.Classify.future(red)), edge.stub.Classify.future(red)]
        eventually(lambda: edge.lanes.waiting == 1)
        failure = failure_of(lambda: edge.stub.Classify(red))
        assert (failure.code, failure.metadata["unit"]) == ("RESOURCE_EXHAUSTED", "bytes")
    assert all(call.result(PATIENCE_S).predictions for call in calls)


def test_expired_work_never_reaches_the_engine(edge, failure_of, red, eventually) -> None:
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        runs = edge.engine.runs
        assert failure_of(lambda: edge.stub.Classify(red, timeout=0.05)).code == "DEADLINE_EXCEEDED"
        assert failure_of(lambda: edge.stub.Classify(red, timeout=1e-6)).code == "DEADLINE_EXCEEDED"
        counted = {**WHERE, "method": "Classify", "code": "DEADLINE_EXCEEDED"}
        eventually(lambda: edge.sample("anther_requests_total", **counted) >= 1)
    assert running.result(PATIENCE_S).predictions
    assert edge.stub.Classify(red, timeout=PATIENCE_S).predictions
    assert edge.engine.runs == runs + 1
    assert edge.sample("anther_rejected_total", reason="DEADLINE_EXPIRED") >= 1


def test_a_caller_who_leaves_the_queue_is_forgotten(edge, red, eventually) -> None:
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        runs = edge.engine.runs
        leaving = edge.stub.Classify.future(red)
        eventually(lambda: edge.lanes.waiting == 1)
        assert leaving.cancel()
        counted = {**WHERE, "method": "Classify", "code": "CANCELLED"}
        eventually(lambda: edge.sample("anther_requests_total", **counted) == 1)
    assert running.result(PATIENCE_S).predictions
    assert edge.stub.Classify(red).predictions
    assert edge.engine.runs == runs + 1


def test_a_caller_who_leaves_during_the_work_harms_nobody(edge, red, eventually) -> None:
    with edge.held():
        assert edge.occupied(lambda: edge.stub.Classify.future(red)).cancel()
        counted = {**WHERE, "method": "Classify", "code": "CANCELLED"}
        eventually(lambda: edge.sample("anther_requests_total", **counted) == 1)
    assert edge.stub.Classify(red).predictions


@pytest.mark.parametrize("image", [b"junk", b"\xff\xd8\xff\xe0 half a photo"])
def test_refused_pictures_are_let_go_without_the_garbage_collector(edge, failure_of, eventually, image) -> None:
    """One caller who sends 20 MB of junk again and again must not fill the server's memory."""
    failure_of(lambda: edge.stub.Classify(pb.ClassifyRequest(image=image)))
    gc.collect()
    gc.disable()
    others = requests_in_memory()  # of other tests
    try:
        for _ in range(5):
            failure_of(lambda: edge.stub.Classify(pb.ClassifyRequest(image=image)))
        eventually(lambda: requests_in_memory() <= others)
    finally:
        gc.enable()


def requests_in_memory() -> int:
    return sum(type(item) is ImageRequest for item in gc.get_objects())  # `isinstance` would wake lazy modules


# The end


def test_a_draining_server_refuses_with_unavailable(edge, failure_of, red) -> None:
    edge.classifier.drain()
    failure = failure_of(lambda: edge.stub.Classify(red))
    assert (failure.code, failure.reason) == ("UNAVAILABLE", "DRAINING")


def test_health_says_not_serving_before_the_port_closes(edge, run) -> None:
    health = health_pb2_grpc.HealthStub(edge.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    run(edge.server.announce_stop())
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


def test_stopping_answers_what_was_accepted(edge, run, red, eventually) -> None:
    with ThreadPoolExecutor(1) as pool:
        with edge.held():
            running = edge.occupied(lambda: edge.stub.Classify.future(red))
            waiting = edge.stub.Classify.future(red)
            eventually(lambda: edge.lanes.waiting == 1)
            stopping = pool.submit(run, edge.server.stop(PATIENCE_S))
            assert not running.done()
        assert all(call.result(PATIENCE_S).predictions for call in (running, waiting))
        stopping.result(PATIENCE_S)


def test_stopping_waits_for_calls_alone(edge, run, red) -> None:
    """A health watcher, a silent connection and half a request stay for ever, if one lets them."""
    watch = health_pb2_grpc.HealthStub(edge.channel).Watch(health_pb2.HealthCheckRequest())
    next(watch)
    enough = threading.Event()

    def half_a_request() -> Iterator[bytes]:
        enough.wait(PATIENCE_S)
        yield red.SerializeToString()

    half = edge.channel.stream_unary(CLASSIFY).future(half_a_request())
    edge.stub.Classify(red)  # on the same connection: the server has met the half by now
    with socket.create_connection(("127.0.0.1", edge.port)):
        run(edge.server.stop(10 * PATIENCE_S))  # `run` itself waits for less
    enough.set()
    assert half.code() is grpc.StatusCode.UNAVAILABLE
    assert watch.code() is grpc.StatusCode.UNAVAILABLE


def test_stopping_refuses_callers_until_they_stay_away(edge, run, red) -> None:
    """gRPC ends a call that crosses its closing as CANCELLED, which no client takes for a reason to ask another."""
    edge.classifier.drain()
    ends: list[str] = []

    def ask_thrice() -> None:
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as refusal:
                edge.stub.Classify(red, timeout=PATIENCE_S)
            ends.append(refusal.value.code().name)

    edge.stub.ListModels(pb.ListModelsRequest())  # somebody was here a moment ago
    with ThreadPoolExecutor(2) as pool:
        stopping = pool.submit(run, edge.server.stop(PATIENCE_S))
        pool.submit(ask_thrice).result(PATIENCE_S)
        stopping.result(PATIENCE_S)
    assert ends == ["UNAVAILABLE"] * 3


def test_callers_who_never_rest_do_not_hold_up_the_end(edge, run, red) -> None:
    edge.classifier.drain()
    refused, ended = threading.Semaphore(0), threading.Event()

    def hammer() -> None:
        while not ended.is_set():
            with pytest.raises(grpc.RpcError):
                edge.stub.Classify(red, timeout=PATIENCE_S)
            refused.release()

    with ThreadPoolExecutor(1) as pool:
        hammering = pool.submit(hammer)
        assert refused.acquire(timeout=PATIENCE_S)
        run(edge.server.stop(0.7))
        ended.set()
        hammering.result(PATIENCE_S)


def test_stopping_cancels_what_outlives_the_grace_period(edge, run, failure_of, red) -> None:
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        run(edge.server.stop(0.05))
        assert failure_of(lambda: running.result(PATIENCE_S)).code == "UNAVAILABLE"
