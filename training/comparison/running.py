"""Several ways to train on the same photos, one after another, under one budget and measured on one split.

Validation measures. A choice by the test split would leave no photos to measure the chosen candidate.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anther.errors import AntherError
from anther.files import replace
from training import device, pipeline
from training.comparison import plot, table
from training.comparison.records import Candidate, Result, Row
from training.config import Machine, Recipe, toml
from training.errors import NothingCompared
from training.evaluation.intervals import wilson
from training.exporting import export
from training.files import write_json
from training.learning import distributed, loop
from training.progress import Reporter, Silent
from training.runs import run
from training.runs.context import RunContext
from training.runs.records import TrainingRequest
from training.runs.run import Run
from training.transfer import strategies

_PLAN, _RESULT = "plan.json", "result.json"


@dataclass(frozen=True)
class Plan:
    candidates: tuple[Candidate, ...]


def compare(
    request: TrainingRequest,
    recipe: Recipe,
    candidates: Sequence[Candidate],
    machine: Machine,
    reporter: Reporter,
) -> tuple[Path, list[Row]]:
    """Train all candidates below RUNS/NAME/compare-TIME; returns that folder and a row for each.

    Raises `DataRefused`, `RecipeInvalid`, `WeightsUnusable` or `DeviceUnavailable`, and `NothingCompared` where no
    candidate could be trained.
    """
    device.choose(machine)
    # Whether the weights fit is each candidate's own affair; scratch on the usual network takes any.
    made = pipeline.create(request, dataclasses.replace(recipe, strategy="scratch", backbone="mobilenet_v2"), Silent())
    base = Run(made.path.rename(made.path.with_name(f"compare-{made.path.name}")))
    reporter.say(f"comparison {base.path}")
    neutral = dataclasses.replace(recipe, strategy="finetune")
    base.write(run.RECIPE, neutral.record())
    base.write_bytes("recipe.toml", toml.write(neutral).encode())
    base.write(_PLAN, Plan(tuple(candidates)))
    return base.path, resume(base, machine, reporter)


def resume(base: Run, machine: Machine, reporter: Reporter) -> list[Row]:
    """Complete a comparison; failed candidates are tried again.

    Raises `RunUnusable` and what `compare` raises.
    """
    plan = base.find(_PLAN, Plan)
    if plan is None:
        raise NothingCompared(base.path, "it is no comparison", "give the folder RUNS/NAME/compare-TIME of one")
    pipeline.prepare(base, reporter)
    rows = [_row(base, candidate, machine, reporter) for candidate in plan.candidates]
    if all(row.result is None for row in rows):
        raise NothingCompared(base.path, f"no candidate could be trained ({rows[0].failure})", "remove the cause")
    return rows


def _row(base: Run, candidate: Candidate, machine: Machine, reporter: Reporter) -> Row:
    folder = base.path / candidate.name
    reporter.say(f"candidate  {candidate.name}")
    try:
        return Row(candidate, str(folder), _result(_derived(base, candidate), machine, reporter))
    except Exception as exc:  # torch raises almost anything, and the other candidates must not be lost for it
        if distributed.world().size > 1 and not isinstance(exc, loop.COLLECTIVE_ERRORS):
            raise  # the other processes may stand in the middle of its training
        failure = str(exc) if isinstance(exc, AntherError) else f"{type(exc).__name__}: {exc}"
    reporter.say(f"failed     {candidate.name}: {failure}")
    return Row(candidate, str(folder), None, failure)


def _derived(base: Run, candidate: Candidate) -> Run:
    """The candidate's own run, of the same photos in the same split; as it was left where it began already."""
    recipe = dataclasses.replace(base.asked(), backbone=candidate.backbone, strategy=candidate.strategy)
    return run.derive(base, base.path / candidate.name, recipe)


def _result(started: Run, machine: Machine, reporter: Reporter) -> Result:
    found = started.find(_RESULT, Result)
    if found is None:
        found = _measured(started, pipeline.fit(started, machine, reporter), reporter)
        started.write(_RESULT, found)
    return found


def _measured(trained: Run, context: RunContext, reporter: Reporter) -> Result:
    model, recipe = pipeline.trained(trained, context), trained.recipe()
    answers, targets = context.logits(model, "val", reporter).outputs, context.targets("val").numpy()
    right, n = int((answers.argmax(1) == targets).sum()), len(targets)
    strategies.freeze(model, recipe)
    seconds = trained.seconds()
    return Result(
        strategy=recipe.strategy,
        keep_blocks=recipe.keep_blocks if recipe.strategy == "truncate" else 0,
        photos=n,
        top1=right / n,
        top1_interval=wilson(right, n),
        seconds=seconds.get("strategy", 0.0) + seconds["train"],
        trainable=strategies.trainable(model),
        parameters=sum(part.numel() for part in model.parameters()),
        onnx_bytes=len(export.to_onnx(model, 1.0, recipe.crop).data),
    )


def write(folder: Path, rows: Sequence[Row]) -> None:
    """Leave `compare.json`, `compare.md` and `compare.svg`."""
    write_json(folder / "compare.json", table.record(folder, rows))
    replace(folder / "compare.md", table.markdown(folder.parent.name, rows).encode())
    replace(folder / "compare.svg", plot.svg(rows).encode())
