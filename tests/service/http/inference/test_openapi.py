"""What /openapi.json says of /v2 is true."""

import base64
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from service.http.inference import openapi
from service.http.inference.pages import PAGES
from tests.service.http.conftest import Web

pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from tests.service.http.test_openapi import IN_VAIN, operations

OF_PATH = {"model": "flowers", "version": "1"}


@pytest.fixture
def web(start_web) -> Web:
    return start_web()


@pytest.fixture
def found(web) -> dict[str, Any]:
    import schemathesis

    return operations(schemathesis.openapi.from_url(f"http://127.0.0.1:{web.server.port}/openapi.json"))


def test_it_has_every_path_that_is_offered(found) -> None:
    offered = {path for page in PAGES if page.offered for path in page.paths}
    assert openapi.paths().keys() == offered | {
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
    }
    assert len({name for name in found if not name[0].islower()}) == len(openapi.paths())


def test_answers_are_what_it_says(found, pictures) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"content_type": "base64"}}
    request = {"inputs": [{**tensor, "data": [base64.b64encode(pictures["daisy"]).decode()]}]}
    for name, operation in found.items():
        if name[0].islower():
            continue  # of /v1
        of_path = {
            each["name"]: OF_PATH[each["name"]]
            for each in operation.definition.raw["parameters"]
            if each["in"] == "path"
        }
        posted = {"body": request if "Infer" in name else {}, "media_type": "application/json"}
        case = operation.Case(path_parameters=of_path, **(posted if operation.method == "post" else {}))
        response = case.call()
        assert response.status_code == (403 if "RepositoryModel" in name else 200), (name, response.text)
        case.validate_response(response, excluded_checks=IN_VAIN)


def test_whatever_is_sent_the_answer_is_what_it_says(found) -> None:
    @settings(
        max_examples=10,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(case=found["ModelInferByModel"].as_strategy())
    def check(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500
        case.validate_response(response, excluded_checks=IN_VAIN)

    check()
