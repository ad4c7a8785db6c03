"""What a request asks in its query and its headers."""

import contextlib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.recorder import Recorder
from service.edge.calls import Calls
from service.errors import InvalidArgument
from service.http.exchange import Request, call_of
from service.http.parameters import OF_CLASS, OF_IMAGE, Question, preferred, question

CALLS = Calls(Recorder(()), registry=None)  # type: ignore[arg-type]  # nobody is asked


def request(query: str, **headers: str) -> Request:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {
        "type": "http",
        "query_string": query.encode(),
        "headers": sent,
        "client": ("192.0.2.1", 5),
    }
    return Request(scope, None, CALLS)


def test_a_query_is_a_question() -> None:
    asked = question(
        request("model=m&version=3&label=canary&top_k=2&id=x&class_index=1&timeout=5"), OF_IMAGE | OF_CLASS
    )
    assert asked == Question("m", 3, "canary", "x", 2, 1)
    assert question(request(""), OF_IMAGE) == Question()


def test_a_label_that_looks_like_a_number_is_a_label() -> None:
    assert question(request("class_label=1"), OF_IMAGE | OF_CLASS).explained == "1"
    assert question(request("class_index=0"), OF_IMAGE | OF_CLASS).explained == 0


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_query_is_a_question_or_refused(name: str, value: str) -> None:
    for query in (f"{quote(name)}={quote(value)}", f"version={quote(value)}", f"id={quote(value)}", name):
        with contextlib.suppress(InvalidArgument):
            asked = question(request(query), OF_IMAGE)
            assert 0 <= asked.version <= 10**9
            assert asked.id.isascii()


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "x", "1e9", ""])
def test_a_deadline_is_some_time_ahead(timeout: str) -> None:
    with pytest.raises(InvalidArgument):
        call_of(request(f"timeout={timeout}"), traced=False)


def test_a_call_has_what_http_knows_of_it() -> None:
    call = call_of(request("timeout=5", traceparent="00-1"), traced=True)
    assert (call.protocol, call.caller.key, call.traceparent) == ("http", "192.0.2.1", "00-1")
    assert call.deadline is not None
    assert call_of(request("", traceparent="00-1"), traced=False).traceparent == ""
    assert call_of(request(""), traced=False).deadline is None


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("image/*;q=0.8, */*;q=0.5", "image/png"),
        ("image/avif,image/webp,image/apng,image/png,*/*;q=0.8", "image/png"),
        ("image/png;q=0.1, application/json;q=0.9", "application/json"),
        ("application/json, image/png", "application/json"),
        ("*/*, image/png;q=0", "application/json"),
        ("text/html", "application/json"),
        ("image/png;q=nonsense", "application/json"),
        (", ;,q=;=", "application/json"),
    ],
)
def test_the_media_type_is_what_is_asked_for_most(accept: str, expected: str) -> None:
    assert preferred(accept, ("application/json", "image/png")) == expected
