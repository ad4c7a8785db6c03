"""The async client: the same answers, refusals and windows as the sync one, and nothing left in the event loop."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest

from anther import AsyncClient, CallFailed, Classification, Client
from anther.client.pending import WINDOW
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierServicer, add_ImageClassifierServicer_to_server

PATIENCE_S = 60
Script = Callable[[Iterator[pb.ClassifyRequest], grpc.ServicerContext], Iterator[pb.ClassifyStreamResponse]]


@pytest.fixture
def edge(start_edge):
    return start_edge()


@pytest.fixture
def ask(run):
    """`ask(port, lambda client: …)` awaits what the function makes of a client, and looks for tasks left behind."""

    def running() -> set[str]:
        return {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}

    async def whole(port: int, use: Callable[[AsyncClient], Any], **options: float) -> Any:
        async with AsyncClient(f"127.0.0.1:{port}", **options) as client:
            result = await use(client)
        assert not {name for name in running() if "AsyncExchange" in name}
        while any("_consume_request_iterator" in name for name in running()):  # gRPC ends its own later
            await asyncio.sleep(0.001)
        return result

    return lambda port, use, **options: run(whole(port, use, **{"timeout_s": PATIENCE_S, **options}))


async def listed(outcomes: AsyncIterator[Any]) -> list[Any]:
    return [outcome async for outcome in outcomes]


def told(outcomes: list[Any]) -> list[str]:
    return [found.reason if isinstance(found, CallFailed) else found.predictions[0].label for found in outcomes]


# One call


def test_answers_are_those_of_the_sync_client(edge, ask, pictures, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(pictures["roses"])

    async def use(client: AsyncClient) -> list[Any]:
        answers = [await client.classify(image, model="flowers", top_k=2) for image in (pictures["roses"], path)]
        explained = await client.explain(str(path), "tulips")
        return [*answers, explained, await client.list_models(), await client.get_model()]

    by_bytes, by_path, explained, models, model = ask(edge.port, use)
    with Client(f"127.0.0.1:{edge.port}") as client:
        assert by_bytes.predictions == by_path.predictions == client.classify(path, top_k=2).predictions
        assert explained.evidence == client.explain(path, "tulips").evidence
        assert (models, model) == (client.list_models(), client.get_model())


def test_both_clients_have_the_same_signatures() -> None:
    def parameters(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, lambda member: inspect.isfunction(member) and member.__name__[0] != "_")
        return {name: list(inspect.signature(method).parameters) for name, method in methods}

    assert parameters(AsyncClient) == parameters(Client)


def test_errors_are_those_of_the_sync_client(edge, ask, tmp_path: Path) -> None:
    async def failed(call: Any) -> CallFailed:
        with pytest.raises(CallFailed) as raised:
            await call
        return raised.value

    error = ask(edge.port, lambda client: failed(client.classify(b"junk")))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "IMAGE_FORMAT_REFUSED")
    assert error.message.startswith("the data is of an unknown format")
    assert ask(edge.port, lambda client: failed(client.get_model("trees"))).reason == "MODEL_NOT_FOUND"
    with pytest.raises(FileNotFoundError):
        ask(edge.port, lambda client: client.classify(tmp_path / "none.jpg"))
    with pytest.raises(TypeError, match="'models' is no option"):
        ask(edge.port, lambda client: client.classify(b"", models="flowers"))


def test_no_server_is_an_error_that_says_what_to_do(ask, closed_port: int) -> None:
    for use in (lambda client: client.classify(b""), lambda client: listed(client.classify_many([b"1", b"2"]))):
        with pytest.raises(CallFailed, match="start one with `anther serve`") as raised:
            ask(closed_port, use)
        assert raised.value.code == "UNAVAILABLE"


def test_a_client_may_be_made_before_the_event_loop_runs_and_closed_unused(edge, run, pictures) -> None:
    client, unused = AsyncClient(f"127.0.0.1:{edge.port}"), AsyncClient("127.0.0.1:1")
    assert run(client.classify(pictures["daisy"])).predictions[0].label == "daisy"
    run(client.close())
    run(unused.close())
    assert "_channel" not in vars(unused)


# Many images


def test_many_images_come_back_in_order_and_a_failure_harms_only_itself(edge, ask, pictures, tmp_path) -> None:
    images = [pictures["daisy"], b"junk", tmp_path / "none.jpg", pictures["tulips"]] * 40
    outcomes = ask(edge.port, lambda client: listed(client.classify_many(images)))
    assert told(outcomes) == ["daisy", "IMAGE_FORMAT_REFUSED", "FILE_UNREADABLE", "tulips"] * 40


def test_images_may_come_from_an_async_iterable_as_they_are_needed(edge, ask, pictures) -> None:
    drawn = 0

    async def images() -> AsyncIterator[bytes]:
        nonlocal drawn
        while True:
            drawn += 1
            yield pictures["daisy"]

    async def use(client: AsyncClient) -> Any:
        async with contextlib.aclosing(client.classify_many(images())) as outcomes:
            return await anext(outcomes), drawn

    outcome, seen = ask(edge.port, use)
    assert isinstance(outcome, Classification)
    assert seen == WINDOW + 1


def test_outcomes_may_be_taken_as_they_are_ready(start_edge, ask, pictures) -> None:
    edge = start_edge(lanes=2)

    async def use(client: AsyncClient) -> list[Any]:
        outcomes = client.classify_as_ready([pictures["daisy"], b"junk"], request_id=lambda image: image.hex())
        first = await anext(outcomes)
        edge.engine.gate.set()
        return [first, *await listed(outcomes)]

    with edge.held():
        (junk, refused), (picture, answer) = ask(edge.port, use)
    assert (junk, refused.reason) == (b"junk", "IMAGE_FORMAT_REFUSED")
    assert (picture, answer.predictions[0].label) == (pictures["daisy"], "daisy")


def test_a_picture_over_the_message_limit_fails_alone(start_edge, ask, pictures) -> None:
    edge = start_edge(max_image_bytes=1000)
    images = [pictures["daisy"], b"x" * 10**6, pictures["roses"], b"junk"]
    outcomes = ask(edge.port, lambda client: listed(client.classify_many(images)))
    assert told(outcomes) == ["daisy", "IMAGE_TOO_MANY_BYTES", "roses", "IMAGE_FORMAT_REFUSED"]


def test_leaving_early_takes_the_work_along(edge, ask, pictures, eventually) -> None:
    async def use(client: AsyncClient) -> None:
        async with contextlib.aclosing(client.classify_many(pictures["daisy"] for _ in range(10**9))) as outcomes:
            await anext(outcomes)

    ask(edge.port, use)
    eventually(lambda: edge.lanes.waiting + edge.lanes.running == 0)


def test_a_cancelled_task_takes_the_work_along(edge, ask, pictures, eventually) -> None:
    async def use(client: AsyncClient) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await listed(client.classify_many(pictures["daisy"] for _ in range(10**9)))

    ask(edge.port, use)
    eventually(lambda: edge.lanes.waiting + edge.lanes.running == 0)


# Streams that break


class Scripted(ImageClassifierServicer):
    """Each stream follows the next script, the last one for ever; single calls are answered."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)

    def ClassifyStream(self, request_iterator, context) -> Iterator[pb.ClassifyStreamResponse]:  # noqa: N802
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        yield from script(request_iterator, context)

    def Classify(self, request, context) -> pb.ClassifyResponse:  # noqa: N802
        return answer(request).answer


@pytest.fixture
def scripted() -> Iterator[Callable[..., int]]:
    """`scripted(script, …)` gives the port of a server whose streams follow these scripts."""
    with contextlib.ExitStack() as stack:

        def start(*scripts: Script) -> int:
            server = grpc.server(ThreadPoolExecutor(4))
            add_ImageClassifierServicer_to_server(Scripted(*scripts), server)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            stack.callback(lambda: server.stop(0).wait(PATIENCE_S))
            return port

        yield start


def answer(request: pb.ClassifyRequest) -> pb.ClassifyStreamResponse:
    prediction = pb.Prediction(label=request.image.decode())
    return pb.ClassifyStreamResponse(id=request.id, answer=pb.ClassifyResponse(predictions=[prediction]))


def answers_all(requests, context) -> Iterator[pb.ClassifyStreamResponse]:
    yield from map(answer, requests)


def breaks_after(count: int, reading: int = 0) -> Script:
    """With `reading`, so many images have come before."""

    def script(requests, context) -> Iterator[pb.ClassifyStreamResponse]:
        read = [next(requests) for _ in range(reading)]
        yield from map(answer, read[:count] or islice(requests, count))
        context.abort(grpc.StatusCode.UNAVAILABLE, "it broke")

    return script


def never(requests, context) -> Iterator[pb.ClassifyStreamResponse]:
    for _ in requests:
        pass
    yield from ()


IMAGES = [str(number).encode() for number in range(9)]


def test_a_stream_that_breaks_is_opened_again_for_what_is_unanswered(scripted, ask, caplog) -> None:
    port = scripted(breaks_after(3, reading=9), breaks_after(2, reading=6), answers_all)
    assert told(ask(port, lambda client: listed(client.classify_many(IMAGES)))) == [str(n) for n in range(9)]
    assert [message.partition("; ")[2] for message in caplog.messages] == [
        "start one with `anther serve`; asking again for 6 images in 0.1 s",
        "start one with `anther serve`; asking again for 4 images in 0.1 s",
    ]


def test_a_stream_that_breaks_while_it_is_written_to_loses_no_image(scripted, ask) -> None:
    """Which of the two errors gRPC tells is then a matter of chance."""
    port = scripted(*[breaks_after(1 + count % 3) for count in range(20)], answers_all)
    for _ in range(20):
        assert told(ask(port, lambda client: listed(client.classify_many(IMAGES)))) == [str(n) for n in range(9)]


def test_an_image_that_came_at_a_bad_time_is_sent_again(scripted, ask) -> None:
    def script(requests, context) -> Iterator[pb.ClassifyStreamResponse]:
        for number, item in enumerate(requests):
            error = pb.ItemError(code=8, reason="QUEUE_FULL", retry_after=0.001)
            yield pb.ClassifyStreamResponse(id=item.id, error=error) if number in {0, 2, 4} else answer(item)

    assert told(ask(scripted(script), lambda client: listed(client.classify_many(IMAGES)))) == [
        str(n) for n in range(9)
    ]


def test_patience_ends(scripted, ask) -> None:
    port = scripted(breaks_after(1, reading=9), breaks_after(0, reading=8))
    with pytest.raises(CallFailed, match="it broke"):
        ask(port, lambda client: listed(client.classify_many(IMAGES)), patience_s=0.0)


def test_a_silent_server_is_an_error_that_says_how_long(scripted, ask) -> None:
    with pytest.raises(CallFailed, match=r"has sent no answer for 0\.05 s"):
        ask(scripted(never), lambda client: listed(client.classify_many(IMAGES)), timeout_s=0.05)


# The client closed


def closed_by(use: Callable[[AsyncClient], Any]) -> Callable[[AsyncClient], Any]:
    """What a call under way raises when the client is closed by another task."""

    async def whole(client: AsyncClient) -> BaseException | None:
        call = asyncio.ensure_future(use(client))
        await asyncio.sleep(0.5)
        await client.close()
        await asyncio.wait({call}, timeout=10)
        return call.exception() if call.done() and not call.cancelled() else None

    return whole


def test_a_call_that_the_client_is_closed_under_is_the_one_error_for_that(edge, ask, pictures) -> None:
    with edge.held():
        failure = ask(edge.port, closed_by(lambda client: client.classify(pictures["daisy"])))
    assert isinstance(failure, CallFailed)
    assert (failure.code, failure.reason) == ("CANCELLED", "CLIENT_CLOSED")
    assert not failure.transient


@pytest.mark.parametrize("then", [never, breaks_after(0, reading=8)], ids=["waiting", "backing off"])
def test_so_it_is_for_many_images_and_at_once(scripted, ask, then: Script) -> None:
    port = scripted(breaks_after(1, reading=9), then)
    failure = ask(port, closed_by(lambda client: listed(client.classify_many(IMAGES))))
    assert isinstance(failure, CallFailed)
    assert failure.reason == "CLIENT_CLOSED"


@pytest.mark.parametrize("used", [True, False])
def test_so_it_is_after_the_client_was_closed(edge, ask, pictures, used: bool) -> None:
    async def use(client: AsyncClient) -> list[str]:
        if used:
            await client.classify(pictures["daisy"])
        await client.close()
        await client.close()
        calls = (client.classify(b""), client.explain(b""), client.list_models(), listed(client.classify_many([b""])))
        return [failure.reason for failure in await asyncio.gather(*calls, return_exceptions=True)]

    assert ask(edge.port, use) == ["CLIENT_CLOSED"] * 4


def test_a_task_that_is_cancelled_ends_so_although_its_client_was_closed(edge, ask, pictures) -> None:
    async def use(client: AsyncClient) -> bool:
        call = asyncio.create_task(client.classify(pictures["daisy"]))
        await asyncio.sleep(0.2)
        call.cancel()
        await client.close()
        await asyncio.wait({call})
        return call.cancelled()

    with edge.held():
        assert ask(edge.port, use)


def test_a_task_that_is_cancelled_while_the_server_ends_the_stream_takes_it_along(scripted, ask) -> None:
    ended = threading.Event()

    def lingers(requests, context) -> Iterator[pb.ClassifyStreamResponse]:
        context.add_callback(ended.set)
        yield from map(answer, requests)
        ended.wait(PATIENCE_S)

    async def use(client: AsyncClient) -> bool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await listed(client.classify_many(IMAGES))
        return await asyncio.to_thread(ended.wait, 1.0)

    assert ask(scripted(lingers), use)
