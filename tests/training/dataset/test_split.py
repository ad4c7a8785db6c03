import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.dataset.data import Photo
from training.dataset.split import PARTS, assign_folds, place, split, usable_seed
from training.errors import TooFewPhotos


def digest(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def photos(label, numbers):
    return [Photo(f"{label}/{number}.jpg", label, digest(f"{label}{number}")) for number in numbers]


OLD = photos("a", range(400)) + photos("b", range(400))


def parts(record):
    return {photo.digest: photo.part for photo in record.photos}


@given(st.sets(st.integers(0, 10**6), max_size=60), st.integers(0, 50))
def test_adding_photos_moves_no_old_photo(added, seed):
    """A photo's part depends on its content and the seed alone."""
    new = set(photos("a", added) + photos("b", added)) - set(OLD)
    before, after = parts(split(OLD, seed)), parts(split([*OLD, *new], seed))
    assert before == {key: after[key] for key in before}


@given(st.binary(), st.integers(0, 1000), st.text(max_size=5), st.text(max_size=5))
def test_copies_never_straddle(content, seed, path, other_path):
    """Whatever their paths, equal contents have equal parts."""
    found = hashlib.sha256(content).hexdigest()
    copies = Photo(path, "a", found), Photo(other_path, "a", found)
    record = split([*OLD, *copies], seed)
    assert len({photo.part for photo in record.photos if photo.digest == found}) == 1


def test_every_class_is_split_80_10_10():
    record = split(photos("a", range(4000)) + photos("b", range(2000)), 0)
    for label, count in (("a", 4000), ("b", 2000)):
        shares = [sum(p.label == label and p.part == part for p in record.photos) / count for part in PARTS]
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_the_same_photos_are_split_the_same_way_in_any_order():
    found = photos("a", range(100)) + photos("b", range(100))
    assert parts(split(found, 3)) == parts(split(found[::-1], 3))
    assert parts(split(found, 3)) != parts(split(found, 4))
    assert place(digest(1), 0) == "test"  # pinned: a new release must not reshuffle anyone's photos
    assert place(digest(7), 0) == "val"


def test_a_class_with_too_few_photos_is_refused_with_a_seed_that_works():
    scarce = photos("a", range(400)) + photos("b", range(36, 45))
    with pytest.raises(TooFewPhotos, match=r"class 'b' has 9 usable photos.*--split-seed (\d+)") as caught:
        split(scarce, 0)
    seed = int(str(caught.value).split("--split-seed ")[1].split(",")[0])
    assert {photo.part for photo in split(scarce, seed).photos if photo.label == "b"} == set(PARTS)


def test_where_no_seed_can_help_it_asks_for_photos():
    with pytest.raises(TooFewPhotos, match=r"add photos of this class$"):
        split(photos("a", range(400)) + photos("b", range(2)), 0)


def test_no_seed_is_found_for_many_tiny_classes():
    assert usable_seed([[digest(f"{label}{number}") for number in range(4)] for label in range(40)]) is None


def test_parts_and_targets_follow_the_labels():
    record = split(photos("b", range(100)) + photos("a", range(100)), 0)
    assert record.labels == ("a", "b")
    train = record.part("train")
    assert len(train) == sum(photo.part == "train" for photo in record.photos)
    assert record.targets(train) == [record.labels.index(photo.label) for photo in train]


def numbered(*counts):
    return [
        Photo(f"{label}/{number}", str(label), f"{label}:{number}")
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def test_every_class_is_dealt_out_evenly():
    found = numbered(50, 13, 3)
    place = assign_folds(found, 5)
    for label in "012":
        counts = np.bincount(
            [fold for fold, photo in zip(place, found, strict=True) if photo.label == label], minlength=5
        )
        assert counts.max() - counts.min() <= 1
    totals = np.bincount(place)
    assert totals.max() - totals.min() <= 1


def test_the_order_of_photos_does_not_matter_but_the_seed_does():
    found = numbered(20, 20)
    place = dict(zip([photo.path for photo in found], assign_folds(found, 4), strict=True))
    turned = found[::-1]
    assert place == dict(zip([photo.path for photo in turned], assign_folds(turned, 4), strict=True))
    assert list(place.values()) != assign_folds(found, 4, seed=1).tolist()
