"""ModelInfer as Triton's own client and a bare stub meet it: the answers, and which model gives them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton

from anther.open_inference import open_inference_pb2 as pb
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2

WHERE = {"model": "flowers", "version": "1"}
PRIMARY = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
PATIENCE_S = 60


# Answers


def test_probabilities_are_those_of_the_services_own_protocol_bit_for_bit(
    client, classified, image_input, colourful
) -> None:
    for picture in colourful:
        answer = client.infer("flowers", [image_input(picture)]).as_numpy("probabilities")
        assert answer.dtype == np.float32
        assert np.array_equal(answer, classified(picture)[np.newaxis])


def test_a_batch_answers_each_picture_as_if_it_were_alone(client, classified, image_input, colourful) -> None:
    for shape in ((5, 1), (5,)):
        answer = client.infer("flowers", [image_input(*colourful, shape=shape)])
        assert np.array_equal(answer.as_numpy("probabilities"), np.stack([classified(each) for each in colourful]))
        assert answer.as_numpy("logits").shape == (5, 3)


def test_pixels_get_the_answers_of_their_pictures(client, image_input, pixels_input, prepared, colourful) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("probabilities", "logits", "evidence")]
    by_picture = client.infer("flowers", [image_input(*colourful)], outputs=outputs)
    by_pixels = client.infer("flowers", [pixels_input(prepared(colourful))], outputs=outputs)
    for name in ("probabilities", "logits", "evidence"):
        assert np.array_equal(by_picture.as_numpy(name), by_pixels.as_numpy(name))


def test_contents_are_answered_in_contents_with_the_same_values(stub, client, image_input, image_request, colourful):
    wanted = ("logits", "probabilities", "evidence")
    response = stub.ModelInfer(image_request(*colourful, outputs=wanted))
    raw = client.infer("flowers", [image_input(*colourful)], outputs=[triton.InferRequestedOutput(n) for n in wanted])
    assert list(response.raw_output_contents) == []
    assert [(output.name, output.datatype, list(output.shape)) for output in response.outputs] == [
        ("logits", "FP32", [5, 3]),
        ("probabilities", "FP32", [5, 3]),
        ("evidence", "FP32", [5, 3, 4, 4]),
    ]
    for output in response.outputs:
        assert np.array_equal(np.array(output.contents.fp32_contents, np.float32), raw.as_numpy(output.name).ravel())


def test_raw_is_answered_raw(client, image_input, red) -> None:
    response = client.infer("flowers", [image_input(red.image)]).get_response()
    assert [len(data) for data in response.raw_output_contents] == [12, 12]
    assert not any(output.HasField("contents") for output in response.outputs)


def test_pixels_in_contents_are_answered(stub, classified, prepared, colourful) -> None:
    pixels = prepared(colourful[:2])
    contents = pb.InferTensorContents(uint_contents=pixels.ravel().tolist())
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="pixels", datatype="UINT8", shape=pixels.shape, contents=contents
    )
    output = stub.ModelInfer(pb.ModelInferRequest(inputs=[tensor])).outputs[0]
    expected = np.concatenate([classified(each) for each in colourful[:2]])
    assert np.array_equal(np.array(output.contents.fp32_contents, np.float32), expected)


def test_without_requested_outputs_the_evidence_is_left_out(client, image_input, red) -> None:
    response = client.infer("flowers", [image_input(red.image)]).get_response()
    assert [output.name for output in response.outputs] == ["probabilities", "logits"]


def test_the_answer_names_model_and_version_and_gives_id_and_parameters_back(stub, image_request, red) -> None:
    parameters = {
        "trace": pb.InferParameter(string_param="a1"),
        "weight": pb.InferParameter(double_param=0.5),
        "nothing": pb.InferParameter(),
        "sequence_id": pb.InferParameter(int64_param=7),
        "sequence_start": pb.InferParameter(bool_param=True),
        "priority": pb.InferParameter(uint64_param=2**64 - 1),
        "timeout": pb.InferParameter(int64_param=60_000_000),
    }
    request = image_request(red.image, id="my id", parameters=parameters)
    response = stub.ModelInfer(request)
    assert (response.model_name, response.model_version, response.id) == ("flowers", "1", "my id")
    assert response.parameters == request.parameters


def test_many_callers_with_batches_each_get_their_own(start_edge, image_request, make_picture) -> None:
    edge = start_edge(lanes=2)
    stub = GRPCInferenceServiceStub(edge.channel)
    primary = [make_picture(colour) for colour in PRIMARY]
    orders = [[(first + step) % 3 for step in range(1 + first % 4)] for first in range(30)]
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(stub.ModelInfer, [image_request(*(primary[i] for i in order)) for order in orders]))
    for order, response in zip(orders, responses, strict=True):
        found = np.array(response.outputs[0].contents.fp32_contents).reshape(-1, 3).argmax(axis=1)
        assert found.tolist() == order


def test_pictures_of_one_request_run_in_parallel(start_edge, image_request, colourful) -> None:
    edge = start_edge(lanes=2)
    stub = GRPCInferenceServiceStub(edge.channel)
    with edge.held():
        call = edge.occupied(lambda: stub.ModelInfer.future(image_request(*colourful[:2])))
        assert edge.engine.entered.acquire(timeout=PATIENCE_S)
    assert len(call.result(PATIENCE_S).outputs[0].contents.fp32_contents) == 6


# Which model


def test_the_request_chooses_model_and_version(start_edge, tmp_path, publish_bundle, image_request, red, failure_of):
    publish_bundle(tmp_path, "trees", labels=("oak", "elm"))
    publish_bundle(tmp_path, "flowers")
    stub = GRPCInferenceServiceStub(start_edge(tmp_path).channel)
    response = stub.ModelInfer(image_request(red.image, model_name="trees", model_version="1"))
    assert (response.model_name, response.model_version, list(response.outputs[0].shape)) == ("trees", "1", [1, 2])
    failure = failure_of(lambda: stub.ModelInfer(image_request(red.image)))
    assert (failure.code, failure.metadata["field"]) == ("INVALID_ARGUMENT", "model")


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"model_name": "roots"}, "NOT_FOUND", "no model 'roots'; available: flowers"),
        ({"model_version": "2"}, "NOT_FOUND", "model 'flowers' has no version 2"),
        ({"model_version": "0"}, "INVALID_ARGUMENT", "'model_version' is '0'; expected a version's number such as '1'"),
        ({"model_version": "-1"}, "INVALID_ARGUMENT", "'model_version' is '-1'"),
        ({"model_version": "one"}, "INVALID_ARGUMENT", "'model_version' is 'one'"),
        ({"model_version": "9" * 5000}, "INVALID_ARGUMENT", "'model_version' is '999"),
        ({"model_version": "١"}, "INVALID_ARGUMENT", "'model_version' is"),
        ({"parameters": {"label": pb.InferParameter(string_param="blue")}}, "INVALID_ARGUMENT", "'label' is 'blue'"),
        ({"parameters": {"label": pb.InferParameter(string_param="canary")}}, "NOT_FOUND", "has no canary"),
    ],
)
def test_a_model_that_is_not_there_is_named(stub, image_request, red, failure_of, fields, code, message) -> None:
    failure = failure_of(lambda: stub.ModelInfer(image_request(red.image, **fields)))
    assert failure.code == code
    assert message in failure.message


def test_the_label_stable_asks_for_the_stable_version(client, image_input, red) -> None:
    response = client.infer("flowers", [image_input(red.image)], parameters={"label": "stable"}).get_response()
    assert response.model_version == "1"


# What is counted


def test_calls_are_counted_with_the_models_they_name(start_edge, tmp_path, publish_bundle, image_request, red) -> None:
    publish_bundle(tmp_path, "trees")
    publish_bundle(tmp_path, "flowers")
    edge = start_edge(tmp_path)
    stub = GRPCInferenceServiceStub(edge.channel)
    stub.ModelInfer(image_request(red.image, red.image, model_name="trees"))
    stub.ModelMetadata(pb.ModelMetadataRequest(name="flowers"))
    trees = {"model": "trees", "version": "1"}
    assert edge.sample("anther_requests_total", **trees, method="ModelInfer", code="OK") == 1
    assert edge.sample("anther_requests_total", **WHERE, method="ModelMetadata", code="OK") == 1
    assert edge.sample("anther_predictions_total", **trees, label="daisy") == 2
    assert edge.sample("anther_stage_duration_seconds_count", **trees, stage="decode") == 2


def test_the_services_own_protocol_answers_beside_it(edge, client, image_input, red) -> None:
    assert edge.stub.Classify(classifier_pb2.ClassifyRequest(image=red.image)).predictions[0].label == "daisy"
    assert client.infer("flowers", [image_input(red.image)]).as_numpy("probabilities").argmax() == 0


def test_every_picture_of_a_request_is_handed_on_to_a_shadow(edge, client, image_input, colourful) -> None:
    handed: list[tuple[bytes, str]] = []
    edge.classifier._copy = lambda request, answer: handed.append((request.image, answer.predictions[0].label))
    client.infer("flowers", [image_input(*colourful[:3])])
    client.infer("flowers", [image_input(colourful[0])])
    assert [image for image, _ in handed] == [*colourful[:3], colourful[0]]
