"""The bundle of a finished run: graph, golden pictures, report and manifest, written only when they agree."""

import dataclasses
import hashlib
import shutil
import uuid
from pathlib import Path

import numpy as np

from bundle import golden, manifest
from bundle.golden import Golden
from bundle.manifest import CUDA, TF32, Manifest, Metrics, Model, Provenance
from bundle.precision import PrimaryPrecision
from bundle.repository import GOLDEN, MANIFEST, REPORT, Bundle
from training import provenance
from training.batch_inference import Floats, answer_all, torch_infer
from training.dataset.split import PARTS
from training.errors import OutputTaken
from training.evaluation import report
from training.evaluation.metrics import measure
from training.exporting import export, onnx_runtime, quantization_aware_training, quantized_variant, verify
from training.exporting.export import Graph
from training.exporting.quantized_variant import Lowered
from training.exporting.verify import Verification
from training.files import write_atomic
from training.networks.backbones import Classifier
from training.progress import Reporter
from training.run import Run
from training.run_context import RunContext

MODEL = "model.onnx"
_CPU = "CPUExecutionProvider"


def write(
    run: Run,
    model: Classifier,
    material: RunContext,
    folder: Path,
    reporter: Reporter,
    precision: PrimaryPrecision = "fp32",
    *,
    int8: bool = True,
    tf32: float = 0.0,
) -> None:
    """Export, verify, measure and describe; `folder` appears complete or not at all.

    The manifest's metrics are those of the exported graph itself. With `int8` there is a second graph beside one of
    fp32, unless it loses too much. `tf32` as for `pipeline.export`. Raises `VerificationFailed` or `OutputTaken`.
    """
    own = run.path / "bundle"
    if folder.exists() and folder != own:
        raise OutputTaken(folder)
    reporter.say("exporting to ONNX")
    calibration = run.calibrated().calibration
    graph = export.to_onnx(model, calibration.temperature, material.preprocessing.crop, precision)
    pictures = golden.record(material.preprocessing, torch_infer(model, model))
    verification, probabilities = prove(graph, model, pictures, material, reporter)
    run.write("verification.json", verification)
    metrics = measure(probabilities, material.targets("test").numpy(), material.split.labels, calibration)
    wanted = int8 and precision == "fp32"

    def teach() -> Graph:
        taught = quantization_aware_training.taught(model, material, run.recipe(), reporter)
        return export.to_onnx(taught, calibration.temperature, material.preprocessing.crop)

    lowered = quantized_variant.to_int8(graph, pictures, probabilities, material, reporter, teach) if wanted else None

    record = describe(run, graph, metrics, verification, material)
    if tf32 > 0:
        record = _with_tf32(record, tf32)
    if lowered is not None:
        record = _with_variant(record, lowered)
        pictures = pictures.with_variant(lowered.variant.precision, lowered.logits)
    page = report.facts(run, record)
    run.write_bytes(REPORT, report.render(page, report.mistakes(probabilities, material)).encode())
    contents = {MODEL: graph.data, GOLDEN: pictures.to_bytes(), REPORT: report.render(page).encode()}
    if lowered is not None:
        contents[lowered.variant.file] = lowered.data
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents[MANIFEST] = dataclasses.replace(record, files=digests).to_json().encode()
    _put(contents, folder)


def prove(
    graph: Graph, model: Classifier, pictures: Golden, material: RunContext, reporter: Reporter
) -> tuple[Verification, Floats]:
    """Compare torch with ONNX Runtime; returns what was found and the graph's test probabilities [N, C].

    `pictures` hold what the network answered as it was trained, with its norms; the test photos go through its folded
    form. Raises `VerificationFailed`.
    """
    labels, photos = material.split.labels, material.photos("test")
    infer = onnx_runtime.infer(graph.data, "logits", "probabilities")
    found = np.split(infer(pictures.pixels), 2, axis=1)[0]
    golden_difference = verify.compare(
        [f"golden picture {name}" for name in pictures.names], labels, pictures.logits, found, graph.precision
    )
    expected = material.logits(model, "test", reporter).outputs
    answers = answer_all(
        material.root, photos, material.preprocessing, infer, material.lanes, reporter, "Comparing with ONNX Runtime"
    ).outputs
    logits, probabilities = np.split(answers, 2, axis=1)
    difference = verify.compare([photo.path for photo in photos], labels, expected, logits, graph.precision)
    reporter.say(
        f"ONNX Runtime agrees with torch on {len(pictures.names)} golden pictures and {len(photos)} test photos, "
        f"logits within {max(difference, golden_difference):.1e}"
    )
    return Verification(len(pictures.names), len(photos), golden_difference, difference), probabilities


def describe(run: Run, graph: Graph, metrics: Metrics, verification: Verification, material: RunContext) -> Manifest:
    """The manifest but for the digests of the other files."""
    recipe, source, calibrated = run.recipe(), run.source(), run.calibrated()
    blank = hashlib.sha256(b"").hexdigest()
    return Manifest(
        schema_version=manifest.SCHEMA_VERSION,
        name=source.name,
        labels=material.split.labels,
        model=Model(
            MODEL,
            recipe.backbone,
            graph.precision,
            graph.opset,
            graph.ir_version,
            graph.parameters,
            evidence=True,
        ),
        preprocessing=material.preprocessing,
        calibration=calibrated.calibration,
        tolerances=verification.tolerances(graph.precision),
        metrics=metrics,
        provenance=Provenance(
            created=source.created,
            data_fingerprint=material.split.fingerprint,
            photos={part: len(material.photos(part)) for part in PARTS},
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


def _with_variant(record: Manifest, lowered: Lowered) -> Manifest:
    """On a CPU alone: a GPU would compute the floats that stand between the bytes."""
    variant, allowed = lowered.variant, dict(record.tolerances)
    allowed[_CPU] = {**allowed[_CPU], variant.precision: lowered.tolerance}
    files = {**record.files, variant.file: hashlib.sha256(lowered.data).hexdigest()}
    return dataclasses.replace(record, variants=(variant,), tolerances=allowed, files=files)


def copy(bundle: Bundle, folder: Path) -> None:
    """Put a bundle's checked files into an empty folder, the manifest last."""
    for file in bundle.manifest.files:
        write_atomic(folder / file, bundle.read(file))
    write_atomic(folder / MANIFEST, bundle.manifest.to_json().encode())


def _put(contents: dict[str, bytes], folder: Path) -> None:
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    for name, data in contents.items():
        write_atomic(staging / name, data)
    if folder.exists():
        shutil.rmtree(folder)
    staging.rename(folder)
