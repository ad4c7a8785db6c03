"""ModelStatistics: what was answered and how long it took, and why a version does not serve."""

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from anther.open_inference import open_inference_pb2 as pb
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2

STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@pytest.fixture
def half_broken(tmp_path, publish_bundle):
    """A folder of models whose second version of 'flowers' was changed after it was published."""
    publish_bundle(tmp_path)
    publish_bundle(tmp_path, seed=1)
    (tmp_path / "flowers" / "2" / "report.html").write_text("changed")
    return tmp_path


def test_a_version_that_answered_nothing_counts_nothing(client) -> None:
    (found,) = client.get_inference_statistics("flowers").model_stats
    assert (found.name, found.version) == ("flowers", "1")
    assert (found.last_inference, found.inference_count, found.execution_count) == (0, 0, 0)
    assert found.inference_stats.success.count == 0
    assert list(found.batch_stats) == []


def test_pictures_requests_and_stages_are_counted(client, image_input, pixels_input, red) -> None:
    client.infer("flowers", [image_input(red.image)])
    client.infer("flowers", [image_input(red.image, red.image)])
    client.infer("flowers", [pixels_input(np.zeros((3, 32, 32, 3), np.uint8))])
    with pytest.raises(InferenceServerException):
        client.infer("flowers", [image_input(b"")])
    (found,) = client.get_inference_statistics("flowers", "1").model_stats
    stats = found.inference_stats
    assert (found.inference_count, found.execution_count) == (6, 6)
    assert (stats.success.count, stats.fail.count) == (3, 1)
    assert all(getattr(stats, stage).count == 4 for stage in STAGES)
    assert stats.success.ns > stats.compute_infer.ns > 0
    assert stats.fail.ns > 0
    (batch,) = found.batch_stats
    assert (batch.batch_size, batch.compute_infer.count) == (1, 6)
    assert 0 < batch.compute_infer.ns <= stats.compute_infer.ns


def test_both_protocols_and_streams_are_counted_together(edge, stub, image_request, red) -> None:
    edge.stub.Classify(classifier_pb2.ClassifyRequest(image=red.image))
    list(stub.ModelStreamInfer(iter([image_request(red.image), image_request(b"")]), timeout=60))
    stub.ModelMetadata(pb.ModelMetadataRequest())
    (found,) = stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
    assert (found.inference_count, found.inference_stats.success.count, found.inference_stats.fail.count) == (2, 2, 1)


def test_it_says_why_a_version_does_not_serve(start_edge, half_broken) -> None:
    stub = GRPCInferenceServiceStub(start_edge(half_broken).channel)
    first, second = stub.ModelStatistics(pb.ModelStatisticsRequest(name="flowers")).model_stats
    assert (first.version, first.reason, second.version) == ("1", "", "2")
    assert "report.html" in second.reason
    assert "SHA-256" in second.reason
    assert stub.ModelStatistics(pb.ModelStatisticsRequest(name="flowers", version="2")).model_stats == [second]


def test_clients_that_do_not_know_the_reason_read_the_rest(start_edge, half_broken) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{start_edge(half_broken).port}") as client:
        assert [found.version for found in client.get_inference_statistics("flowers").model_stats] == ["1", "2"]


def test_without_a_name_all_models_are_told(start_edge, tmp_path, publish_bundle) -> None:
    publish_bundle(tmp_path, "trees")
    publish_bundle(tmp_path, "flowers")
    stub = GRPCInferenceServiceStub(start_edge(tmp_path).channel)
    found = stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
    assert [(each.name, each.version) for each in found] == [("flowers", "1"), ("trees", "1")]
    assert not stub.ModelStatistics(pb.ModelStatisticsRequest(version="7")).model_stats


@pytest.mark.parametrize(
    ("name", "version", "code", "message"),
    [
        ("trees", "", "NOT_FOUND", "no model 'trees'; available: flowers"),
        ("flowers", "7", "NOT_FOUND", "model 'flowers' has no version 7; available: 1"),
        ("flowers", "one", "INVALID_ARGUMENT", "'model_version' is 'one'"),
    ],
)
def test_what_is_not_there_has_no_statistics(stub, failure_of, name, version, code, message) -> None:
    failure = failure_of(lambda: stub.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version)))
    assert failure.code == code
    assert message in failure.message
