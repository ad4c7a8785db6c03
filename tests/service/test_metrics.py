"""The numbers that dashboards and alerts rely on: names, units, labels."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest, values

from bundle.repository import Repository
from service.core.answers import Answer, PixelsAnswer, Prediction, Timings, Top
from service.core.call import Call, Caller
from service.core.recorder import End, Recorder
from service.engines.engine import Outputs, open_on_cpu
from service.metrics import Metrics
from service.scheduling.scheduler import RunTiming
from service.versions.loader import LiveModel
from service.versions.reconcile import Change, Refusal
from service.versions.registry import Registry
from service.workers import shared_metrics

CALL = Call("grpc", Caller("192.0.2.1"))
WHERE = {"model": "flowers", "version": "1"}
VERSION = {"model", "version"}
FAMILIES = {  # name as Prometheus shows it → type and labels
    "anther_requests_total": ("counter", {*VERSION, "protocol", "method", "code"}),
    "anther_request_duration_seconds": ("histogram", {*VERSION, "protocol", "method"}),
    "anther_stage_duration_seconds": ("histogram", {*VERSION, "stage"}),
    "anther_caller_requests_total": ("counter", {"caller", "code"}),
    "anther_identity_files_in_use": ("gauge", {"files"}),
    "anther_tls_certificate_expiry_timestamp_seconds": ("gauge", {"certificate"}),
    "anther_rejected_total": ("counter", {"reason"}),
    "anther_predictions_total": ("counter", {*VERSION, "label"}),
    "anther_confidence": ("histogram", VERSION),
    "anther_abstained_total": ("counter", VERSION),
    "anther_batch_size": ("histogram", VERSION),
    "anther_model_info": ("gauge", {*VERSION, "sha256", "provider", "precision", "architecture"}),
    "anther_model_ready": ("gauge", VERSION),
    "anther_model_refused": ("gauge", {*VERSION, "reason"}),
    "anther_model_load_seconds": ("gauge", VERSION),
    "anther_golden_max_abs_logit_difference": ("gauge", VERSION),
    "anther_model_loads_total": ("counter", {"model", "outcome"}),
    "anther_shadow_total": ("counter", {*VERSION, "outcome"}),
    "anther_shadow_probability_difference": ("histogram", VERSION),
    "anther_queue_depth": ("gauge", set()),
    "anther_slow_queue_depth": ("gauge", set()),
    "anther_decoders_ended_total": ("counter", {"reason"}),
    "anther_inflight_requests": ("gauge", set()),
}


class BatchingEngine:
    """Stands for one on a GPU."""

    provider, precision, batch_sizes = "CUDAExecutionProvider", "fp32", (1, 2, 4)


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
    row = np.zeros((1, 3), np.float32)
    return Answer(model, predictions, True, Timings(0.5, 0.25, 0.125, 2.0, 1.0), Outputs(row, row), RunTiming(0.5, 2.0))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Inside, this process is one of several workers."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    with shared_metrics.folder(tmp_path) as path:
        shared_metrics.join(path, 0)
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(path))
        yield path


def change(
    loaded: tuple[LiveModel, ...] = (),
    retired: tuple[LiveModel, ...] = (),
    refused: Mapping[int, str] = MappingProxyType({}),  # by kind
    cleared: tuple[int, ...] = (),
) -> Change:
    refusals = {version: Refusal("a sentence", kind, ()) for version, kind in refused.items()}
    return Change("flowers", True, loaded, retired, refusals, cleared)


def versions(model: LiveModel, *numbers: int) -> list[LiveModel]:
    """The same model under other numbers."""
    bundles = [dataclasses.replace(model.bundle, version=number) for number in numbers]
    return [dataclasses.replace(model, bundle=bundle) for bundle in bundles]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def everything(metrics: Metrics, answer: Answer) -> None:
    metrics.watch(lambda: 3, lambda: 4, lambda: 5)
    batching = dataclasses.replace(answer.model, engine=BatchingEngine())
    metrics.changed(change(loaded=(answer.model, batching), refused={3: "GOLDEN_MISMATCH"}))
    metrics.batch(batching.engine, 3)
    metrics.answered(answer)
    metrics.ended(End(CALL, answer.model, "Classify", "RESOURCE_EXHAUSTED", 0.01, "QUEUE_FULL"))
    metrics.ended(End(Call("grpc", Caller("shop", "shop")), None, "ListModels", "OK", 0.01))
    metrics.followed("tokens", in_use=True)
    metrics.expires("server", 1.0)
    metrics.shadowed(answer.model, "agree", 0.01)
    metrics.decoder_ended("memory")
    metrics.sample()


def families(registry: CollectorRegistry) -> dict[str, tuple[str, set[str]]]:
    found = {}
    for family in registry.collect():
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, labels)
    return found


def test_every_family_has_its_name_type_and_labels(metrics: Metrics, answer: Answer) -> None:
    everything(metrics, answer)
    found = families(metrics.registry)
    assert {name: what for name, what in found.items() if name.startswith("anther_")} == FAMILIES
    assert "_created" not in generate_latest(metrics.registry).decode()
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "python_info"} <= found.keys()


def test_several_workers_have_the_same_families_together(folder: Path, answer: Answer) -> None:
    """Dashboards and alerts must not depend on the number of workers."""
    everything(Metrics(shared=True), answer)
    page = shared_metrics.page(folder, dict)
    found = families(page)
    assert {name: what for name, what in found.items() if name.startswith("anther_")} == FAMILIES
    assert (page.get_sample_value("anther_queue_depth"), page.get_sample_value("anther_inflight_requests")) == (3, 4)


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
    assert value(metrics, "anther_predictions_total", **WHERE, label="daisy") == 0
    assert value(metrics, "anther_confidence_sum", **WHERE) == 0.75
    assert value(metrics, "anther_confidence_bucket", **WHERE, le="0.7") == 0
    assert value(metrics, "anther_confidence_bucket", **WHERE, le="0.8") == 1


def test_a_version_published_anew_under_its_number_may_have_other_labels(metrics: Metrics, answer: Answer) -> None:
    metrics.loaded(answer.model)
    metrics.answered(dataclasses.replace(answer, predictions=(Prediction("asters", 0, 0.75),)))
    metrics.answered(answer)
    assert value(metrics, "anther_predictions_total", **WHERE, label="asters") == 1
    assert value(metrics, "anther_predictions_total", **WHERE, label="tulips") == 1


def test_rows_of_pixels_count_like_images_without_the_stages_they_skip(metrics: Metrics, answer: Answer) -> None:
    tops = (Top(Prediction("tulips", 1, 0.75), True), Top(Prediction("daisy", 0, 0.5), False))
    timings = Timings(0.5, None, None, 1.0, 0.25)
    metrics.answered(PixelsAnswer(answer.model, answer.outputs, tops, timings, (answer.run,)))
    counted = [value(metrics, "anther_predictions_total", **WHERE, label=label) for label in ("tulips", "daisy")]
    assert counted == [1, 1]
    assert value(metrics, "anther_confidence_count", **WHERE) == 2
    assert value(metrics, "anther_abstained_total", **WHERE) == 1
    stages = ("queue", "decode", "preprocess", "inference", "postprocess")
    assert [value(metrics, "anther_stage_duration_seconds_count", **WHERE, stage=stage) for stage in stages] == [
        1, 0, 0, 1, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(("confident", "abstained"), [(True, 0), (False, 1)])
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


def test_calls_are_counted_by_code_and_timed(metrics: Metrics, model: LiveModel) -> None:
    metrics.ended(End(CALL, model, "Classify", "OK", 0.25))
    metrics.ended(End(CALL, model, "Classify", "UNAVAILABLE", 0.5, "DRAINING"))
    metrics.ended(End(CALL, None, "ListModels", "OK", 0.5))
    assert value(metrics, "anther_requests_total", **WHERE, protocol="grpc", method="Classify", code="OK") == 1
    assert value(metrics, "anther_requests_total", **WHERE, protocol="grpc", method="Classify", code="UNAVAILABLE") == 1
    assert value(metrics, "anther_request_duration_seconds_sum", **WHERE, protocol="grpc", method="Classify") == 0.75


def test_refusals_are_counted_by_reason(metrics: Metrics) -> None:
    metrics.ended(End(CALL, None, "Classify", "RESOURCE_EXHAUSTED", 0.01, "QUEUE_FULL"))
    metrics.ended(End(CALL, None, None, "RESOURCE_EXHAUSTED", 0.01, "QUEUE_FULL"))  # a stream as a whole
    assert value(metrics, "anther_rejected_total", reason="QUEUE_FULL") == 2


def test_the_queue_is_read_at_every_scrape(metrics: Metrics) -> None:
    waiting = [3]
    metrics.watch(lambda: waiting[0], lambda: waiting[0] + 2, lambda: 0)
    assert value(metrics, "anther_queue_depth") == 3
    waiting[0] = 7
    assert (value(metrics, "anther_queue_depth"), value(metrics, "anther_inflight_requests")) == (7, 9)


def test_buckets_tell_ten_milliseconds_from_five(metrics: Metrics, model: LiveModel) -> None:
    """An image takes about 7 ms on a core; buckets that start at 10 ms would show nothing."""
    for seconds in (0.004, 0.006, 0.009, 0.012, 0.018):
        metrics.ended(End(CALL, model, "Classify", "OK", seconds))
    counts = [
        value(metrics, "anther_request_duration_seconds_bucket", **WHERE, protocol="grpc", method="Classify", le=le)
        for le in ("0.005", "0.0075", "0.01", "0.015", "0.02")
    ]
    assert counts == [1, 2, 3, 4, 5]


# Versions come and go


@pytest.mark.parametrize("family", ["anther_model_ready", "anther_model_load_seconds"])
def test_a_retired_version_is_neither_ready_nor_refused(metrics: Metrics, model: LiveModel, family: str) -> None:
    """A 0 would say that it was refused, and an alert waits for that."""
    old, new = versions(model, 1, 2)
    metrics.loaded(old)
    metrics.changed(change(loaded=(new,), retired=(old,)))
    assert value(metrics, family, **WHERE) is None
    assert value(metrics, family, model="flowers", version="2") is not None
    assert (
        'anther_model_info{architecture="colours",model="flowers",precision="fp32",provider="CPUExecutionProvider",'
        in (generate_latest(metrics.registry).decode())
    )
    assert generate_latest(metrics.registry).decode().count("anther_model_info{") == 1


def test_with_several_workers_a_retired_version_leaves_their_page(folder: Path, model: LiveModel) -> None:
    metrics, page = Metrics(shared=True), shared_metrics.page(folder, dict)
    old, new = versions(model, 1, 2)
    metrics.loaded(old)
    metrics.changed(change(loaded=(new,), retired=(old,)))
    assert page.get_sample_value("anther_model_ready", WHERE) is None
    assert page.get_sample_value("anther_model_ready", {"model": "flowers", "version": "2"}) == 1
    assert generate_latest(page).decode().count("anther_model_info{") == 1
    metrics.changed(change(loaded=(old,), retired=(new,)))
    assert page.get_sample_value("anther_model_ready", WHERE) == 1


def test_what_a_retired_version_answered_stays_counted(metrics: Metrics, answer: Answer) -> None:
    metrics.loaded(answer.model)
    metrics.answered(answer)
    metrics.retired(answer.model)
    assert value(metrics, "anther_predictions_total", **WHERE, label="tulips") == 1
    metrics.answered(answer)  # it was in flight
    assert value(metrics, "anther_predictions_total", **WHERE, label="tulips") == 2
    assert value(metrics, "anther_model_ready", **WHERE) is None


def both(metrics: Metrics, recorder: Recorder, happened: Change) -> None:
    """What the registry tells its listeners."""
    metrics.changed(happened)
    recorder.changed(happened)


def test_versions_that_left_long_ago_are_forgotten(metrics: Metrics, answer: Answer) -> None:
    """Else every reload would make the page and the memory grow."""
    recorder = Recorder((metrics,))
    first, *others = versions(answer.model, *range(1, 12))
    for model in (first, *others):
        both(metrics, recorder, change(loaded=(model,)))
        recorder.answered(dataclasses.replace(answer, model=model))
        recorder.ended(End(CALL, model, "Classify", "OK", 0.01))
        both(metrics, recorder, change(retired=(model,)))
    text = generate_latest(metrics.registry).decode()
    assert [number for number in range(1, 12) if f'version="{number}"' in text] == list(range(4, 12))
    assert {where for where, *_ in metrics._series.items()} == {("flowers", str(number)) for number in range(4, 12)}
    recorder.ended(End(CALL, first, "Classify", "OK", 0.01))
    assert value(metrics, "anther_requests_total", **WHERE, protocol="grpc", method="Classify", code="OK") == 1


def test_a_version_that_came_back_is_not_forgotten(metrics: Metrics, answer: Answer) -> None:
    recorder = Recorder((metrics,))
    first, *others = versions(answer.model, *range(1, 12))
    both(metrics, recorder, change(loaded=(first,)))
    recorder.answered(answer)
    both(metrics, recorder, change(loaded=(first,), retired=(first,)))
    for model in others:
        both(metrics, recorder, change(loaded=(model,)))
        both(metrics, recorder, change(retired=(model,)))
    assert value(metrics, "anther_predictions_total", **WHERE, label="tulips") == 1
    assert value(metrics, "anther_model_ready", **WHERE) == 1


def test_with_several_workers_what_was_forgotten_is_found_again_in_the_files(folder: Path, answer: Answer) -> None:
    """Nothing can be taken out of them, so a version that comes back must go on where it was."""
    metrics, page = Metrics(shared=True), shared_metrics.page(folder, dict)
    recorder = Recorder((metrics,))
    for model in versions(answer.model, *range(1, 12), 1):
        both(metrics, recorder, change(loaded=(model,)))
        recorder.answered(dataclasses.replace(answer, model=model))
        both(metrics, recorder, change(retired=(model,)))
    assert page.get_sample_value("anther_predictions_total", {**WHERE, "label": "tulips"}) == 2


def check_that_a_refusal_is_cleared(metrics: Metrics, page: CollectorRegistry, model: LiveModel) -> None:
    where = {"model": "flowers", "version": "2"}
    metrics.changed(change(loaded=(model,), refused={2: "BUNDLE_CORRUPT"}))
    assert page.get_sample_value("anther_model_ready", where) == 0
    assert page.get_sample_value("anther_model_refused", {**where, "reason": "BUNDLE_CORRUPT"}) == 1
    metrics.changed(change(refused={2: "GOLDEN_MISMATCH"}))  # its files were changed
    assert page.get_sample_value("anther_model_refused", {**where, "reason": "BUNDLE_CORRUPT"}) is None
    assert page.get_sample_value("anther_model_refused", {**where, "reason": "GOLDEN_MISMATCH"}) == 1
    assert page.get_sample_value("anther_model_loads_total", {"model": "flowers", "outcome": "refused"}) == 2
    metrics.changed(change(cleared=(2,)))
    assert page.get_sample_value("anther_model_ready", where) is None
    assert page.get_sample_value("anther_model_refused", {**where, "reason": "GOLDEN_MISMATCH"}) is None
    assert page.get_sample_value("anther_model_ready", WHERE) == 1


def test_a_refused_version_is_0_until_it_is_gone(metrics: Metrics, model: LiveModel) -> None:
    check_that_a_refusal_is_cleared(metrics, metrics.registry, model)


def test_with_several_workers_a_refused_version_is_0_until_it_is_gone(folder: Path, model: LiveModel) -> None:
    check_that_a_refusal_is_cleared(Metrics(shared=True), shared_metrics.page(folder, dict), model)


def test_a_serving_version_whose_copy_was_refused_is_ready_again(metrics: Metrics, model: LiveModel) -> None:
    metrics.changed(change(loaded=(model,), refused={1: "BUNDLE_CORRUPT"}))
    metrics.changed(change(cleared=(1,)))
    assert value(metrics, "anther_model_ready", **WHERE) == 1


def test_a_shadow_that_computed_nothing_has_no_difference(metrics: Metrics, model: LiveModel) -> None:
    metrics.shadowed(model, "dropped", None)
    metrics.shadowed(model, "disagree", 0.5)
    assert value(metrics, "anther_shadow_total", **WHERE, outcome="dropped") == 1
    assert value(metrics, "anther_shadow_probability_difference_count", **WHERE) == 1


def test_a_revoked_token_leaves_the_page(metrics: Metrics) -> None:
    for name in ("shop", "press"):
        metrics.ended(End(Call("grpc", Caller(name, name)), None, "ListModels", "OK", 0.01))
    metrics.callers({"press"})
    assert value(metrics, "anther_caller_requests_total", caller="shop", code="OK") is None
    assert value(metrics, "anther_caller_requests_total", caller="press", code="OK") == 1
