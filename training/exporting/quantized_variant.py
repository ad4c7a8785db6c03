"""The int8 variant of a model: calibrated on training photos, accepted by validation, measured on the test split.

It keeps the primary model's temperature and threshold, so that the precision is all that changes for an operator. The
manifest holds its own likelihood and calibration error, which show whether the two still fit.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.golden import Golden
from bundle.variant import Variant, VariantMetrics
from training.dataset.data import Photo, read_photo
from training.dataset.split import Part
from training.errors import QuantizationFailed
from training.evaluation.intervals import wilson
from training.evaluation.metrics import calibration_error, negative_log_likelihood
from training.exporting import quantize, verify
from training.exporting.export import Graph
from training.inference import onnx_runtime, speed
from training.inference.batches import Floats, Infer, Pixels
from training.progress import Reporter
from training.runs.context import RunContext

INT8_MODEL = "model.int8.onnx"
MAX_LOSS = 0.005
"""Of top-1 accuracy: on validation for an int8 model to be kept, on the test split for a service to choose it."""

_CALIBRATION_PHOTOS, _BATCH = 128, 4  # of the flower model, 64 and 256 gave logits equally near to those of fp32


@dataclass(frozen=True)
class QuantizedVariant:
    """A model in lower precision, its logits [K, C] on the golden pictures, and its entry in the manifest."""

    data: bytes
    logits: Floats
    variant: Variant
    tolerance: float


def to_int8(
    graph: Graph,
    golden_pictures: Golden,
    probabilities: Floats,
    context: RunContext,
    reporter: Reporter,
    fine_tune: Callable[[], Graph],
) -> QuantizedVariant | None:
    """None where it cannot be made or loses too much on validation; a message gives the reason.

    `probabilities` [N, C] are what the graph gave the test photos. Where quantization after training loses too much,
    `fine_tune` gives a graph whose weights were trained for eight bits, and that one is quantized instead.
    """
    reporter.say("quantizing to int8")
    batches = list(calibration(context))
    try:
        data = quantize.to_int8(graph.data, batches)
        refusal = _judge(graph.data, data, context, reporter)
        if refusal:
            reporter.say(f"int8: {refusal}; training its weights for eight bits")
            data = quantize.to_int8(fine_tune().data, batches)
            refusal = _judge(graph.data, data, context, reporter)
    except QuantizationFailed as exc:
        reporter.say(f"no int8 model: {exc}")
        return None
    if refusal:
        reporter.say(f"no int8 model: {refusal}; the bundle holds fp32 alone")
        return None
    quantized = _measure(graph, data, golden_pictures, probabilities, context, reporter)
    found = quantized.variant
    reporter.say(
        f"int8: top-1 {found.metrics.top1:.4f} on the test split, {found.metrics.agreement:.1%} the same answers, "
        f"{found.speedup:.1f} times as fast, {found.bytes / 1e6:.1f} MB"
    )
    return quantized


def calibration(context: RunContext) -> Iterator[Pixels]:
    """Batches uint8 [n, H, W, 3] of at most 128 training photos, as many of each class as there are.

    Always the same ones: in order of their digests, from each class in turn.
    """
    photos = stratified(context.photos("train"), _CALIBRATION_PHOTOS)
    for start in range(0, len(photos), _BATCH):
        chunk = photos[start : start + _BATCH]
        yield np.stack([context.preprocessing(read_photo(context.root, photo)) for photo in chunk])


def stratified(photos: Sequence[Photo], most: int) -> list[Photo]:
    by_label: dict[str, list[Photo]] = defaultdict(list)
    for photo in sorted(photos, key=lambda photo: photo.digest):
        by_label[photo.label].append(photo)
    rounds = itertools.zip_longest(*(by_label[label] for label in sorted(by_label)))
    return [photo for photo in itertools.chain.from_iterable(rounds) if photo is not None][:most]


def over_the_limit(expected: Floats, found: Floats, targets: npt.NDArray[np.int64]) -> bool:
    """Whether probabilities [N, C] lose more top-1 accuracy than is allowed; one photo alone proves nothing."""
    lost = int((expected.argmax(1) == targets).sum()) - int((found.argmax(1) == targets).sum())
    return lost > max(MAX_LOSS * len(targets), 1)


def speedup(first: Infer, second: Infer, pixels: Pixels) -> float:
    """How many times as fast `second` is for one photo."""
    before, after = speed.compare(first, second, [photo[np.newaxis] for photo in pixels])
    return before / after


def _judge(primary: bytes, data: bytes, context: RunContext, reporter: Reporter) -> str:
    """Why the variant is refused, by its accuracy on validation; empty where it is accepted."""
    first, second = (onnx_runtime.infer(model, "probabilities") for model in (primary, data))
    both = _answers(lambda pixels: np.concatenate([first(pixels), second(pixels)], axis=1), "val", context, reporter)
    expected, found = np.split(both, 2, axis=1)
    targets = context.targets("val").numpy()
    if not over_the_limit(expected, found, targets):
        return ""
    before, after = (float((part.argmax(1) == targets).mean()) for part in (expected, found))
    return (
        f"its top-1 on {len(targets)} validation photos is {after:.4f} where fp32 has {before:.4f}, "
        f"and {MAX_LOSS:.1%} may be lost"
    )


def _measure(
    graph: Graph, data: bytes, golden_pictures: Golden, probabilities: Floats, context: RunContext, reporter: Reporter
) -> QuantizedVariant:
    infer = onnx_runtime.infer(data, "probabilities")
    found = _answers(infer, "test", context, reporter)
    logits = onnx_runtime.infer(data, "logits")(golden_pictures.pixels)
    variant = Variant(
        precision="int8",
        file=INT8_MODEL,
        bytes=len(data),
        metrics=metrics(found, probabilities, context.targets("test").numpy()),
        speedup=round(speedup(onnx_runtime.infer(graph.data, "probabilities"), infer, golden_pictures.pixels), 2),
        largest_loss=MAX_LOSS,
    )
    return QuantizedVariant(data, logits, variant, verify.int8_tolerance(golden_pictures.logits, logits))


def metrics(found: Floats, primary: Floats, targets: npt.NDArray[np.int64]) -> VariantMetrics:
    """Of probabilities [N, C] of both models and class indices [N]."""
    predicted = found.argmax(1)
    right, n = int((predicted == targets).sum()), len(targets)
    return VariantMetrics(
        n=n,
        top1=right / n,
        top1_interval=wilson(right, n),
        negative_log_likelihood=negative_log_likelihood(found, targets),
        expected_calibration_error=calibration_error(found, targets),
        agreement=float((predicted == primary.argmax(1)).mean()),
    )


def _answers(infer: Infer, part: Part, context: RunContext, reporter: Reporter) -> Floats:
    task = f"Comparing int8 on {part} photos"
    return context.inference(reporter).run(context.photos(part), context.preprocessing, infer, task).outputs
