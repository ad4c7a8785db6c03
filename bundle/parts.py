"""The parts that a JPEG or PNG file says it is made of, counted before Pillow takes them one by one.

Pillow joins the EXIF segments of a JPEG, each with all before it, and unpacks up to a megabyte of every compressed text
or profile of a PNG: 20 MB of the shortest keep a core busy for minutes. Ordinary files have a handful.
"""

MOST_SEGMENTS, MOST_TEXTS = 1000, 100
_SCAN, _FILL = 0xDA, 0xFF
_WITHOUT_LENGTH = frozenset({0x00, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE), 0xFF})
_COMPRESSED = frozenset({b"iCCP", b"iTXt", b"zTXt"})


def too_many(data: bytes) -> str:
    """Of what a file has more than is looked at, as 'more than 1000 segments'; '' where it is ordinary."""
    if data.startswith(b"\xff\xd8") and _segments(data) > MOST_SEGMENTS:
        return f"more than {MOST_SEGMENTS} segments"
    if data.startswith(b"\x89PNG") and _texts(data) > MOST_TEXTS:
        return f"more than {MOST_TEXTS} compressed texts and profiles"
    return ""


def _segments(data: bytes) -> int:
    """Of a JPEG before its first scan; fill bytes count too, as Pillow reads them one at a time."""
    position, found = 2, 0
    while found <= MOST_SEGMENTS:
        position = data.find(b"\xff", position)  # Pillow passes over what is no marker
        if position < 0 or position + 1 >= len(data) or data[position + 1] == _SCAN:
            return found
        found += 1
        marker = data[position + 1]
        position += 1 if marker == _FILL else 2
        if marker not in _WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2]))
    return found


def _texts(data: bytes) -> int:
    """Compressed ones, before and behind the pixels of a PNG."""
    position, found = 8, 0
    while position + 8 <= len(data) and found <= MOST_TEXTS:
        found += data[position + 4 : position + 8] in _COMPRESSED
        position += 12 + int.from_bytes(data[position : position + 4])
    return found
