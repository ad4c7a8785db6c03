"""SIGTERM under load: what was accepted is answered, what was not is told to ask another server."""

import signal
import threading
from collections import Counter, deque
from typing import Any

import grpc
import pytest

from anther import CallFailed, Client
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from tests.faults.victim import PATIENCE_S

CONNECTIONS, PIPELINED = 6, 8


class Pipeline:
    """One connection with several calls in flight all the time, until the first that is refused."""

    def __init__(self, channel: grpc.Channel, picture: bytes) -> None:
        self.ends: Counter[tuple[str, str]] = Counter()
        self.answered = threading.Semaphore(0)
        self._stub, self._request = ImageClassifierStub(channel), pb.ClassifyRequest(image=picture)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        pending = deque[Any]()
        while not self.ends or set(self.ends) == {("OK", "tulips")}:
            while len(pending) < PIPELINED:
                pending.append(self._stub.Classify.future(self._request, timeout=PATIENCE_S))
            self._note(pending.popleft())
        for call in pending:
            self._note(call)

    def _note(self, call: Any) -> None:
        try:
            self.ends["OK", call.result(PATIENCE_S).predictions[0].label] += 1
            self.answered.release()
        except grpc.RpcError as error:
            self.ends[error.code().name, reason_of(error)] += 1


def reason_of(error: Any) -> str:
    """The reason that our own code gave, empty where the connection failed."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return "DRAINING" if b"DRAINING" in details else error.details()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_pipelined_calls_on_several_connections_lose_no_answer(start_victim, pictures, number: int) -> None:
    victim = start_victim("--lanes", "2")
    channels = [victim.channel() for _ in range(CONNECTIONS)]
    pipelines = [Pipeline(channel, pictures["tulips"]) for channel in channels]
    for pipeline in pipelines:
        for _ in range(3 * PIPELINED):
            assert pipeline.answered.acquire(timeout=PATIENCE_S)
    assert victim.stop(number) == 0
    for pipeline, channel in zip(pipelines, channels, strict=True):
        pipeline.thread.join(PATIENCE_S)
        assert not pipeline.thread.is_alive()
        channel.close()
    ends: Counter[tuple[str, str]] = sum((pipeline.ends for pipeline in pipelines), Counter())
    assert ends.keys() == {("OK", "tulips"), ("UNAVAILABLE", "DRAINING")}
    assert all(pipeline.ends["UNAVAILABLE", "DRAINING"] <= PIPELINED for pipeline in pipelines)
    victim.prove_log()


def test_a_queue_of_large_pictures_is_worked_off_before_the_end(start_victim, make_picture) -> None:
    """Each takes a lane a good while, so nearly all of them still wait when the signal comes."""
    victim = start_victim("--lanes", "1")
    request = pb.ClassifyRequest(image=make_picture((0, 0, 255), (3000, 3000)))
    with victim.channel() as channel:
        calls = [ImageClassifierStub(channel).Classify.future(request, timeout=PATIENCE_S) for _ in range(30)]
        assert calls[0].result(PATIENCE_S).predictions[0].label == "roses"
        accepted = int(victim.sample("anther_inflight_requests"))
        assert victim.stop() == 0
        codes = Counter(call.code().name for call in calls)
    assert codes["OK"] > accepted
    assert codes.keys() <= {"OK", "UNAVAILABLE"}
    victim.prove_log()


def test_killed_without_warning_a_server_starts_again_on_the_same_folder(start_victim, pictures) -> None:
    victim = start_victim()
    with Client(victim.target) as client:
        assert client.classify(pictures["daisy"]).predictions[0].label == "daisy"
        assert victim.stop(signal.SIGKILL) == -signal.SIGKILL
        with pytest.raises(CallFailed, match="no server answers"):
            client.classify(pictures["daisy"])
    start_victim().prove(pictures)
