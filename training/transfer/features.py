"""The frozen backbone's features of each photo, computed once and cached on disk.

The cache key holds everything that a row depends on: the photo's content, the weights, the preprocessing and the
libraries that decode and compute. New photos alone are computed, and a killed run keeps the rows that it finished.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Container, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from anther.files import replace
from bundle.preprocessing import Preprocessing
from training import provenance
from training.dataset.data import Photo
from training.inference.batches import BatchInference, Floats, Infer, torch_infer
from training.networks import weights
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.progress import Reporter

_PHOTOS_A_FILE = 2048


@dataclasses.dataclass(frozen=True)
class Cache:
    """Rows of one backbone under one key: a folder of `.npz` files that are only ever added to."""

    folder: Path

    def load(self, wanted: Container[str], reporter: Reporter) -> dict[str, Floats]:
        """Content digest → row, as far as wanted. A damaged file is reported, and its photos are computed again."""
        rows: dict[str, Floats] = {}
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    found = zip(archive["digests"].tolist(), archive["features"], strict=True)
                    rows.update((digest, row.copy()) for digest, row in found if digest in wanted)
            except (ValueError, KeyError, OSError, BadZipFile) as exc:
                reporter.say(f"{path} is damaged ({exc}); computing its photos again")
        return rows

    def add(self, digests: Sequence[str], rows: Floats) -> None:
        """Named by its content, so that two runs at once never write the same file differently."""
        buffer = io.BytesIO()
        np.savez(buffer, digests=np.array(digests), features=rows)
        name = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
        replace(self.folder / f"{name}.npz", buffer.getvalue(), make_folder=True)


def cache_for(root: Path, model: Classifier, preprocessing: Preprocessing, depths: Sequence[int] = ()) -> Cache:
    """The cache below `root` that holds rows of exactly this backbone, preprocessing and set of libraries.

    With `depths`, rows are those of these numbers of blocks, one after another.
    """
    key = {
        **({"depths": list(depths)} if depths else {}),
        "backbone": weights.digest(model.features),
        "preprocessing": dataclasses.asdict(preprocessing),
        "versions": provenance.computing_versions(),
    }
    return Cache(root / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32])


def compute(
    inference: BatchInference, photos: Sequence[Photo], model: Classifier, preprocessing: Preprocessing, cache: Cache
) -> Floats:
    """The pooled features of each photo, float32 [N, width], from the cache as far as it goes."""
    frozen = folded(model)
    return rows(inference, photos, preprocessing, torch_infer(frozen.pooled, frozen), cache)


def rows(
    inference: BatchInference, photos: Sequence[Photo], preprocessing: Preprocessing, infer: Infer, cache: Cache
) -> Floats:
    """The outputs of `infer` for each photo, float32 [N, D]; `cache` must hold rows of the same function."""
    known = cache.load({photo.digest for photo in photos}, inference.reporter)
    missing = [photo for photo in photos if photo.digest not in known]
    for start in range(0, len(missing), _PHOTOS_A_FILE):
        part = missing[start : start + _PHOTOS_A_FILE]
        found = inference.run(part, preprocessing, infer, "Computing features").outputs
        cache.add([photo.digest for photo in part], found)
        known.update(zip((photo.digest for photo in part), found, strict=True))
    return np.stack([known[photo.digest] for photo in photos])
