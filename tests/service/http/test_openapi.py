"""The page that describes /v1: a description of OpenAPI 3.1, and a true one."""

from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from service.edge.failures import Code
from service.http import openapi
from service.http.parameters import OF_CLASS, OF_IMAGE, OF_MODEL
from tests.service.http.conftest import Web, form

pytest.importorskip("schemathesis", reason="schemathesis is not installed")
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

# A schema cannot say what is an image and which models there are; 504 is the answer where a timeout is tiny.
IN_VAIN = [checks.positive_data_acceptance, not_a_server_error]


@pytest.fixture
def web(start_web) -> Web:
    return start_web()


@pytest.fixture
def described(web) -> Any:
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{web.server.port}/openapi.json")


def operations(described: Any) -> dict[str, Any]:
    return {found.ok().definition.raw["operationId"]: found.ok() for found in described.get_all_operations()}


def test_it_describes_every_path_and_parameter(web) -> None:
    page = web.ask("GET", "/openapi.json").json()
    assert page == openapi.description()
    assert page["openapi"].startswith("3.1.")
    assert {path for path in page["paths"] if not path.startswith("/v2")} == {
        "/v1/classify",
        "/v1/explain",
        "/v1/models",
        "/v1/models/{name}",
        "/openapi.json",
    }
    assert page["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(get_args(Code))
    named = {
        path: {each["name"] for each in next(iter(methods.values()))["parameters"] if each["in"] == "query"}
        for path, methods in page["paths"].items()
    }
    assert named["/v1/classify"] == OF_IMAGE | {"timeout"}
    assert named["/v1/explain"] == OF_IMAGE | OF_CLASS | {"timeout"}
    assert named["/v1/models/{name}"] == OF_MODEL | {"timeout"}


def test_answers_are_what_it_says(web, described, pictures) -> None:
    """Successes, which drawn requests rarely meet."""
    found, picture = operations(described), pictures["daisy"]
    body, kind = form(("daisy.png", picture))
    calls = [
        ("classify", {"query": {"top_k": 2, "id": "x"}, "body": picture, "media_type": "image/png"}),
        ("explain", {"body": picture, "media_type": "image/png"}),
        ("listModels", {}),
        ("getModel", {"path_parameters": {"name": "flowers"}}),
    ]
    for name, given_ in calls:
        case = found[name].Case(**given_)
        response = case.call()
        assert response.status_code == 200, (name, response.text)
        case.validate_response(response)
    assert web.ask("POST", "/v1/classify", body, Content_Type=kind).status == 200


def test_whatever_is_sent_the_answer_is_what_it_says(described) -> None:
    found = operations(described)

    def check(name: str) -> None:
        @settings(
            max_examples=10,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(case=found[name].as_strategy())
        def drawn(case: Any) -> None:
            response = case.call()
            assert response.status_code not in {500, 501}
            case.validate_response(response, excluded_checks=IN_VAIN)

        drawn()

    for name in ("classify", "explain", "listModels", "getModel"):
        check(name)
