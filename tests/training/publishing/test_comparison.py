import dataclasses
import hashlib

import pytest

from training.dataset.data import Photo
from training.dataset.split import Placed, Split, place
from training.publishing import comparison


def photos(count, seed):
    """So many photos that the seed puts into the test split."""
    digests = (hashlib.sha256(str(number).encode()).hexdigest() for number in range(100 * count))
    found = [digest for digest in digests if place(digest, seed) == "test"][:count]
    return tuple(
        Photo(f"{label}/{digest}", label, digest) for digest, label in zip(found, ["red", "blue"] * count, strict=False)
    )


@pytest.fixture
def champion(finished):
    """Its manifest, split by another seed at will."""

    def with_seed(seed):
        manifest = finished.bundle.manifest
        return dataclasses.replace(manifest, provenance=dataclasses.replace(manifest.provenance, split_seed=seed))

    return with_seed


def test_with_one_seed_the_whole_test_split_is_new_to_both(champion):
    test = photos(30, seed=3)
    assert comparison.comparable_photos(test, 3, champion(3), None) == comparison.ComparablePhotos(test)


def test_photos_of_classes_that_the_champion_does_not_know_are_left_out(champion):
    test = photos(4, seed=3)
    new = tuple(dataclasses.replace(photo, label="purple") for photo in test[:2])
    assert comparison.comparable_photos((*new, *test[2:]), 3, champion(3), None).photos == test[2:]


def test_with_another_seed_only_its_own_test_photos_are_surely_new_to_the_champion(champion):
    test = photos(400, seed=3)
    fair = comparison.comparable_photos(test, 3, champion(4), None)
    assert 20 <= len(fair.photos) < 100
    assert all(place(photo.digest, 4) == "test" for photo in fair.photos)
    assert "seed 4, this version by 3: compared only on photos that are new to both" in fair.remarks[0]


def test_where_hardly_any_are_surely_new_all_are_taken_and_that_is_said(champion):
    test = photos(30, seed=3)
    fair = comparison.comparable_photos(test, 3, champion(4), None)
    assert fair.photos == test
    assert "which flatters it" in fair.remarks[0]


def test_the_champions_own_run_tells_photo_by_photo(champion):
    test = photos(40, seed=3)
    learned = [Placed(photo.path, photo.label, photo.digest, "train") for photo in test[:5]]
    measured = [Placed(photo.path, photo.label, photo.digest, "test") for photo in test[5:9]]
    split = Split(4, "", ("blue", "red"), (*learned, *measured))
    assert comparison.comparable_photos(test, 3, champion(4), split).photos == test[5:]
