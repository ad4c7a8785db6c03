import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from anther.files import locked_folder
from bundle.preprocessing import decode
from training.config import Recipe
from training.dataset import data, decoded
from training.dataset.decoded import store
from training.errors import DiskUnusable, PhotoChanged, StoreDamaged
from training.learning.loader import Views
from training.progress import Silent


class Speaker(Silent):
    def __init__(self):
        self.said, self.tracked = [], []

    def say(self, text):
        self.said.append(text)

    def track(self, items, what, total):
        for item in items:
            self.tracked.append(what)
            yield item

    def decoded(self):
        return sum(what.startswith("Decoding") for what in self.tracked)


@pytest.fixture
def folder(tmp_path, draw):
    """Nine photos of 48 × 40."""
    for number in range(9):
        draw(tmp_path / "photos", "red", number)
    return tmp_path / "photos"


@pytest.fixture
def photos(folder):
    return data.scan(folder, Silent()).photos


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def original(folder, photo):
    return decode((folder / photo.path).read_bytes())


def shards(cache):
    return sorted(cache.rglob("*.rgb"))


def test_small_photos_are_kept_exactly_as_they_decode(folder, photos, cache):
    stored = store(folder, photos, 40, cache, Silent())
    for photo in photos:
        np.testing.assert_array_equal(stored.photo(photo.digest), original(folder, photo))


def test_large_photos_are_shrunken_to_the_short_side(folder, photos, cache):
    stored = store(folder, photos, 20, cache, Silent())
    found = stored.photo(photos[3].digest)
    assert found.size == (24, 20)
    expected = original(folder, photos[3]).resize((24, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, expected)


def test_views_of_stored_photos_equal_those_of_files(folder, photos, cache):
    recipe = Recipe(train_size=32)
    plain = Views(folder, photos, [0] * 9, recipe)
    fast = Views(folder, photos, [0] * 9, recipe, store(folder, photos, 40, cache, Silent()))
    expected = [plain[(1, index)][0] for index in range(9)]
    shutil.rmtree(folder)
    assert all(torch.equal(expected[index], fast[(1, index)][0]) for index in range(9))


def test_only_new_photos_are_decoded(folder, photos, cache, draw):
    store(folder, photos[:4], 40, cache, Silent())
    reporter = Speaker()
    stored = store(folder, photos, 40, cache, reporter)
    assert reporter.decoded() == 5
    assert set(stored.places) == {photo.digest for photo in photos}
    again = Speaker()
    assert store(folder, photos, 40, cache, again) == stored
    assert (again.decoded(), again.said) == (0, [])


def test_another_size_is_another_store(folder, photos, cache):
    store(folder, photos, 40, cache, Silent())
    reporter = Speaker()
    store(folder, photos, 20, cache, reporter)
    assert reporter.decoded() == 9
    assert len(shards(cache)) == 2


def test_what_other_photos_left_is_neither_read_nor_needed(folder, photos, cache):
    store(folder, photos[:4], 40, cache, Silent())
    shards(cache)[0].write_bytes(bytes(shards(cache)[0].stat().st_size))
    reporter = Speaker()
    store(folder, photos[4:], 40, cache, reporter)
    assert reporter.decoded() == 5
    assert len(shards(cache)) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda shard: shard.write_bytes(shard.read_bytes()[:-1]),
        lambda shard: shard.write_bytes(bytes(shard.stat().st_size)),
        lambda shard: shard.unlink(),
        lambda shard: shard.with_suffix(".json").write_text("{"),
        lambda shard: shard.with_suffix(".json").write_text("{}"),
        lambda shard: shard.with_suffix(".json").write_text('{"photos": [["a"]]}'),
        lambda shard: shard.with_suffix(".json").write_text('{"photos": 1}'),
        lambda shard: shard.with_suffix(".json").write_text(
            shard.with_suffix(".json").read_text().replace("48", "47", 1)
        ),
    ],
    ids=["cut", "zeros", "gone", "no JSON", "empty index", "short row", "no rows", "wrong size"],
)
def test_a_damaged_shard_is_said_and_decoded_again(folder, photos, cache, damage):
    store(folder, photos, 40, cache, Silent())
    damage(shards(cache)[0])
    reporter = Speaker()
    stored = store(folder, photos, 40, cache, reporter)
    assert "is damaged; decoding its photos again" in reporter.said[0]
    assert reporter.decoded() == 9
    np.testing.assert_array_equal(stored.photo(photos[8].digest), original(folder, photos[8]))


def test_a_killed_writer_leaves_nothing_that_counts(folder, photos, cache):
    store(folder, photos[:4], 40, cache, Silent())
    home = shards(cache)[0].parent
    (home / ".half").write_bytes(b"x")
    (home / "shard-without-index.rgb").write_bytes(b"x")
    store(folder, photos[:4], 40, cache, Silent())
    assert len(list(home.iterdir())) == 2


def test_one_writes_while_others_wait_and_decode_nothing(folder, photos, cache):
    first = store(folder, photos[:1], 40, cache, Silent())
    reporter, results = Speaker(), []
    waiting = threading.Thread(target=lambda: results.append(store(folder, photos[:1], 40, cache, reporter)))
    with locked_folder(first.folder):
        waiting.start()
        waiting.join(0.2)
        assert results == []
    waiting.join()
    assert results == [first]
    assert reporter.decoded() == 0


def test_the_size_is_said_before_it_is_taken(folder, photos, cache):
    reporter = Speaker()
    store(folder, photos, 40, cache, reporter)
    assert reporter.said[0].startswith(f"keeping 9 decoded photos in {shards(cache)[0].parent}, about 0.00 GB")
    assert decoded._bytes(folder, photos, 40) == 9 * 48 * 40 * 3
    assert decoded._bytes(folder, photos, 20) == 9 * 24 * 20 * 3


def test_a_disk_without_room_is_a_sentence_and_nothing_is_written(folder, photos, cache):
    cache.mkdir()
    with pytest.raises(
        DiskUnusable, match=r"9 decoded photos need about 0\.00 GB, and 0\.00 GB are free; use a smaller"
    ):
        decoded._require_room(9, needed=1000, free=1000, folder=cache)
    decoded._require_room(9, needed=800, free=1000, folder=cache)


def test_a_place_that_cannot_be_written_is_a_sentence(folder, photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskUnusable, match="Not a directory; free some space, or use --stored-size 0"):
        store(folder, photos, 40, tmp_path / "file" / "cache", Silent())


def test_a_photo_that_changed_is_refused_and_leaves_no_half_shard(folder, photos, cache):
    (folder / photos[8].path).write_bytes(b"another")
    with pytest.raises(PhotoChanged):
        store(folder, photos, 40, cache, Silent())
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_shard_that_goes_away_while_training_is_a_sentence(folder, photos, cache):
    stored = store(folder, photos, 40, cache, Silent())
    shards(cache)[0].write_bytes(b"x")
    with pytest.raises(StoreDamaged, match="is cut short; run the command again, which decodes its photos anew"):
        stored.photo(photos[0].digest)
    shards(cache)[0].unlink()
    with pytest.raises(StoreDamaged, match="unreadable"):
        stored.photo(photos[0].digest)


def test_many_photos_lie_in_several_shards(folder, photos, cache):
    stored = store(folder, photos, 40, cache, Silent(), photos_a_shard=4)
    assert len(shards(cache)) == 3
    np.testing.assert_array_equal(stored.photo(photos[8].digest), original(folder, photos[8]))
