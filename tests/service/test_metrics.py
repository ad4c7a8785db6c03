"""The numbers that dashboards and alerts rely on: names, units, labels."""

import dataclasses
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from bundle.repository import Repository
from service.classifier import Answer, Prediction, Timings
from service.engine import open_on_cpu
from service.metrics import Metrics
from service.registry import LiveModel, Registry

WHERE = {"model": "flowers", "version": "1"}
VERSION = {"model", "version"}
FAMILIES = {  # name as Prometheus shows it → type and labels
    "anther_requests_total": ("counter", {*VERSION, "method", "code"}),
    "anther_request_duration_seconds": ("histogram", {*VERSION, "method"}),
    "anther_stage_duration_seconds": ("histogram", {*VERSION, "stage"}),
    "anther_rejected_total": ("counter", {"reason"}),
    "anther_predictions_total": ("counter", {*VERSION, "label"}),
    "anther_confidence": ("histogram", VERSION),
    "anther_abstained_total": ("counter", VERSION),
    "anther_model_info": ("gauge", {*VERSION, "sha256", "provider", "precision", "architecture"}),
    "anther_model_ready": ("gauge", VERSION),
    "anther_model_load_seconds": ("gauge", VERSION),
    "anther_golden_max_abs_logit_difference": ("gauge", VERSION),
    "anther_queue_depth": ("gauge", set()),
    "anther_inflight_requests": ("gauge", set()),
}


@pytest.fixture(scope="module")
def model(models: Path) -> LiveModel:
    registry = Registry(Repository(models), open_on_cpu)
    registry.load_all()
    return registry.find()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def answer(model: LiveModel) -> Answer:
    predictions = (Prediction("tulips", 1, 0.75), Prediction("daisy", 0, 0.25))
    return Answer(model, predictions, True, Timings(0.5, 0.25, 0.125, 2.0, 1.0))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_every_family_has_its_name_type_and_labels(metrics: Metrics, answer: Answer) -> None:
    metrics.watch(lambda: 3, lambda: 4)
    metrics.loaded(answer.model)
    metrics.answered(answer)
    metrics.finished("flowers", "1", "Classify", "OK", 0.01)
    metrics.refused("QUEUE_FULL")
    found = {}
    for family in metrics.registry.collect():
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, labels)
    assert {name: what for name, what in found.items() if name.startswith("anther_")} == FAMILIES
    assert "_created" not in generate_latest(metrics.registry).decode()
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "python_info"} <= found.keys()


def test_two_servers_in_a_process_do_not_share_numbers(metrics: Metrics, answer: Answer) -> None:
    metrics.answered(answer)
    assert value(Metrics(), "anther_predictions_total", **WHERE, label="tulips") is None


def test_a_loaded_model_is_described(metrics: Metrics, model: LiveModel) -> None:
    metrics.loaded(model)
    description = {
        **WHERE,
        "sha256": model.bundle.manifest.files["model.onnx"],
        "provider": "CPUExecutionProvider",
        "precision": "fp32",
        "architecture": "colours",
    }
    assert value(metrics, "anther_model_info", **description) == 1
    assert value(metrics, "anther_model_ready", **WHERE) == 1
    assert value(metrics, "anther_model_load_seconds", **WHERE) == model.load_s
    assert value(metrics, "anther_golden_max_abs_logit_difference", **WHERE) == model.golden_difference


def test_every_label_of_a_loaded_model_starts_at_zero(metrics: Metrics, model: LiveModel) -> None:
    """A rate over a series that appears with its first event misses that event."""
    metrics.loaded(model)
    for label in model.bundle.manifest.labels:
        assert value(metrics, "anther_predictions_total", **WHERE, label=label) == 0
    assert value(metrics, "anther_abstained_total", **WHERE) == 0


def test_an_answer_counts_its_first_label_and_its_probability(metrics: Metrics, answer: Answer) -> None:
    metrics.answered(answer)
    assert value(metrics, "anther_predictions_total", **WHERE, label="tulips") == 1
    assert value(metrics, "anther_predictions_total", **WHERE, label="daisy") is None
    assert value(metrics, "anther_confidence_sum", **WHERE) == 0.75
    assert value(metrics, "anther_confidence_bucket", **WHERE, le="0.7") == 0
    assert value(metrics, "anther_confidence_bucket", **WHERE, le="0.8") == 1


@pytest.mark.parametrize(("confident", "abstained"), [(True, None), (False, 1)])
def test_an_answer_that_is_not_confident_counts_as_abstained(metrics, answer, confident, abstained) -> None:
    metrics.answered(dataclasses.replace(answer, confident=confident))
    assert value(metrics, "anther_abstained_total", **WHERE) == abstained


@pytest.mark.parametrize(
    ("stage", "seconds"),
    [("queue", 0.5), ("decode", 0.25), ("preprocess", 0.125), ("inference", 2.0), ("postprocess", 1.0)],
)
def test_every_stage_is_observed_in_seconds(metrics: Metrics, answer: Answer, stage: str, seconds: float) -> None:
    metrics.answered(answer)
    assert value(metrics, "anther_stage_duration_seconds_sum", **WHERE, stage=stage) == seconds


def test_calls_are_counted_by_code_and_timed(metrics: Metrics) -> None:
    metrics.finished("flowers", "1", "Classify", "OK", 0.25)
    metrics.finished("flowers", "1", "Classify", "UNAVAILABLE", 0.5)
    assert value(metrics, "anther_requests_total", **WHERE, method="Classify", code="OK") == 1
    assert value(metrics, "anther_requests_total", **WHERE, method="Classify", code="UNAVAILABLE") == 1
    assert value(metrics, "anther_request_duration_seconds_sum", **WHERE, method="Classify") == 0.75


def test_refusals_are_counted_by_reason(metrics: Metrics) -> None:
    metrics.refused("QUEUE_FULL")
    metrics.refused("QUEUE_FULL")
    assert value(metrics, "anther_rejected_total", reason="QUEUE_FULL") == 2


def test_the_queue_is_read_at_every_scrape(metrics: Metrics) -> None:
    waiting = [3]
    metrics.watch(lambda: waiting[0], lambda: waiting[0] + 2)
    assert value(metrics, "anther_queue_depth") == 3
    waiting[0] = 7
    assert (value(metrics, "anther_queue_depth"), value(metrics, "anther_inflight_requests")) == (7, 9)


def test_buckets_tell_ten_milliseconds_from_five(metrics: Metrics) -> None:
    """A picture takes about 7 ms on a core; buckets that start at 10 ms would show nothing."""
    for seconds in (0.004, 0.006, 0.009, 0.012, 0.018):
        metrics.finished("flowers", "1", "Classify", "OK", seconds)
    counts = [
        value(metrics, "anther_request_duration_seconds_bucket", **WHERE, method="Classify", le=le)
        for le in ("0.005", "0.0075", "0.01", "0.015", "0.02")
    ]
    assert counts == [1, 2, 3, 4, 5]
