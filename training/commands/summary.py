"""Results for a person, as tables on stdout; or for a program, as one line of JSON."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bundle.manifest import Metrics
from bundle.repository import Bundle, open_bundle
from training.evaluation.evaluate import Evaluation
from training.run import Run


def show_run(run: Run, published: Bundle | None, *, as_json: bool) -> None:
    """What was trained, how good it is, how long it took, and what to do next."""
    evaluation = run.evaluation()
    seconds = run.seconds()
    if as_json:
        version = None if published is None else published.version
        where = None if published is None else str(published.path)
        return _print_json(
            {"run": str(run.path), "bundle": where, "version": version, "seconds": seconds, **evaluation.record()}
        )
    _show_metrics(evaluation.metrics, f"{run.source().name}: {evaluation.metrics.n} photos of the test split")
    rows = [("time", ", ".join(f"{stage} {time:.1f} s" for stage, time in seconds.items())), ("run", str(run.path))]
    if published is None:
        rows.append(("next", f"anther export {run.path}"))
    else:
        rows += [
            ("report", str(run.path / "report.html")),
            ("bundle", str(published.path)),
            ("next", f"anther serve --models {published.path.parent.parent}"),
        ]
    return _show_rows(rows)


def show_evaluation(evaluation: Evaluation, *, as_json: bool) -> None:
    """Metrics, and the files that could not be measured."""
    if as_json:
        return _print_json(evaluation.record())
    _show_metrics(evaluation.metrics, f"{evaluation.of} on {evaluation.metrics.n} photos of {evaluation.photos}")
    for file in evaluation.undecodable:
        click.echo(f"not measured: {file.path}: {file.reason}", err=True)
    if evaluation.seen_in_training:
        click.echo(f"{evaluation.seen_in_training} of these photos trained or chose this model", err=True)
    return None


def show_bundle(folder: Path, *, as_json: bool) -> None:
    """Where the bundle lies and what is in it."""
    manifest = open_bundle(folder).manifest
    if as_json:
        return _print_json({"bundle": str(folder), "name": manifest.name, "files": manifest.files})
    return _show_rows(
        [
            ("bundle", str(folder)),
            ("files", ", ".join(manifest.files)),
            ("next", f"anther evaluate {folder} --data FOLDER"),
        ]
    )


def _show_metrics(metrics: Metrics, title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for name in ("precision", "recall", "F1", "photos"):
        table.add_column(name, justify="right")
    for row in metrics.per_class:
        table.add_row(row.label, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", str(row.support))
    console = Console()
    console.print(table)
    low, high = metrics.top1_interval
    _show_rows(
        [
            ("top-1", f"{metrics.top1:.4f}  (95 % interval {low:.4f} to {high:.4f})"),
            ("macro F1", f"{metrics.macro_f1:.4f}"),
            ("calibration error", f"{metrics.expected_calibration_error:.4f}"),
        ]
    )


def _show_rows(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def _print_json(record: dict[str, Any]) -> None:
    click.echo(json.dumps(record, allow_nan=False))
