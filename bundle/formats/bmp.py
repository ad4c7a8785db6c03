"""BMP (Windows bitmap): run-length coded pixels, which Pillow unpacks in Python, run by run and gap by gap."""

import struct

from bundle.formats.work import Header, Work

_SECONDS_A_RUN, _SECONDS_A_FILLED_PIXEL = 0.8e-6, 0.2e-6
_SECONDS_A_COLOUR, _MOST_COLOURS = 8e-7, 2**16
_SECONDS_A_PIXEL = 8e-9
_RUN_LENGTH = frozenset({1, 2})


def walk(data: bytes, work: Work) -> Header:
    """Raises `struct.error` where the header is cut off, `ImageTooCostly`."""
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        size, compression = struct.unpack_from("<HH", data, 18), 0
    else:
        width, height, compression, colours = struct.unpack_from("<II4xI12xI", data, 18)
        work.add("colours", min(colours, _MOST_COLOURS) * _SECONDS_A_COLOUR)
        size = width, 2**32 - height if data[25] == 0xFF else height  # a negative height: rows from the top
    work.check_size(size)
    pixels = size[0] * size[1]
    if compression in _RUN_LENGTH:
        seconds = len(data) / 2 * _SECONDS_A_RUN + pixels * _SECONDS_A_FILLED_PIXEL
        work.add("run-length coded pixels", seconds)
    return Header(size, pixels * _SECONDS_A_PIXEL)
