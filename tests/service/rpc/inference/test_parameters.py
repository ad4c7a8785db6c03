"""Parameters are understood, left alone, or refused by a clear sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anther.open_inference import open_inference_pb2 as pb
from service.errors import InvalidArgument
from service.rpc.inference.parameters import Options, options_of, version_of

P = pb.InferParameter


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, Options()),
        ({"colour": P(string_param="red")}, Options()),
        ({"label": P(string_param="canary")}, Options("canary")),
        ({"timeout": P(int64_param=1_500_000)}, Options(timeout_s=1.5)),
        ({"timeout": P(uint64_param=2**64 - 1)}, Options(timeout_s=(2**64 - 1) / 1e6)),
        ({"timeout": P(int64_param=0)}, Options()),
        ({"priority": P(uint64_param=3), "sequence_id": P(string_param="a"), "sequence_end": P()}, Options()),
        ({"triton_enable_empty_final_response": P(bool_param=True)}, Options()),
    ],
)
def test_what_is_asked_for_is_understood(parameters, expected) -> None:
    assert options_of(parameters) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("timeout", P(int64_param=-1), "'parameters[timeout]' is -1; expected a whole number of 0 or more"),
        ("timeout", P(string_param="1"), "'parameters[timeout]' is '1'; expected a whole number"),
        ("timeout", P(double_param=1.5), "'parameters[timeout]' is 1.5; expected a whole number"),
        ("timeout", P(bool_param=True), "'parameters[timeout]' is True; expected a whole number"),
        ("timeout", P(), "'parameters[timeout]' is None; expected a whole number"),
        ("priority", P(int64_param=-1), "'parameters[priority]' is -1; expected a whole number of 0 or more"),
        ("label", P(int64_param=1), "'parameters[label]' is 1; expected a string: 'stable' or 'canary'"),
        ("label", P(), "'parameters[label]' is None"),
        (
            "top_k",
            P(int64_param=3),
            "'parameters[top_k]' is 3; expected no such parameter; give an output the parameter",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, value: pb.InferParameter, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        options_of({name: value})
    assert message in str(raised.value)


@pytest.mark.parametrize(("text", "version"), [("", 0), ("1", 1), ("9" * 18, 10**18 - 1)])
def test_versions_are_numbers_or_nothing(text: str, version: int) -> None:
    assert version_of(text) == version


@given(st.text())
def test_any_version_is_a_number_of_one_or_more_or_refused(text: str) -> None:
    try:
        version = version_of(text)
    except InvalidArgument:
        return
    assert str(version) == text or (version, text) == (0, "")
