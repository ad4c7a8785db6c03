"""Everything that Prometheus sees of a serving process: names, units and buckets in one place.

Labels come from loaded models and from the names of tokens; what a client sends never becomes a label.
"""

import math
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, TypeVar

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

from service.core.answers import STAGES, AnyAnswer
from service.core.recorder import End, Where
from service.engines.engine import Engine
from service.versions.loader import LiveModel
from service.versions.reconcile import Change

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside every counter, which nobody queries

Together = Literal["livemin", "livemax", "livesum"]
"""How one number comes of a gauge's values in several processes; a process that has died has none."""

_VERSION = ["model", "version"]
_SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.02, 0.05, 0.1, 0.5, 1.0)
_PROBABILITY = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_SHADOW = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


_Family = TypeVar("_Family", Counter, Histogram)


@dataclass(frozen=True, slots=True)
class _Series:
    """What every answer of one version touches, looked up by labels once."""

    stages: dict[str, Histogram]
    predictions: dict[str, Counter]  # by label; a version published anew under its number may bring others
    confidence: Histogram
    abstained: Counter


class Metrics:
    """One registry per server, so that two servers in one process do not share numbers.

    `shared` where several processes have one page (`service.workers.shared_metrics`). That page reads no functions, and
    no series can be removed from it.
    """

    def __init__(self, shared: bool = False) -> None:
        self._shared = shared
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._of_versions: list[Counter | Histogram] = []
        self._requests = self._counter("requests", "Requests answered", [*_VERSION, "protocol", "method", "code"])
        self._seconds = self._histogram(
            "request_duration_seconds", "Time from request to response", [*_VERSION, "protocol", "method"], _SECONDS
        )
        self._stages = self._histogram("stage_duration_seconds", "Time per stage", [*_VERSION, "stage"], _STAGE_SECONDS)
        self._of_callers = self._counter("caller_requests", "Requests by the name of their token", ["caller", "code"])
        self._rejected = self._counter("rejected", "Requests refused, by reason", ["reason"])
        self._predictions = self._counter("predictions", "Answers by most probable label", [*_VERSION, "label"])
        self._confidence = self._histogram("confidence", "Top probability of an answer", _VERSION, _PROBABILITY)
        self._abstained = self._counter("abstained", "Answers under the model's threshold", _VERSION)
        self._rows = self._histogram("batch_size", "Images that a GPU ran at once", _VERSION, _ROWS)
        self._batches: weakref.WeakKeyDictionary[Engine, Histogram] = weakref.WeakKeyDictionary()
        info = [*_VERSION, "sha256", "provider", "precision", "architecture"]
        self._info = self._gauge("model_info", "Always 1; the labels describe the model in service", info)
        ready = "1 where the version serves, 0 where it failed its checks"
        self._ready = self._gauge("model_ready", ready, _VERSION, "livemin")
        refused = "Always 1; the reason is the kind of check that the version failed, version 0 the model's folder"
        self._refused = self._gauge("model_refused", refused, [*_VERSION, "reason"])
        self._load = self._gauge("model_load_seconds", "Time to open, check and warm the version", _VERSION)
        self._golden = self._gauge(
            "golden_max_abs_logit_difference", "Largest logit difference on the golden pictures", _VERSION
        )
        self._decoders = self._counter("decoders_ended", "Processes for slow images that ended, by reason", ["reason"])
        self._loads = self._counter("model_loads", "Attempts to load a version", ["model", "outcome"])
        self._shadowed = self._counter("shadow", "Images that a shadow got a copy of", [*_VERSION, "outcome"])
        self._shadow_difference = self._histogram(
            "shadow_probability_difference",
            "Largest difference of a probability from the live answer",
            _VERSION,
            _SHADOW,
        )
        followed = "1 where what the files say is in use, 0 where they are wrong and what was read before is"
        self._followed = self._gauge("identity_files_in_use", followed, ["files"], "livemin")
        expiry = "When the certificate in use expires; the first to expire of several"
        self._expiry = self._gauge("tls_certificate_expiry_timestamp_seconds", expiry, ["certificate"], "livemin")
        self._watched: tuple[tuple[Gauge, Callable[[], float]], ...] = ()
        self._described: dict[tuple[str, str], tuple[Gauge, ...]] = {}
        self._refusals: dict[tuple[str, str], Gauge] = {}
        self._series: dict[tuple[str, str], _Series] = {}
        self._ended: dict[tuple[str, ...], tuple[Counter, Histogram]] = {}

    def watch(
        self, queue_depth: Callable[[], float], inflight: Callable[[], float], slow_depth: Callable[[], float]
    ) -> None:
        """Read these at every scrape; where the numbers are shared, at every `sample`."""
        self._watched = (
            (self._gauge("queue_depth", "Requests waiting for a lane", [], "livesum"), queue_depth),
            (self._gauge("slow_queue_depth", "Slow images waiting for a process", [], "livesum"), slow_depth),
            (self._gauge("inflight_requests", "Requests accepted and not yet answered", [], "livesum"), inflight),
        )
        if not self._shared:
            for gauge, read in self._watched:
                gauge.set_function(read)

    def sample(self) -> None:
        for gauge, read in self._watched:
            gauge.set(read())

    def changed(self, change: Change) -> None:
        """A model's folder was followed."""
        for model in change.retired:
            self.retired(model)
        for model in change.loaded:
            self.loaded(model)
            self._loads.labels(change.name, "loaded").inc()
        for version, refusal in change.refused.items():
            self.refused_version(change.name, str(version), refusal.kind)
            self._loads.labels(change.name, "refused").inc()
        for version in change.cleared:
            self._cleared(change.name, str(version))

    def loaded(self, model: LiveModel) -> None:
        """A version came into service."""
        where, architecture = model.labels, model.bundle.manifest.model.architecture
        values = {
            self._info.labels(*where, model.sha256, model.engine.provider, model.precision, architecture): 1,
            self._ready.labels(*where): 1,
            self._load.labels(*where): model.load_s,
            self._golden.labels(*where): model.golden_difference,
        }
        for gauge, value in values.items():
            gauge.set(value)
        self._described[where] = tuple(values)
        self._series_of(model)
        if model.engine.batch_sizes[-1] > 1:
            self._batches[model.engine] = self._rows.labels(*where)

    def batch(self, engine: Engine, rows: int) -> None:
        """A batch is about to run, on any thread."""
        if (series := self._batches.get(engine)) is not None:
            series.observe(rows)

    def decoder_ended(self, reason: str) -> None:
        """A process that decoded slow images ended, on any thread."""
        self._decoders.labels(reason).inc()

    def retired(self, model: LiveModel) -> None:
        """A version left service: it is neither ready nor refused. What it answered stays until `forget`."""
        gauges = self._described.pop(model.labels, ())
        if self._shared:
            for gauge in gauges:
                gauge.set(math.nan)  # which the shared page leaves out
        else:
            for family in (self._info, self._ready, self._load, self._golden):
                _drop(family, model.labels)

    def refused_version(self, model: str, version: str, kind: str) -> None:
        """A version on disk failed its checks; an older one may serve in its place."""
        self._ready.labels(model, version).set(0)
        self._no_longer_refused((model, version))
        self._refusals[model, version] = self._refused.labels(model, version, kind)
        self._refusals[model, version].set(1)

    def shadowed(self, model: LiveModel, outcome: str, difference: float | None) -> None:
        """A shadow got a copy of a request; `difference` where it computed it."""
        self._shadowed.labels(*model.labels, outcome).inc()
        if difference is not None:
            self._shadow_difference.labels(*model.labels).observe(difference)

    def _cleared(self, model: str, version: str) -> None:
        """A refused version is gone, or its files are again those that serve."""
        self._no_longer_refused((model, version))
        if (model, version) in self._described:
            self._ready.labels(model, version).set(1)
        elif self._shared:
            self._ready.labels(model, version).set(math.nan)
        else:
            _drop(self._ready, (model, version))

    def _no_longer_refused(self, where: tuple[str, str]) -> None:
        refusal = self._refusals.pop(where, None)
        if refusal is not None and self._shared:
            refusal.set(math.nan)
        elif refusal is not None:
            _drop(self._refused, where)

    def answered(self, answer: AnyAnswer, trace_id: str = "") -> None:
        """One image was classified, or several rows of pixels. A trace's id becomes the exemplar of its stages."""
        exemplar = {"trace_id": trace_id} if trace_id else None
        series, where = self._series_of(answer.model), answer.model.labels
        for stage in STAGES:
            seconds = getattr(answer.timings, stage)
            if seconds is not None:
                series.stages[stage].observe(seconds, exemplar)
        for top in answer.tops:
            label = top.prediction.label
            predicted = series.predictions.get(label)
            if predicted is None:
                predicted = series.predictions[label] = self._predictions.labels(*where, label)
            predicted.inc()
            series.confidence.observe(top.prediction.probability)
            if not top.confident:
                series.abstained.inc()

    def ended(self, end: End) -> None:
        """A request ended; a stream as a whole is no request."""
        if end.reason:
            self._rejected.labels(end.reason).inc()
        if end.method is None:
            return
        if end.call.caller.name:
            self._of_callers.labels(end.call.caller.name, end.code).inc()
        key = (*end.where, end.call.protocol, end.method, end.code)
        ended = self._ended.get(key)
        if ended is None:
            ended = self._requests.labels(*key), self._seconds.labels(*key[:-1])
            self._ended[key] = ended
        ended[0].inc()
        trace = end.call.trace
        ended[1].observe(end.seconds, {"trace_id": trace.trace_id} if trace is not None and trace.trace_id else None)

    def followed(self, files: str, in_use: bool) -> None:
        """The files of tokens or certificates were read again."""
        self._followed.labels(files).set(in_use)

    def expires(self, certificate: str, at_s: float) -> None:
        """A certificate, or an authority of clients', came into use; `at_s` in seconds since 1970."""
        self._expiry.labels(certificate).set(at_s)

    def callers(self, names: Collection[str]) -> None:
        """The tokens changed: what is of other names leaves the page, where it is this process's own."""
        known = {sample.labels["caller"] for family in self._of_callers.collect() for sample in family.samples}
        for name in [] if self._shared else known.difference(names):
            self._of_callers.remove_by_labels({"caller": name})

    def forget(self, where: Where) -> None:
        """A version left service long ago: its series leave the page, where it is this process's own."""
        for family in [] if self._shared else self._of_versions:
            _drop(family, where)
        self._series.pop(where, None)
        for key in [key for key in list(self._ended) if key[:2] == where]:
            del self._ended[key]

    def _series_of(self, model: LiveModel) -> _Series:
        where = model.labels
        series = self._series.get(where)
        if series is None:
            series = self._series[where] = _Series(
                {stage: self._stages.labels(*where, stage) for stage in STAGES},
                {label: self._predictions.labels(*where, label) for label in model.bundle.manifest.labels},
                self._confidence.labels(*where),
                self._abstained.labels(*where),
            )
        return series

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return self._kept(Counter(f"anther_{name}", text, labels, registry=self.registry), labels)

    def _gauge(self, name: str, text: str, labels: list[str], together: Together = "livemax") -> Gauge:
        return Gauge(f"anther_{name}", text, labels, registry=self.registry, multiprocess_mode=together)

    def _histogram(self, name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
        return self._kept(Histogram(f"anther_{name}", text, labels, buckets=buckets, registry=self.registry), labels)

    def _kept(self, family: _Family, labels: list[str]) -> _Family:
        if set(_VERSION) <= set(labels):
            self._of_versions.append(family)
        return family


def _drop(family: Counter | Gauge | Histogram, where: tuple[str, str]) -> None:
    """Take a version's series off the page; what is counted on one afterwards is not shown."""
    family.remove_by_labels(dict(zip(_VERSION, where, strict=True)))
