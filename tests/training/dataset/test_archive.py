import gzip
import io
import tarfile

import pytest

from training.dataset.archive import Bounds, unpack
from training.errors import ArchiveRefused


def member(name, data=b"x", **changes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in changes.items():
        setattr(info, field, value)
    return info, data


def folder(name):
    return member(name, b"", type=tarfile.DIRTYPE)


def link(name, target, kind=tarfile.SYMTYPE):
    return member(name, b"", type=kind, linkname=target)


@pytest.fixture
def packed(tmp_path):
    def pack(*members):
        path = tmp_path / "photos.tgz"
        with tarfile.open(path, "w:gz") as tar:
            for info, data in members:
                tar.addfile(info, io.BytesIO(data))
        return path

    return pack


@pytest.fixture
def staging(tmp_path):
    return tmp_path / "staging"


def test_the_single_top_folder_is_the_content(packed, staging):
    archive = packed(folder("set"), folder("set/red"), member("set/red/a.jpg", b"a"), member("set/LICENSE.txt", b"l"))
    found = unpack(archive, staging)
    assert found == staging / "set"
    assert (found / "red" / "a.jpg").read_bytes() == b"a"
    assert (found / "LICENSE.txt").read_bytes() == b"l"


def test_several_top_folders_are_the_content_themselves(packed, staging):
    assert unpack(packed(member("red/a.jpg"), member("blue/b.jpg")), staging) == staging


def test_a_single_file_is_no_folder(packed, staging):
    assert unpack(packed(member("a.jpg")), staging) == staging


def test_what_an_interrupted_run_left_is_replaced(packed, staging):
    staging.mkdir()
    (staging / "half").write_text("x")
    unpack(packed(member("red/a.jpg")), staging)
    assert [path.name for path in staging.iterdir()] == ["red"]


HOSTILE = {
    "absolute": ([member("/tmp/a.jpg")], "not a path below"),
    "backslash": ([member("set\\..\\a.jpg")], "not a path below"),
    "parent": ([member("set/../../a.jpg")], "leads outside"),
    "symbolic link": ([link("set/a.jpg", "/etc/passwd")], "neither a plain file nor a folder"),
    "link to a folder": ([link("set", ".."), member("set/a.jpg")], "neither a plain file nor a folder"),
    "hard link": ([link("set/a.jpg", "b.jpg", tarfile.LNKTYPE)], "neither a plain file nor a folder"),
    "device": ([member("set/null", b"", type=tarfile.CHRTYPE)], "neither a plain file nor a folder"),
    "pipe": ([member("set/pipe", b"", type=tarfile.FIFOTYPE)], "neither a plain file nor a folder"),
    "twice": ([member("set/a.jpg"), member("set/a.jpg")], "twice"),
    "twice by another spelling": ([member("set/a.jpg"), member("set/./a.jpg")], "twice"),
    "file and folder": ([member("set/a"), member("set/a/b")], "twice"),
    "folder and file": ([member("set/a/b"), member("set/a")], "twice"),
    "nothing": ([], "no file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(packed, staging, tmp_path, case):
    """Also when good files stand before the bad one."""
    members, reason = HOSTILE[case]
    good = [member("set/good.jpg")] if members else []
    archive = packed(*good, *members)
    with pytest.raises(ArchiveRefused, match=reason):
        unpack(archive, staging)
    assert list(tmp_path.iterdir()) == [archive]


def test_a_sparse_file_is_no_plain_file(tmp_path, staging):
    """It claims a size that it does not bring."""
    info, _ = member("set/a.jpg", b"")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"77777777777\0"  # real size
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "photos.tar"
    path.write_bytes(gzip.compress(bytes(header) + b"\0" * 1024))
    with pytest.raises(ArchiveRefused, match="neither a plain file"):
        unpack(path, staging)


def test_number_and_bytes_are_bounded(packed, staging):
    archive = packed(*(member(f"set/{number}.jpg", b"x" * 5000) for number in range(10)))
    with pytest.raises(ArchiveRefused, match="more than 10 files"):
        unpack(archive, staging, Bounds(files=10))
    with pytest.raises(ArchiveRefused, match="more than 20,000 bytes"):
        unpack(archive, staging, Bounds(size=20_000))
    unpack(archive, staging, Bounds(files=12))  # the top folder and the root count


@pytest.mark.parametrize("kept", [0.2, 0.98])
def test_a_cut_archive_is_refused(packed, staging, kept):
    archive = packed(*(member(f"set/{number}.jpg", bytes(range(256)) * 40) for number in range(20)))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ArchiveRefused, match="damaged"):
        unpack(archive, staging)
    assert not staging.exists()


def test_another_kind_of_file_is_refused(tmp_path, staging):
    path = tmp_path / "page.html"
    path.write_text("<html>")
    with pytest.raises(ArchiveRefused, match="damaged"):
        unpack(path, staging)


def test_an_interruption_leaves_nothing_that_looks_complete(packed, staging, tmp_path):
    """Here the disk fails at the second file."""
    archive = packed(member("set/a.jpg"), member("set/" + "long" * 100))
    with pytest.raises(OSError, match="name too long"):
        unpack(archive, staging)
    assert list(tmp_path.iterdir()) == [archive]


def test_what_follows_the_end_counts_too(packed, staging):
    """A small file may hold terabytes of zeros behind the last member."""
    archive = packed(member("set/a.jpg"))
    content = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(content + bytes(5_000_000)))
    with pytest.raises(ArchiveRefused, match="more than 4,000,000 bytes"):
        unpack(archive, staging, Bounds(size=4_000_000))
    assert unpack(archive, staging, Bounds(size=6_000_000)).name == "set"
