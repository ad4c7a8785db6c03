"""Two thousand damaged pictures through a real port: each is answered or refused, and the server stays as it was."""

import io
import json
import random
import struct
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from service.rpc.pb.anther.v1 import classifier_pb2 as pb
from service.rpc.pb.anther.v1.classifier_pb2_grpc import ImageClassifierStub

COUNT, IN_FLIGHT = 2000, 16
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xDEADBEEF]
PATIENCE_S = 60


def encoded(mode: str, format_name: str, **options: Any) -> bytes:
    noise = np.random.default_rng(7).integers(0, 256, (48, 64, 3), np.uint8)
    picture = Image.fromarray(noise).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("RGB", "JPEG", exif=exif.tobytes())


def grey16() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21).save(buffer, "PNG")
    return buffer.getvalue()


SEEDS = [
    encoded("RGB", "JPEG"),
    encoded("RGB", "JPEG", progressive=True),
    encoded("CMYK", "JPEG"),
    rotated(),
    encoded("RGB", "PNG"),
    encoded("RGBA", "PNG"),
    encoded("P", "PNG", transparency=3),
    grey16(),
    encoded("RGB", "WEBP"),
    encoded("RGBA", "WEBP", lossless=True),
    encoded("RGB", "BMP"),
    encoded("P", "GIF"),
    encoded("P", "GIF", save_all=True, append_images=[Image.new("P", (64, 48))]),
    encoded("RGB", "TIFF"),
    encoded("RGB", "TIFF", compression="tiff_lzw"),
    encoded("RGB", "TIFF", compression="jpeg"),
    encoded("L", "TIFF", compression="tiff_adobe_deflate"),
]


def mutated(number: int) -> bytes:
    """The same for the same number: a few random changes to one of the seeds."""
    chance = random.Random(number)
    data = bytearray(SEEDS[number % len(SEEDS)])
    for _ in range(chance.randint(1, 4)):
        change = chance.choice([flip, overwrite, cut, drop, repeat, splice])
        change(data, chance)
    return bytes(data)


def flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def overwrite(data: bytearray, chance: random.Random) -> None:
    """A number of two or four bytes, near the start, where sizes and offsets stand."""
    form = chance.choice(["<H", ">H", "<I", ">I"])
    where = chance.randrange(min(200, len(data)) - 4)
    struct.pack_into(form, data, where, chance.choice(EXTREMES) % 256 ** struct.calcsize(form))


def cut(data: bytearray, chance: random.Random) -> None:
    del data[max(200, chance.randrange(len(data))) :]


def span(data: bytearray, chance: random.Random) -> slice:
    start = chance.randrange(len(data) - 1)
    return slice(start, start + chance.randint(1, 64))


def drop(data: bytearray, chance: random.Random) -> None:
    if len(data) > 300:
        del data[span(data, chance)]


def repeat(data: bytearray, chance: random.Random) -> None:
    where = span(data, chance)
    data[where.start : where.start] = data[where] * chance.randint(1, 20)


def splice(data: bytearray, chance: random.Random) -> None:
    other = chance.choice(SEEDS)
    data[span(data, chance)] = other[: chance.randint(1, len(other))]


def test_changes_are_the_same_every_time() -> None:
    assert [mutated(number) for number in range(50)] == [mutated(number) for number in range(50)]
    assert sum(mutated(number) == SEEDS[number % len(SEEDS)] for number in range(50)) < 5


@pytest.mark.timeout(120)
def test_damaged_pictures_are_answered_or_refused_and_the_server_stays_right(start_server, pictures) -> None:
    server = start_server("--log-format", "json")
    with grpc.insecure_channel(server.target) as channel:
        stub = ImageClassifierStub(channel)
        ends = Counter(ends_of(stub))
        for label, picture in pictures.items():
            assert stub.Classify(pb.ClassifyRequest(image=picture)).predictions[0].label == label
    assert ends.keys() == {"OK", "INVALID_ARGUMENT"}
    assert ends.total() == COUNT
    assert min(ends.values()) > COUNT / 10  # or the changes were too mild, or too wild, to find anything
    assert server.stop() == 0
    lines = server.errors.read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    assert {record["level"] for record in records} <= {"info", "warning"}
    assert records[-1]["message"] == "stopped"
    assert not any("Traceback" in line for line in lines)  # lines of libtiff itself are all that may stand between


def ends_of(stub: ImageClassifierStub) -> Iterator[str]:
    pending: deque[Any] = deque()
    for number in range(COUNT):
        if len(pending) == IN_FLIGHT:
            yield pending.popleft().code().name
        pending.append(stub.Classify.future(pb.ClassifyRequest(image=mutated(number)), timeout=PATIENCE_S))
    for call in pending:
        yield call.code().name
