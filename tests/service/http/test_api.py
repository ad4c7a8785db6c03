"""The paths of /v1: what they answer, and how they refuse."""

import base64
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.service.http.conftest import PATIENCE_S, Web, form


@pytest.fixture
def web(start_web) -> Web:
    return start_web()


def test_an_image_is_answered_as_the_command_prints_it(web, pictures, tmp_path) -> None:
    """Byte for byte, from the name of a file to each digit of a probability."""
    photo = tmp_path / "a \u00fc.png"
    photo.write_bytes(pictures["tulips"])
    command = ["-m", "anther", "classify", str(photo), "--json", "--target", f"127.0.0.1:{web.edge.port}"]
    printed = subprocess.run([sys.executable, *command], capture_output=True, check=True, timeout=PATIENCE_S).stdout
    body, kind = form((str(photo), photo.read_bytes()))
    answer = web.ask("POST", "/v1/classify", body, Content_Type=kind)
    assert (answer.status, answer.kind, answer.body) == (200, "application/json", printed)
    assert json.loads(printed)["predictions"][0]["label"] == "tulips"


def test_a_body_is_the_image_whatever_its_type_says(web, pictures) -> None:
    """`curl --data-binary @photo.jpg` says that it sends a form."""
    for headers in ({"Content_Type": "image/png"}, {"Content_Type": "application/x-www-form-urlencoded"}, {}):
        answer = web.ask("POST", "/v1/classify?top_k=1", pictures["roses"], **headers)
        assert answer.status == 200
        assert answer.json()["photo"] == ""
        assert [found["label"] for found in answer.json()["predictions"]] == ["roses"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert web.sample("anther_requests_total", protocol="http", method="Classify", code="OK") == 3


def test_a_body_in_chunks_is_taken(web, pictures) -> None:
    picture = pictures["daisy"]
    pieces = (picture[start : start + 50] for start in range(0, len(picture), 50))
    assert web.ask("POST", "/v1/classify", pieces).json()["predictions"][0]["label"] == "daisy"


def test_the_files_of_a_form_are_a_line_each_in_their_order(web, pictures) -> None:
    files = [(label, picture) for label, picture in pictures.items()]
    body, kind = form(files[0], ("broken", b"no image"), *files[1:])
    answer = web.ask("POST", "/v1/classify", body, Content_Type=kind)
    assert (answer.status, answer.kind) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert [line["photo"] for line in lines] == [files[0][0], "broken", *(name for name, _ in files[1:])]
    assert {line["photo"]: line["predictions"][0]["label"] for line in lines if line["error"] is None} == {
        label: label for label in pictures
    }
    (broken,) = (line for line in lines if line["error"])
    assert broken["error"]["reason"] == "IMAGE_FORMAT_REFUSED"
    assert len({tuple(line) for line in lines}) == 1, "the same keys in each"
    assert web.sample("anther_requests_total", protocol="http", method="Classify") == 4


def test_an_id_comes_back(web, pictures) -> None:
    assert web.ask("POST", "/v1/classify?id=a-1", pictures["daisy"]).headers["X-Request-Id"] == "a-1"
    assert web.ask("POST", "/v1/classify", pictures["daisy"], X_Request_Id="b-1").headers["X-Request-Id"] == "b-1"


def test_an_explanation_is_json_or_a_picture(web, pictures) -> None:
    found = web.ask("POST", "/v1/explain?class_label=roses", pictures["daisy"]).json()
    assert found["predictions"][0]["label"] == "daisy"
    assert found["explained"]["label"] == "roses"
    assert len(found["evidence"]) == len(found["evidence"][0]) == 4
    picture = base64.b64decode(found["overlay_png"])
    asked = web.ask("POST", "/v1/explain?class_index=2", pictures["daisy"], Accept="image/png,*/*;q=0.8")
    assert (asked.status, asked.kind, asked.headers["Vary"]) == (200, "image/png", "accept")
    assert asked.body == picture
    assert picture.startswith(b"\x89PNG")


def test_models_are_listed_and_described(web) -> None:
    (listed,) = web.ask("GET", "/v1/models").json()["models"]
    assert (listed["name"], listed["version"], listed["labels"]) == ("flowers", 1, ["daisy", "tulips", "roses"])
    described = web.ask("GET", "/v1/models/flowers?version=1").json()
    manifest = described.pop("manifest")
    assert described == listed
    assert manifest["labels"] == listed["labels"]
    assert web.ask("HEAD", "/v1/models").body == b""


REFUSALS = [
    ("POST", "/v1/classify?model=trees", 404, "NOT_FOUND", "MODEL_NOT_FOUND"),
    ("POST", "/v1/classify?version=9", 404, "NOT_FOUND", "VERSION_NOT_FOUND"),
    ("POST", "/v1/classify?label=canary", 404, "NOT_FOUND", "CANARY_NOT_FOUND"),
    ("POST", "/v1/classify?label=other", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ("POST", "/v1/classify?top_k=-1", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ("POST", "/v1/classify?top_k=1&top_k=2", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ("POST", "/v1/classify?topk=1", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ("POST", "/v1/classify?timeout=nan", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ("POST", "/v1/classify?timeout=0.000001", 504, "DEADLINE_EXCEEDED", "DEADLINE_EXPIRED"),
    ("POST", "/v1/classify?id=%0D%0Ax:y", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ("POST", "/v1/explain?class_label=roses&class_index=1", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ("POST", "/v1/explain?class_index=9", 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ("GET", "/v1/models/trees", 404, "NOT_FOUND", "MODEL_NOT_FOUND"),
    ("GET", "/v1/classify", 405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED"),
    ("POST", "/v1/models", 405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED"),
    ("GET", "/v1/models/", 404, "NOT_FOUND", "UNKNOWN_PATH"),
    ("GET", "/", 404, "NOT_FOUND", "UNKNOWN_PATH"),
]


def test_a_refusal_is_a_problem_with_the_reason(web, pictures) -> None:
    for method, path, status, code, reason in REFUSALS:
        answer = web.ask(method, path, pictures["daisy"] if method == "POST" else None)
        assert (answer.status, answer.kind) == (status, "application/problem+json"), path
        found = answer.json()
        assert (found["status"], found["code"], found["reason"]) == (status, code, reason), path
        assert found["detail"]
    assert web.ask("POST", "/v1/models").headers["Allow"] == "GET, HEAD"
    assert web.sample("anther_rejected_total", reason="UNKNOWN_PATH") == 2
    assert web.sample("anther_requests_total", protocol="http", code="OK") == 0


def test_what_is_unknown_in_a_request_is_named(web: Web) -> None:
    refused = web.ask("POST", "/v1/classify?topk=1", b"").json()["detail"]
    assert refused.startswith("'parameter' is 'topk'; expected one of id, label, model, timeout, top_k, version")
    field = b'--x\r\nContent-Disposition: form-data; name="x"\r\n\r\nhello\r\n--x--\r\n'
    refused = web.ask("POST", "/v1/classify", field, Content_Type="multipart/form-data; boundary=x").json()["detail"]
    assert refused.startswith("'form' is 'a field that is no file'; expected 1 to 64 files")


BODIES: list[tuple[Any, dict[str, str], int, str]] = [
    (b"no image", {}, 415, "IMAGE_FORMAT_REFUSED"),
    (b"", {}, 415, "IMAGE_FORMAT_REFUSED"),
    (b"x" * 30_001, {}, 413, "IMAGE_TOO_MANY_BYTES"),
    ((b"x" * 20_000 for _ in range(2)), {}, 413, "IMAGE_TOO_MANY_BYTES"),
    (form(("a", b"x" * 30_001)), {}, 413, "IMAGE_TOO_MANY_BYTES"),
    (form(*[("a", b"x" * 30_000)] * 5), {}, 413, "REQUEST_TOO_LARGE"),
    (form(*[("a", b"x")] * 65), {}, 400, "INVALID_ARGUMENT"),
    (form(), {}, 400, "INVALID_ARGUMENT"),
    ((b"nonsense", "multipart/form-data; boundary=x"), {}, 400, "INVALID_ARGUMENT"),
    ((b"nonsense", "multipart/form-data"), {}, 400, "INVALID_ARGUMENT"),
    (b"x", {"Content_Encoding": "gzip"}, 415, "ENCODING_REFUSED"),
]


def test_a_body_that_cannot_be_is_a_problem(start_web) -> None:
    web = start_web(max_image_bytes=30_000)
    for body, headers, status, reason in BODIES:
        data, kind = body if isinstance(body, tuple) else (body, None)
        answer = web.ask("POST", "/v1/classify", data, **headers, **({"Content_Type": kind} if kind else {}))
        assert (answer.status, answer.json()["reason"]) == (status, reason), (kind, reason)
