"""Outputs by request, and the classification extension."""

import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.utils import InferenceServerException

from anther.open_inference import open_inference_pb2 as pb
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.rpc.inference.outputs import highest

LABELS = ("daisy", "tulips", "roses")


def requested(name: str, **parameters: pb.InferParameter) -> pb.ModelInferRequest:
    return pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters=parameters)


def test_outputs_come_in_the_order_of_the_request(client, image_input, red) -> None:
    for names in (["logits"], ["evidence", "probabilities"], ["logits", "probabilities", "evidence"]):
        outputs = [triton.InferRequestedOutput(name) for name in names]
        response = client.infer("flowers", [image_input(red.image)], outputs=outputs).get_response()
        assert [output.name for output in response.outputs] == names
        assert len(response.raw_output_contents) == len(names)


@pytest.mark.parametrize("name", ["probabilities", "logits"])
def test_classification_gives_the_highest_values_with_their_labels(client, image_input, colourful, name: str) -> None:
    values = client.infer("flowers", [image_input(*colourful)]).as_numpy(name)
    asked = triton.InferRequestedOutput(name, class_count=2)
    found = client.infer("flowers", [image_input(*colourful)], outputs=[asked]).as_numpy(name)
    assert found.shape == (5, 2)
    for row, entries in zip(values, found, strict=True):
        for entry, index in zip(entries, np.argsort(-row), strict=False):
            value, position, label = entry.decode().split(":")
            assert (np.float32(value), int(position), label) == (row[index], index, LABELS[index])


def test_classification_of_more_classes_than_there_are_gives_them_all(stub, image_request, red) -> None:
    request = image_request(red.image)
    request.outputs.append(requested("probabilities", classification=pb.InferParameter(int64_param=1000)))
    output = stub.ModelInfer(request).outputs[0]
    assert (output.datatype, list(output.shape)) == ("BYTES", [1, 3])
    labels = [entry.decode().split(":", 2)[2] for entry in output.contents.bytes_contents]
    assert labels[0] == "daisy"
    assert sorted(labels) == sorted(LABELS)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([requested("scores")], "'outputs' is 'scores'; expected one of probabilities, logits, evidence"),
        ([requested("")], "'outputs' is ''; expected one of probabilities"),
        ([requested("logits"), requested("logits")], "'outputs' is 'logits and logits'; expected each output once"),
        (
            [requested("logits", classification=pb.InferParameter(int64_param=0))],
            "'parameters[classification]' is 0; expected a whole number of 1 or more",
        ),
        (
            [requested("logits", classification=pb.InferParameter(string_param="2"))],
            "'parameters[classification]' is '2'; expected a whole number",
        ),
        (
            [requested("evidence", classification=pb.InferParameter(int64_param=2))],
            "'evidence.parameters' is 'classification'; expected no such parameter",
        ),
    ],
)
def test_an_output_that_cannot_be_given_is_refused(stub, image_request, red, failure_of, outputs, message) -> None:
    request = image_request(red.image)
    request.outputs.extend(outputs)
    failure = failure_of(lambda: stub.ModelInfer(request))
    assert failure.code == "INVALID_ARGUMENT"
    assert message in failure.message


def test_a_model_without_evidence_has_no_such_output(
    start_edge, tmp_path, publish_bundle, image_input, red, failure_of
) -> None:
    publish_bundle(tmp_path, evidence=False)
    edge = start_edge(tmp_path)
    with (
        triton.InferenceServerClient(f"127.0.0.1:{edge.port}") as client,
        pytest.raises(InferenceServerException, match=r"'evidence'; expected one of probabilities, logits"),
    ):
        client.infer("flowers", [image_input(red.image)], outputs=[triton.InferRequestedOutput("evidence")])
    metadata = GRPCInferenceServiceStub(edge.channel).ModelMetadata(pb.ModelMetadataRequest())
    assert [output.name for output in metadata.outputs] == ["probabilities", "logits"]


FINITE = arrays.arrays(
    np.float32, st.integers(1, 8), elements=st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False)
)


@given(FINITE, st.integers(1, 8))
def test_entries_hold_the_exact_values_in_falling_order(row: np.ndarray, count: int) -> None:
    labels = [f"label:{index}" for index in range(len(row))]
    entries = [entry.decode().split(":", 2) for entry in highest(row, count, labels)]
    values = np.array([value for value, _, _ in entries]).astype(np.float32)
    indices = [int(index) for _, index, _ in entries]
    assert len(entries) == min(count, len(row))
    assert values.tolist() == row[indices].tolist() == sorted(row.tolist(), reverse=True)[:count]
    assert [label for _, _, label in entries] == [labels[index] for index in indices]
