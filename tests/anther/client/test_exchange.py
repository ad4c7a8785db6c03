"""Pictures over a stream that breaks, refuses and falls silent: each comes back once, with its own outcome."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from anther.client import exchange as module
from anther.client.call_failed import CallFailed
from anther.client.connection import Connection
from anther.client.exchange import Exchange
from anther.client.pending import WINDOW
from anther.v1 import classifier_pb2 as pb

PATIENCE_S = 60
Requests = Iterator[pb.ClassifyRequest]
Script = Callable[[Requests], Iterator[pb.ClassifyStreamResponse]]


class Broken(grpc.RpcError):
    """What gRPC raises: with a reason where our server gave one, without where the network did."""

    def __init__(self, code: str, reason: str = "") -> None:
        self._code, self._reason = grpc.StatusCode[code], reason

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "it broke"

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        if not self._reason:
            return ()
        info, retry = any_pb2.Any(), any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(reason=self._reason, domain="anther"))
        retry.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=1000)))
        details = [info, retry] if self._reason == "QUEUE_FULL" else [info]
        whole = status_pb2.Status(code=self._code.value[0], message="it broke", details=details)
        return (("grpc-status-details-bin", whole.SerializeToString()),)


class FakeCall:
    """A stream that follows its script until it is cancelled."""

    def __init__(self, script: Script, requests: Requests) -> None:
        self._answers, self.cancelled, self.ended = script(requests), threading.Event(), False

    def __iter__(self) -> Iterator[pb.ClassifyStreamResponse]:
        yield from self._answers
        self.ended = not self.cancelled.is_set()

    def cancel(self) -> None:
        self.cancelled.set()


class FakeStub:
    """Each stream follows the next script, the last one for ever; single calls are answered by `alone`."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.calls: list[FakeCall] = []
        self.alone: list[str] = []
        self.refusals: dict[str, list[Broken]] = {}

    def ClassifyStream(self, requests: Requests, metadata: Any) -> FakeCall:  # noqa: N802
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.calls.append(FakeCall(script, requests))
        return self.calls[-1]

    def Classify(  # noqa: N802
        self, request: pb.ClassifyRequest, timeout: float, metadata: Any
    ) -> pb.ClassifyResponse:
        self.alone.append(request.id)
        if self.refusals.get(request.id):
            raise self.refusals[request.id].pop(0)
        return answer(request).answer


def answer(request: pb.ClassifyRequest) -> pb.ClassifyStreamResponse:
    """Tells the picture's bytes back as the model's name."""
    return pb.ClassifyStreamResponse(
        id=request.id, answer=pb.ClassifyResponse(id=request.id, model=request.image.decode())
    )


def refusal(request: pb.ClassifyRequest, code: int, reason: str, retry: float | None = None) -> Any:
    error = pb.ItemError(code=code, reason=reason, message="no", retry_after=retry)
    return pb.ClassifyStreamResponse(id=request.id, error=error)


def answers_all(requests: Requests) -> Iterator[pb.ClassifyStreamResponse]:
    return map(answer, requests)


def breaks_after(count: int, error: Broken) -> Script:
    def script(requests: Requests) -> Iterator[pb.ClassifyStreamResponse]:
        for _ in range(count):
            yield answer(next(requests))
        raise error

    return script


def never(requests: Requests) -> Iterator[pb.ClassifyStreamResponse]:
    for _ in requests:
        pass
    yield from ()


@pytest.fixture
def start():
    """`start(*scripts, patience_s=, timeout_s=)` gives an exchange, the stub that it talks to, and its pauses."""

    def make(*scripts: Script, patience_s: float = PATIENCE_S, timeout_s: float = PATIENCE_S):
        stub, pauses = FakeStub(*scripts), []
        return Exchange(stub, Connection("the-server"), timeout_s, patience_s, pauses.append), stub, pauses

    return make


def request(number: int, size: int = 0) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(id=str(number), image=f"picture {number}".encode().ljust(size))


def exchanged(exchange: Exchange, count: int) -> dict[str, str]:
    """Sends them all and receives them all: id → what came back."""
    got: dict[str, str] = {}

    def receive() -> None:
        name, outcome = exchange.receive()
        assert name not in got
        got[name] = outcome.reason if isinstance(outcome, CallFailed) else outcome.model

    with exchange:
        for number in range(count):
            while exchange.pending.full:
                receive()
            exchange.send(request(number))
        while exchange.pending.in_flight:
            receive()
    return got


def everything(count: int) -> dict[str, str]:
    return {str(number): f"picture {number}" for number in range(count)}


# The window


def test_few_are_in_flight_at_once(start) -> None:
    exchange, _, _ = start(answers_all)
    with exchange:
        for number in range(WINDOW):
            assert not exchange.pending.full
            exchange.send(request(number))
        assert exchange.pending.full
        exchange.receive()
        assert not exchange.pending.full


def test_large_pictures_fill_the_window_earlier(start) -> None:
    exchange, _, _ = start(answers_all)
    with exchange:
        for number in range(3):
            assert not exchange.pending.full
            exchange.send(request(number, 22 * 2**20))
        assert exchange.pending.full
        exchange.receive()
        assert not exchange.pending.full


def test_an_id_in_flight_is_not_given_twice(start) -> None:
    exchange, _, _ = start(never)
    with exchange:
        exchange.send(request(1))
        with pytest.raises(ValueError, match="'1' is in flight"):
            exchange.send(request(1))


# Streams that break


@pytest.mark.parametrize("error", [Broken("UNAVAILABLE", "DRAINING"), Broken("UNAVAILABLE"), Broken("CANCELLED")])
def test_a_stream_that_breaks_is_opened_again_for_what_is_unanswered(start, error: Broken, caplog) -> None:
    exchange, stub, pauses = start(breaks_after(3, error), breaks_after(2, error), answers_all)
    assert exchanged(exchange, 9) == everything(9)
    assert len(stub.calls) == 3
    assert pauses == [0.1, 0.1]
    assert "asking again for 6 images in 0.1 s" in caplog.messages[0]


def test_a_server_that_ends_the_stream_early_is_asked_again(start) -> None:
    exchange, _, _ = start(breaks_after(1, Broken("UNAVAILABLE")), lambda _: iter(()), answers_all)
    assert exchanged(exchange, 5) == everything(5)


def test_pauses_grow_while_nothing_is_answered(start) -> None:
    broken = breaks_after(0, Broken("UNAVAILABLE", "DRAINING"))
    exchange, _, pauses = start(*[broken] * 9, answers_all)
    assert exchanged(exchange, 2) == everything(2)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_a_server_that_never_was_is_not_waited_for(start) -> None:
    """Most likely the address is wrong."""
    exchange, _, pauses = start(breaks_after(0, Broken("UNAVAILABLE")))
    with pytest.raises(CallFailed, match="no server answers at the-server"):
        exchanged(exchange, 2)
    assert pauses == []


def test_patience_ends(start) -> None:
    exchange, _, pauses = start(
        breaks_after(1, Broken("UNAVAILABLE")), breaks_after(0, Broken("UNAVAILABLE")), patience_s=0.0
    )
    with pytest.raises(CallFailed) as raised:
        exchanged(exchange, 2)
    assert (raised.value.code, pauses) == ("UNAVAILABLE", [])


def test_a_silent_server_is_an_error_that_says_how_long(start) -> None:
    exchange, stub, _ = start(never, timeout_s=0.05)
    with pytest.raises(CallFailed, match=r"the-server has sent no answer for 0\.05 s") as raised:
        exchanged(exchange, 1)
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert stub.calls[0].cancelled.is_set()


# Pictures that fail


def test_a_picture_that_fails_is_its_own_outcome(start) -> None:
    exchange, _, _ = start(lambda requests: (refusal(item, 3, "IMAGE_UNDECODABLE") for item in requests))
    assert exchanged(exchange, 2) == {"0": "IMAGE_UNDECODABLE", "1": "IMAGE_UNDECODABLE"}


@pytest.mark.parametrize(
    ("code", "reason", "retry"), [(8, "QUEUE_FULL", 0.001), (14, "DRAINING", None), (14, "X", 0.0)]
)
def test_a_picture_that_came_at_a_bad_time_is_sent_again(start, code: int, reason: str, retry: float | None) -> None:
    def script(requests: Requests) -> Iterator[pb.ClassifyStreamResponse]:
        for number, item in enumerate(requests):
            yield refusal(item, code, reason, retry) if number in {0, 2, 4} else answer(item)

    exchange, stub, _ = start(script)
    assert exchanged(exchange, 4) == everything(4)
    assert len(stub.calls) == 1


def test_a_picture_that_always_comes_at_a_bad_time_is_given_up(start) -> None:
    exchange, _, _ = start(
        lambda requests: (refusal(item, 8, "QUEUE_FULL", 0.001) for item in requests), patience_s=0.0
    )
    assert exchanged(exchange, 1) == {"0": "QUEUE_FULL"}


def test_an_exhausted_limit_without_a_hint_is_final(start) -> None:
    exchange, _, _ = start(lambda requests: (refusal(item, 8, "TOO_LARGE") for item in requests))
    assert exchanged(exchange, 1) == {"0": "TOO_LARGE"}


def test_what_ends_the_stream_is_found_by_asking_one_by_one(start) -> None:
    """Such as a message over the server's limit, of which gRPC does not tell which one it was."""
    exchange, stub, _ = start(breaks_after(1, Broken("RESOURCE_EXHAUSTED")), answers_all)
    stub.refusals = {"2": [Broken("RESOURCE_EXHAUSTED")], "3": [Broken("RESOURCE_EXHAUSTED", "QUEUE_FULL")]}
    with exchange:
        for number in range(5):
            exchange.send(request(number))
        got = dict(exchange.receive() for _ in range(3))
        exchange.send(request(5))  # while others are still asked one by one
        got.update(exchange.receive() for _ in range(3))
    assert sorted(got) == list("012345")
    assert got["2"].reason == "RESOURCE_EXHAUSTED"
    assert all(got[name].model == f"picture {name}" for name in "01345")
    assert stub.alone == ["1", "2", "3", "3", "4"]
    assert len(stub.calls) == 2


def test_an_id_that_nobody_sent_is_an_error_of_the_server(start) -> None:
    exchange, _, _ = start(lambda requests: (answer(request(99)) for _ in requests))
    with pytest.raises(CallFailed, match="the-server answered '99', which nobody asked") as raised:
        exchanged(exchange, 1)
    assert raised.value.code == "INTERNAL"


def test_a_code_that_does_not_exist_yet_is_unknown(start) -> None:
    exchange, _, _ = start(lambda requests: (refusal(item, 99, "NEW") for item in requests))
    with exchange:
        exchange.send(request(0))
        _, outcome = exchange.receive()
    assert (outcome.code, outcome.reason) == ("UNKNOWN", "NEW")


# The end


def test_at_the_end_the_server_may_end_the_stream(start) -> None:
    exchange, stub, _ = start(answers_all)
    exchanged(exchange, 3)
    assert stub.calls[0].ended


def test_an_interrupted_exchange_leaves_no_thread(start) -> None:
    exchange, stub, _ = start(never)
    threads = set(threading.enumerate())

    def interrupted() -> None:
        with exchange:
            exchange.send(request(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stub.calls[0].cancelled.is_set()
    assert not set(threading.enumerate()) - threads


def test_a_server_that_does_not_end_the_stream_is_left(start, monkeypatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_TIMEOUT_S", 0.01)

    def script(requests: Requests) -> Iterator[pb.ClassifyStreamResponse]:
        yield from map(answer, requests)
        assert stub.calls[0].cancelled.wait(PATIENCE_S)

    exchange, stub, _ = start(script)
    assert exchanged(exchange, 2) == everything(2)
    assert stub.calls[0].cancelled.is_set()


# Everything at once


ACTS = ("answer", "refuse", "queue full", "draining", "break", "answer and break", "too large")


@settings(deadline=None, max_examples=200)
@given(acts=st.lists(st.sampled_from(ACTS), max_size=40), count=st.integers(0, 30))
def test_whatever_the_server_does_each_picture_has_one_outcome(acts: list[str], count: int) -> None:
    acts, refused = list(acts), set()

    def script(requests: Requests) -> Iterator[pb.ClassifyStreamResponse]:
        for item in requests:
            act = acts.pop() if acts else "answer"
            if act == "refuse":
                refused.add(item.id)
                yield refusal(item, 3, "IMAGE_UNDECODABLE")
            if act == "queue full":
                yield refusal(item, 8, "QUEUE_FULL", 0.0001)
            if act == "draining":
                yield refusal(item, 14, "DRAINING", 0.0001)
            if act == "too large":
                raise Broken("RESOURCE_EXHAUSTED")
            if "answer" in act:
                yield answer(item)
            if "break" in act:
                raise Broken("UNAVAILABLE", "DRAINING")

    exchange = Exchange(FakeStub(script), Connection("the-server"), PATIENCE_S, PATIENCE_S, lambda _: None)
    got = exchanged(exchange, count)
    assert got == {name: "IMAGE_UNDECODABLE" if name in refused else text for name, text in everything(count).items()}
