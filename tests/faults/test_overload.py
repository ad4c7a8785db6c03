"""More work than there is time for: refused at once or dropped unseen, each counted; afterwards all is as before."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from anther import CallFailed, Client
from anther.v1 import classifier_pb2 as pb
from tests.faults.victim import PATIENCE_S

QUEUE = 4
CALLS = 40


@pytest.fixture(scope="session")
def red(pictures) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(image=pictures["daisy"])


def test_expired_deadlines_never_reach_the_engine_and_are_counted(start_edge, red, eventually) -> None:
    edge = start_edge()
    with edge.held():
        running = edge.occupied(lambda: edge.stub.Classify.future(red))
        runs = edge.engine.runs
        calls = [edge.stub.Classify.future(red, timeout=0.2 + 0.01 * number) for number in range(CALLS)]
        assert {call.code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        eventually(lambda: edge.sample("anther_rejected_total", reason="DEADLINE_EXPIRED") == CALLS)
    assert running.result(PATIENCE_S).predictions
    assert edge.stub.Classify(red, timeout=PATIENCE_S).predictions
    assert edge.engine.runs == runs + 1, "the last call's alone"
    ends = {"model": "flowers", "version": "1", "method": "Classify"}
    assert edge.sample("anther_requests_total", **ends, code="DEADLINE_EXCEEDED") == CALLS
    assert edge.sample("anther_requests_total", **ends, code="OK") == 2


def test_a_full_queue_refuses_at_once_and_recovers(start_edge, red, failure_of, eventually) -> None:
    edge = start_edge(queue_limit=QUEUE)
    for turn in range(1, 4):
        with edge.held():
            running = edge.occupied(lambda: edge.stub.Classify.future(red))
            waiting = [edge.stub.Classify.future(red) for _ in range(QUEUE)]
            eventually(lambda: edge.lanes.waiting == QUEUE)
            failures = [failure_of(lambda: edge.stub.Classify(red, timeout=PATIENCE_S)) for _ in range(CALLS)]
            assert not any(call.done() for call in (running, *waiting)), "the refusals waited for nothing"
        assert {(failure.code, failure.reason) for failure in failures} == {("RESOURCE_EXHAUSTED", "QUEUE_FULL")}
        assert all(0 < failure.retry_after_s < PATIENCE_S for failure in failures)
        assert all(call.result(PATIENCE_S).predictions for call in (running, *waiting))
        assert edge.sample("anther_rejected_total", reason="QUEUE_FULL") == turn * CALLS


def test_callers_who_come_back_when_told_are_all_answered(start_victim, make_picture, pictures) -> None:
    """Sixteen at once on one lane and two places; each waits as long as the refusal says."""
    victim = start_victim("--lanes", "1", "--queue-limit", "2")
    picture = make_picture((0, 255, 0), (2000, 1500))
    refusals: Counter[tuple[str, str]] = Counter()

    def ask(client: Client) -> str:
        while True:
            try:
                return client.classify(picture).predictions[0].label
            except CallFailed as refusal:
                refusals[refusal.code, refusal.reason] += 1
                time.sleep(refusal.retry_after_s)

    with Client(victim.target) as client, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, [client] * 48)) == ["tulips"] * 48
    assert refusals.keys() == {("RESOURCE_EXHAUSTED", "QUEUE_FULL")}
    assert victim.sample("anther_rejected_total", reason="QUEUE_FULL") == refusals.total()
    victim.prove(pictures)
