"""Callers of whom random ones give up at random moments: nobody waits for ever, gets another's answer or stays."""

import asyncio
import gc
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil
import pytest

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from service.core.requests import ImageRequest
from service.core.work import ImageWork
from service.scheduling.item import Item

CALLERS, SECONDS = 8, 5.0
STREAMED = 30  # pictures of a stream
CANCELS = 0.4  # the share of calls that their caller gives up on
LONGEST_S = 0.02  # until then; the queue of eight callers is about as long
PATIENCE_S = 60


@dataclass
class Caller:
    """Asks over a connection of its own until told to stop."""

    port: int
    number: int
    answers: dict[bytes, Any]  # picture → its right answer
    stop: threading.Event
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def run(self) -> None:
        """One call after another."""
        chance = random.Random(self.number)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            stub = ImageClassifierStub(channel)
            while not self.stop.is_set():
                picture = chance.choice(list(self.answers))
                call = stub.Classify.future(pb.ClassifyRequest(image=picture), timeout=PATIENCE_S)
                if chance.random() < CANCELS:
                    time.sleep(chance.random() * LONGEST_S)
                    call.cancel()
                self._note(call, picture)

    def run_streams(self) -> None:
        """One stream after another: some are read to their end, others left in the middle."""
        chance = random.Random(self.number)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            stub = ImageClassifierStub(channel)
            while not self.stop.is_set():
                sent = chance.choices(list(self.answers), k=STREAMED)
                requests = [pb.ClassifyRequest(image=image, id=str(number)) for number, image in enumerate(sent)]
                call = stub.ClassifyStream(iter(requests), timeout=PATIENCE_S)
                left = chance.randrange(STREAMED) if chance.random() < CANCELS else STREAMED
                for answer in itertools.islice(call, left):
                    self._compare(ranking(answer.answer), sent[int(answer.id)])
                if left < STREAMED:
                    call.cancel()
                self.ends[call.code().name] += 1

    def _note(self, call: Any, picture: bytes) -> None:
        try:
            found = ranking(call.result(PATIENCE_S))
        except (grpc.RpcError, grpc.FutureCancelledError):
            self.ends[call.code().name] += 1
            return
        self.ends["OK"] += 1
        self._compare(found, picture)

    def _compare(self, found: dict[str, float], picture: bytes) -> None:
        if found != pytest.approx(self.answers[picture], abs=1e-4):
            self.wrong.append(f"{found} and not {self.answers[picture]}")


Way = Callable[[Caller], None]


def ranking(answer: pb.ClassifyResponse) -> dict[str, float]:
    return {found.label: found.probability for found in answer.predictions}


def in_memory() -> Counter[str]:
    """Requests and what carries them. Not `isinstance`, which wakes modules that load when looked at."""
    gc.collect()
    kinds = (ImageRequest, ImageWork, Item, asyncio.Future, asyncio.Task)
    return Counter(type(item).__name__ for item in gc.get_objects() if type(item) in kinds)


@pytest.fixture
def pictures(make_picture) -> list[bytes]:
    """Of sixty colours and sizes, so that no two have the same answer."""
    chance = random.Random(0)
    colours = [tuple(chance.randrange(256) for _ in range(3)) for _ in range(60)]
    return [make_picture(colour, (chance.randint(20, 900), chance.randint(20, 900))) for colour in colours]


@pytest.mark.parametrize("way", [Caller.run, Caller.run_streams], ids=["calls", "streams"])
def test_callers_who_give_up_leave_nothing_and_harm_nobody(start_edge, pictures, eventually, way: Way) -> None:
    edge = start_edge(lanes=2)
    answers = {picture: ranking(edge.stub.Classify(pb.ClassifyRequest(image=picture))) for picture in pictures}
    assert len({tuple(answer.items()) for answer in answers.values()}) > 50
    process = psutil.Process()
    objects, threads, descriptors = in_memory(), threading.active_count(), process.num_fds()

    callers = ask(edge.port, answers, way)
    ends: Counter[str] = sum((caller.ends for caller in callers), Counter())
    assert [caller.wrong for caller in callers] == [[]] * CALLERS
    assert ends.keys() == {"OK", "CANCELLED"}
    assert min(ends.values()) > 5  # or nothing was tried

    eventually(lambda: edge.lanes.waiting == edge.lanes.running == 0)
    eventually(lambda: not in_memory() - objects)
    eventually(lambda: process.num_fds() <= descriptors)
    eventually(lambda: threading.active_count() <= threads)
    for picture, answer in answers.items():
        assert ranking(edge.stub.Classify(pb.ClassifyRequest(image=picture))) == pytest.approx(answer, abs=1e-4)


def test_every_call_that_came_in_was_counted_once(start_edge, pictures, eventually) -> None:
    edge = start_edge(lanes=2)
    with edge.held():
        calls = [edge.stub.Classify.future(pb.ClassifyRequest(image=picture)) for picture in pictures[:20]]
        eventually(lambda: edge.lanes.waiting == 18)
        for call in calls[::2]:
            assert call.cancel()
        eventually(lambda: counted(edge, "CANCELLED") == 10)
    assert [ranking(call.result(PATIENCE_S)) for call in calls[1::2]]
    eventually(lambda: counted(edge, "OK") == 10)
    assert counted(edge, "CANCELLED") == edge.sample("anther_rejected_total", reason="CANCELLED") == 10


def counted(edge: Any, code: str) -> float:
    return edge.sample("anther_requests_total", model="flowers", version="1", method="Classify", code=code)


def ask(port: int, answers: dict[bytes, Any], way: Way) -> list[Caller]:
    """What the callers have to tell, when all of them have come to their end."""
    stop = threading.Event()
    callers = [Caller(port, number, answers, stop) for number in range(CALLERS)]
    threads = [threading.Thread(target=way, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    stop.wait(SECONDS)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    return callers
