"""The paths of /v2 as curl and Triton's clients meet them. What is asked over gRPC, too, is in tests/service/rpc."""

import asyncio
import base64
import contextlib
import gc
import gzip
import json
import random
import threading
import zlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.requests import ImageRequest
from service.http.inference.pages import PAGES
from tests.service.http.conftest import PATIENCE_S, Answer, Web

INFER = "/v2/models/flowers/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture
def web(start_web) -> Web:
    return start_web()


@pytest.fixture
def red(pictures) -> bytes:
    return pictures["daisy"]


@pytest.fixture
def expected(web, red) -> list[float]:
    """The probabilities that the service's own protocol gives."""
    found = web.ask("POST", "/v1/classify?top_k=3", red).json()["predictions"]
    return [each["probability"] for each in sorted(found, key=lambda each: each["index"])]


def image(*pictures: bytes, **members: Any) -> dict[str, Any]:
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(pictures)],
        "data": [base64.b64encode(each).decode() for each in pictures],
        "parameters": {"content_type": "base64"},
    }
    return {"inputs": [tensor], **members}


def infer(web: Web, header: Any, path: str = INFER, **headers: str) -> Answer:
    return web.ask("POST", path, json.dumps(header).encode(), **headers)


# Answers


def test_json_is_answered_in_json(web, red, expected) -> None:
    answer = infer(web, image(red, red, id="my id", parameters={"weight": 0.5}))
    found = answer.json()
    assert (answer.status, answer.kind, answer.headers[LENGTH]) == (200, "application/json", None)
    assert list(found) == ["model_name", "model_version", "id", "parameters", "outputs"]
    assert (found["model_name"], found["model_version"], found["id"]) == ("flowers", "1", "my id")
    assert found["parameters"] == {"weight": 0.5}
    assert [output["name"] for output in found["outputs"]] == ["probabilities", "logits"]
    assert found["outputs"][0]["shape"] == [2, 3]
    assert found["outputs"][0]["data"] == pytest.approx([*expected, *expected], abs=1e-7)


def test_the_body_may_be_the_image_itself(web, red, expected) -> None:
    """`curl --data-binary @photo.jpg -H 'Inference-Header-Content-Length: 0'`"""
    answer = web.ask("POST", INFER, red, **{LENGTH: "0"})
    length = int(answer.headers[LENGTH])
    assert (answer.status, answer.kind) == (200, "application/octet-stream")
    sizes = [output["parameters"]["binary_data_size"] for output in json.loads(answer.body[:length])["outputs"]]
    assert sizes == [12, 12]
    assert np.frombuffer(answer.body[length : length + 12], "<f4") == pytest.approx(expected, abs=1e-7)


def test_classes_and_evidence_come_in_json_too(web, red) -> None:
    outputs = [{"name": "probabilities", "parameters": {"classification": 1}}, {"name": "evidence"}]
    classes, evidence = infer(web, image(red, outputs=outputs)).json()["outputs"]
    assert (classes["datatype"], classes["shape"]) == ("BYTES", [1, 1])
    assert classes["data"][0].split(":")[1:] == ["0", "daisy"]
    assert (evidence["shape"], len(evidence["data"])) == ([1, 3, 4, 4], 48)


@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_may_send_and_ask_in_every_form(web, red, packed: str | None, binary: bool) -> None:
    pixels = np.full((2, 32, 32, 3), 7, np.uint8)
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8").set_data_from_numpy(pixels, binary_data=binary)
    output = triton.InferRequestedOutput("logits", binary_data=binary)
    with triton.InferenceServerClient(f"127.0.0.1:{web.server.port}") as client:
        answer = client.infer("flowers", [tensor], outputs=[output], request_compression_algorithm=packed)
    values = answer.as_numpy("logits")
    assert (values.dtype, values.shape) == (np.float32, (2, 3))
    assert ("data" in answer.get_output("logits")) is not binary


def test_the_asyncio_client_gets_the_same_answers(web, pictures) -> None:
    async def ask() -> list[int]:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{web.server.port}") as client:
            assert await client.is_server_ready()
            calls = [
                client.infer("flowers", [triton.InferInput("image", [1], "BYTES").set_data_from_numpy(array)])
                for array in [np.array([each], object) for each in pictures.values()] * 8
            ]
            return [int(answer.as_numpy("logits").argmax()) for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [0, 1, 2] * 8


# Questions


def test_health_is_a_status_and_a_body(web) -> None:
    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/flowers/ready", "/v2/models/flowers/versions/1/ready")
    found = [web.ask("GET", path) for path in paths]
    assert [(each.status, each.json()) for each in found] == [
        (200, {"live": True}),
        (200, {"ready": True}),
        *[(200, {"name": "flowers", "ready": True})] * 2,
    ]
    absent = web.ask("GET", "/v2/models/trees/ready")
    assert (absent.status, absent.json()) == (503, {"name": "trees", "ready": False})
    web.edge.classifier.drain()
    assert [web.ask("GET", path).status for path in paths] == [200, 503, 503, 503]


def test_statistics_count_both_protocols(web, red) -> None:
    assert infer(web, image(red)).status == 200
    assert infer(web, image(b"")).status == 415
    for path in ("/v2/models/stats", "/v2/models/flowers/stats", "/v2/models/flowers/versions/1/stats"):
        (found,) = web.ask("GET", path).json()["model_stats"]
        assert (found["name"], found["version"], found["inference_count"]) == ("flowers", "1", 1)
        assert [found["inference_stats"][end]["count"] for end in ("success", "fail")] == [1, 1]
    labels = {"protocol": "http", "method": "ModelInfer", "model": "flowers"}
    assert web.sample("anther_requests_total", **labels, code="OK") == 1
    assert web.sample("anther_requests_total", **labels, code="INVALID_ARGUMENT") == 1


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": true}'])
def test_the_index_is_a_list(web, body: bytes) -> None:
    (found,) = web.ask("POST", "/v2/repository/index", body).json()
    assert found == {"name": "flowers", "version": "1", "state": "READY", "reason": ""}


def test_every_page_answers_by_its_method_and_by_no_other(web) -> None:
    for page in PAGES:
        for path in page.paths:
            at = path.format(model="flowers", version="1", region="r")
            answer = web.ask(page.verb, at)
            assert answer.status in {200, 403, 501}, at
            assert ("error" in answer.json()) is (answer.status != 200)
            other = web.ask("PUT", at)
            assert (other.status, other.json()["reason"]) == (405, "METHOD_NOT_ALLOWED")


# Refusals


def test_an_error_is_a_sentence_with_its_parts_beside_it(web, red) -> None:
    answer = infer(web, image(red, b"<html>"))
    found = answer.json()
    assert (answer.status, answer.kind) == (415, "application/json")
    assert found["error"].startswith("image 1: the data is text or markup")
    assert (found["code"], found["reason"]) == ("INVALID_ARGUMENT", "IMAGE_FORMAT_REFUSED")
    assert found["facts"]["index"] == "1"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v2/models/trees/infer", 404, "no model 'trees'; available: flowers"),
        ("/v2/models/flowers/versions/2/infer", 404, "model 'flowers' has no version 2"),
        ("/v2/models/flowers/versions/x/infer", 400, "'model_version' is 'x'"),
        ("/v2/models/%ED%A0%80/infer", 404, "no model"),
        ("/v2/models//infer", 404, "there is nothing at '/v2/models//infer'"),
        ("/v2/models/flowers/generate", 404, "there is nothing at"),
        ("/v2/", 404, "there is nothing at '/v2/'"),
    ],
)
def test_what_is_not_there_is_said(web, red, path: str, status: int, message: str) -> None:
    answer = infer(web, image(red), path)
    assert answer.status == status
    assert message in answer.json()["error"]


@pytest.mark.parametrize("path", ["load", "unload"])
def test_a_browsers_page_of_another_origin_cannot_control_models(web, path: str) -> None:
    """Without a token nothing else would keep it from asking."""
    at = f"/v2/repository/models/flowers/{path}"
    answer = web.ask("POST", at, b"{}", Origin="https://example.org", Content_Type="text/plain")
    assert (answer.status, answer.json()["reason"]) == (403, "ORIGIN_REFUSED")
    assert web.ask("POST", at).json()["reason"] == "CONTROL_DISABLED"
    assert web.ask("POST", "/v2/repository/index", Origin="https://example.org").status == 200


def test_a_full_queue_says_when_to_come_again(start_web, red, eventually) -> None:
    web = start_web(queue_limit=1)
    with web.edge.held():
        running, waiting = (threading.Thread(target=infer, args=(web, image(red))) for _ in range(2))
        web.edge.occupied(running.start)
        waiting.start()
        eventually(lambda: web.edge.lanes.waiting == 1)
        answer = infer(web, image(red))
    for each in (running, waiting):
        each.join(PATIENCE_S)
    assert (answer.status, answer.json()["reason"]) == (429, "QUEUE_FULL")
    assert answer.json()["retry_after"] > 0
    assert int(answer.headers["Retry-After"]) >= 1


def test_the_timeout_of_a_request_is_its_deadline(web, red) -> None:
    answer = infer(web, image(red, parameters={"timeout": 1}))
    assert (answer.status, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")


def test_a_client_that_leaves_takes_its_waiting_pictures_along(web, red, eventually) -> None:
    body = json.dumps(image(*[red] * 20)).encode()
    before = web.edge.engine.runs
    with web.edge.held(), contextlib.closing(web.connect()) as connection:
        web.edge.occupied(lambda: connection.request("POST", INFER, body))
        connection.close()
        eventually(lambda: web.sample("anther_requests_total", method="ModelInfer", code="CANCELLED") == 1)
    eventually(lambda: web.edge.lanes.running == 0)
    assert web.edge.engine.runs == before + 1


@pytest.mark.parametrize("pack", [None, gzip.compress, zlib.compress])
def test_a_body_over_the_limit_is_refused(start_web, pack) -> None:
    """Packed, it may be small on its way."""
    web, data = start_web(max_image_bytes=1000), random.Random(0).randbytes(200_000)
    kind = {} if pack is None else {"Content_Encoding": "gzip" if pack is gzip.compress else "deflate"}
    answer = web.ask("POST", INFER, data if pack is None else pack(data), **kind, **{LENGTH: "0"})
    assert (answer.status, answer.json()["reason"]) == (413, "REQUEST_TOO_LARGE")


def test_a_coding_that_is_not_known_is_refused(web, red) -> None:
    answer = infer(web, image(red), Content_Encoding="br")
    assert answer.status == 415
    assert answer.json()["error"] == "the request's Content-Encoding is 'br'; expected gzip or deflate, or none"


def test_refused_pictures_are_let_go_without_the_garbage_collector(web, eventually) -> None:
    """One caller who sends junk again and again must not fill the server's memory."""

    def in_memory() -> int:
        return sum(type(item) is ImageRequest for item in gc.get_objects())

    infer(web, image(b"<html>"))
    gc.collect()
    gc.disable()
    others = in_memory()  # of other tests
    try:
        for _ in range(5):
            assert infer(web, image(b"<html>", b"", b"<html>")).status == 415
        eventually(lambda: in_memory() <= others)
    finally:
        gc.enable()


def test_what_nobody_foresaw_is_internal(web, red, caplog) -> None:
    web.edge.engine.error = RuntimeError("secret")
    answer = infer(web, image(red))
    assert (answer.status, answer.json()["code"]) == (500, "INTERNAL")
    assert "secret" not in answer.body.decode()
    assert [record.message for record in caplog.records] == ["a call failed"]


# Whatever comes

TENSORS = [
    {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["a"]},
    {"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3], "parameters": {"binary_data_size": 3072}},
]
HEADERS = (
    st.fixed_dictionaries({"inputs": st.lists(st.sampled_from(TENSORS), max_size=2)}).map(json.dumps).map(str.encode)
)


def test_whatever_comes_is_refused_by_a_sentence(web, caplog) -> None:
    with contextlib.closing(web.connect()) as connection:

        @settings(max_examples=60)
        @given(
            HEADERS | st.binary(max_size=50),
            st.binary(max_size=50),
            st.sampled_from(["0", "1", "-1", "x", "9" * 30]) | st.none(),
            st.sampled_from(["gzip", "deflate", "br", ""]) | st.none(),
        )
        def ask(header: bytes, binary: bytes, length: str | None, encoding: str | None) -> None:
            headers = {"Content-Encoding": encoding, LENGTH: str(len(header)) if length == "1" else length}
            sent = {name: value for name, value in headers.items() if value is not None}
            connection.request("POST", INFER, header + binary, sent)
            answer = connection.getresponse()
            found = json.loads(answer.read())
            assert 400 <= answer.status < 500, found
            assert found["error"]
            assert found["reason"]

        ask()
    assert caplog.records == []
