"""Which version a new one follows, and what came and went since among the photos that both learned from."""

from collections.abc import Iterator
from pathlib import Path

from bundle.repository import MANIFEST, Bundle, sha256_of
from bundle.verdict import Parent
from training.dataset.split import Split
from training.errors import RunUnusable
from training.run import Run


def parent(champion: Bundle, split: Split, learned_from: Split | None) -> Parent:
    """What the manifest says of the version in service. `learned_from` is None where its run is gone."""
    before = _pairs(learned_from) if learned_from is not None else None
    now = _pairs(split)
    return Parent(
        name=champion.name,
        version=champion.version,
        manifest_sha256=sha256_of(champion.path / MANIFEST),
        run=champion.manifest.provenance.run,
        photos_added=None if before is None else len(now - before),
        photos_removed=None if before is None else len(before - now),
    )


def split_of(champion: Bundle | None, runs: Path) -> Split | None:
    """The split that a version was trained on, where its run is still among `runs` (a folder of one model's runs)."""
    wanted = champion.manifest.provenance.run if champion is not None else None
    if wanted is None:
        return None
    return next((run.split() for run in every(runs) if run.has("split.json") and _id(run) == wanted), None)


def every(runs: Path) -> Iterator[Run]:
    """The runs in a model's folder, newest first."""
    if not runs.is_dir():
        return
    folders = [path for path in runs.iterdir() if path.is_dir() and not path.name.startswith(".")]
    yield from map(Run, sorted(folders, reverse=True))


def _id(run: Run) -> str | None:
    try:
        return run.source().run
    except RunUnusable:  # of no use here, and no fault of the run that asks
        return None


def _pairs(split: Split) -> set[tuple[str, str]]:
    return {(photo.digest, photo.label) for photo in split.photos}
