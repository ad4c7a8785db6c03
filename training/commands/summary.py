"""Results for a person, as tables on stdout; or for a program, as one line of JSON."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from anther.tables import write_rows, write_table
from bundle.manifest import Metrics
from bundle.measures import Confident
from bundle.repository import Bundle, Repository, open_bundle
from training.comparison.repeats import Repeats
from training.evaluation.intervals import wilson
from training.publishing import champion
from training.runs.records import Evaluation, UnderCorruption
from training.runs.run import Run


def show_run(
    run: Run, published: Bundle | None, *, as_json: bool, repeats: Mapping[str, Repeats] = MappingProxyType({})
) -> None:
    """What was trained, how good it is, how long it took, and what to do next; `repeats` are told by their kind."""
    evaluation = run.evaluation()
    seconds, chosen = run.seconds(), run.chosen()
    if as_json:
        version = None if published is None else published.version
        where = None if published is None else str(published.path)
        gate = None if published is None or published.manifest.gate is None else asdict(published.manifest.gate)
        why = {"strategy": run.recipe().strategy, "reasons": chosen.reasons if chosen else None}
        facts = {"run": str(run.path), "bundle": where, "version": version, "gate": gate, **why, "seconds": seconds}
        repeated = {kind: asdict(found) for kind, found in repeats.items()}
        return _print_json({**facts, **evaluation.record(), **repeated})
    show_metrics(evaluation.metrics, f"{run.source().name}: {evaluation.metrics.n} photos of the test split")
    if evaluation.corruptions:
        _show_corruptions(evaluation.corruptions)
    for kind, found in repeats.items():
        _show_repeats(kind, found)
    times = ", ".join(f"{stage} {time:.1f}\N{NO-BREAK SPACE}s" for stage, time in seconds.items() if time >= 0.05)
    rows = [("strategy", " ".join(chosen.reasons))] if chosen else []
    rows += [("time", times), ("run", str(run.path))]
    if published is None:
        rows.append(("next", f"anther export {run.path}"))
    else:
        rows += [
            ("report", str(run.path / "report.html")),
            ("bundle", str(published.path)),
            ("serving", champion.in_words(published)),
            ("next", _serving_command(published)),
        ]
    return show_rows(rows)


def _serving_command(published: Bundle) -> str:
    """Requests that name no model get this one. `./models` is where `anther serve` looks by itself."""
    root = published.path.parent.parent
    folder = [] if root == Path("models") else ["--models", str(root)]
    default = ["--default-model", published.name] if Repository(root).models() != [published.name] else []
    return shlex.join(["anther", "serve", *folder, *default])


def show_evaluation(evaluation: Evaluation, *, as_json: bool) -> None:
    """Metrics, and the files that could not be measured."""
    if as_json:
        return _print_json(evaluation.record())
    show_metrics(evaluation.metrics, f"{evaluation.of} on {evaluation.metrics.n} photos of {evaluation.photos}")
    if evaluation.corruptions:
        _show_corruptions(evaluation.corruptions)
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
    return show_rows(
        [
            ("bundle", str(folder)),
            ("files", ", ".join(manifest.files)),
            ("next", f"anther evaluate {folder} --data FOLDER"),
        ]
    )


def show_metrics(metrics: Metrics, title: str) -> None:
    """A table of the classes, and a line for each measure of the whole."""
    click.echo(f"{title}\n")
    rows = []
    for row in metrics.per_class:
        span = row.recall_interval or (wilson(round(row.recall * row.support), row.support) if row.support else None)
        numbers = (f"{row.precision:.3f}", f"{row.recall:.3f}", _span(span, 3), f"{row.f1:.3f}")
        rows.append((row.label, *numbers, str(row.support)))
    _write_numbers("class", ("precision", "recall", "95 % interval", "F1", "photos"), rows)
    show_rows(list(_metric_rows(metrics)))


def _metric_rows(metrics: Metrics) -> Iterator[tuple[str, str]]:
    """Older bundles measured less."""
    before, top_k, sure = metrics.uncalibrated, metrics.top_k, metrics.confident
    yield "top-1", f"{metrics.top1:.4f}  (95 % interval {_span(metrics.top1_interval)})"
    if top_k:
        yield f"top-{top_k.k}", f"{top_k.share:.4f}  (95 % interval {_span(top_k.interval)})"
    spread = f"  (95 % interval {_span(metrics.macro_f1_interval)})" if metrics.macro_f1_interval else ""
    yield "macro F1", f"{metrics.macro_f1:.4f}{spread}"
    calibration, likelihood = metrics.expected_calibration_error, metrics.negative_log_likelihood
    was = f"  (before temperature scaling {before.expected_calibration_error:.4f})" if before else ""
    yield "calibration error", f"{calibration:.4f}{was}"
    was = f"  (before temperature scaling {before.negative_log_likelihood:.4f})" if before else ""
    yield "log loss", f"{likelihood:.4f}{was}"
    if metrics.brier is not None:
        yield "Brier score", f"{metrics.brier:.4f}"
    if metrics.aurc is not None:
        yield "risk-coverage area", f"{metrics.aurc:.4f}"
    if sure:
        yield "confident answers", _sure(sure)


def _sure(sure: Confident) -> str:
    if sure.precision_interval is None:
        return f"none: no answer reaches probability {sure.threshold:.4g}"
    right = f"{sure.precision:.4f} of them right (95 % interval {_span(sure.precision_interval)})"
    return f"{sure.coverage:.4f} of all, from probability {sure.threshold:.4g} on; {right}"


def _span(interval: tuple[float, float] | None, digits: int = 4) -> str:
    return "" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def _show_corruptions(found: Sequence[UnderCorruption]) -> None:
    rows = [(row.corruption, f"{row.top1:.4f}", _span(row.top1_interval), f"{100 * row.lost:.1f}") for row in found]
    top1, lost = (sum(values) / len(rows) for values in zip(*((row.top1, row.lost) for row in found), strict=True))
    click.echo("\nthe same photos, made worse\n")
    headings = ("top-1", "95 % interval", "points lost")
    _write_numbers("corruption", headings, [*rows, ("mean", f"{top1:.4f}", "", f"{100 * lost:.1f}")])


def _show_repeats(kind: str, found: Repeats) -> None:
    rows = [
        (row.name, str(row.n), f"{row.top1:.4f}", f"{row.macro_f1:.4f}", f"{row.negative_log_likelihood:.4f}")
        for row in found.rows
    ]
    spreads = (found.top1, found.macro_f1, found.negative_log_likelihood)
    click.echo(f"\n{kind}: mean and standard deviation of {len(found.rows)} trainings\n")
    mean = ("mean", "", *(f"{spread.mean:.4f} ± {spread.deviation:.4f}" for spread in spreads))
    _write_numbers("training", ("photos", "top-1", "macro F1", "log loss"), [*rows, mean])


def _write_numbers(first: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    write_table((first, *headings), rows, numbers=headings)
    click.echo()


def show_rows(rows: list[tuple[str, str]]) -> None:
    """Names and values in two columns; the command to go on with stays on one line."""
    write_rows(rows, whole=("next",))


def _print_json(record: dict[str, Any]) -> None:
    click.echo(json.dumps(record, allow_nan=False))
