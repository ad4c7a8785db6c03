"""The version that a new one would replace: which one serves, what it learned from, and what changed since."""

from pathlib import Path

from bundle.errors import BundleRefused
from bundle.policy import read_policy
from bundle.repository import MANIFEST, Bundle, Repository, sha256_of
from bundle.verdict import Parent
from training.dataset.split import Split
from training.errors import RunUnusable
from training.runs.run import Run, every


def find(models: Path, name: str) -> Bundle | None:
    """The version that answers where none is named; None where there is no whole version.

    A damaged one serves nobody, so what the policy wants next comes in, and then any other, newest first. Raises
    `PolicyInvalid`, as guessing which version is in service could replace the wrong one.
    """
    repository = Repository(models)
    versions = repository.versions(name)
    wanted = [version for version in read_policy(models, name).wanted(versions) if version in versions]
    for version in dict.fromkeys((*wanted, *reversed(versions))):
        try:
            return repository.open(name, version)
        except BundleRefused:  # the service refuses it too, and reports the reason
            continue
    return None


def in_words(published: Bundle) -> str:
    """Which version serves now that there is `published`. Raises `PolicyInvalid`."""
    policy = read_policy(published.path.parent.parent, published.name)
    done = f"published as version {published.version}"
    if not policy.loaded:
        return f"{done}; {published.name} is out of service"
    if policy.versions == "latest" or policy.stable in (0, published.version):
        return f"{done}, which serves from now on"
    how = "is pinned" if policy.versions == "pinned" else "is the stable one"
    return f"{done}; version {policy.stable} {how} and goes on serving"


def parent(champion: Bundle, split: Split, learned_from: Split | None) -> Parent:
    """The record of the version in service for the manifest. `learned_from` is None where its run is deleted."""
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
    return next((found.split() for found in every(runs) if found.has("split.json") and _id(found) == wanted), None)


def _id(run: Run) -> str | None:
    try:
        return run.source().run
    except RunUnusable:  # an unreadable run is not the one that is wanted
        return None


def _pairs(split: Split) -> set[tuple[str, str]]:
    return {(photo.digest, photo.label) for photo in split.photos}
