"""Inputs on the wire: what is right comes through unchanged, and whatever is not is refused by a clear sentence."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anther.open_inference import open_inference_pb2 as pb
from service.errors import InvalidArgument
from service.rpc.inference.tensors import join, read, split, takes_long

SIDE, MOST = 2, 4
ONE = SIDE * SIDE * 3  # bytes of a picture's pixels
DATATYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
             "BF16", "BYTES", "", "bytes", "TYPE_UINT8", "x" * 100]  # fmt: skip


def tensor(name: str, datatype: str, shape: Any, parameters: Any = None, **contents: Any) -> Any:
    return pb.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype, shape=shape, parameters=parameters,
        contents=pb.InferTensorContents(**contents) if contents else None,
    )  # fmt: skip


def image(shape: Any = (1,), **options: Any) -> Any:
    return tensor("image", options.pop("datatype", "BYTES"), shape, **options)


def pixels(shape: Any = (1, SIDE, SIDE, 3), **options: Any) -> Any:
    return tensor("pixels", options.pop("datatype", "UINT8"), shape, **options)


def request(*inputs: Any, raw: tuple[bytes, ...] = ()) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(inputs=inputs, raw_input_contents=raw)


def refusal(asked: pb.ModelInferRequest) -> str:
    with pytest.raises(InvalidArgument) as raised:
        read(asked, SIDE, MOST)
    return str(raised.value)


# What is right


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_pictures_come_in_contents_or_raw(shape) -> None:
    pictures = [b"one", b"", b"three"]
    assert read(request(image(shape, bytes_contents=pictures)), SIDE, MOST) == pictures
    assert read(request(image(shape), raw=(join(pictures),)), SIDE, MOST) == pictures


@pytest.mark.parametrize("count", [1, MOST])
def test_pixels_come_in_contents_or_raw(count: int) -> None:
    expected = np.arange(count * ONE, dtype=np.uint8).reshape(count, SIDE, SIDE, 3)
    asked = [
        request(pixels(expected.shape, uint_contents=expected.ravel().tolist())),
        request(pixels(expected.shape), raw=(expected.tobytes(),)),
    ]
    for each in asked:
        found = read(each, SIDE, MOST)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.uint8
        assert np.array_equal(found, expected)
    assert [takes_long(each) for each in asked] == [True, False]


def test_an_empty_contents_field_beside_raw_contents_does_no_harm() -> None:
    """Some languages' clients always set it."""
    given_empty = pb.ModelInferRequest.InferInputTensor(
        name="image", datatype="BYTES", shape=[1], contents=pb.InferTensorContents()
    )
    assert read(request(given_empty, raw=(join([b"one"]),)), SIDE, MOST) == [b"one"]


def test_parameters_that_mean_nothing_here_do_no_harm() -> None:
    parameters = {"content_type": pb.InferParameter(string_param="image"), "binary_data_size": pb.InferParameter()}
    assert read(request(image(bytes_contents=[b"one"], parameters=parameters)), SIDE, MOST) == [b"one"]


# What is wrong


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_wrong_datatype_names_what_was_found_and_expected(datatype: str) -> None:
    for make, right in ((image, "BYTES"), (pixels, "UINT8")):
        if datatype != right:
            message = refusal(request(make(datatype=datatype)))
            assert message == f"'{make.__name__}.datatype' is '{datatype}'; expected {right}"


@pytest.mark.parametrize(
    "shape",
    [(), (0,), (-1,), (MOST + 1,), (2**63 - 1,), (-(2**63),), (1, 0), (1, 2), (1, 1, 1), (0, 1), (1, -1), (1,) * 1000],
)
def test_a_wrong_shape_of_pictures_is_refused(shape) -> None:
    message = refusal(request(image(shape, bytes_contents=[b"one"])))
    assert message == f"'image.shape' is {list(shape[:5])}; expected [N, 1] or [N] with N from 1 to {MOST}"


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (1,),
        (SIDE, SIDE, 3),
        (0, SIDE, SIDE, 3),
        (-1, SIDE, SIDE, 3),
        (MOST + 1, SIDE, SIDE, 3),
        (2**62, SIDE, SIDE, 3),
        (1, SIDE, SIDE, 4),
        (1, 3, SIDE, SIDE),
        (1, SIDE, SIDE + 1, 3),
        (1, -SIDE, -SIDE, 3),
        (1, 2**32, 2**32, 3),
        (1, SIDE, SIDE, 3, 1),
        (1, 1, SIDE, SIDE, 3),
    ],
)
def test_a_wrong_shape_of_pixels_is_refused(shape) -> None:
    message = refusal(request(pixels(shape), raw=(bytes(ONE),)))
    assert message == f"'pixels.shape' is {list(shape)}; expected [N, 2, 2, 3] with N from 1 to {MOST}"


WRONG = {
    "no input": (request(), "'inputs' is 'empty'; expected one input, either 'image' or 'pixels'"),
    "raw contents without an input": (request(raw=(b"x",)), "'inputs' is 'empty'"),
    "an unknown input": (request(tensor("input", "BYTES", [1])), "'inputs' is 'input'; expected 'image' or 'pixels'"),
    "a nameless input": (request(tensor("", "BYTES", [1])), "'inputs' is ''; expected 'image' or 'pixels'"),
    "an unknown one beside a known": (request(image(), tensor("mask", "UINT8", [1])), "'inputs' is 'mask'"),
    "both inputs": (request(image(), pixels()), "'inputs' is 'image and pixels'; expected one input"),
    "an input twice": (request(image(), image()), "'inputs' is 'image and image'; expected one input"),
    "nothing in it": (
        request(image()),
        "'image.contents' is '0 elements'; expected 1 in bytes_contents, as the shape says, or raw_input_contents",
    ),
    "too few pictures": (request(image((2,), bytes_contents=[b"one"])), "'image.contents' is '1 elements'; expected 2"),
    "too many pictures": (request(image(bytes_contents=[b"one"] * 3)), "'image.contents' is '3 elements'; expected 1"),
    "pictures in a field of numbers": (
        request(image(uint_contents=[1])),
        "'image.contents' is 'uint_contents'; expected bytes_contents",
    ),
    "pictures in two fields": (
        request(image(bytes_contents=[b"one"], fp32_contents=[1.0])),
        "'image.contents' is 'fp32_contents and bytes_contents'; expected bytes_contents",
    ),
    "pixels as bytes": (
        request(pixels(bytes_contents=[bytes(ONE)])),
        "'pixels.contents' is 'bytes_contents'; expected uint_contents",
    ),
    "pixels as signed numbers": (request(pixels(int_contents=[0] * ONE)), "'pixels.contents' is 'int_contents'"),
    "too few pixels": (request(pixels(uint_contents=[0])), "'pixels.contents' is '1 elements'; expected 12 in uint_"),
    "too many pixels": (request(pixels(uint_contents=[0] * (ONE + 1))), "'pixels.contents' is '13 elements'"),
    "a pixel over 255": (
        request(pixels(uint_contents=[255] * (ONE - 2) + [256, 300])),
        "'pixels.contents' is 300; expected values from 0 to 255",
    ),
    "raw and contents": (
        request(image(bytes_contents=[b"one"]), raw=(join([b"one"]),)),
        "'image.contents' is 'raw_input_contents and bytes_contents'; expected one of the two",
    ),
    "raw and contents of another type": (
        request(image(fp32_contents=[1.0]), raw=(join([b"one"]),)),
        "'image.contents' is 'raw_input_contents and fp32_contents'; expected one of the two",
    ),
    "two raw buffers": (
        request(image(), raw=(join([b"one"]), b"")),
        "'raw_input_contents' is '2 buffers'; expected one for each input, which is 1",
    ),
    "too few raw pixels": (
        request(pixels(), raw=(bytes(ONE - 1),)),
        "'raw_input_contents' is '11 bytes'; expected 12, as UINT8 of shape [1, 2, 2, 3] takes",
    ),
    "too many raw pixels": (request(pixels(), raw=(bytes(ONE + 1),)), "'raw_input_contents' is '13 bytes'"),
    "no raw pixels": (request(pixels(), raw=(b"",)), "'raw_input_contents' is '0 bytes'; expected 12"),
    "no raw bytes": (
        request(image(), raw=(b"",)),
        "'raw_input_contents' is '0 bytes, which end before element 0'; expected BYTES of 1 elements",
    ),
    "raw bytes without a length": (
        request(image(), raw=(b"\xff\xd8\xff\xe0 and so on",)),
        "'raw_input_contents' is '14 bytes, of which element 0 claims 3,774,863,615'",
    ),
    "raw bytes that end in a length": (
        request(image((2,)), raw=(join([b"one"]) + b"\0\0",)),
        "'raw_input_contents' is '9 bytes, which end before element 1'",
    ),
    "raw bytes with something after the last": (
        request(image(), raw=(join([b"one", b"two"]),)),
        "'raw_input_contents' is '14 bytes, 7 of them after the last element'",
    ),
    "system shared memory": (
        request(image(parameters={"shared_memory_region": pb.InferParameter(string_param="region")})),
        "'image.parameters' is 'shared_memory_region'; expected the tensor in the message itself",
    ),
    "a size of shared memory": (
        request(pixels(parameters={"shared_memory_byte_size": pb.InferParameter(int64_param=1)}), raw=(bytes(ONE),)),
        "'pixels.parameters' is 'shared_memory_byte_size'",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_every_mistake_is_named(wrong: str) -> None:
    asked, expected = WRONG[wrong]
    assert expected in refusal(asked)


# Anything at all


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_elements_survive_the_raw_form(elements: list[bytes]) -> None:
    assert split(join(elements), len(elements)) == elements


@given(st.binary(max_size=40), st.integers(0, 5))
def test_any_bytes_are_elements_or_refused(data: bytes, count: int) -> None:
    try:
        elements = split(data, count)
    except InvalidArgument:
        return
    assert len(elements) == count
    assert join(elements) == data


DIMENSIONS = st.one_of(st.sampled_from([0, 1, 2, 3, SIDE, MOST, MOST + 1, -1]), st.integers(-(2**63), 2**63 - 1))
CONTENTS = st.builds(
    pb.InferTensorContents,
    bytes_contents=st.lists(st.binary(max_size=5), max_size=5),
    uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=ONE),
    fp32_contents=st.lists(st.floats(width=32), max_size=2),
)
TENSORS = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["image", "pixels", "image", "pixels", "other", ""]),
    datatype=st.sampled_from(["BYTES", "UINT8", "BYTES", "UINT8", "FP32", ""]),
    shape=st.one_of(st.lists(DIMENSIONS, max_size=5), st.just([1]), st.just([1, SIDE, SIDE, 3])),
    contents=CONTENTS,
)
REQUESTS = st.builds(
    pb.ModelInferRequest,
    inputs=st.lists(TENSORS, max_size=2),
    raw_input_contents=st.lists(st.one_of(st.binary(max_size=40), st.just(bytes(ONE))), max_size=2),
)


@given(REQUESTS)
def test_any_request_is_read_or_refused(asked: pb.ModelInferRequest) -> None:
    try:
        found = read(asked, SIDE, MOST)
    except InvalidArgument:
        return
    assert 1 <= len(found) <= MOST
    assert len(found) == asked.inputs[0].shape[0]
    if isinstance(found, np.ndarray):
        assert found.shape[1:] == (SIDE, SIDE, 3)
