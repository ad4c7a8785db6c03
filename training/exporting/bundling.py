"""Writes the bundle of a finished run: graph, golden pictures, report and manifest, once the graph is verified."""

import dataclasses
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anther.files import replace, temporary_path
from bundle import golden, manifest
from bundle.golden import Golden
from bundle.manifest import CUDA, TF32, Manifest, Metrics, Model, Provenance
from bundle.precision import PrimaryPrecision
from bundle.repository import GOLDEN, MANIFEST, REPORT, Bundle
from training import provenance
from training.dataset.split import PARTS
from training.errors import OutputTaken
from training.evaluation import report
from training.evaluation.metrics import measure
from training.exporting import export, quantization_aware_training, quantized_variant, verify
from training.exporting.export import Graph
from training.exporting.quantized_variant import QuantizedVariant
from training.exporting.verify import Verification
from training.inference import onnx_runtime
from training.inference.batches import Floats, torch_infer
from training.networks.backbones import Classifier
from training.progress import Reporter
from training.runs.context import RunContext
from training.runs.run import Run

MODEL = "model.onnx"
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class ExportOptions:
    """In which arithmetic a bundle's model may run."""

    precision: PrimaryPrecision = "fp32"
    int8: bool = True  # a second model beside one of fp32
    tf32: float = 0.0  # how much a golden logit may move, for a GPU to compute fp32 products with mantissas of 10 bits


DEFAULTS = ExportOptions()


def write(
    run: Run,
    model: Classifier,
    context: RunContext,
    folder: Path,
    reporter: Reporter,
    options: ExportOptions = DEFAULTS,
) -> None:
    """Export, verify and measure the model, and write its bundle into `folder` in one step.

    The manifest's metrics are those of the exported graph itself. An int8 graph that loses too much is left out. Raises
    `VerificationFailed` or `OutputTaken`.
    """
    own = run.path / "bundle"
    if folder.exists() and folder != own:
        raise OutputTaken(folder)
    reporter.say("exporting to ONNX")
    calibration = run.calibrated().calibration
    graph = export.to_onnx(model, calibration.temperature, context.preprocessing.crop, options.precision)
    golden_pictures = golden.record(context.preprocessing, torch_infer(model, model))
    verification, probabilities = prove(graph, model, golden_pictures, context, reporter)
    run.write("verification.json", verification)
    metrics = measure(probabilities, context.targets("test").numpy(), context.split.labels, calibration)
    wanted = options.int8 and options.precision == "fp32"

    def fine_tune() -> Graph:
        fine_tuned = quantization_aware_training.fine_tuned(model, context, run.recipe(), reporter)
        return export.to_onnx(fine_tuned, calibration.temperature, context.preprocessing.crop)

    quantized = (
        quantized_variant.to_int8(graph, golden_pictures, probabilities, context, reporter, fine_tune)
        if wanted
        else None
    )

    record = describe(run, graph, metrics, verification, context)
    if options.tf32 > 0:
        record = _with_tf32(record, options.tf32)
    if quantized is not None:
        record = _with_variant(record, quantized)
        golden_pictures = golden_pictures.with_variant(quantized.variant.precision, quantized.logits)
    page = report.facts(run, record)
    run.write_bytes(REPORT, report.render(page, report.mistakes(probabilities, context)).encode())
    contents = {MODEL: graph.data, GOLDEN: golden_pictures.to_bytes(), REPORT: report.render(page).encode()}
    if quantized is not None:
        contents[quantized.variant.file] = quantized.data
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents[MANIFEST] = dataclasses.replace(record, files=digests).to_json().encode()
    _put(contents, folder)


def prove(
    graph: Graph, model: Classifier, golden_pictures: Golden, context: RunContext, reporter: Reporter
) -> tuple[Verification, Floats]:
    """Compare torch with ONNX Runtime; returns what was found and the graph's test probabilities [N, C].

    `golden_pictures` hold the answers of the network with its batch norms, as it was trained. The test photos go
    through the network with its batch norms folded. Raises `VerificationFailed`.
    """
    labels, photos = context.split.labels, context.photos("test")
    infer = onnx_runtime.infer(graph.data, "logits", "probabilities")
    found = np.split(infer(golden_pictures.pixels), 2, axis=1)[0]
    golden_difference = verify.compare(
        [f"golden picture {name}" for name in golden_pictures.names],
        labels,
        golden_pictures.logits,
        found,
        graph.precision,
    )
    expected = context.logits(model, "test", reporter).outputs
    task = "Comparing with ONNX Runtime"
    answers = context.inference(reporter).run(photos, context.preprocessing, infer, task).outputs
    logits, probabilities = np.split(answers, 2, axis=1)
    difference = verify.compare([photo.path for photo in photos], labels, expected, logits, graph.precision)
    reporter.say(
        f"ONNX Runtime agrees with torch on {len(golden_pictures.names)} golden pictures and "
        f"{len(photos)} test photos, logits within {max(difference, golden_difference):.1e}"
    )
    return Verification(len(golden_pictures.names), len(photos), golden_difference, difference), probabilities


def describe(run: Run, graph: Graph, metrics: Metrics, verification: Verification, context: RunContext) -> Manifest:
    """The manifest without the digests of the other files."""
    recipe, source, calibrated = run.recipe(), run.source(), run.calibrated()
    blank = hashlib.sha256(b"").hexdigest()
    return Manifest(
        schema_version=manifest.SCHEMA_VERSION,
        name=source.name,
        labels=context.split.labels,
        model=Model(
            MODEL,
            recipe.backbone,
            graph.precision,
            graph.opset,
            graph.ir_version,
            graph.parameters,
            evidence=True,
        ),
        preprocessing=context.preprocessing,
        calibration=calibrated.calibration,
        tolerances=verification.tolerances(graph.precision),
        metrics=metrics,
        provenance=Provenance(
            created=source.created,
            data_fingerprint=context.split.fingerprint,
            photos={part: len(context.photos(part)) for part in PARTS},
            split_seed=recipe.split_seed,
            seed=recipe.seed,
            strategy=recipe.strategy,
            recipe=run.used(),
            weights=source.weights_identity,
            versions={**provenance.versions(), "onnxruntime": onnx_runtime.version()},
            git_commit=provenance.git_commit(),
            run=source.run,
        ),
        reference=calibrated.reference,
        files=dict.fromkeys((MODEL, GOLDEN, REPORT), blank),
    )


def _with_tf32(record: Manifest, tolerance: float) -> Manifest:
    allowed = {**record.tolerances, CUDA: {**record.tolerances[CUDA], TF32: tolerance}}
    return dataclasses.replace(record, tolerances=allowed)


def _with_variant(record: Manifest, quantized: QuantizedVariant) -> Manifest:
    """On a CPU alone: a GPU would compute the floats that stand between the bytes."""
    variant, allowed = quantized.variant, dict(record.tolerances)
    allowed[_CPU] = {**allowed[_CPU], variant.precision: quantized.tolerance}
    files = {**record.files, variant.file: hashlib.sha256(quantized.data).hexdigest()}
    return dataclasses.replace(record, variants=(variant,), tolerances=allowed, files=files)


def copy(bundle: Bundle, folder: Path) -> None:
    """Put a bundle's checked files into an empty folder, the manifest last."""
    for file in bundle.manifest.files:
        replace(folder / file, bundle.read(file), make_folder=True)
    replace(folder / MANIFEST, bundle.manifest.to_json().encode())


def _put(contents: dict[str, bytes], folder: Path) -> None:
    staging = temporary_path(folder)
    for name, data in contents.items():
        replace(staging / name, data, make_folder=True)
    if folder.exists():
        shutil.rmtree(folder)
    staging.rename(folder)
