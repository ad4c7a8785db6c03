"""Prometheus and ModelStatistics count the same requests, whatever their kind and protocol."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from anther.open_inference import open_inference_pb2 as oip
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2 as pb

PATIENCE_S = 60
WHERE = {"model": "flowers", "version": "1"}
NOBODY = {"model": "", "version": ""}
STAGES = ("queue", "decode", "preprocess", "inference", "postprocess")
SIDE = 32

Ask = Callable[[Any, GRPCInferenceServiceStub, dict[str, bytes]], object]


def images(*encoded: bytes) -> oip.ModelInferRequest:
    contents = oip.InferTensorContents(bytes_contents=encoded)
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="image", datatype="BYTES", shape=[len(encoded)], contents=contents
    )
    return oip.ModelInferRequest(model_name="flowers", inputs=[tensor])


def pixels(rows: int) -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(name="pixels", datatype="UINT8", shape=[rows, SIDE, SIDE, 3])
    raw = np.zeros((rows, SIDE, SIDE, 3), np.uint8).tobytes()
    return oip.ModelInferRequest(model_name="flowers", inputs=[tensor], raw_input_contents=[raw])


def classify(stub: Any, _: Any, pictures: dict[str, bytes]) -> object:
    return stub.Classify(pb.ClassifyRequest(image=pictures["daisy"]), timeout=PATIENCE_S)


def classify_junk(stub: Any, _: Any, pictures: dict[str, bytes]) -> object:
    with pytest.raises(grpc.RpcError):
        stub.Classify(pb.ClassifyRequest(image=b"junk"), timeout=PATIENCE_S)
    return None


def stream(stub: Any, _: Any, pictures: dict[str, bytes]) -> object:
    sent = [pb.ClassifyRequest(image=image, id=str(number)) for number, image in enumerate([*pictures.values(), b"x"])]
    return list(stub.ClassifyStream(iter(sent), timeout=PATIENCE_S))


def explain(stub: Any, _: Any, pictures: dict[str, bytes]) -> object:
    return stub.Explain(pb.ExplainRequest(image=pictures["roses"]), timeout=PATIENCE_S)


def infer_images(_: Any, inference: GRPCInferenceServiceStub, pictures: dict[str, bytes]) -> object:
    return inference.ModelInfer(images(*pictures.values()), timeout=PATIENCE_S)


def infer_junk(_: Any, inference: GRPCInferenceServiceStub, pictures: dict[str, bytes]) -> object:
    with pytest.raises(grpc.RpcError, match="image 1: "):
        inference.ModelInfer(images(pictures["daisy"], b"junk"), timeout=PATIENCE_S)
    return None


def infer_pixels(_: Any, inference: GRPCInferenceServiceStub, pictures: dict[str, bytes]) -> object:
    return [inference.ModelInfer(pixels(2), timeout=PATIENCE_S) for _ in range(3)]


def infer_stream(_: Any, inference: GRPCInferenceServiceStub, pictures: dict[str, bytes]) -> object:
    sent = [images(pictures["daisy"]), pixels(3), images(b"junk"), images(*pictures.values())]
    return list(inference.ModelStreamInfer(iter(sent), timeout=PATIENCE_S))


@pytest.mark.parametrize(
    ("ask", "requests", "failed", "rows", "decoded", "method"),
    [
        (classify, 1, 0, 1, 1, "Classify"),
        (classify_junk, 1, 1, 0, 0, "Classify"),
        (stream, 4, 1, 3, 3, "ClassifyStream"),
        (explain, 1, 0, 1, 1, "Explain"),
        (infer_images, 1, 0, 3, 3, "ModelInfer"),
        (infer_junk, 1, 1, 0, 0, "ModelInfer"),
        (infer_pixels, 3, 0, 6, 0, "ModelInfer"),
        (infer_stream, 4, 1, 7, 4, "ModelStreamInfer"),
    ],
)
def test_both_ledgers_count_every_request(
    start_edge, pictures, ask: Ask, requests: int, failed: int, rows: int, decoded: int, method: str
) -> None:
    edge = start_edge()
    ask(edge.stub, GRPCInferenceServiceStub(edge.channel), pictures)
    told = statistics(edge)
    ends = by_code(edge, method)
    assert sum(ends.values()) == told.inference_stats.success.count + told.inference_stats.fail.count == requests
    assert ends.get("OK", 0) == told.inference_stats.success.count == requests - failed
    assert total(edge, "anther_predictions_total") == told.inference_count == rows
    assert edge.sample("anther_confidence_count", **WHERE) == rows
    counts = {stage: edge.sample("anther_stage_duration_seconds_count", **WHERE, stage=stage) for stage in STAGES}
    seconds = {stage: edge.sample("anther_stage_duration_seconds_sum", **WHERE, stage=stage) for stage in STAGES}
    stats = told.inference_stats
    assert counts["inference"] == counts["queue"] == counts["postprocess"] == stats.compute_infer.count
    assert counts["decode"] == counts["preprocess"] == decoded
    assert seconds["inference"] == pytest.approx(stats.compute_infer.ns / 1e9, abs=1e-7)
    assert seconds["decode"] + seconds["preprocess"] == pytest.approx(stats.compute_input.ns / 1e9, abs=1e-7)
    assert sum(edge.sample("anther_rejected_total", reason=reason) for reason in reasons(edge)) == failed


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ServerLive", oip.ServerLiveRequest()),
        ("ServerReady", oip.ServerReadyRequest()),
        ("ServerMetadata", oip.ServerMetadataRequest()),
        ("ModelStatistics", oip.ModelStatisticsRequest()),
        ("RepositoryIndex", oip.RepositoryIndexRequest()),
    ],
)
def test_a_call_that_asks_for_no_model_counts_for_none(start_edge, method: str, request_: Any) -> None:
    edge = start_edge()
    getattr(GRPCInferenceServiceStub(edge.channel), method)(request_, timeout=PATIENCE_S)
    assert edge.sample("anther_requests_total", **NOBODY, method=method, code="OK") == 1
    assert by_code(edge, method) == {}


def test_shared_memory_is_no_model(start_edge) -> None:
    """The request's field `name` names a region of memory."""
    edge = start_edge()
    request = oip.SystemSharedMemoryStatusRequest(name="flowers")
    with pytest.raises(grpc.RpcError):
        GRPCInferenceServiceStub(edge.channel).SystemSharedMemoryStatus(request, timeout=PATIENCE_S)
    where = {**NOBODY, "method": "SystemSharedMemoryStatus", "code": "UNIMPLEMENTED"}
    assert edge.sample("anther_requests_total", **where) == 1


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ModelReady", oip.ModelReadyRequest(name="flowers")),
        ("ModelMetadata", oip.ModelMetadataRequest(name="flowers")),
        ("ModelConfig", oip.ModelConfigRequest(name="flowers")),
        ("ModelStatistics", oip.ModelStatisticsRequest(name="flowers")),
    ],
)
def test_a_call_about_a_model_counts_for_it_and_is_no_inference(start_edge, method: str, request_: Any) -> None:
    edge = start_edge()
    getattr(GRPCInferenceServiceStub(edge.channel), method)(request_, timeout=PATIENCE_S)
    assert by_code(edge, method) == {"OK": 1}
    assert statistics(edge).inference_stats.success.count == 0


def statistics(edge: Any) -> oip.ModelStatistics:
    request = oip.ModelStatisticsRequest(name="flowers", version="1")
    found = GRPCInferenceServiceStub(edge.channel).ModelStatistics(request, timeout=PATIENCE_S)
    (told,) = found.model_stats
    return told


def by_code(edge: Any, method: str) -> dict[str, float]:
    wanted = {**WHERE, "method": method}
    return {
        labels["code"]: value
        for labels, value in samples(edge, "anther_requests_total")
        if wanted.items() <= labels.items()
    }


def total(edge: Any, name: str) -> float:
    return sum(value for _, value in samples(edge, name))


def reasons(edge: Any) -> set[str]:
    return {labels["reason"] for labels, _ in samples(edge, "anther_rejected_total")}


def samples(edge: Any, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in edge.metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    ]
