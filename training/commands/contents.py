"""What is in a bundle, as a table or as its manifest on one line."""

import json
from pathlib import Path

import click

from bundle.manifest import Manifest
from bundle.repository import open_bundle
from bundle.variant import Variant
from training.commands import summary


def show(folder: Path, *, as_json: bool) -> None:
    """Raises `BundleRefused` where a file is not the one that was published."""
    bundle = open_bundle(folder)
    if as_json:
        click.echo(json.dumps(json.loads(bundle.manifest.to_json())))
        return
    summary.show_metrics(bundle.manifest.metrics, f"{folder}: measured on {bundle.manifest.metrics.n} test photos")
    click.echo()
    summary.show_rows([*_model(bundle.manifest), *_calibration(bundle.manifest), *_provenance(bundle.manifest)])


def _model(manifest: Manifest) -> list[tuple[str, str]]:
    model, preprocessing = manifest.model, manifest.preprocessing
    tolerances = (
        f"{provider} {precision} {tolerance:g}"
        for provider, found in manifest.tolerances.items()
        for precision, tolerance in found.items()
    )
    return [
        ("name", manifest.name),
        ("labels", ", ".join(manifest.labels)),
        ("model", f"{model.architecture}, {model.parameters:,} parameters, {model.precision}"),
        ("pixels", f"short side {preprocessing.resize}, centre {preprocessing.crop}, {preprocessing.interpolation}"),
        *((variant.precision, _variant(variant)) for variant in manifest.variants),
        ("tolerances", ", ".join(tolerances)),
        ("files", ", ".join(manifest.files)),
    ]


def _variant(variant: Variant) -> str:
    return f"{variant.bytes / 1e6:.1f} MB, top-1 {variant.metrics.top1:.4f}, {variant.speedup:.2f} times as fast"


def _calibration(manifest: Manifest) -> list[tuple[str, str]]:
    found = manifest.calibration
    least = "" if found.precision_lower_bound is None else f", at least {found.precision_lower_bound:.4f}"
    right = f"{found.precision_at_threshold:.4f} right{least}, {found.coverage_at_threshold:.4f} of all"
    return [("temperature", f"{found.temperature:g}"), ("threshold", f"{found.threshold:g} (on validation {right})")]


def _provenance(manifest: Manifest) -> list[tuple[str, str]]:
    found, gate, parent = manifest.provenance, manifest.gate, manifest.provenance.parent
    verdict = [] if gate is None else [("gate", f"{'passed' if gate.passed else 'failed'}: {' '.join(gate.reasons)}")]
    return [
        ("created", found.created),
        ("strategy", found.strategy),
        ("weights", found.weights),
        ("photos", ", ".join(f"{count} {part}" for part, count in found.photos.items())),
        ("data", found.data_fingerprint),
        ("seeds", f"{found.seed}, of the split {found.split_seed}"),
        *([("code", found.code)] if found.code else []),
        *([] if parent is None else [("parent", f"{parent.name}/{parent.version}")]),
        *verdict,
    ]
