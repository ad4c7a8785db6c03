"""GIF: blocks before the first image that cost more than its pixels explain, and where Pillow sees them end."""

import pytest

from bundle.errors import ImageRefused, ImageTooCostly
from bundle.preprocessing import decode, examine


def behind_extension(data: bytes, extension: bytes) -> bytes:
    at = 13 + (3 << (data[10] & 7) + 1)
    return data[:at] + extension + data[at:]


@pytest.mark.parametrize(
    "extension",
    [b"!\xfe" + b"\1x" * 10**6 + b"\0", b"!\1\1x\0" * 500_000, b"\1" * 10**6],
    ids=["comment", "extensions", "junk"],
)
def test_very_many_blocks_are_refused(extension: bytes, small_files) -> None:
    few = behind_extension(small_files["gif"], b"!\xfe" + b"\1x" * 100 + b"\0")
    assert decode(few).size == (50, 40)
    with pytest.raises(ImageTooCostly, match=r"before its image|between its blocks"):
        examine(behind_extension(small_files["gif"], extension))


@pytest.mark.parametrize("start", [b"!\1\0", b"!\xff\x0bNETSCAPE2.0\0"])
def test_blocks_that_only_pillow_sees_count(start: bytes, small_files) -> None:
    """By the standard the extension has ended, and an image follows; Pillow reads blocks on."""
    image = b",\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    with pytest.raises(ImageTooCostly, match="before its image"):
        examine(behind_extension(small_files["gif"], start + image + b"\1x" * 10**6 + b"\0"))


def test_a_file_that_ends_before_its_image_is_damaged(small_files) -> None:
    for length in (6, 12, 300):
        with pytest.raises(ImageRefused):
            examine(small_files["gif"][:length])
