"""Does an ONNX file keep tensors elsewhere? Answered from the protobuf wire format, without the onnx package.

Field numbers are those of onnx.proto (ONNX 1.x); the encoding is protobuf's own (varint, 64-bit, length-delimited,
32-bit). A file that does not parse to its last byte is refused by the caller's digest check or by the runtime.
"""

from collections.abc import Iterator
from typing import Final

_EXTERNAL: Final = 1  # TensorProto.DataLocation.EXTERNAL
_DATA_LOCATION, _EXTERNAL_DATA = 14, 13  # fields of TensorProto
_MAX_DEPTH: Final = 101  # the model and 100 messages in one another: protobuf's own readers go no deeper

# Message → field number → message type behind it, for every path from the model to a tensor.
_PATHS: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}


def has_external_data(model: bytes) -> bool:
    """True where any tensor of a serialized ModelProto lives outside it. Raises `ValueError` on broken protobuf.

    Only the messages around the current one are held: a file of empty messages would otherwise take a hundred times its
    own size.
    """
    around = [("Model", _fields(memoryview(model)))]
    while around:
        kind, fields = around[-1]
        field, value = next(fields, (None, 0))
        if field is None:
            around.pop()
            continue
        if kind == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == _EXTERNAL)):
            return True
        inner = _PATHS.get(kind, {}).get(field)
        if inner is not None and isinstance(value, memoryview):
            around.append((inner, _fields(value)))
            if len(around) > _MAX_DEPTH:
                raise ValueError(f"messages nested more than {_MAX_DEPTH} deep")
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield field, value
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position + length > len(message):
            raise ValueError(f"field {field} runs {position + length - len(message)} bytes past the end")
        yield field, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("the data ends inside a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than ten bytes at byte {position}")
