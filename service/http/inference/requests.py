"""From the protocol's JSON to its messages. Tensors become raw contents, however they came.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Raw, Struct

from anther.open_inference import open_inference_pb2 as pb
from service.errors import InvalidArgument
from service.http.inference.body import Body, parsed
from service.rpc.inference.parameters import refuse_shared_memory
from service.rpc.inference.tensors import BYTES, IMAGE, UINT8, join

_SIZE, _AS_BINARY, _ALL_AS_BINARY = "binary_data_size", "binary_data", "binary_data_output"
_CONTENT_TYPE, _BASE64 = "content_type", "base64"  # as MLServer's clients say how an element of BYTES is written
_ABSENT = (b"", b"null")
_NESTED = re.compile(rb"\[\s*\[")
_MAX_ELEMENTS = 10_000  # of BYTES, far more than wait at once; each takes time of everybody

T = TypeVar("T", str, bytes)

Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Parameters = dict[str, bool | Whole | float | str | None]


class Input(Struct):
    name: str
    datatype: str
    shape: Annotated[list[Whole], Meta(max_length=8)]
    parameters: Parameters | None = None
    data: Raw = Raw()


class Output(Struct):
    name: str
    parameters: Parameters | None = None


class Question(Struct):
    """The JSON of a request for inference. Members that are not here mean nothing."""

    inputs: list[Input]
    outputs: list[Output] | None = None
    id: str | None = None
    parameters: Parameters | None = None


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
    if body.text is None:
        return _bare(body.binary, model, version)
    question = parsed(body.text, Question)
    parameters = question.parameters or {}
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=question.id or "")
    put_parameters(message.parameters, parameters, leave_out=_ALL_AS_BINARY)
    _put_inputs(message, question.inputs, body.binary)
    named = _put_outputs(message, question.outputs or [])
    return Asked(message, Form(_truth(parameters, _ALL_AS_BINARY), named))


def put_parameters(target: Any, parameters: Parameters, leave_out: str = "") -> None:
    """Into a message's map of parameters. `null` is a parameter without a value. Raises `InvalidArgument`."""
    for name, value in parameters.items():
        if name == leave_out:
            continue
        parameter = target[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int):
            parameter.int64_param = value
        elif isinstance(value, str):
            parameter.string_param = value
        elif isinstance(value, float):
            _put_float(parameter, name, value)


def _put_float(parameter: pb.InferParameter | pb.ModelRepositoryParameter, name: str, value: float) -> None:
    if isinstance(parameter, pb.ModelRepositoryParameter):
        raise InvalidArgument(f"parameters[{name[:40]}]", value, "true, false, a whole number or a string")
    parameter.double_param = value


def _bare(data: bytes, model: str, version: str) -> Asked:
    """One encoded image, and nothing said about it."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=IMAGE, datatype=BYTES, shape=(1, 1))
    raw = [join([data])]
    message = pb.ModelInferRequest(model_name=model, model_version=version, inputs=[tensor], raw_input_contents=raw)
    return Asked(message, Form(all=True))


def _put_inputs(message: pb.ModelInferRequest, inputs: list[Input], binary: bytes) -> None:
    position = 0
    for given in inputs:
        parameters = given.parameters or {}
        tensor = message.inputs.add(name=given.name, datatype=given.datatype, shape=given.shape)
        put_parameters(tensor.parameters, parameters, leave_out=_SIZE)
        refuse_shared_memory(tensor.parameters, given.name)
        if _SIZE in parameters:
            size = _size(given, parameters[_SIZE], len(binary) - position)
            message.raw_input_contents.append(binary[position : position + size])
            position += size
        else:
            message.raw_input_contents.append(_raw(given, parameters.get(_CONTENT_TYPE) == _BASE64))
    if position != len(binary):
        found = f"{len(binary) - position:,} bytes behind the last tensor"
        raise InvalidArgument("body", found, f"as many as the inputs' '{_SIZE}' say")


def _put_outputs(message: pb.ModelInferRequest, outputs: list[Output]) -> dict[str, bool]:
    """Those that say in which form they are to come."""
    forms: dict[str, bool] = {}
    for given in outputs:
        parameters = given.parameters or {}
        put_parameters(message.outputs.add(name=given.name).parameters, parameters, leave_out=_AS_BINARY)
        if _AS_BINARY in parameters:
            forms[given.name] = _truth(parameters, _AS_BINARY)
    return forms


def _truth(parameters: Parameters, name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"parameters[{name}]", value, "true or false")
    return value


def _size(given: Input, size: object, left: int) -> int:
    if bytes(given.data) not in _ABSENT:
        raise InvalidArgument(f"{given.name}.data", f"given beside {_SIZE}", "one of the two")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= left:
        expected = f"a number up to the {left:,} bytes that are left"
        raise InvalidArgument(f"{given.name}.parameters[{_SIZE}]", size, expected)
    return size


def _raw(given: Input, base64: bool) -> bytes:
    """The elements in JSON as raw contents. Those of a type that no input has are left to the check of types."""
    where, text = f"{given.name}.data", bytes(given.data)
    if text in _ABSENT:
        raise InvalidArgument(where, "missing", f"the elements, or '{_SIZE}' and binary data")
    if given.datatype == BYTES:
        elements = _elements(text, bytes, where) if base64 else _elements(text, str, where)
        _check_count(len(elements), given, where)
        if len(elements) > _MAX_ELEMENTS:
            raise InvalidArgument(where, f"{len(elements):,} elements", f"at most {_MAX_ELEMENTS:,}")
        return join(each if isinstance(each, bytes) else each.encode() for each in elements)
    if given.datatype == UINT8:
        # Row by row, however the rows are nested: numbers have no brackets in them.
        values = bytes(parsed(b"[%s]" % text.translate(None, b"[]"), list[Annotated[int, Meta(ge=0, le=255)]], where))
        _check_count(len(values), given, where)
        return values
    return b""


def _elements(text: bytes, kind: type[T], where: str) -> list[T]:
    """Nested as the shape [N, 1] is, or flat. As `bytes` they are base64."""
    if _NESTED.match(text):
        return list(itertools.chain.from_iterable(parsed(text, list[list[kind]], where)))  # type: ignore[valid-type]
    return parsed(text, list[kind], where)  # type: ignore[valid-type]


def _check_count(found: int, given: Input, where: str) -> None:
    if found != (count := math.prod(given.shape)):
        raise InvalidArgument(where, f"{found:,} elements", f"{count:,}, as the shape says")
