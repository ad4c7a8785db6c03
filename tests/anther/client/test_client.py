"""The Python client: answers as records, refusals as one error, in the order of the pictures."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from anther import AsyncClient, CallFailed, Classification, Client, ModelMetrics
from anther.client.pending import WINDOW
from anther.errors import AntherError

PATIENCE_S = 60


@pytest.fixture
def edge(start_edge):
    return start_edge()


@pytest.fixture
def client(edge) -> Iterator[Client]:
    with Client(f"127.0.0.1:{edge.port}", PATIENCE_S) as client:
        yield client


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
    assert client.classify(pictures["daisy"], model="flowers", version=1).version == 1
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


def test_a_message_that_grpc_refuses_for_its_size_is_an_image_of_too_many_bytes(start_edge) -> None:
    edge = start_edge(max_image_bytes=1000)
    with Client(f"127.0.0.1:{edge.port}") as client, pytest.raises(CallFailed) as raised:
        client.classify(b"x" * 10**6)
    assert (raised.value.code, raised.value.reason) == ("INVALID_ARGUMENT", "IMAGE_TOO_MANY_BYTES")
    assert raised.value.message == "the image and its request have 1,000,004 bytes; at most 66,536 are allowed"


def test_no_server_is_an_error_that_says_what_to_do(closed_port: int) -> None:
    target = f"127.0.0.1:{closed_port}"
    with Client(target) as client, pytest.raises(CallFailed) as raised:
        client.classify(b"")
    assert raised.value.code == "UNAVAILABLE"
    assert raised.value.message.startswith(f"no server answers at {target} (")
    assert raised.value.message.endswith("start one with `anther serve`")


def test_the_port_of_http_is_told_from_that_of_grpc(edge) -> None:
    with (
        Client(f"127.0.0.1:{edge.http.port}") as client,
        pytest.raises(CallFailed, match="that is an HTTP port; ") as raised,
    ):
        client.list_models()
    assert "the gRPC port (8001 by default)" in raised.value.message


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "target",
    ["", "http://localhost:8001", "localhost", "localhost:", ":8001", "::1", "[::1]", "a:0", "a:65536", "a b:1"],
)
def test_a_target_without_host_or_port_is_refused(kind: Any, target: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT, without http://") as raised:
        kind(target)
    assert isinstance(raised.value, AntherError)


@pytest.mark.parametrize(
    "target",
    ["a_b.example:1", "[::1]:8001", "unix:/run/anther", "dns:///localhost:8001", "ipv4:127.0.0.1:80,127.0.0.2:80"],
)
def test_targets_of_grpc_are_taken(target: str) -> None:
    Client(target).close()


def test_an_argument_of_a_wrong_type_is_named(client: Client) -> None:
    with pytest.raises(TypeError, match=r"top_k cannot be 2\.5: "):
        client.classify(b"", top_k=2.5)  # type: ignore[typeddict-item]
    with pytest.raises(TypeError, match=r"class_index cannot be 2\.5: "):
        client.explain(b"", 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="version cannot be 1180591620717411303424: "):
        client.get_model(version=2**70)
    with pytest.raises(ValueError, match="model cannot be "):
        client.classify(b"", model="\ud800")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_times_that_are_none_are_named(kind: Any) -> None:
    for timeout_s in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout_s should be over 0 seconds"):
            kind(timeout_s=timeout_s)
    with pytest.raises(ValueError, match="patience_s should be 0 seconds or more, not -1"):
        kind(patience_s=-1)


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
        for _ in range(WINDOW + 30):
            drawn += 1
            yield pictures["daisy"]

    outcomes = client.classify_many(images())
    assert isinstance(next(outcomes), Classification)
    assert drawn == WINDOW + 1
    assert len(list(outcomes)) == WINDOW + 29


@pytest.mark.parametrize("ordered", [True, False])
def test_two_thousand_pictures_are_never_in_memory_at_once(client: Client, pictures, ordered: bool) -> None:
    class Picture(bytes):
        alive = most = 0

        def __new__(cls, data: bytes) -> "Picture":
            cls.alive += 1
            cls.most = max(cls.most, cls.alive)
            return super().__new__(cls, data)

        def __del__(self) -> None:
            Picture.alive -= 1

    images = (Picture(pictures["daisy"]) for _ in range(2000))
    outcomes = client.classify_many(images) if ordered else client.classify_as_ready(images)
    assert sum(1 for _ in outcomes) == 2000
    assert Picture.most <= WINDOW + 2  # in flight, being sent, and being looked at by the caller
    del outcomes
    assert Picture.alive <= 1


def test_a_slow_picture_holds_up_those_behind_it_but_no_more_than_a_window(start_edge, pictures) -> None:
    """Two lanes: the first picture stays in the engine while the other lane refuses junk."""
    edge, drawn, release = start_edge(lanes=2), 0, 3 * WINDOW

    def images() -> Iterator[bytes]:
        nonlocal drawn
        yield pictures["daisy"]
        while True:
            drawn += 1
            if drawn == release:
                edge.engine.gate.set()
            yield b"junk"

    edge.engine.gate.clear()
    with Client(f"127.0.0.1:{edge.port}") as client:
        outcomes = client.classify_many(images())
        threading.Timer(1.0, edge.engine.gate.set).start()
        assert isinstance(next(outcomes), Classification)
        assert drawn <= 2 * WINDOW
        outcomes.close()


def test_outcomes_may_be_taken_as_they_are_ready(start_edge, pictures) -> None:
    edge = start_edge(lanes=2)
    with edge.held(), Client(f"127.0.0.1:{edge.port}") as client:
        outcomes = client.classify_as_ready([pictures["daisy"], b"junk"])
        image, outcome = next(outcomes)
        assert (image, outcome.reason) == (b"junk", "IMAGE_FORMAT_REFUSED")
        edge.engine.gate.set()
        image, outcome = next(outcomes)
        assert (image, outcome.predictions[0].label) == (pictures["daisy"], "daisy")
        assert list(outcomes) == []


def test_outcomes_come_with_the_picture_as_it_was_given(client: Client, pictures, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(pictures["roses"])
    missing = tmp_path / "none.jpg"
    found = dict(client.classify_as_ready([path, missing], model="flowers", version=1, top_k=1, label="stable"))
    assert [prediction.label for prediction in found[path].predictions] == ["roses"]
    assert found[missing].reason == "FILE_UNREADABLE"


def test_pictures_may_have_ids_of_their_own(client: Client, pictures) -> None:
    images = [pictures["daisy"], pictures["roses"]]
    assert len(list(client.classify_as_ready(images, request_id=lambda image: str(len(image)) + image.hex()))) == 2
    with pytest.raises(ValueError, match="'same' is in flight already"):
        list(client.classify_as_ready(images, request_id=lambda image: "same"))


def test_without_a_server_many_pictures_are_one_error(closed_port: int) -> None:
    with Client(f"127.0.0.1:{closed_port}") as client, pytest.raises(CallFailed, match="no server answers") as raised:
        list(client.classify_many([b"1", b"2"]))
    assert raised.value.code == "UNAVAILABLE"


def test_a_picture_over_the_message_limit_fails_alone(start_edge, pictures) -> None:
    edge = start_edge(max_image_bytes=1000)
    with Client(f"127.0.0.1:{edge.port}") as client:
        outcomes = list(client.classify_many([pictures["daisy"], b"x" * 10**6, pictures["roses"], b"junk"]))
    reasons = [outcome.reason if isinstance(outcome, CallFailed) else "OK" for outcome in outcomes]
    assert reasons == ["OK", "IMAGE_TOO_MANY_BYTES", "OK", "IMAGE_FORMAT_REFUSED"]


def test_a_server_that_is_replaced_in_the_middle_is_not_noticed(start_server, pictures) -> None:
    """Every picture comes back once, in order, over the end of one server and the start of the next."""
    first = start_server()
    port = first.target.rpartition(":")[2]
    labels = [("daisy", "tulips", "roses")[number % 3] for number in range(300)]
    with Client(first.target) as client:
        outcomes = client.classify_many(pictures[label] for label in labels)
        got = [next(outcomes).predictions[0].label for _ in range(100)]
        assert first.stop() == 0
        start_server("--grpc-port", port)
        got.extend(outcome.predictions[0].label for outcome in outcomes)
    assert got == labels


def test_leaving_early_takes_the_work_along(edge, client: Client, pictures, eventually) -> None:
    outcomes = client.classify_many(pictures["daisy"] for _ in range(10**9))
    next(outcomes)
    outcomes.close()
    eventually(lambda: edge.lanes.waiting + edge.lanes.running == 0)


# The client closed


@pytest.mark.parametrize("many", [False, True])
def test_a_call_that_the_client_is_closed_under_is_the_one_error_for_that(edge, pictures, caplog, many: bool) -> None:
    with edge.held(), ThreadPoolExecutor(1) as pool, Client(f"127.0.0.1:{edge.port}") as client:
        use = (
            (lambda: list(client.classify_many([pictures["daisy"]] * 9)))
            if many
            else lambda: client.classify(pictures["daisy"])
        )
        call = edge.occupied(lambda: pool.submit(use))
        client.close()
        failure = call.exception(10)
    assert isinstance(failure, CallFailed)
    assert (failure.code, failure.reason) == ("CANCELLED", "CLIENT_CLOSED")
    assert caplog.messages == []


def test_so_it_is_after_the_client_was_closed(client: Client) -> None:
    client.close()
    client.close()
    uses = (client.classify, client.explain, client.get_model, lambda image: list(client.classify_many([image])))
    for use in uses:
        with pytest.raises(CallFailed, match="is closed; make another") as raised:
            use(b"")
        assert raised.value.reason == "CLIENT_CLOSED"


# Explanations, ids, labels


def test_an_explanation_is_a_record(client: Client, pictures) -> None:
    found = client.explain(pictures["tulips"], top_k=2)
    assert found.explained == found.classification.predictions[0]
    assert (found.explained.label, len(found.classification.predictions)) == ("tulips", 2)
    assert [len(row) for row in found.evidence] == [4] * 4
    assert found.overlay_png.startswith(b"\x89PNG")
    another = client.explain(pictures["daisy"], "tulips")
    biases = [each.logit - np.mean(each.evidence) for each in (found, another)]
    assert biases[0] == pytest.approx(biases[1], abs=1e-4)


@pytest.mark.parametrize(("explained", "label"), [(None, "daisy"), (0, "daisy"), (2, "roses"), ("tulips", "tulips")])
def test_the_explained_class_is_named_by_index_or_label(client, pictures, tmp_path, explained, label) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(pictures["daisy"])
    assert client.explain(path, explained, model="flowers", version=1).explained.label == label


def test_an_explanation_that_cannot_be_is_an_error(client: Client, pictures) -> None:
    with pytest.raises(CallFailed, match="'class_label' is 'oak'"):
        client.explain(pictures["daisy"], "oak")


def test_ids_and_labels_are_passed_on(client: Client, pictures) -> None:
    assert client.classify(pictures["daisy"], label="stable", request_id="mine").version == 1
    for call in (client.classify, client.explain):
        with pytest.raises(CallFailed) as raised:
            call(pictures["daisy"], label="canary")
        assert raised.value.reason == "CANARY_NOT_FOUND"
    (outcome,) = client.classify_many([pictures["daisy"]], label="canary")
    assert outcome.reason == "CANARY_NOT_FOUND"


def test_a_model_is_described(client: Client) -> None:
    model = client.get_model("flowers", 1, label="stable")
    assert model == client.get_model()
    assert (model.name, model.version, model.labels) == ("flowers", 1, ("daisy", "tulips", "roses"))
    assert (model.architecture, model.precision, model.provider) == ("colours", "fp32", "CPUExecutionProvider")
    assert (model.threshold, model.metrics) == (0.7, ModelMetrics(30, 1.0, (0.9, 1.0)))
    assert json.loads(model.manifest_json)["name"] == "flowers"
    assert len(model.sha256) == 64
    with pytest.raises(CallFailed, match="no model 'trees'"):
        client.get_model("trees")


def test_models_are_listed(client: Client, closed_port: int) -> None:
    (model,) = client.list_models()
    assert (model.name, model.version) == ("flowers", 1)
    with Client(f"127.0.0.1:{closed_port}") as nobody, pytest.raises(CallFailed, match="no server answers"):
        nobody.list_models()


def test_a_mistyped_option_is_told(client: Client) -> None:
    with pytest.raises(TypeError, match="'models' is no option; there are model, version, label, top_k"):
        client.classify(b"", models="flowers")  # type: ignore[call-arg]


def test_a_client_is_shared_between_threads(client: Client, pictures) -> None:
    together = threading.Barrier(8, timeout=PATIENCE_S)

    def ask(label: str) -> bool:
        together.wait()
        return client.classify(pictures[label]).predictions[0].label == label

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, ["daisy", "tulips", "roses", "daisy"] * 2))


def test_each_client_has_a_connection_of_its_own(edge, pictures) -> None:
    """The kernel spreads connections over workers: with one for all clients, one worker would do all the work."""

    def connections() -> int:
        found = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == edge.port for each in found)

    before = connections()
    with Client(f"127.0.0.1:{edge.port}") as one, Client(f"127.0.0.1:{edge.port}") as other:
        for client in (one, other):
            client.classify(pictures["daisy"])
        assert connections() == before + 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_on_this_machine_is_asked_without_a_proxy(edge, pictures, monkeypatch, closed_port, host) -> None:
    """Many networks set `http_proxy` for everything, and a proxy elsewhere cannot reach this machine."""
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(f"{host}:{edge.port}") as client:
        assert client.classify(pictures["daisy"]).predictions[0].label == "daisy"
