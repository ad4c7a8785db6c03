"""From the protocol's JSON to its messages. Tensors become raw contents, however they came.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

import binascii
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anther.open_inference import open_inference_pb2 as pb
from service.errors import InvalidArgument
from service.http.inference.body import Body, Json, kind_of
from service.rpc.inference.parameters import refuse_shared_memory
from service.rpc.inference.tensors import BYTES, IMAGE, UINT8, join

T = TypeVar("T", str, list[Any], dict[str, Any], bool)

_SIZE, _AS_BINARY, _ALL_AS_BINARY = "binary_data_size", "binary_data", "binary_data_output"
_CONTENT_TYPE, _BASE64 = "content_type", "base64"  # as MLServer's clients say how an element of BYTES is written
_MAX_DIMENSIONS = 8
_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)

_Parameter = pb.InferParameter | pb.ModelRepositoryParameter


@dataclass(frozen=True, slots=True)
class Form:
    """Whether an output is to come as binary data, by its name."""

    all: bool = False
    named: Mapping[str, bool] = field(default_factory=dict)

    def binary(self, name: str) -> bool:
        return self.named.get(name, self.all)


@dataclass(frozen=True, slots=True)
class Asked:
    message: pb.ModelInferRequest
    form: Form


def infer_request(body: Body, model: str, version: str) -> Asked:
    """Raises `InvalidArgument` for what is no request of the protocol; what it asks for is checked by who answers."""
    if body.header is None:
        return _bare(body.binary, model, version)
    parameters = member(body.header, "parameters", dict[str, Any](), "")
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=member(body.header, "id", "", ""))
    put_parameters(message.parameters, parameters, "", leave_out=(_ALL_AS_BINARY,))
    _put_inputs(message, body)
    named = _put_outputs(message, body.header)
    return Asked(message, Form(member(parameters, _ALL_AS_BINARY, False, "parameters."), named))


def put_parameters(target: Any, parameters: Json, where: str, leave_out: tuple[str, ...] = ()) -> None:
    """Into a message's map of parameters. `null` is a parameter without a value. Raises `InvalidArgument`."""
    for name, value in parameters.items():
        if name not in leave_out:
            _put(target[_text(name, f"{where}parameters")], value, f"{where}parameters[{name[:40]}]")


def _bare(data: bytes, model: str, version: str) -> Asked:
    """One encoded image, and nothing said about it."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=IMAGE, datatype=BYTES, shape=(1, 1))
    raw = [join([data])]
    message = pb.ModelInferRequest(model_name=model, model_version=version, inputs=[tensor], raw_input_contents=raw)
    return Asked(message, Form(all=True))


def _put_inputs(message: pb.ModelInferRequest, body: Body) -> None:
    assert body.header is not None
    position = 0
    for given in _objects(body.header, "inputs"):
        name = member(given, "name", "", "inputs.")
        parameters = member(given, "parameters", dict[str, Any](), f"{name}.")
        tensor = message.inputs.add(name=name, datatype=member(given, "datatype", "", f"{name}."))
        tensor.shape.extend(_shape(given, name))
        put_parameters(tensor.parameters, parameters, f"{name}.", leave_out=(_SIZE,))
        refuse_shared_memory(tensor.parameters, name)
        if _SIZE in parameters:
            size = _size(given, name, parameters[_SIZE], len(body.binary) - position)
            message.raw_input_contents.append(body.binary[position : position + size])
            position += size
        else:
            message.raw_input_contents.append(_raw(tensor, given, parameters.get(_CONTENT_TYPE) == _BASE64))
    if position != len(body.binary):
        found = f"{len(body.binary) - position:,} bytes behind the last tensor"
        raise InvalidArgument("body", found, f"as many as the inputs' '{_SIZE}' say")


def _put_outputs(message: pb.ModelInferRequest, header: Json) -> dict[str, bool]:
    """Those that say in which form they are to come."""
    forms: dict[str, bool] = {}
    for given in _objects(header, "outputs"):
        name = member(given, "name", "", "outputs.")
        parameters = member(given, "parameters", dict[str, Any](), f"{name}.")
        put_parameters(message.outputs.add(name=name).parameters, parameters, f"{name}.", leave_out=(_AS_BINARY,))
        if _AS_BINARY in parameters:
            forms[name] = member(parameters, _AS_BINARY, False, f"{name}.parameters.")
    return forms


def _shape(given: Json, name: str) -> list[int]:
    shape = member(given, "shape", list[Any](), f"{name}.")
    if len(shape) > _MAX_DIMENSIONS or not all(type(size) is int and size in _INT64 for size in shape):
        raise InvalidArgument(f"{name}.shape", "another list", f"a list of at most {_MAX_DIMENSIONS} whole numbers")
    return shape


def _size(given: Json, name: str, size: Any, left: int) -> int:
    if given.get("data") is not None:
        raise InvalidArgument(f"{name}.data", f"given beside {_SIZE}", "one of the two")
    if type(size) is not int or not 0 <= size <= left:
        found = size if type(size) is int and abs(size) in _UINT64 else kind_of(size)
        raise InvalidArgument(f"{name}.parameters[{_SIZE}]", found, f"a number up to the {left:,} bytes that are left")
    return size


def _raw(tensor: pb.ModelInferRequest.InferInputTensor, given: Json, base64: bool) -> bytes:
    """The elements in JSON as raw contents. Those of a type that no input has are left to the check of types."""
    if given.get("data") is None:
        raise InvalidArgument(f"{tensor.name}.data", "missing", f"the elements, or '{_SIZE}' and binary data")
    if tensor.datatype not in (BYTES, UINT8):
        return b""
    elements = _flat(member(given, "data", list[Any](), f"{tensor.name}."), f"{tensor.name}.data")
    if len(elements) != (count := math.prod(tensor.shape)):
        raise InvalidArgument(f"{tensor.name}.data", f"{len(elements):,} elements", f"{count:,}, as the shape says")
    if tensor.datatype == BYTES:
        return join([_element(each, tensor.name, base64) for each in elements])
    try:
        return bytes(elements)
    except (TypeError, ValueError) as exc:
        raise InvalidArgument(f"{tensor.name}.data", f"not of {UINT8}", "whole numbers from 0 to 255") from exc


def _flat(elements: list[Any], where: str) -> list[Any]:
    """Row by row, where they are nested as the shape is."""
    while list in (kinds := set(map(type, elements))):
        if len(kinds) > 1:
            raise InvalidArgument(where, "a list of lists and other values", "lists that are nested as the shape is")
        elements = list(itertools.chain.from_iterable(elements))
    return elements


def _element(value: Any, name: str, base64: bool) -> bytes:
    """An element of BYTES: a string's characters in UTF-8, or what they encode."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{name}.data", kind_of(value), "strings")
    if not base64:
        return _text(value, f"{name}.data").encode()
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as exc:
        raise InvalidArgument(f"{name}.data", "a string", f"{_BASE64} as {_CONTENT_TYPE} says ({exc})") from exc


def _objects(holder: Json, name: str) -> list[Json]:
    found = member(holder, name, list[Any](), "")
    for each in found:
        if not isinstance(each, dict):
            raise InvalidArgument(name, f"a list with {kind_of(each)}", "a list of objects")
    return found


def member(holder: Json, name: str, default: T, where: str = "") -> T:
    """A member of the default's type; the default where there is none, or null. Raises `InvalidArgument`."""
    value = holder.get(name)
    if value is None:
        return default
    if type(value) is not type(default):
        raise InvalidArgument(f"{where}{name}", kind_of(value), kind_of(default))
    return _text(value, f"{where}{name}") if isinstance(value, str) else value


def _text(value: str, where: str) -> str:
    """JSON can write half of a character, which neither UTF-8 nor a message can."""
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArgument(where, "a string with half of a character", "text") from exc
    return value


def _put(parameter: _Parameter, value: Any, where: str) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, str):
        parameter.string_param = _text(value, where)
    elif isinstance(value, int) and value in _INT64:
        parameter.int64_param = value
    elif isinstance(parameter, pb.InferParameter) and _put_number(parameter, value):
        return
    elif value is not None:
        raise InvalidArgument(where, kind_of(value), "true, false, a number of 64 bits or a string")


def _put_number(parameter: pb.InferParameter, value: Any) -> bool:
    if isinstance(value, int) and value in _UINT64:
        parameter.uint64_param = value
    elif isinstance(value, float) and math.isfinite(value):
        parameter.double_param = value
    else:
        return False
    return True
