"""Tokens at the HTTP port: the same scopes, models and quotas as gRPC's, from the header `Authorization`."""

import re
from pathlib import Path
from typing import Any

import pytest

from service.edge.calls import SCOPES
from service.http.api import api_routes
from service.http.exchange import Endpoint
from service.http.inference.pages import PAGES
from service.identity.tokens import Token, digest, dumped
from tests.service.http.conftest import Web, form

TOKENS = (
    Token("reader", digest("t-reader"), ("models",)),
    Token("shop", digest("t-shop"), ("classify",), models=("flowers",)),
    Token("stranger", digest("t-stranger"), ("classify", "models"), models=("trees",)),
    Token("slow", digest("t-slow"), ("classify",), images_per_second=0.001),
)


@pytest.fixture
def web(start_web: Any, tmp_path: Path) -> Web:
    path = tmp_path / "tokens.json"
    path.write_bytes(dumped(TOKENS))
    return start_web(tokens=str(path))


def test_every_path_is_in_the_table() -> None:
    apps: list[Any] = [route.app for route in api_routes(None, None)]  # type: ignore[arg-type,attr-defined]
    assert all(isinstance(app, Endpoint) for app in apps)
    assert {app._name for app in apps} | {page.method for page in PAGES} <= SCOPES.keys()


def test_no_path_answers_a_stranger_but_those_that_are_free(web: Web) -> None:
    found = {}
    for route in api_routes(None, None):  # type: ignore[arg-type]
        path, (verb,) = route.path, route.methods - {"HEAD"}  # type: ignore[attr-defined]
        found[route.app._name] = web.ask(verb, path.format(name="flowers")).status  # type: ignore[attr-defined]
    for page in PAGES:
        path = re.sub(r"{\w+}", "1", page.paths[0])
        found[page.method] = web.ask(page.verb, path, b"{}" if page.verb == "POST" else None).status
    assert {name for name, status in found.items() if status != 401} == {
        name for name in found if SCOPES[name] == "free"
    }
    assert len(found) > 10


def test_a_request_needs_a_token_that_is_for_it(web: Web, pictures: Any) -> None:
    expected = {
        ("/v1/classify", None): 401, ("/v1/classify", "wrong"): 401, ("/v1/classify", "reader"): 403,
        ("/v1/classify", "shop"): 200, ("/v1/classify", "stranger"): 403, ("/v1/explain", "shop"): 403,
        ("/v1/models", "reader"): 200, ("/v1/models", "shop"): 403, ("/v1/models/flowers", "stranger"): 403,
        ("/v1/models/nothing", "stranger"): 403, ("/v2/health/ready", None): 200,
        ("/v2/models/flowers/ready", None): 200, ("/v2/models/flowers", "reader"): 200,
        ("/v2/models/flowers", None): 401, ("/openapi.json", None): 200,
    }  # fmt: skip
    found = {}
    for path, token in expected:
        body = pictures["daisy"] if path in ("/v1/classify", "/v1/explain") else None
        headers = {} if token is None else {"Authorization": f"Bearer t-{token}"}
        answer = web.ask("GET" if body is None else "POST", path, body, **headers)
        found[path, token] = answer.status
        assert answer.headers["WWW-Authenticate"] == ("Bearer" if answer.status == 401 else None)
        assert b"t-wrong" not in answer.body
    assert found == expected


def test_who_names_no_model_learns_no_other_name_than_their_own(web: Web, pictures: Any) -> None:
    refused = web.ask("POST", "/v1/classify", pictures["daisy"], Authorization="Bearer t-stranger")
    assert (refused.status, refused.json()["reason"]) == (403, "PERMISSION_DENIED")
    assert refused.json()["detail"].endswith("name one of: trees")
    assert b"flowers" not in refused.body


def test_each_file_of_a_form_is_charged(web: Web, pictures: Any) -> None:
    body, kind = form(("one", pictures["daisy"]), ("two", pictures["roses"]))
    answer = web.ask("POST", "/v1/classify", body, Content_Type=kind, Authorization="Bearer t-slow")
    assert b"predictions" in answer.body
    assert b"QUOTA_EXCEEDED" in answer.body
    refused = web.ask("POST", "/v1/classify", pictures["daisy"], Authorization="Bearer t-slow")
    assert (refused.status, refused.json()["reason"]) == (429, "QUOTA_EXCEEDED")
    assert 900 <= int(refused.headers["Retry-After"]) <= 1000


def test_the_models_of_others_are_not_listed(web: Web) -> None:
    assert web.ask("GET", "/v1/models", Authorization="Bearer t-stranger").json() == {"models": []}
    assert web.ask("GET", "/v1/models", Authorization="Bearer t-reader").json()["models"]
