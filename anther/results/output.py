"""Where `anther classify --output` puts results: the kind of file follows from the name's end."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

from anther.client.call_failed import CallFailed
from anther.results.errors import ModelLeft, OutputOfAnotherModel
from anther.results.formats import Csv, Format, JsonLines
from anther.results.journal import Journal
from anther.results.record import Outcome

_GONE = ("MODEL_NOT_FOUND", "VERSION_NOT_FOUND")
_FORMATS: dict[str, type[Format]] = {".jsonl": JsonLines, ".csv": Csv}


def check_installed(path: Path) -> None:
    """Raises `ModuleNotFoundError` where files of this kind need a package that is not there."""
    if path.suffix == ".parquet":
        importlib.import_module("anther.results.parquet")


@contextlib.contextmanager
def opened(path: Path, again: bool) -> Iterator[Journal]:
    """What the file holds already, and the place to add to it. `again` forgets the photos that failed.

    Raises `OutputRefused`.
    """
    if path.suffix == ".parquet":
        from anther.results import parquet as results_parquet

        with results_parquet.opened(path, again) as journal:
            yield journal
    else:
        with Journal(path, _FORMATS[path.suffix](), again) as journal:
            yield journal


def check_model(journal: Journal, path: Path, model: str, version: int) -> None:
    """All answers of a file should be those of one version. Raises `OutputOfAnotherModel`."""
    others = sorted(journal.made_by - {(model, version)})
    if others:
        recorded = ", ".join(f"{name}/{number}" for name, number in others)
        raise OutputOfAnotherModel(path, recorded, f"{model}/{version}")


def recorded(
    outcomes: Iterator[tuple[Path, Outcome]], journal: Journal, path: Path, model: str
) -> Iterator[tuple[Path, Outcome]]:
    """The same outcomes, each when it is in the file. Raises `OutputNotWritable` and `ModelLeft`."""
    for photo, outcome in outcomes:
        if isinstance(outcome, CallFailed) and outcome.reason in _GONE:  # no fault of the photo's
            raise ModelLeft(path, model, outcome.message)
        journal.add(photo, outcome)
        yield photo, outcome
