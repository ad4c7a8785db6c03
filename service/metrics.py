"""Everything that Prometheus sees: names, units and buckets in one place.

Labels come from loaded models alone; what a client sends never becomes a label.
"""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from service.classifier import Answer
from service.registry import LiveModel

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside every counter, which nobody queries

_VERSION = ["model", "version"]
_SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.02, 0.05, 0.1, 0.5, 1.0)
_PROBABILITY = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


_STAGES = ("queue", "decode", "preprocess", "inference", "postprocess")


@dataclass(frozen=True, slots=True)
class _Series:
    """What every answer of one version touches, looked up by labels once."""

    stages: tuple[Histogram, ...]  # in the order of _STAGES
    predictions: dict[str, Counter]  # by label
    confidence: Histogram
    abstained: Counter


class Metrics:
    """One registry per server, so that two servers in one process do not share numbers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._requests = self._counter("requests", "Requests answered", [*_VERSION, "method", "code"])
        self._seconds = self._histogram(
            "request_duration_seconds", "Time from request to response", [*_VERSION, "method"], _SECONDS
        )
        self._stages = self._histogram("stage_duration_seconds", "Time per stage", [*_VERSION, "stage"], _STAGE_SECONDS)
        self._rejected = self._counter("rejected", "Requests refused, by reason", ["reason"])
        self._predictions = self._counter("predictions", "Answers by most probable label", [*_VERSION, "label"])
        self._confidence = self._histogram("confidence", "Top probability of an answer", _VERSION, _PROBABILITY)
        self._abstained = self._counter("abstained", "Answers under the model's threshold", _VERSION)
        info = [*_VERSION, "sha256", "provider", "precision", "architecture"]
        self._info = self._gauge("model_info", "Always 1; the labels describe the model in service", info)
        self._ready = self._gauge("model_ready", "1 where the version serves, 0 where it failed its checks", _VERSION)
        self._load = self._gauge("model_load_seconds", "Time to open, check and warm the version", _VERSION)
        self._golden = self._gauge(
            "golden_max_abs_logit_difference", "Largest logit difference on the golden pictures", _VERSION
        )
        self._series: dict[tuple[str, str], _Series] = {}
        self._ended: dict[tuple[str, str, str, str], tuple[Counter, Histogram]] = {}

    def watch(self, queue_depth: Callable[[], float], inflight: Callable[[], float]) -> None:
        """Read these at every scrape."""
        self._gauge("queue_depth", "Requests waiting for a lane").set_function(queue_depth)
        self._gauge("inflight_requests", "Requests accepted and not yet answered").set_function(inflight)

    def loaded(self, model: LiveModel) -> None:
        """A version came into service."""
        where, record = (model.name, str(model.version)), model.bundle.manifest.model
        digest = model.bundle.manifest.files[record.file]
        self._info.labels(*where, digest, model.engine.provider, record.precision, record.architecture).set(1)
        self._ready.labels(*where).set(1)
        self._load.labels(*where).set(model.load_s)
        self._golden.labels(*where).set(model.golden_difference)
        self._series_of(model)

    def refused_version(self, model: str, version: str) -> None:
        """A version on disk failed its checks; an older one may serve in its place."""
        self._ready.labels(model, version).set(0)

    def answered(self, answer: Answer) -> None:
        """One picture was classified."""
        series = self._series_of(answer.model)
        timings, top = answer.timings, answer.predictions[0]
        spent = (timings.queue, timings.decode, timings.preprocess, timings.inference, timings.postprocess)
        for stage, seconds in zip(series.stages, spent, strict=True):
            stage.observe(seconds)
        series.predictions[top.label].inc()
        series.confidence.observe(top.probability)
        if not answer.confident:
            series.abstained.inc()

    def finished(self, model: str, version: str, method: str, code: str, seconds: float) -> None:
        """A request ended; `model` and `version` are empty where it named none that serves."""
        ended = self._ended.get((model, version, method, code))
        if ended is None:
            ended = (
                self._requests.labels(model, version, method, code),
                self._seconds.labels(model, version, method),
            )
            self._ended[model, version, method, code] = ended
        ended[0].inc()
        ended[1].observe(seconds)

    def refused(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def _series_of(self, model: LiveModel) -> _Series:
        where = model.labels
        series = self._series.get(where)
        if series is None:
            series = self._series[where] = _Series(
                tuple(self._stages.labels(*where, stage) for stage in _STAGES),
                {label: self._predictions.labels(*where, label) for label in model.bundle.manifest.labels},
                self._confidence.labels(*where),
                self._abstained.labels(*where),
            )
        return series

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"anther_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"anther_{name}", text, labels or [], registry=self.registry)

    def _histogram(self, name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"anther_{name}", text, labels, buckets=buckets, registry=self.registry)
