import numpy as np

from training.dataset.data import Photo
from training.dataset.split import assign_folds


def photos(*counts):
    return [
        Photo(f"{label}/{number}", str(label), f"{label}:{number}")
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def test_every_class_is_dealt_out_evenly():
    found = photos(50, 13, 3)
    place = assign_folds(found, 5)
    for label in "012":
        counts = np.bincount(
            [fold for fold, photo in zip(place, found, strict=True) if photo.label == label], minlength=5
        )
        assert counts.max() - counts.min() <= 1
    totals = np.bincount(place)
    assert totals.max() - totals.min() <= 1


def test_the_order_of_photos_does_not_matter_but_the_seed_does():
    found = photos(20, 20)
    place = dict(zip([photo.path for photo in found], assign_folds(found, 4), strict=True))
    turned = found[::-1]
    assert place == dict(zip([photo.path for photo in turned], assign_folds(turned, 4), strict=True))
    assert list(place.values()) != assign_folds(found, 4, seed=1).tolist()
