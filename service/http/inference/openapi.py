"""What /v2 takes and answers, as paths and schemas of OpenAPI 3.1; answers are described by their messages."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from anther.open_inference import open_inference_pb2 as pb
from service.http.inference.body import HEADER_LENGTH
from service.http.inference.pages import PAGES, Page, of_model

Schema = dict[str, Any]

_CALLS = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
_TYPES = {FieldDescriptor.CPPTYPE_STRING: "string", FieldDescriptor.CPPTYPE_BOOL: "boolean"}
_STRING, _WHOLE, _OBJECT = {"type": "string"}, {"type": "integer"}, {"type": "object"}
_PARAMETERS = {**_OBJECT, "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}


def paths() -> Schema:
    """Without what is not offered."""
    found: Schema = {path: {"post": _infer(path)} for path in of_model("/infer")}
    for page in PAGES:
        if page.offered:
            found |= {path: {page.verb.lower(): _operation(page, path)} for path in page.paths}
    return found


def schemas() -> Schema:
    tensor = {"name": _STRING, "datatype": _STRING, "shape": {"type": "array", "items": _WHOLE}}
    form = {"parameters": _PARAMETERS, "data": {"type": "array", "description": "The elements; absent where binary."}}
    wanted = _object({"name": _STRING, "parameters": _PARAMETERS}, required=("name",))
    return {
        "InferenceRequest": _object(
            {
                "id": _STRING,
                "parameters": _PARAMETERS,
                "inputs": _list(_object({**tensor, **form}, required=tuple(tensor))),
                "outputs": _list(wanted),
            },
            required=("inputs",),
        ),
        "InferenceResponse": _object(
            {
                "model_name": _STRING,
                "model_version": _STRING,
                "id": _STRING,
                "parameters": _PARAMETERS,
                "outputs": _list(_object({**tensor, **form}, required=tuple(tensor))),
            },
            required=("model_name", "model_version", "outputs"),
        ),
        "InferenceError": _object(
            {
                "error": {"type": "string", "description": "A sentence for people."},
                "code": {"type": "string", "description": "As in google.rpc.Code."},
                "reason": {"type": "string", "description": "The stable word for what went wrong."},
                "facts": {**_OBJECT, "additionalProperties": _STRING, "description": "The sentence's parts."},
                "retry_after": {"type": "number", "description": "Seconds after which asking again may help."},
            },
            required=("error", "code", "reason", "facts"),
        ),
    }


def _infer(path: str) -> Schema:
    length = {
        "description": "Bytes of JSON, where binary data follows it; 0 where the body is one image.",
        "schema": _WHOLE,
    }
    binary: Schema = {"application/octet-stream": {}}
    return {
        **_operation_of("ModelInfer", "Classifies a batch: all of it, or nothing.", path),
        "parameters": [*_of_path(path), {"name": HEADER_LENGTH, "in": "header", **length}],
        "requestBody": {"required": True, "content": {**_content(_ref("InferenceRequest")), **binary}},
        "responses": {
            "200": {
                "description": "The outputs, in JSON or as binary data behind it.",
                "headers": {HEADER_LENGTH: length},
                "content": {**_content(_ref("InferenceResponse")), **binary},
            },
            **_ERRORS,
        },
    }


def _operation(page: Page, path: str) -> Schema:
    answer = {"description": page.summary, "content": _content(_answer(page.method))}
    unready = {"503": {**answer, "description": "It does not."}} if page.method.endswith("Ready") else {}
    body = {"requestBody": {"content": _content(_OBJECT)}} if page.verb == "POST" else {}
    return {
        **_operation_of(page.method, page.summary, path),
        "parameters": _of_path(path),
        **body,
        "responses": {"200": answer, **unready, **_ERRORS},
    }


def _operation_of(method: str, summary: str, path: str) -> Schema:
    ends = ("model", "version")
    return {
        "operationId": method + "".join(f"By{each.title()}" for each in ends if f"{{{each}}}" in path),
        "summary": summary,
    }


def _answer(method: str) -> Schema:
    if method == "ModelReady":
        return _object({"name": _STRING, "ready": {"type": "boolean"}}, required=("name", "ready"))
    if method == "ModelConfig":
        return _of_message(pb.ModelConfig.DESCRIPTOR)
    if method == "RepositoryIndex":
        return _list(_of_message(pb.RepositoryIndexResponse.ModelIndex.DESCRIPTOR))
    return _of_message(_CALLS[method].output_type)


def _of_message(message: Any) -> Schema:
    """As `service.http.inference.responses.as_json` writes it."""
    always = tuple(field.name for field in message.fields if not field.has_presence)
    return _object({field.name: _of_field(field) for field in message.fields}, required=always)


def _of_field(field: Any) -> Schema:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return {**_OBJECT, "additionalProperties": _of_message(kind.fields_by_name["value"].message_type)}
    return _list(_of_value(field)) if field.is_repeated else _of_value(field)


def _of_value(field: Any) -> Schema:
    if field.enum_type is not None:
        return {"enum": [value.name for value in field.enum_type.values]}
    if field.message_type is not None:
        return _of_message(field.message_type)
    return {"type": _TYPES.get(field.cpp_type, "integer")}


def _of_path(path: str) -> list[Schema]:
    named = [name for name in ("model", "version") if f"{{{name}}}" in path]
    return [{"name": name, "in": "path", "required": True, "schema": {**_STRING, "minLength": 1}} for name in named]


def _object(properties: Schema, required: Sequence[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


_ERRORS: Schema = {"default": {"description": "The request failed.", "content": _content(_ref("InferenceError"))}}
