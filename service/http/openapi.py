"""The page /openapi.json: what /v1 and /v2 take and answer, as OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1)."""

from collections.abc import Sequence
from typing import Any, get_args

from service.core.requests import LONGEST_ID
from service.edge.failures import Code
from service.http.inference import openapi as inference

Schema = dict[str, Any]

_STRING, _NUMBER = {"type": "string"}, {"type": "number"}
_WHOLE: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_PHOTO = "The file's name in a form; empty for a body that is the image itself."


def description() -> Schema:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Anther",
            "version": "1",
            "summary": "Image classification with the preprocessing of its training.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": {
            "/v1/classify": {"post": _classify()},
            "/v1/explain": {"post": _explain()},
            "/v1/models": {"get": _models()},
            "/v1/models/{name}": {"get": _model()},
            "/openapi.json": {"get": _this_page()},
            **inference.paths(),
        },
        "components": {
            "schemas": {
                "Answer": _answer(),
                "Explanation": _explanation(),
                "Prediction": _PREDICTION,
                "Model": _described(),
                "Problem": _problem(),
                **inference.schemas(),
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _classify() -> Schema:
    lines = "For a form with several files: a line of JSON a file, in their order, each as for one file."
    return {
        "operationId": "classify",
        "summary": "Classify an image, or the images of a form.",
        "parameters": _parameters(*_OF_IMAGE),
        "requestBody": _images(several=True),
        "responses": {
            "200": {
                "description": f"The most probable classes. {lines}",
                "headers": _ECHO,
                "content": {"application/json": {"schema": _ref("Answer")}, "application/x-ndjson": {}},
            },
            **_PROBLEMS,
        },
    }


def _explain() -> Schema:
    return {
        "operationId": "explain",
        "summary": "Classify an image, and show where in it the evidence for a class lies.",
        "parameters": _parameters(*_OF_IMAGE, "class_label", "class_index"),
        "requestBody": _images(several=False),
        "responses": {
            "200": {
                "description": "The evidence; as `image/png`, where `Accept` prefers it, the image with it drawn over.",
                "headers": _ECHO,
                "content": {"application/json": {"schema": _ref("Explanation")}, "image/png": {}},
            },
            **_PROBLEMS,
        },
    }


def _models() -> Schema:
    return {
        "operationId": "listModels",
        "summary": "The models in service, by name.",
        "parameters": _parameters("timeout"),
        "responses": {
            "200": _json("The models.", _object({"models": {"type": "array", "items": _ref("Model")}})),
            **_PROBLEMS,
        },
    }


def _model() -> Schema:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    whole = {"allOf": [_ref("Model"), _object({"manifest": {"type": "object"}})]}
    return {
        "operationId": "getModel",
        "summary": "One model in service, with its manifest.",
        "parameters": [name, *_parameters("version", "label", "timeout")],
        "responses": {"200": _json("The model.", whole), **_PROBLEMS},
    }


def _this_page() -> Schema:
    return {
        "operationId": "describe",
        "summary": "This page.",
        "parameters": _parameters("timeout"),
        "responses": {"200": _json("OpenAPI 3.1.", {"type": "object"}), **_PROBLEMS},
    }


_PARAMETERS: dict[str, tuple[str, Schema]] = {
    "model": ("The model's name; without it, the only one in service or the server's default.", _STRING),
    "version": ("A version's number; 0 is the one in service.", {**_WHOLE, "maximum": 10**9}),
    "label": ("Which of the versions in service; without it, the server's choice.", {"enum": ["stable", "canary"]}),
    "top_k": ("How many predictions; 0 is 5.", _WHOLE),
    "id": (
        "The request's own name, which comes back and decides whether a canary answers; also as X-Request-Id.",
        {"type": "string", "maxLength": LONGEST_ID, "pattern": "^[!-~]*$"},
    ),
    "timeout": (
        "Seconds after which no answer is wanted any more.",
        {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400},
    ),
    "class_label": ("The class to explain; without it, the most probable. Not beside class_index.", _STRING),
    "class_index": ("The class to explain, by its position in the model's output.", _WHOLE),
}
_OF_IMAGE = ("model", "version", "label", "top_k", "id", "timeout")
_ECHO: Schema = {"X-Request-Id": {"description": "The request's own.", "schema": _STRING}}


def _parameters(*names: str) -> list[Schema]:
    return [
        {"name": name, "in": "query", "description": _PARAMETERS[name][0], "schema": _PARAMETERS[name][1]}
        for name in names
    ]


def _images(*, several: bool) -> Schema:
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {"type": "object", "additionalProperties": file, "minProperties": 1}
    if not several:
        form["maxProperties"] = 1
    return {
        "description": "A JPEG, PNG, WebP, BMP, GIF or TIFF file as it is, or in a form, under any name.",
        "required": True,
        "content": {"*/*": {}, "multipart/form-data": {"schema": form}},
    }


def _object(properties: Schema, optional: Sequence[str] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


_PREDICTION = _object(
    {"label": _STRING, "index": _WHOLE, "probability": {"type": "number", "minimum": 0, "maximum": 1}}
)


def _answer() -> Schema:
    """With the keys of an error, too, as in the lines for several files."""
    error = _object({"code": _STRING, "reason": _STRING, "message": _STRING})
    return _object(
        {
            "photo": {"type": "string", "description": _PHOTO},
            "model": {"type": ["string", "null"]},
            "version": {"type": ["integer", "null"]},
            "provider": {"type": ["string", "null"], "description": "What the answer was computed on."},
            "confident": {
                "type": ["boolean", "null"],
                "description": "Whether the top probability reaches the model's threshold.",
            },
            "predictions": {"type": "array", "items": _ref("Prediction"), "description": "Most probable first."},
            "error": {"oneOf": [{"type": "null"}, error]},
        }
    )


def _explanation() -> Schema:
    rows = {"type": "array", "items": {"type": "array", "items": _NUMBER}}
    more = _object(
        {
            "explained": _ref("Prediction"),
            "evidence": {**rows, "description": "What each part of the image adds to the logit, from the top left."},
            "logit": {**_NUMBER, "description": "The evidence's mean plus a bias that is the same for every image."},
            "overlay_png": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
        }
    )
    return {"allOf": [_ref("Answer"), more]}


def _described() -> Schema:
    interval = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2, "description": "95 %."}
    return _object(
        {
            "name": _STRING,
            "version": {"type": "integer"},
            "labels": {"type": "array", "items": _STRING, "description": "In the order of the model's output."},
            "architecture": _STRING,
            "precision": _STRING,
            "provider": _STRING,
            "sha256": {"type": "string", "description": "Of the model's file."},
            "threshold": {**_NUMBER, "description": "From which on an answer is confident."},
            "metrics": {
                **_object({"photos": _WHOLE, "top1": _NUMBER, "top1_interval": interval}),
                "description": "Measured at training on photos that the model never saw.",
            },
        }
    )


def _problem() -> Schema:
    return _object(
        {
            "type": _STRING,
            "title": _STRING,
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "A sentence for people."},
            "code": {"enum": list(get_args(Code)), "description": "As in google.rpc.Code."},
            "reason": {"type": "string", "description": "The stable word for what went wrong."},
            "facts": {"type": "object", "additionalProperties": _STRING, "description": "The sentence's parts."},
            "retry_after": {**_NUMBER, "description": "Seconds after which asking again may help."},
        },
        optional=("retry_after",),
    )


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


_PROBLEMS: Schema = {
    "default": {
        "description": "The request failed (RFC 9457).",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": _WHOLE}},
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
}
