"""`ClassifyStream` through the real port: flow control, callers who leave, the deadline, the end of the server."""

import gc
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from service.core.requests import ImageRequest

STREAM = "/anther.v1.ImageClassifier/ClassifyStream"
WHERE = {"model": "flowers", "version": "1"}
ITEMS = {**WHERE, "method": "ClassifyStream"}
LABELS = ("daisy", "tulips", "roses")
PATIENCE_S = 60


class Talk:
    """A stream whose requests are sent one by one."""

    def __init__(self, stub: ImageClassifierStub, **options: Any) -> None:
        self._requests: queue.SimpleQueue[pb.ClassifyRequest | None] = queue.SimpleQueue()
        self.answers: Any = stub.ClassifyStream(iter(self._requests.get, None), **options)

    def send(self, *requests: pb.ClassifyRequest) -> None:
        for request in requests:
            self._requests.put(request)

    def half_close(self) -> None:
        self._requests.put(None)

    def end(self) -> None:
        self.answers.cancel()
        self.half_close()


@pytest.fixture
def talk(edge) -> Iterator[Talk]:
    talk = Talk(edge.stub)
    yield talk
    talk.end()


def named(image: bytes, *names: object) -> list[pb.ClassifyRequest]:
    return [pb.ClassifyRequest(image=image, id=str(name)) for name in names]


def ended(edge: Any, code: str) -> float:
    return edge.sample("anther_requests_total", **ITEMS, code=code)


def requests_in_memory() -> int:
    return sum(type(item) is ImageRequest for item in gc.get_objects())  # `isinstance` would wake lazy modules


# Answers


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from([*LABELS, "junk", "no model", "no canary", "top_k"]), max_size=30))
def test_every_picture_is_answered_once_by_its_own_outcome(edge, pictures, kinds: list[str]) -> None:
    bad = {
        "junk": ({"image": b"junk"}, "IMAGE_FORMAT_REFUSED"),
        "no model": ({"image": b"", "model": "trees"}, "MODEL_NOT_FOUND"),
        "no canary": ({"image": b"", "label": "canary"}, "CANARY_NOT_FOUND"),
        "top_k": ({"image": b"", "top_k": -1}, "INVALID_ARGUMENT"),
    }
    requests = [
        pb.ClassifyRequest(id=str(number), **(bad[kind][0] if kind in bad else {"image": pictures[kind]}))
        for number, kind in enumerate(kinds)
    ]
    got = {
        item.id: item.error.reason or item.answer.predictions[0].label
        for item in edge.stub.ClassifyStream(iter(requests), timeout=PATIENCE_S)
    }
    assert got == {str(number): bad[kind][1] if kind in bad else kind for number, kind in enumerate(kinds)}


def test_an_answer_is_that_of_a_call_of_its_own(edge, red) -> None:
    request = pb.ClassifyRequest(image=red.image, top_k=2, id="mine", label="stable", model="flowers", version=1)
    (item,) = edge.stub.ClassifyStream(iter([request]))
    alone = edge.stub.Classify(request)
    for answer in (item.answer, alone):
        answer.ClearField("timings")
    assert item.id == item.answer.id == "mine"
    assert item.answer == alone


def test_a_picture_that_fails_does_not_wait_for_those_before_it(start_edge, red) -> None:
    edge = start_edge(lanes=2)
    talk = Talk(edge.stub)
    with edge.held():
        edge.occupied(lambda: talk.send(*named(red.image, "slow")))
        talk.send(*named(b"junk", "bad"))
        assert next(talk.answers).id == "bad"
    assert next(talk.answers).id == "slow"
    talk.end()


def test_what_nobody_foresaw_fails_one_item_and_its_trace_is_in_the_log(edge, talk, red, caplog) -> None:
    edge.engine.error = RuntimeError("CUDA error 700 at /secret/path")
    talk.send(*named(red.image, "a"))
    error = next(talk.answers).error
    assert (error.code, error.reason) == (13, "INTERNAL")
    assert error.message == "internal error; the trace is in the server's log"
    (record,) = caplog.records
    assert "CUDA error 700" in str(record.exc_info[1])
    edge.engine.error = None
    talk.send(*named(red.image, "b"))
    assert next(talk.answers).answer.predictions


def test_items_are_counted_and_timed(edge, talk, red) -> None:
    talk.send(*named(red.image, "a", "b"), *named(b"junk", "c"))
    talk.half_close()
    assert len(list(talk.answers)) == 3
    assert ended(edge, "OK") == 2
    assert ended(edge, "INVALID_ARGUMENT") == 1
    assert edge.sample("anther_request_duration_seconds_count", **ITEMS) == 3
    assert edge.sample("anther_predictions_total", **WHERE, label="daisy") == 2
    assert edge.sample("anther_rejected_total", reason="IMAGE_FORMAT_REFUSED") == 1


# Flow control


def test_a_stream_takes_no_more_than_its_places(start_edge, red, eventually) -> None:
    edge = start_edge(stream_in_flight=3)
    talk = Talk(edge.stub)
    with edge.held():
        edge.occupied(lambda: talk.send(*named(red.image, *range(50))))
        eventually(lambda: edge.lanes.waiting == 2)
        assert edge.stub.ListModels(pb.ListModelsRequest()).models  # the server has had time for other things
        assert (edge.lanes.running, edge.lanes.waiting) == (1, 2)
    talk.half_close()
    assert sorted(int(item.id) for item in talk.answers) == list(range(50))


@pytest.mark.parametrize(("queue_limit", "most"), [(128, 4 + 2 * 1), (3, 1)])
def test_by_itself_a_stream_never_fills_the_queue(start_edge, red, eventually, queue_limit: int, most: int) -> None:
    edge = start_edge(queue_limit=queue_limit)
    talk = Talk(edge.stub)
    with edge.held():
        edge.occupied(lambda: talk.send(*named(red.image, *range(50))))
        eventually(lambda: edge.lanes.waiting == most - 1)
        assert edge.stub.ListModels(pb.ListModelsRequest()).models
        assert edge.lanes.waiting == most - 1
    talk.end()


def test_a_stream_reads_no_further_while_its_last_image_waits_for_a_place(start_edge, red, eventually) -> None:
    """One image in the lane, one in the queue, and one that waits: five more places would be free."""
    edge = start_edge(queue_limit=1, stream_in_flight=8)
    talk, before = Talk(edge.stub), requests_in_memory()
    with edge.held():
        edge.occupied(lambda: talk.send(*named(red.image, *range(8))))
        eventually(lambda: edge.lanes.waiting == 1)
        for _ in range(5):  # the server has had time to read on
            assert edge.stub.ListModels(pb.ListModelsRequest()).models
        assert requests_in_memory() - before == 3
    talk.half_close()
    assert sorted(int(item.id) for item in talk.answers) == list(range(8))


def test_a_queue_that_others_fill_is_waited_for(start_edge, red, eventually) -> None:
    edge = start_edge(queue_limit=1)
    talk = Talk(edge.stub)
    with edge.held():
        others = [edge.occupied(lambda: edge.stub.Classify.future(red)), edge.stub.Classify.future(red)]
        eventually(lambda: edge.lanes.waiting == 1)
        talk.send(*named(red.image, *range(5)))
        talk.half_close()
        assert edge.stub.ListModels(pb.ListModelsRequest()).models
    assert sorted(item.id for item in talk.answers if item.answer.predictions) == list("01234")
    assert all(other.result(PATIENCE_S).predictions for other in others)
    assert edge.sample("anther_rejected_total", reason="QUEUE_FULL") == 0


def test_a_caller_who_reads_nothing_is_served_no_further(start_edge, red, eventually) -> None:
    """Ids of 60 kB make answers that fill the connection's window; the rest stays with the caller."""
    edge = start_edge(stream_in_flight=2)
    count, runs = 600, [-1]
    talk = Talk(edge.stub)
    talk.send(*(pb.ClassifyRequest(image=red.image, id=f"{number:04}" * 15_000) for number in range(count)))
    talk.half_close()
    pause = threading.Event()

    def settled() -> bool:
        runs.append(edge.engine.runs)
        pause.wait(0.3)
        return runs[-1] == edge.engine.runs > 0

    eventually(settled)
    assert edge.engine.runs < count / 2
    assert sorted(int(item.id[:4]) for item in talk.answers) == list(range(count))


def test_a_long_stream_keeps_memory_flat(edge, red) -> None:
    """Two thousand pictures; the server never holds more of them than the stream has places."""
    gc.collect()
    others, places, lanes, most = requests_in_memory(), 6, 1, 0
    for number, item in enumerate(edge.stub.ClassifyStream(iter(named(red.image, *range(2000))))):
        assert item.answer.predictions
        if number % 100 == 0:
            most = max(most, requests_in_memory() - others)
    assert number == 1999
    assert most <= places + lanes  # a lane lets go of a picture just after its answer has left


@pytest.mark.parametrize("image", [b"junk", b"\xff\xd8\xff\xe0 half a photo"])
def test_refused_pictures_are_let_go_without_the_garbage_collector(edge, talk, eventually, image) -> None:
    talk.send(*named(image, "first"))
    assert next(talk.answers).error.reason
    gc.collect()
    gc.disable()
    others = requests_in_memory()
    try:
        for number in range(5):
            talk.send(*named(image, number))
            assert next(talk.answers).error.reason
        talk.half_close()
        assert list(talk.answers) == []
        eventually(lambda: requests_in_memory() <= others)
    finally:
        gc.enable()


# Callers who leave, and deadlines


def test_a_caller_who_leaves_takes_the_work_along(edge, talk, red, eventually) -> None:
    with edge.held():
        edge.occupied(lambda: talk.send(*named(red.image, *range(4))))
        eventually(lambda: edge.lanes.waiting == 3)
        runs = edge.engine.runs
        talk.end()
        eventually(lambda: ended(edge, "CANCELLED") == 4)
    assert edge.stub.Classify(red).predictions
    assert edge.engine.runs == runs + 1
    assert edge.sample("anther_rejected_total", reason="CANCELLED") == 1


def test_a_connection_that_vanishes_takes_the_work_along(edge, red, eventually) -> None:
    own = [("grpc.use_local_subchannel_pool", 1)]
    with edge.held(), grpc.insecure_channel(f"127.0.0.1:{edge.port}", options=own) as channel:
        talk = Talk(ImageClassifierStub(channel))
        edge.occupied(lambda: talk.send(*named(red.image, *range(4))))
        eventually(lambda: edge.lanes.waiting == 3)
        channel.close()
        eventually(lambda: ended(edge, "CANCELLED") == 4)
    talk.half_close()
    assert edge.stub.Classify(red).predictions


def test_the_streams_deadline_is_that_of_its_pictures(edge, red, failure_of, eventually) -> None:
    """A client may leave a moment before the server's own clock says that the time is up."""
    talk = Talk(edge.stub, timeout=3.0)
    with edge.held():
        edge.occupied(lambda: talk.send(*named(red.image, *range(3))))
        runs = edge.engine.runs
        assert failure_of(lambda: next(talk.answers)).code == "DEADLINE_EXCEEDED"
        eventually(lambda: sum(ended(edge, code) for code in ("DEADLINE_EXCEEDED", "CANCELLED")) == 3)
    talk.end()
    assert edge.stub.Classify(red).predictions
    assert edge.engine.runs == runs + 1


def test_data_that_is_no_message_ends_the_stream_after_what_came_before(edge, red, failure_of, caplog) -> None:
    stream = edge.channel.stream_stream(STREAM, response_deserializer=pb.ClassifyStreamResponse.FromString)
    answers = stream(iter([named(red.image, "a")[0].SerializeToString(), b"\xff\xff\xff"]))
    assert next(answers).id == "a"
    failure = failure_of(lambda: next(answers))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert "'request' is" in failure.message
    assert caplog.records == []


# The end of the server


def test_a_silent_stream_does_not_hold_up_the_end(edge, talk, run, red, failure_of) -> None:
    talk.send(*named(red.image, "a"))
    assert next(talk.answers).answer.predictions
    edge.classifier.drain()
    run(edge.server.announce_stop())
    run(edge.server.stop(10 * PATIENCE_S))  # `run` itself waits for less
    failure = failure_of(lambda: next(talk.answers))
    assert (failure.code, failure.reason) == ("UNAVAILABLE", "DRAINING")


def test_a_stopping_server_answers_what_it_has_read_and_nothing_else(
    start_edge, run, red, failure_of, eventually
) -> None:
    edge = start_edge(stream_in_flight=3)
    talk = Talk(edge.stub)
    with ThreadPoolExecutor(1) as pool:
        with edge.held():
            edge.occupied(lambda: talk.send(*named(red.image, *range(10))))
            eventually(lambda: edge.lanes.waiting == 2)
            edge.classifier.drain()
            run(edge.server.announce_stop())
            stopping = pool.submit(run, edge.server.stop(PATIENCE_S))
        assert sorted(next(talk.answers).id for _ in range(3)) == ["0", "1", "2"]
        assert failure_of(lambda: next(talk.answers)).reason == "DRAINING"
        stopping.result(PATIENCE_S)
    talk.end()


def test_pictures_that_a_draining_server_still_reads_are_told_so(edge, talk, red) -> None:
    edge.classifier.drain()
    talk.send(*named(red.image, "late"))
    item = next(talk.answers)
    assert (item.id, item.error.code, item.error.reason) == ("late", 14, "DRAINING")


def test_a_stream_that_comes_after_the_end_is_refused_without_a_warning_of_the_interpreters(
    run, edge, talk, red, failure_of, recwarn
) -> None:
    """Of messages that nobody reads gRPC would have it say that they were never awaited."""
    edge.classifier.drain()
    run(edge.server.announce_stop())
    talk.send(red)
    assert failure_of(lambda: next(talk.answers)).code == "UNAVAILABLE"
    gc.collect()
    assert [str(warning.message) for warning in recwarn if issubclass(warning.category, RuntimeWarning)] == []
