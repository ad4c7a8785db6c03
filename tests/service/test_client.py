"""The Python client: answers as records, refusals as one error, in the order of the pictures."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bundle.errors import AntherError
from service.client import CallFailed, Classification, Client

PATIENCE_S = 60


@pytest.fixture
def edge(start_edge):
    return start_edge()


@pytest.fixture
def client(edge) -> Iterator[Client]:
    with Client(f"127.0.0.1:{edge.port}", PATIENCE_S) as client:
        yield client


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_an_answer_is_a_record(client: Client, pictures) -> None:
    answer = client.classify(pictures["tulips"], top_k=2)
    assert (answer.model, answer.version, answer.provider) == ("flowers", 1, "CPUExecutionProvider")
    assert answer.confident is True
    assert [(found.label, found.index) for found in answer.predictions][:1] == [("tulips", 1)]
    assert len(answer.predictions) == 2
    assert answer.timings.keys() == {"queue", "decode", "preprocess", "inference", "postprocess"}
    assert all(seconds >= 0 for seconds in answer.timings.values())


def test_bytes_paths_and_names_are_the_same_picture(client: Client, pictures, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(pictures["roses"])
    answers = [client.classify(given).predictions for given in (pictures["roses"], path, str(path))]
    assert answers[0] == answers[1] == answers[2]


def test_model_and_version_are_passed_on(client: Client, pictures) -> None:
    assert client.classify(pictures["daisy"], "flowers", 1).version == 1
    with pytest.raises(CallFailed, match="no model 'trees'"):
        client.classify(pictures["daisy"], model="trees")
    with pytest.raises(CallFailed, match="no version 2"):
        client.classify(pictures["daisy"], version=2)


def test_a_refusal_is_an_error_with_code_reason_and_message(client: Client) -> None:
    with pytest.raises(AntherError) as raised:
        client.classify(b"junk")
    error = raised.value
    assert isinstance(error, CallFailed)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "IMAGE_FORMAT_REFUSED")
    assert error.message == str(error)
    assert error.message.startswith("the data is of an unknown format")
    assert error.retry_after_s is None


def test_a_full_queue_says_when_to_retry(start_edge, pictures, eventually) -> None:
    edge = start_edge(queue_limit=1)
    with Client(f"127.0.0.1:{edge.port}") as client, ThreadPoolExecutor(2) as pool, edge.held():
        waiting = [edge.occupied(lambda: pool.submit(client.classify, pictures["daisy"]))]
        waiting.append(pool.submit(client.classify, pictures["daisy"]))
        eventually(lambda: edge.lanes.waiting == 1)
        with pytest.raises(CallFailed) as raised:
            client.classify(pictures["daisy"])
        edge.engine.gate.set()
        assert all(call.result(PATIENCE_S).predictions for call in waiting)
    assert raised.value.reason == "QUEUE_FULL"
    assert raised.value.retry_after_s > 0


def test_a_refusal_by_grpc_itself_has_its_code_as_reason(start_edge) -> None:
    edge = start_edge(max_image_bytes=1000)
    with Client(f"127.0.0.1:{edge.port}") as client, pytest.raises(CallFailed) as raised:
        client.classify(b"x" * 10**6)
    assert (raised.value.code, raised.value.reason) == ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED")


def test_no_server_is_an_error_that_says_what_to_do(closed_port: int) -> None:
    target = f"127.0.0.1:{closed_port}"
    with Client(target) as client, pytest.raises(CallFailed) as raised:
        client.classify(b"")
    assert raised.value.code == "UNAVAILABLE"
    assert raised.value.message.startswith(f"no server answers at {target} (")
    assert raised.value.message.endswith("start one with `anther serve`")


def test_an_answer_that_takes_too_long_is_given_up(edge, pictures) -> None:
    with edge.held(), Client(f"127.0.0.1:{edge.port}", timeout_s=0.1) as client, pytest.raises(CallFailed) as raised:
        client.classify(pictures["daisy"])
    assert raised.value.code == "DEADLINE_EXCEEDED"


def test_a_missing_file_is_an_error_of_the_file(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.classify(tmp_path / "none.jpg")


def test_many_pictures_come_back_in_order_and_a_failure_harms_only_itself(client, pictures, tmp_path) -> None:
    expected, images = [], []
    for number in range(40):
        label = ("daisy", "tulips", "roses")[number % 3]
        expected.append("IMAGE_FORMAT_REFUSED" if number % 7 == 0 else "FILE_UNREADABLE" if number % 11 == 0 else label)
        image = {"IMAGE_FORMAT_REFUSED": b"junk", "FILE_UNREADABLE": tmp_path / "none.jpg"}
        images.append(image.get(expected[-1], pictures[label]))
    outcomes = list(client.classify_many(images))
    assert [
        outcome.reason if isinstance(outcome, CallFailed) else outcome.predictions[0].label for outcome in outcomes
    ] == expected


def test_many_pictures_are_read_as_they_are_needed(client: Client, pictures) -> None:
    drawn = 0

    def images() -> Iterator[bytes]:
        nonlocal drawn
        for _ in range(30):
            drawn += 1
            yield pictures["daisy"]

    outcomes = client.classify_many(images())
    assert isinstance(next(outcomes), Classification)
    assert drawn == 9  # eight in flight
    assert len(list(outcomes)) == 29


def test_without_a_server_every_picture_fails(closed_port: int) -> None:
    with Client(f"127.0.0.1:{closed_port}") as client:
        outcomes = list(client.classify_many([b"1", b"2"]))
    assert [outcome.code for outcome in outcomes] == ["UNAVAILABLE", "UNAVAILABLE"]


def test_models_are_listed(client: Client, closed_port: int) -> None:
    (model,) = client.list_models()
    assert (model.name, model.version) == ("flowers", 1)
    with Client(f"127.0.0.1:{closed_port}") as nobody, pytest.raises(CallFailed, match="no server answers"):
        nobody.list_models()


def test_a_client_is_shared_between_threads(client: Client, pictures) -> None:
    together = threading.Barrier(8, timeout=PATIENCE_S)

    def ask(label: str) -> bool:
        together.wait()
        return client.classify(pictures[label]).predictions[0].label == label

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, ["daisy", "tulips", "roses", "daisy"] * 2))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_asked_without_a_proxy(edge, pictures, monkeypatch, closed_port, host) -> None:
    """Many networks set `http_proxy` for everything, and a proxy elsewhere cannot reach this machine."""
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(f"{host}:{edge.port}") as client:
        assert client.classify(pictures["daisy"]).predictions[0].label == "daisy"
