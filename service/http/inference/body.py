"""A request's body: JSON, and behind it the tensors that come as binary data.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import re
import zlib
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from service.errors import InvalidArgument, RequestTooLarge

T = TypeVar("T")

HEADER_LENGTH = "Inference-Header-Content-Length"
ENCODINGS = ("gzip", "deflate")
# What a JSON text may hold at most: parsing it holds up everybody else, with these for 50 ms at the worst, and 7 ms for
# each MB of base64. There is room for two images of 224 × 224 pixels, nested.
_BOUNDS = ((b",", 500_000, "values"), (b"[", 110_000, "lists"), (b":", 10_000, "members"))
_MAX_RATIO, _FREE_BYTES = 32, 64 * 1024  # of unpacked to packed data, which would cost a sender next to nothing
_LENGTH = re.compile(r"[0-9]{1,18}")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib finds out itself which of the two it is


@dataclass(frozen=True, slots=True)
class Body:
    """`text` is None where the binary data is all of it: the one input, as it is."""

    text: bytes | None
    binary: bytes = b""


def split(data: bytes, header_length: str | None) -> Body:
    """`header_length` is the request's header of that name. Raises `InvalidArgument`."""
    if header_length is None:
        return Body(data)
    if not _LENGTH.fullmatch(header_length) or int(header_length) > len(data):
        raise InvalidArgument(HEADER_LENGTH, header_length[:20], f"a number up to the body's {len(data):,} bytes")
    length = int(header_length)
    return Body(data[:length], data[length:]) if length else Body(None, data)


def parsed(text: bytes, kind: type[T], field: str = "body") -> T:
    """JSON within bounds, of that form. Raises `InvalidArgument`."""
    for character, most, what in _BOUNDS:
        if len(text) > most and text.count(character) > most:
            expected = f"at most {most:,}; send large tensors as binary data"
            raise InvalidArgument(field, f"JSON with more {what}", expected)
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidArgument(field, f"{len(text):,} bytes", f"JSON as the protocol has it ({exc})") from exc


def unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """Data of a Content-Encoding, of at most `limit` bytes. Raises `InvalidArgument` and `RequestTooLarge`."""
    most = min(limit, max(_FREE_BYTES, _MAX_RATIO * len(data)))
    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = stream.decompress(data, most + 1)
    except zlib.error as exc:
        raise InvalidArgument("body", f"{len(data):,} bytes", f"{encoding} data ({exc})") from exc
    if len(found) > limit:
        raise RequestTooLarge(limit)
    if len(found) > most:
        raise InvalidArgument(
            "body", f"{len(data):,} bytes of {encoding}", f"data that packs to no less than 1/{_MAX_RATIO}"
        )
    if not stream.eof or stream.unused_data:
        what = "end too early" if not stream.eof else "go on behind their end"
        raise InvalidArgument("body", f"{len(data):,} bytes that {what}", f"{encoding} data, whole and in one piece")
    return found
