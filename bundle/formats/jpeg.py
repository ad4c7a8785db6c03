"""JPEG (ITU-T T.81): segments before the first scan, and scans.

Pillow reads segments in Python, joins the EXIF segments, each with all before it, and makes lists of tables and frames.
Every scan covers the whole image.
"""

import re

from bundle.formats.directory import add_exif
from bundle.formats.work import Header, Work

MAX_SEGMENTS, MAX_SCANS = 1000, 500
_USUAL_SCANS = 16  # progressive files have about ten

_SCAN, _END, _FILL = 0xDA, 0xD9, 0xFF
_TABLES, _EXIF, _PHOTOSHOP = 0xDB, 0xE1, 0xED
_WITHOUT_LENGTH = frozenset({0x00, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE), 0xFF})
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xDE}) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = frozenset({0xC0, 0xC1})  # Huffman-coded; all others take longer
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_SECONDS_A_SEGMENT, _SECONDS_A_SKIPPED_BYTE = 3e-6, 2e-7
_SECONDS_A_TABLE_BYTE, _SECONDS_A_FRAME_BYTE, _SECONDS_A_RESOURCE = 2e-7, 3e-7, 3e-6
_SECONDS_A_JOINED_BYTE = 3e-10
_SECONDS_A_SCAN, _SECONDS_A_SCANNED_PIXEL = 5e-5, 1.2e-9
_SECONDS_A_PIXEL, _SECONDS_A_SLOWER_PIXEL, _SECONDS_A_BYTE = 8e-9, 14e-9, 3e-8


def walk(data: bytes, work: Work) -> Header:
    """Raises `ValueError` where there is no frame before the first scan, `ImageTooCostly`."""
    position, segments, skipped = 2, 0, 0
    size, marker_of_frame, layers = (0, 0), 0, 0
    exif: list[bytes] = []
    while True:
        found = data.find(b"\xff", position)  # Pillow skips everything else
        if found < 0 or found + 1 >= len(data) or data[found + 1] == _SCAN:
            break
        skipped += found - position
        segments += 1
        if segments > MAX_SEGMENTS:
            work.refuse(f"more than {MAX_SEGMENTS} segments")
        marker = data[found + 1]
        position = found + (1 if marker == _FILL else 2)
        if marker in _WITHOUT_LENGTH:
            continue
        length = max(2, int.from_bytes(data[position : position + 2]))
        if marker in _FRAMES:
            size = int.from_bytes(data[position + 5 : position + 7]), int.from_bytes(data[position + 3 : position + 5])
            marker_of_frame, layers = marker, data[position + 7] if position + 7 < len(data) else 0
            work.add("entries in its frames", length * _SECONDS_A_FRAME_BYTE, 50 * length)
        elif marker == _TABLES:
            work.add("tables", length * _SECONDS_A_TABLE_BYTE)
        elif marker == _EXIF and data.startswith(b"Exif\0\0", position + 2):
            exif.append(data[position + (8 if exif else 2) : position + length])
        elif marker == _PHOTOSHOP:
            resources = data.count(b"8BIM", position, position + length)
            work.add("Photoshop resources", resources * _SECONDS_A_RESOURCE, 300 * resources)
        position += length
    work.check_size(size)
    work.add("bytes between its segments", segments * _SECONDS_A_SEGMENT + skipped * _SECONDS_A_SKIPPED_BYTE)
    if exif:
        _add_exif(exif, work)
    scans = _scans(data, position)
    return _header(data, size, marker_of_frame, layers, scans, work)


def _add_exif(parts: list[bytes], work: Work) -> None:
    whole = b"".join(parts)
    work.add("EXIF segments", len(parts) * len(whole) * _SECONDS_A_JOINED_BYTE)
    add_exif(whole, work)


def _scans(data: bytes, start: int) -> int:
    """At most one more than `MAX_SCANS`; one byte pair in 65,536 of what stands behind the image looks like a scan."""
    scans = data.count(b"\xff\xda", start)
    return scans if scans <= _USUAL_SCANS else _real_scans(data, start)


def _real_scans(data: bytes, position: int) -> int:
    scans = 0
    while scans <= MAX_SCANS and (found := _MARKER.search(data, position)):
        marker, position = data[found.start() + 1], found.end()
        if marker == _END:
            break
        scans += marker == _SCAN
        if marker not in _WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2]))
    return scans


def _header(data: bytes, size: tuple[int, int], frame: int, layers: int, scans: int, work: Work) -> Header:
    if scans > MAX_SCANS:
        work.refuse(f"more than {MAX_SCANS} scans")
    pixels = size[0] * size[1]
    a_scan = pixels * _SECONDS_A_SCANNED_PIXEL + _SECONDS_A_SCAN
    work.add(f"{scans} scans", max(0, scans - _USUAL_SCANS) * a_scan)
    a_pixel = _SECONDS_A_PIXEL if frame in _SEQUENTIAL else _SECONDS_A_SLOWER_PIXEL
    if layers == 4:
        a_pixel += _SECONDS_A_PIXEL
    return Header(size, pixels * a_pixel + min(scans, _USUAL_SCANS) * a_scan + len(data) * _SECONDS_A_BYTE)
