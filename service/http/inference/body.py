"""A request's body: a JSON object, and behind it the tensors that come as binary data.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any, NoReturn

from service.errors import InvalidArgument

Json = dict[str, Any]

HEADER_LENGTH = "Inference-Header-Content-Length"
ENCODINGS = ("gzip", "deflate")
# What a JSON text may hold at most: parsing it holds up everybody else, for 0.2 s and with 40 MB at the worst. There is
# room for a nested list of two images of 224 × 224 pixels, and for 20 MB in base64.
_BOUNDS = ((b",[{", 500_000, "values"), (b":", 10_000, "members"), (b"0123456789", 4_000_000, "digits"))
_LENGTH = re.compile(r"[0-9]{1,18}")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib finds out itself which of the two it is


@dataclass(frozen=True, slots=True)
class Body:
    """`header` is None where the binary data is all of it: the one input, as it is."""

    header: Json | None
    binary: bytes = b""


def split(data: bytes, header_length: str | None) -> Body:
    """`header_length` is the request's header of that name. Raises `InvalidArgument`."""
    if header_length is None:
        return Body(parsed(data))
    if not _LENGTH.fullmatch(header_length) or int(header_length) > len(data):
        raise InvalidArgument(HEADER_LENGTH, header_length[:20], f"a number up to the body's {len(data):,} bytes")
    length = int(header_length)
    return Body(parsed(data[:length]), data[length:]) if length else Body(None, data)


def parsed(data: bytes) -> Json:
    """One JSON object within bounds. Raises `InvalidArgument`."""
    for characters, most, what in _BOUNDS:
        if len(data) > most and len(data) - len(data.translate(None, characters)) > most:
            expected = f"at most {most:,}; send large tensors as binary data"
            raise InvalidArgument("body", f"JSON with more {what}", expected)
    try:
        found = json.loads(data.decode(), parse_constant=_no_number)
    except RecursionError as exc:
        raise InvalidArgument("body", "JSON that is nested too deeply", "a request of the protocol") from exc
    except ValueError as exc:  # UTF-8 and JSON that are none, and whole numbers of more than 4,300 digits
        raise InvalidArgument("body", f"{len(data):,} bytes", f"a JSON object ({exc})") from exc
    if not isinstance(found, dict):
        raise InvalidArgument("body", kind_of(found), "an object")
    return found


def unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """Data of a Content-Encoding; of more than `limit` bytes the first of them and one more.

    Raises `InvalidArgument`.
    """
    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = stream.decompress(data, limit + 1)
    except zlib.error as exc:
        raise InvalidArgument("body", f"{len(data):,} bytes", f"{encoding} data ({exc})") from exc
    if len(found) <= limit and (not stream.eof or stream.unused_data):
        what = "end too early" if not stream.eof else "go on behind their end"
        raise InvalidArgument("body", f"{len(data):,} bytes that {what}", f"{encoding} data, whole and in one piece")
    return found


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages: the value itself may be large."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is none of JSON's numbers")
