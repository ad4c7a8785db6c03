"""JSON becomes messages: what is right comes through unchanged, and whatever is not is refused by a clear sentence."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anther.open_inference import open_inference_pb2 as pb
from service.errors import InvalidArgument
from service.http.inference.body import Body
from service.http.inference.requests import Form, infer_request
from service.rpc.inference.parameters import options_of
from service.rpc.inference.tensors import join, read

SIDE, MOST = 2, 4
SHAPE = [1, SIDE, SIDE, 3]
COUNT = SIDE * SIDE * 3
B64 = {"content_type": "base64"}


def image(data: Any = ("one",), shape: Any = (1,), **members: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": list(shape), "data": data, **members}


def pixels(data: Any = tuple(range(COUNT)), **members: Any) -> dict[str, Any]:
    return {"name": "pixels", "datatype": "UINT8", "shape": SHAPE, "data": data, **members}


def in_binary(tensor: dict[str, Any], size: Any) -> dict[str, Any]:
    return {name: value for name, value in tensor.items() if name != "data"} | {
        "parameters": {"binary_data_size": size}
    }


def asked(header: Any, binary: bytes = b""):
    """As it comes over the wire."""
    return infer_request(Body(json.dumps(header).encode(), binary), "flowers", "1")


def received(*inputs: Any, binary: bytes = b"") -> Any:
    """The pictures or pixels in a request."""
    return read(asked({"inputs": list(inputs)}, binary).message, SIDE, MOST)


def refusal(header: Any, binary: bytes = b"") -> str:
    with pytest.raises(InvalidArgument) as raised:
        read(asked(header, binary).message, SIDE, MOST)
    return str(raised.value)


# What is right


def test_a_request_names_model_version_and_id() -> None:
    message = asked({"id": "my id", "model_name": "another", "inputs": [image()]}).message
    assert (message.model_name, message.model_version, message.id) == ("flowers", "1", "my id")


@given(st.lists(st.binary(), min_size=1, max_size=MOST))
def test_pictures_come_in_base64_or_as_binary_data(pictures: list[bytes]) -> None:
    count, texts = len(pictures), [base64.b64encode(each).decode() for each in pictures]
    assert received(image(texts, [count], parameters=B64)) == pictures
    assert received(image([[text] for text in texts], [count, 1], parameters=B64)) == pictures
    raw = join(pictures)
    assert received(in_binary(image(shape=[count, 1]), len(raw)), binary=raw) == pictures


def test_strings_are_their_characters_in_utf_8() -> None:
    assert received(image(["ä", "\x00"], [2])) == ["ä".encode(), b"\x00"]


@given(st.lists(st.integers(0, 255), min_size=COUNT, max_size=COUNT))
def test_pixels_come_flat_nested_or_as_binary_data(values: list[int]) -> None:
    expected = np.array(values, np.uint8).reshape(SHAPE)
    for each in (pixels(values), pixels(expected.tolist())):
        assert np.array_equal(received(each), expected)
    assert np.array_equal(received(in_binary(pixels(), COUNT), binary=bytes(values)), expected)


@given(st.binary())
def test_a_bare_body_is_one_picture_whose_outputs_come_as_binary_data(data: bytes) -> None:
    found = infer_request(Body(None, data), "flowers", "")
    assert read(found.message, SIDE, MOST) == [data]
    assert found.form.binary("logits")


def test_members_that_are_null_or_unknown_do_no_harm() -> None:
    nothing = dict.fromkeys(("id", "parameters", "outputs"))
    assert asked({**nothing, "inputs": [image(parameters=None)], "more": [1]}) == asked({"inputs": [image()]})


def test_parameters_keep_their_types() -> None:
    given = {"a": True, "b": -(2**63), "c": 0.5, "d": "text", "e": None, "binary_data_output": True}
    found = asked({"parameters": given, "inputs": []}).message.parameters
    assert {name: found[name].WhichOneof("parameter_choice") for name in found} == {
        "a": "bool_param", "b": "int64_param", "c": "double_param", "d": "string_param", "e": None,
    }  # fmt: skip
    assert found["b"].int64_param == -(2**63)


def test_an_outputs_own_form_goes_before_that_of_all() -> None:
    outputs = [{"name": "logits", "parameters": {"binary_data": False, "classification": 2}}, {"name": "evidence"}]
    found = asked({"inputs": [], "outputs": outputs, "parameters": {"binary_data_output": True}})
    assert found.form == Form(True, {"logits": False})
    assert [found.form.binary(name) for name in ("logits", "evidence")] == [False, True]
    assert dict(found.message.outputs[0].parameters) == {"classification": pb.InferParameter(int64_param=2)}


# What is not


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({}, "Object missing required field `inputs`"),
        ([], "Expected `object`, got `array`"),
        ({"inputs": {}}, "Expected `array`, got `object` - at `$.inputs`"),
        ({"inputs": [1]}, "Expected `object`, got `int` - at `$.inputs[0]`"),
        ({"inputs": [{}]}, "Object missing required field `name` - at `$.inputs[0]`"),
        ({"inputs": []}, "'inputs' is 'empty'; expected one input"),
        ({"id": 1, "inputs": []}, "Expected `str | null`, got `int` - at `$.id`"),
        ({"id": "\ud800", "inputs": []}, "'body' is"),
        ({"parameters": {"\ud800": 1}, "inputs": []}, "'body' is"),
        ({"parameters": [], "inputs": []}, "Expected `object | null`, got `array`"),
        ({"parameters": {"a": []}, "inputs": []}, "got `array` - at `$.parameters[...]`"),
        ({"parameters": {"a": 2**63}, "inputs": []}, "Expected `int` <= 9223372036854775807"),
        ({"parameters": {"binary_data_output": 1}, "inputs": []}, "'parameters[binary_data_output]' is 1; expected"),
        ({"inputs": [image(name=1)]}, "Expected `str`, got `int` - at `$.inputs[0].name`"),
        ({"inputs": [image(name="other")]}, "'inputs' is 'other'; expected 'image' or 'pixels'"),
        ({"inputs": [image(datatype=None)]}, "Expected `str`, got `null` - at `$.inputs[0].datatype`"),
        ({"inputs": [image(datatype="FP32", data=[1.5])]}, "'image.datatype' is 'FP32'; expected BYTES"),
        ({"inputs": [image(shape=[1.0])]}, "Expected `int`, got `float` - at `$.inputs[0].shape[0]`"),
        ({"inputs": [image(shape=[True])]}, "Expected `int`, got `bool`"),
        ({"inputs": [image(shape=[2**63])]}, "Expected `int` <= 9223372036854775807"),
        ({"inputs": [image(shape=[1] * 9)]}, "Expected `array` of length <= 8"),
        ({"inputs": [image(shape=[2**62, 2**62])]}, "'image.data' is '1 elements'; expected 21,"),
        ({"inputs": [image(shape=[-1])]}, "'image.data' is '1 elements'; expected -1, as the shape says"),
        ({"inputs": [image(shape=[])]}, "'image.shape' is []; expected [N, 1] or [N]"),
        ({"inputs": [image(shape=[0], data=[])]}, "'image.shape' is [0]; expected [N, 1] or [N] with N from 1 to 4"),
        ({"inputs": [image(data=None)]}, "'image.data' is 'missing'; expected the elements, or 'binary_data_size'"),
        ({"inputs": [image(data="one")]}, "Expected `array`, got `str`"),
        ({"inputs": [image(data=[1])]}, "Expected `str`, got `int`"),
        ({"inputs": [image(data=[{"b64": ""}])]}, "Expected `str`, got `object`"),
        ({"inputs": [image(data=["\udfff"])]}, "'body' is"),
        ({"inputs": [image(data=["a\n="], parameters=B64)]}, "Invalid base64 encoded string"),
        ({"inputs": [image(data=["YQ"], parameters=B64)]}, "Invalid base64 encoded string"),
        ({"inputs": [image(data=["ä"], parameters=B64)]}, "Invalid base64 encoded string"),
        ({"inputs": [image(data=["a", ["b"]], shape=[2])]}, "Expected `str`, got `array`"),
        ({"inputs": [image(data=[["a"], "b"], shape=[2])]}, "Expected `array`, got `str`"),
        ({"inputs": [image(data=["a"] * 10_001, shape=[10_001])]}, "'10,001 elements'; expected at most 10,000"),
        ({"inputs": [pixels(data=[0])]}, "'pixels.data' is '1 elements'; expected 12, as the shape says"),
        ({"inputs": [pixels(data=[256] * COUNT)]}, "Expected `int` <= 255"),
        ({"inputs": [pixels(data=[-1] * COUNT)]}, "Expected `int` >= 0"),
        ({"inputs": [pixels(data=[0.5] * COUNT)]}, "Expected `int`, got `float`"),
        ({"inputs": [pixels(data=[10**30] * COUNT)]}, "Expected `int` <= 255"),
        ({"inputs": [pixels(data=["0"] * COUNT)]}, "Expected `int`, got `str`"),
        ({"inputs": [pixels(data=["[0]"] * COUNT)]}, "Expected `int`, got `str`"),
        ({"inputs": [pixels(data=[[]] * COUNT)]}, "'pixels.data' is"),
        ({"inputs": [pixels(data={"a": 1})]}, "Expected `int`, got `object`"),
        ({"inputs": [image(), image()]}, "'inputs' is 'image and image'; expected one input"),
        ({"inputs": [image(parameters={"shared_memory_region": "r"}, data=None)]}, "'image.parameters' is 'shared_mem"),
        ({"inputs": [image()], "outputs": [{"name": "a", "parameters": {"binary_data": 1}}]}, "[binary_data]' is 1;"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(header: Any, message: str) -> None:
    assert message in refusal(header)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-1, "is -1; expected a number up to the 5 bytes that are left"),
        (6, "is 6; expected a number up to the 5 bytes that are left"),
        (2**63 - 1, "expected a number up to the 5 bytes"),
        (5.0, "is 5.0; expected a number up to the 5 bytes"),
        ("5", "is '5'; expected a number"),
        (True, "is True; expected a number"),
        (4, "'body' is '1 bytes behind the last tensor'; expected as many as the inputs' 'binary_data_size' say"),
    ],
)
def test_a_size_that_lies_is_refused(size: Any, message: str) -> None:
    assert message in refusal({"inputs": [in_binary(image(), size)]}, join([b"a"]))


def test_data_in_both_forms_is_refused() -> None:
    tensor = image(parameters={"binary_data_size": 5})
    assert "'image.data' is 'given beside" in refusal({"inputs": [tensor]}, join([b"a"]))


# Whatever comes

SCALARS = st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=3) | st.just(2**64)
JSON = st.recursive(
    SCALARS, lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=3), some), max_leaves=8
)
PARAMETERS = (
    st.dictionaries(
        st.sampled_from(
            ["binary_data_size", "binary_data", "binary_data_output", "content_type", "shared_memory_region", "timeout"]
        ),
        SCALARS | st.just("base64"),
    )
    | JSON
)
TENSOR = st.fixed_dictionaries({}, optional={
    "name": st.sampled_from(["image", "pixels"]) | JSON,
    "datatype": st.sampled_from(["BYTES", "UINT8", "FP32"]) | JSON,
    "shape": st.just(SHAPE) | st.lists(st.integers(-(2**70), 2**70) | st.integers(0, 3), max_size=6) | JSON,
    "parameters": PARAMETERS,
    "data": st.lists(st.integers(0, 255), min_size=COUNT, max_size=COUNT) | st.lists(st.text(max_size=4)) | JSON,
})  # fmt: skip
REQUEST = st.fixed_dictionaries({}, optional={
    "id": st.text(max_size=3) | JSON,
    "parameters": PARAMETERS,
    "inputs": st.lists(TENSOR | JSON, max_size=2) | JSON,
    "outputs": st.lists(TENSOR | JSON, max_size=2) | JSON,
})  # fmt: skip


@given(REQUEST, st.binary(max_size=20))
def test_any_request_is_understood_or_refused(header: Any, binary: bytes) -> None:
    try:
        found = infer_request(Body(json.dumps(header).encode(), binary), "flowers", "1")
        options_of(found.message.parameters)
        inputs = read(found.message, SIDE, MOST)
    except InvalidArgument:
        return
    assert 1 <= len(inputs) <= MOST
    found.message.SerializeToString()
