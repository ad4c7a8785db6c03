import hashlib
import os
import shutil
import time

import pytest
from PIL import Image

from training.dataset import data
from training.dataset.data import Check, Photo, Undecodable
from training.dataset.listing import Listed
from training.dataset.tables import Columns
from training.errors import (
    DataMissing,
    EmptyClass,
    FlatFolder,
    LabelConflict,
    NoPhotos,
    OneClass,
    PhotoChanged,
    TableUnusable,
)
from training.progress import Silent


@pytest.fixture
def folder(tmp_path, draw):
    for label in ("blue", "red"):
        for number in range(3):
            draw(tmp_path, label, number)
    return tmp_path


def scan(root):
    return data.scan(root, Silent())


def test_photos_carry_path_label_and_digest_of_their_content(folder):
    found = scan(folder)
    assert found.labels == ("blue", "red")
    assert [photo.path for photo in found.photos[:2]] == ["blue/000.png", "blue/001.png"]
    first = folder / "blue" / "000.png"
    assert found.photos[0] == Photo("blue/000.png", "blue", hashlib.sha256(first.read_bytes()).hexdigest())


def test_files_that_the_service_would_refuse_are_listed_with_the_reason(folder):
    """The decoder is the service's own, so truncated data and text are refused here too."""
    whole = (folder / "blue" / "000.png").read_bytes()
    (folder / "blue" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "red" / "notes.txt").write_text("no photo")
    Image.new("RGB", (2, 201)).save(folder / "red" / "thin.png")
    found = scan(folder)
    assert [file.path for file in found.undecodable] == ["blue/cut.png", "red/notes.txt", "red/thin.png"]
    assert "cannot be decoded" in found.undecodable[0].reason
    assert "allowed formats" in found.undecodable[1].reason
    assert "one side may be at most 100 times as long as the other" in found.undecodable[2].reason
    assert len(found.photos) == len(found.infos) == 6
    assert found.broken == {"blue": 1, "red": 2}


def test_hidden_files_and_loose_files_beside_the_classes_are_no_photos(folder):
    (folder / ".cache").mkdir()
    (folder / "blue" / ".DS_Store").write_text("x")
    (folder / "LICENSE.txt").write_text("x")
    found = scan(folder)
    assert found.undecodable == ()
    assert found.labels == ("blue", "red")


def test_an_unreadable_file_is_listed(folder):
    (folder / "red" / "loop.png").symlink_to("loop.png")
    (folder / "red" / "gone.png").symlink_to("nowhere.png")
    assert len(scan(folder).photos) == 6  # a dangling link is no file
    assert data._read(folder, Listed("red", "red/gone.png")) == Undecodable(
        "red/gone.png", "the file cannot be read (No such file or directory)"
    )


def test_a_class_may_hold_folders_of_its_own(folder, draw):
    inner = draw(folder / "red", "2024", 9)
    assert ("red/2024/009.png", "red") in [(photo.path, photo.label) for photo in scan(folder).photos]
    assert inner.exists()


def test_copies_are_kept_once_and_listed(folder):
    shutil.copy(folder / "red" / "001.png", folder / "red" / "zcopy.png")
    kept, found = data.check(scan(folder))
    assert found.duplicates == (("red/001.png", "red/zcopy.png"),)
    assert found.usable == {"blue": 3, "red": 3}
    assert [photo.path for photo in kept if photo.label == "red"] == ["red/000.png", "red/001.png", "red/002.png"]


def test_content_under_two_labels_is_left_out_and_listed(folder, tmp_path):
    shutil.copy(folder / "red" / "001.png", folder / "blue" / "other.png")
    scanned = scan(folder)
    kept, found = data.check(scanned)
    assert found.conflicts == (("blue/other.png", "red/001.png"),)
    assert found.usable == {"blue": 3, "red": 2}
    assert not {"blue/other.png", "red/001.png"} & {photo.path for photo in kept}
    data.require_trainable(scanned, found, tmp_path, strict=False)


def test_strict_refuses_content_under_two_labels_by_path(folder, tmp_path):
    shutil.copy(folder / "red" / "001.png", folder / "blue" / "other.png")
    scanned = scan(folder)
    _, found = data.check(scanned)
    with pytest.raises(LabelConflict, match=r"blue/other\.png = red/001\.png; delete each from the wrong folder"):
        data.require_trainable(scanned, found, tmp_path / "check.json", strict=True)


def test_an_empty_folder_has_no_photos(tmp_path):
    with pytest.raises(NoPhotos, match="one subfolder of photos per class"):
        scan(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NoPhotos):
        scan(tmp_path / "file")


def test_a_path_that_does_not_exist_is_refused_as_such(tmp_path):
    with pytest.raises(DataMissing, match="missing does not exist; give a folder"):
        scan(tmp_path / "missing")


def test_a_folder_of_broken_files_only_says_so(tmp_path):
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.png").write_bytes(b"broken")
    with pytest.raises(NoPhotos, match="only 1 files that cannot be decoded"):
        scan(tmp_path)


def test_a_flat_folder_is_named_as_such(folder):
    with pytest.raises(FlatFolder, match="is flat: 3 files and no subfolder"):
        scan(folder / "red")


def test_a_class_without_usable_photos_is_an_error(folder):
    (folder / "white").mkdir()
    scanned = scan(folder)
    with pytest.raises(EmptyClass, match="white holds no usable photo"):
        data.require_trainable(scanned, data.check(scanned)[1], folder, strict=False)


def test_one_class_is_not_enough(folder):
    shutil.rmtree(folder / "blue")
    scanned = scan(folder)
    with pytest.raises(OneClass, match="at least two classes"):
        data.require_trainable(scanned, data.check(scanned)[1], folder, strict=False)


def test_one_level_too_high_is_recognised(folder, tmp_path_factory):
    """An unpacked archive often has the class folders one level down."""
    above = tmp_path_factory.mktemp("above")
    shutil.copytree(folder, above / "flowers")
    scanned = scan(above)
    with pytest.raises(OneClass, match=r"did you mean .*flowers"):
        data.require_trainable(scanned, data.check(scanned)[1], above, strict=False)


def test_the_fingerprint_knows_content_and_labels_only():
    photos = [Photo("a", "x", "1"), Photo("b", "y", "2")]
    renamed = [Photo("c", "y", "2"), Photo("d", "x", "1")]
    relabelled = [Photo("a", "y", "1"), Photo("b", "y", "2")]
    assert data.fingerprint(photos) == data.fingerprint(renamed)
    assert data.fingerprint(photos) != data.fingerprint(relabelled)


def test_a_photo_that_changed_after_the_check_is_refused(folder):
    photo = scan(folder).photos[0]
    assert data.read_photo(folder, photo) == (folder / photo.path).read_bytes()
    (folder / photo.path).write_bytes(b"another")
    with pytest.raises(PhotoChanged, match="is changed since"):
        data.read_photo(folder, photo)
    (folder / photo.path).unlink()
    with pytest.raises(PhotoChanged, match="unreadable"):
        data.read_photo(folder, photo)


def test_what_is_left_out_is_said_in_words():
    found = Check({"a": 1}, (Undecodable("x", "y"),), (("a", "b", "c"),), (("d", "e"),))
    assert data.left_out(found) == (
        "1 files that cannot be decoded, 2 files that copy another, 2 files whose content stands under two labels"
    )
    assert data.left_out(Check({"a": 1}, (), (), ())) == ""


def table(folder, *rows, name="photos.csv", header="path,label"):
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_table_names_photos_from_its_own_folder_or_anywhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    whole = table(elsewhere, f"{folder}/red/000.png,warm", f"{folder}/blue/000.png,cold")
    near = table(folder, "red/000.png,warm", "blue/000.png,cold")
    assert data.fingerprint(scan(whole).photos) == data.fingerprint(scan(near).photos)
    found = scan(near)
    assert (found.root, found.labels) == (folder, ("cold", "warm"))
    assert [photo.path for photo in found.photos] == ["red/000.png", "blue/000.png"]
    assert data.read_photo(elsewhere, scan(whole).photos[0]) == (folder / "red" / "000.png").read_bytes()


def test_rows_of_a_table_that_lead_nowhere_are_listed(folder):
    found = scan(table(folder, "red/000.png,warm", "red/gone.png,warm", "blue/000.png,cold"))
    assert found.undecodable == (Undecodable("red/gone.png", "the file cannot be read (No such file or directory)"),)
    assert found.broken == {"warm": 1}


def test_repeated_rows_are_copies_and_contradicting_rows_a_conflict(folder):
    rows = ["red/000.png,warm", "red/000.png, warm ", "red/001.png,warm", "blue/001.png,cold", "red/001.png,cold"]
    _, found = data.check(scan(table(folder, *rows)))
    assert found.duplicates == (("red/000.png", "red/000.png"),)
    assert found.conflicts == (("red/001.png", "red/001.png"),)
    assert found.usable == {"cold": 1, "warm": 1}


def test_a_table_may_name_its_columns_otherwise(folder):
    named = table(folder, "red/000.png;warm", header="file;class")
    assert data.scan(named, Silent(), Columns("file", "class")).labels == ("warm",)


def test_a_table_is_refused_as_a_folder_is(folder):
    (folder / "red" / "text.png").write_text("no photo")
    empty = scan(table(folder, "red/000.png,warm", "red/text.png,cold"))
    with pytest.raises(TableUnusable, match=r"no photo of class 'cold' is usable; add some, or drop its rows"):
        data.require_trainable(empty, data.check(empty)[1], folder, strict=False)
    one = scan(table(folder, "red/000.png,warm"))
    with pytest.raises(OneClass, match=r"photos\.csv has photos of one class only, 'warm'; at least two"):
        data.require_trainable(one, data.check(one)[1], folder, strict=False)
    with pytest.raises(NoPhotos, match="only 1 files that cannot be decoded"):
        scan(table(folder, "red/text.png,cold"))


def test_a_folder_may_be_called_like_a_table(folder, tmp_path_factory):
    named = tmp_path_factory.mktemp("odd") / "photos.csv"
    shutil.copytree(folder, named)
    assert scan(named).labels == ("blue", "red")


class Eraser(Silent):
    """Takes its time over the first photo, and deletes all of them meanwhile."""

    def __init__(self, folder):
        self.folder = folder

    def track(self, items, what, total):
        for number, item in enumerate(items):
            if number == 0:
                time.sleep(0.3)  # enough to read all, for whoever would
                shutil.rmtree(self.folder)
            yield item


def test_only_a_few_photos_are_read_ahead(tmp_path, draw):
    """So memory does not grow with the photos, and neither does what a stop has to wait for."""
    for number in range(200):
        draw(tmp_path, "red", number)
    assert len(data.scan(tmp_path, Eraser(tmp_path / "red")).photos) <= 8 * os.cpu_count() + 1


def test_the_flower_photos_have_two_copies_and_one_conflict(shared):
    _, found = data.check(scan(shared / "data" / "flower_photos"))
    assert sum(found.usable.values()) == 3302
    assert len(found.duplicates) == 2
    assert found.conflicts == (("roses/15922772266_1167a06620.jpg", "tulips/15922772266_1167a06620.jpg"),)
