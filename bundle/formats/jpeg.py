"""JPEG (ITU-T T.81): segments before the first scan, and scans.

Pillow reads segments in Python, joins the EXIF segments, each with all before it, and makes lists of tables and frames.
Every scan covers the whole image.
"""

import re
import struct
from dataclasses import dataclass, field

from bundle.formats.directory import add_exif
from bundle.formats.work import Header, Work

MAX_SEGMENTS, MAX_SCANS = 1000, 500
_MAX_SEGMENTS_BETWEEN = 20 * MAX_SCANS
_USUAL_SCANS = 16  # progressive files have about ten

_SCAN, _END, _FILL = 0xDA, 0xD9, 0xFF
_TABLES, _EXIF, _MULTIPLE, _PHOTOSHOP = 0xDB, 0xE1, 0xE2, 0xED
_WITHOUT_LENGTH = frozenset({0x00, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE), 0xFF})
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xDE}) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = frozenset({0xC0, 0xC1})  # Huffman-coded; all others take longer
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_SECONDS_A_SEGMENT, _SECONDS_A_GAP_BYTE, _SECONDS_A_TABLE_BYTE = 3e-6, 2e-7, 2e-7
_SECONDS_A_FRAME_BYTE, _BYTES_A_FRAME_BYTE = 3e-7, 50
_SECONDS_A_RESOURCE, _BYTES_A_RESOURCE = 3e-6, 300
_SECONDS_A_JOINED_BYTE = 3e-10
_SECONDS_A_SCAN, _SECONDS_A_SCANNED_PIXEL = 5e-5, 0.9e-9
_SECONDS_A_PIXEL, _SECONDS_A_SLOWER_PIXEL, _SECONDS_A_BYTE = 6e-9, 11e-9, 2e-8


@dataclass(slots=True)
class _Front:
    """What stands before the first scan, which is at `scan`."""

    size: tuple[int, int] = (0, 0)
    frame: int = 0  # the marker of the last frame
    layers: int = 0
    exif: list[bytes] = field(default_factory=list)
    multiple: bytes = b""  # the directory of a file with several images
    segments: int = 0
    skipped: int = 0  # bytes
    frames: int = 0  # bytes
    tables: int = 0  # bytes
    resources: int = 0
    scan: int = 0

    def add_segment(self, data: bytes, marker: int, position: int, length: int) -> None:
        """Of a marker and the bytes from its length on."""
        if marker == _TABLES:
            self.tables += length
        elif marker in _FRAMES:
            _, height, width, self.layers = struct.unpack_from(">BHHB", data, position + 2)
            self.size, self.frame = (width, height), marker
            self.frames += length
        elif marker == _EXIF and data.startswith(b"Exif\0\0", position + 2):
            self.exif.append(data[position + (8 if self.exif else 2) : position + length])
        elif marker == _MULTIPLE and data.startswith(b"MPF\0", position + 2):
            self.multiple = data[position + 6 : position + length]
        elif marker == _PHOTOSHOP:
            self.resources += data.count(b"8BIM", position, position + length)

    def add_work(self, work: Work) -> None:
        work.add("bytes between its segments", self.segments * _SECONDS_A_SEGMENT + self.skipped * _SECONDS_A_GAP_BYTE)
        work.add("tables", self.tables * _SECONDS_A_TABLE_BYTE)
        work.add("entries in its frames", self.frames * _SECONDS_A_FRAME_BYTE, self.frames * _BYTES_A_FRAME_BYTE)
        if self.resources:
            work.add("Photoshop resources", self.resources * _SECONDS_A_RESOURCE, self.resources * _BYTES_A_RESOURCE)
        if self.exif:
            _add_exif(self.exif, work)
        if self.multiple:
            add_exif(self.multiple, work)


def walk(data: bytes, work: Work) -> Header:
    """Raises `ValueError` where there is no frame before the first scan, `ImageRefused` for what is too much."""
    front = _front(data, work)
    work.check_size(front.size)
    front.add_work(work)
    scans = _scans(data, front, work)
    return _header(data, front, scans, work)


def _front(data: bytes, work: Work) -> _Front:
    front, position = _Front(), 2
    while True:
        found = data.find(b"\xff", position)  # Pillow skips everything else
        if found < 0 or found + 1 >= len(data) or data[found + 1] == _SCAN:
            front.scan = found if found >= 0 else len(data)
            return front
        front.skipped += found - position
        front.segments += 1
        if front.segments > MAX_SEGMENTS:
            work.refuse(f"more than {MAX_SEGMENTS} segments")
        marker = data[found + 1]
        position = found + (1 if marker == _FILL else 2)
        if marker not in _WITHOUT_LENGTH:
            length = max(2, int.from_bytes(data[position : position + 2]))
            front.add_segment(data, marker, position, length)
            position += length


def _add_exif(parts: list[bytes], work: Work) -> None:
    whole = b"".join(parts)
    work.add("EXIF segments", len(parts) * len(whole) * _SECONDS_A_JOINED_BYTE)
    add_exif(whole, work)


def _scans(data: bytes, front: _Front, work: Work) -> int:
    """At most one more than `MAX_SCANS`.

    A sequential image whose first scan has all layers has no other, or libjpeg refuses it. One byte pair in 65,536 of
    what stands behind an image looks like a scan.
    """
    if front.frame in _SEQUENTIAL and data[front.scan + 4 : front.scan + 5] == bytes([front.layers]):
        return 1
    scans = data.count(b"\xff\xda", front.scan)
    return scans if scans <= _USUAL_SCANS else _real_scans(data, front.scan, work)


def _real_scans(data: bytes, position: int, work: Work) -> int:
    scans = segments = 0
    while scans <= MAX_SCANS and (found := _MARKER.search(data, position)):
        segments += 1
        if segments > _MAX_SEGMENTS_BETWEEN:
            work.refuse("segments between its scans")
        marker, position = data[found.start() + 1], found.end()
        if marker == _END:
            break
        scans += marker == _SCAN
        if marker not in _WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2]))
    return scans


def _header(data: bytes, front: _Front, scans: int, work: Work) -> Header:
    if scans > MAX_SCANS:
        work.refuse(f"more than {MAX_SCANS} scans")
    pixels = front.size[0] * front.size[1]
    a_scan = pixels * _SECONDS_A_SCANNED_PIXEL + _SECONDS_A_SCAN
    if scans > _USUAL_SCANS:
        work.add(f"{scans} scans", (scans - _USUAL_SCANS) * a_scan)
    a_pixel = _SECONDS_A_PIXEL if front.frame in _SEQUENTIAL else _SECONDS_A_SLOWER_PIXEL
    if front.layers == 4:
        a_pixel += _SECONDS_A_PIXEL
    return Header(front.size, pixels * a_pixel + min(scans, _USUAL_SCANS) * a_scan + len(data) * _SECONDS_A_BYTE)
