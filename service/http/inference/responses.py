"""From the protocol's messages to its JSON."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import Message

from anther.open_inference import open_inference_pb2 as pb
from service.http.inference.requests import Form
from service.rpc.inference.parameters import value_of
from service.rpc.inference.tensors import BYTES, split

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Encoded:
    """`header_length` is that of the JSON, where binary data follows it."""

    data: bytes
    header_length: int | None = None


def infer_response(message: pb.ModelInferResponse, form: Form) -> Encoded:
    """The message has raw contents."""
    found: Json = {"model_name": message.model_name, "model_version": message.model_version}
    if message.id:
        found["id"] = message.id
    if message.parameters:
        found["parameters"] = {name: value_of(message.parameters, name) for name in message.parameters}
    outputs, binary = [], []
    for output, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        described: Json = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if form.binary(output.name):
            described["parameters"] = {"binary_data_size": len(raw)}
            binary.append(raw)
        else:
            described["data"] = _elements(output, raw)
        outputs.append(described)
    header = encoded({**found, "outputs": outputs})
    return Encoded(b"".join((header, *binary)), len(header)) if binary else Encoded(header)


def as_json(message: Message) -> Json:
    """By the names of the fields, with all numbers as numbers and enumerations by name.

    `google.protobuf.json_format` would write those of 64 bits as strings.
    """
    found: Json = {}
    for field in message.DESCRIPTOR.fields:
        if not field.has_presence or message.HasField(field.name):
            found[field.name] = _field(field, getattr(message, field.name))
    return found


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _elements(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes) -> list[Any]:
    if output.datatype == BYTES:
        return [element.decode() for element in split(raw, output.shape[0] * output.shape[1])]
    values: list[Any] = np.frombuffer(raw, "<f4").tolist()
    return values


def _field(field: Any, value: Any) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return {key: as_json(value[key]) for key in value}
    return [_value(field, each) for each in value] if field.is_repeated else _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return as_json(value) if field.message_type is not None else value
