"""`Explain` and what else `anther.v1` gained, through the real port."""

import io

import numpy as np
import pytest
from PIL import Image

from anther.v1 import classifier_pb2 as pb

WHERE = {"model": "flowers", "version": "1"}


@pytest.fixture
def request_of(red):
    return lambda **options: pb.ExplainRequest(image=red.image, **options)


def test_an_explanation_has_the_answer_the_class_the_map_and_a_drawing(edge, red, request_of) -> None:
    found = edge.stub.Explain(request_of(id="mine", top_k=2))
    answer = edge.stub.Classify(pb.ClassifyRequest(image=red.image, id="mine", top_k=2))
    for classified in (found.answer, answer):
        classified.ClearField("timings")
    assert found.answer == answer
    assert found.explained == answer.predictions[0]
    assert (found.evidence.height, found.evidence.width, len(found.evidence.values)) == (4, 4, 16)
    assert Image.open(io.BytesIO(found.overlay_png)).size == (32, 32)


def test_the_maps_mean_and_the_classs_bias_are_the_logit(edge, make_picture) -> None:
    def bias(colour: tuple[int, int, int], index: int) -> float:
        request = pb.ExplainRequest(image=make_picture(colour), class_index=index)
        evidence = edge.stub.Explain(request).evidence
        return float(evidence.logit - np.mean(evidence.values))

    biases = [[bias(colour, index) for index in range(3)] for colour in ((255, 0, 0), (0, 9, 200), (70, 70, 70))]
    assert np.ptp(biases, axis=0).max() < 1e-4
    assert np.ptp(biases[0]) > 0.01


def test_the_map_is_given_row_by_row_from_the_top_left(edge) -> None:
    picture, buffer = np.zeros((36, 36, 3), np.uint8), io.BytesIO()
    picture[:18, :18, 0] = 255  # one red quarter
    Image.fromarray(picture).save(buffer, "PNG")
    evidence = edge.stub.Explain(pb.ExplainRequest(image=buffer.getvalue(), class_label="daisy")).evidence
    found = np.reshape(evidence.values, (evidence.height, evidence.width))
    assert found[:2, :2].min() > found[2:].max()
    assert found[:2, :2].min() > found[:, 2:].max()


@pytest.mark.parametrize(
    ("named", "label"), [({}, "daisy"), ({"class_index": 2}, "roses"), ({"class_label": "tulips"}, "tulips")]
)
def test_the_class_may_be_named(edge, request_of, named, label) -> None:
    assert edge.stub.Explain(request_of(**named)).explained.label == label


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ({"class_index": 3}, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ({"class_label": "oak"}, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ({"class_label": ""}, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ({"label": "canary"}, "NOT_FOUND", "CANARY_NOT_FOUND"),
        ({"label": "best"}, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ({"version": 2}, "NOT_FOUND", "VERSION_NOT_FOUND"),
    ],
)
def test_a_refused_explanation_says_why(edge, request_of, failure_of, options, code, reason) -> None:
    failure = failure_of(lambda: edge.stub.Explain(request_of(**options)))
    assert (failure.code, failure.reason) == (code, reason)


def test_a_model_without_evidence_is_a_failed_precondition(
    start_edge, tmp_path, publish_bundle, failure_of, request_of
) -> None:
    publish_bundle(tmp_path, evidence=False)
    failure = failure_of(lambda: start_edge(tmp_path).stub.Explain(request_of()))
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "NO_EVIDENCE")


def test_explanations_are_counted_as_calls_and_as_answers(edge, request_of) -> None:
    edge.stub.Explain(request_of())
    assert edge.sample("anther_requests_total", **WHERE, method="Explain", code="OK") == 1
    assert edge.sample("anther_predictions_total", **WHERE, label="daisy") == 1


def test_an_answer_has_the_requests_id(edge, red) -> None:
    assert edge.stub.Classify(red).id == ""
    assert edge.stub.Classify(pb.ClassifyRequest(image=red.image, id="a/b.jpg")).id == "a/b.jpg"


def test_a_label_chooses_the_version(edge, red, failure_of) -> None:
    stable = pb.ClassifyRequest(image=red.image, label="stable")
    assert edge.stub.Classify(stable).version == 1
    assert edge.stub.GetModel(pb.GetModelRequest(label="stable")).model.version == 1
    for call, request in ((edge.stub.Classify, pb.ClassifyRequest), (edge.stub.GetModel, pb.GetModelRequest)):
        assert failure_of(lambda call=call, request=request: call(request(label="canary"))).code == "NOT_FOUND"
