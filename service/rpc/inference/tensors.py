"""A request's input: `image`, encoded images, or `pixels`, in the message's own fields or as raw bytes.

A tensor that is not as expected is refused with what was found and what is expected.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from anther.open_inference import open_inference_pb2 as pb
from bundle.preprocessing import Pixels
from service.errors import InvalidArgument
from service.rpc.inference.parameters import refuse_shared_memory

IMAGE, PIXELS = "image", "pixels"
BYTES, UINT8 = "BYTES", "UINT8"

_DATATYPES = {IMAGE: BYTES, PIXELS: UINT8}
_FIELDS = {IMAGE: "bytes_contents", PIXELS: "uint_contents"}
_RAW = "raw_input_contents"
_LENGTH_BYTES = 4  # before each element of BYTES: its length, unsigned and little-endian


def read(request: pb.ModelInferRequest, side: int, max_images: int) -> list[bytes] | Pixels:
    """Encoded images, or pixels uint8 [n, side, side, 3]; at most `max_images` of them. Raises `InvalidArgument`."""
    tensor = _only(request.inputs)
    refuse_shared_memory(tensor.parameters, tensor.name)
    if tensor.datatype != _DATATYPES[tensor.name]:
        raise InvalidArgument(f"{tensor.name}.datatype", tensor.datatype, _DATATYPES[tensor.name])
    shape = _shape(tensor, side, max_images)
    raw = _raw(request, tensor)
    if tensor.name == IMAGE:
        return _images(tensor.contents.bytes_contents, shape[0]) if raw is None else split(raw, shape[0])
    data = _unsigned_bytes(tensor.contents.uint_contents, shape) if raw is None else _sized(raw, shape)
    return np.frombuffer(data, np.uint8).reshape(shape)


def takes_long(request: pb.ModelInferRequest) -> bool:
    """Pixels outside raw_input_contents come as numbers, one by one: milliseconds for each image."""
    return any(len(tensor.contents.uint_contents) > 0 for tensor in request.inputs)


def split(data: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor, of which `count` must fill `data` exactly. Raises `InvalidArgument`."""
    elements: list[bytes] = []
    position = 0
    for index in range(count):
        start = position + _LENGTH_BYTES
        if start > len(data):
            raise _not_filled(f"{len(data):,} bytes, which end before element {index}", count)
        position = start + int.from_bytes(data[start - _LENGTH_BYTES : start], "little")
        if position > len(data):
            raise _not_filled(f"{len(data):,} bytes, of which element {index} claims {position - start:,}", count)
        elements.append(data[start:position])
    if position != len(data):
        raise _not_filled(f"{len(data):,} bytes, {len(data) - position:,} of them after the last element", count)
    return elements


def join(elements: Iterable[bytes]) -> bytes:
    """The raw form of a BYTES tensor."""
    return b"".join(len(element).to_bytes(_LENGTH_BYTES, "little") + element for element in elements)


def _only(tensors: Sequence[pb.ModelInferRequest.InferInputTensor]) -> pb.ModelInferRequest.InferInputTensor:
    for tensor in tensors:
        if tensor.name not in _DATATYPES:
            raise InvalidArgument("inputs", tensor.name, f"'{IMAGE}' or '{PIXELS}'")
    if len(tensors) != 1:
        found = " and ".join(tensor.name for tensor in tensors[:2]) or "empty"
        raise InvalidArgument("inputs", found, f"one input, either '{IMAGE}' or '{PIXELS}'")
    return tensors[0]


def _shape(tensor: pb.ModelInferRequest.InferInputTensor, side: int, max_images: int) -> tuple[int, ...]:
    shape = tuple(tensor.shape[:5])  # one more than is ever right
    right = shape[1:] == (side, side, 3) if tensor.name == PIXELS else shape[1:] in ((), (1,))
    if not shape or not right or not 1 <= shape[0] <= max_images:
        form = f"[N, {side}, {side}, 3]" if tensor.name == PIXELS else "[N, 1] or [N]"
        raise InvalidArgument(f"{tensor.name}.shape", list(shape), f"{form} with N from 1 to {max_images}")
    return shape


def _raw(request: pb.ModelInferRequest, tensor: pb.ModelInferRequest.InferInputTensor) -> bytes | None:
    """None where the tensor is in the message's own fields."""
    given: list[str] = [field.name for field, _ in tensor.contents.ListFields()]
    buffers = request.raw_input_contents
    if not buffers:
        if given not in ([], [_FIELDS[tensor.name]]):
            raise InvalidArgument(f"{tensor.name}.contents", " and ".join(given), _FIELDS[tensor.name])
        return None
    if given:
        found = f"{_RAW} and {' and '.join(given)}"
        raise InvalidArgument(f"{tensor.name}.contents", found, "one of the two: raw contents or the tensor's own")
    if len(buffers) != 1:
        raise InvalidArgument(_RAW, f"{len(buffers):,} buffers", "one for each input, which is 1")
    return bytes(buffers[0])


def _images(elements: Sequence[bytes], count: int) -> list[bytes]:
    if len(elements) != count:
        expected = f"{count} in bytes_contents, as the shape says, or {_RAW}"
        raise InvalidArgument(f"{IMAGE}.contents", f"{len(elements):,} elements", expected)
    return list(elements)


def _unsigned_bytes(values: Sequence[int], shape: tuple[int, ...]) -> bytes:
    if len(values) != math.prod(shape):
        expected = f"{math.prod(shape):,} in uint_contents, as the shape says, or {_RAW}"
        raise InvalidArgument(f"{PIXELS}.contents", f"{len(values):,} elements", expected)
    image = math.prod(shape[1:])
    try:  # an image at a time, so that other threads have their turn in between
        return b"".join(bytes(values[start : start + image]) for start in range(0, len(values), image))
    except ValueError as exc:
        largest = max(values)
        raise InvalidArgument(f"{PIXELS}.contents", largest, "values from 0 to 255") from exc


def _sized(data: bytes, shape: tuple[int, ...]) -> bytes:
    if len(data) != math.prod(shape):
        expected = f"{math.prod(shape):,}, as {UINT8} of shape {list(shape)} takes"
        raise InvalidArgument(_RAW, f"{len(data):,} bytes", expected)
    return data


def _not_filled(found: str, count: int) -> InvalidArgument:
    expected = f"{BYTES} of {count} elements, each after its length in {_LENGTH_BYTES} bytes, and nothing else"
    return InvalidArgument(_RAW, found, expected)
