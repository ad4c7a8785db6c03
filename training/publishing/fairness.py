"""Photos on which both versions can be judged: of classes that both know, and new to both."""

from collections.abc import Sequence
from dataclasses import dataclass

from bundle.manifest import Manifest
from training.dataset.data import Photo
from training.dataset.split import Split, place

LEAST = 20  # photos, fewer than which say next to nothing


@dataclass(frozen=True)
class Fair:
    """What of a test split is left, and what one should know of the choice."""

    photos: tuple[Photo, ...]
    remarks: tuple[str, ...] = ()


def choose(test: Sequence[Photo], seed: int, champion: Manifest, learned_from: Split | None) -> Fair:
    """Leave out what the champion trained on or was chosen by, as far as that can be known.

    A photo's part follows from its content and the split's seed alone. So with equal seeds the whole test split is new
    to the champion too; with different ones, what the champion's seed would put into its own test split is surely new.
    `learned_from` is the champion's split where its run is still there: then it is known photo by photo.
    """
    known = tuple(photo for photo in test if photo.label in champion.labels)
    theirs = champion.provenance.split_seed
    if learned_from is not None:
        seen = {photo.digest for photo in learned_from.photos if photo.part != "test"}
        new = tuple(photo for photo in known if photo.digest not in seen)
    else:
        new = tuple(photo for photo in known if theirs == seed or place(photo.digest, theirs) == "test")
    if len(new) == len(known):
        return Fair(known)
    why = f"the champion was split by seed {theirs}, this version by {seed}"
    if len(new) >= LEAST:
        return Fair(new, (f"{why}: compared only on photos that are new to both",))
    return Fair(known, (f"{why}: the champion may have trained on some of these photos, which flatters it",))
