"""What a soak sends, and the answers that it must get."""

import io
import struct
from dataclasses import dataclass

import grpc
import numpy as np
from PIL import Image

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from bundle.manifest import Manifest

_CLOSE = 1e-3  # probabilities of the same picture may differ by this much between batches
_LARGE = (4000, 3000)  # a camera's picture, in pixels


@dataclass(frozen=True)
class RunContext:
    """What is sent, and for every picture its label and that label's probability, as the server said at the start."""

    photo: bytes
    large: bytes
    pixels: bytes  # the photo as the model sees it, uint8 [1, side, side, 3]
    shape: tuple[int, ...]
    bad: tuple[bytes, ...]
    answers: dict[bytes, tuple[str, float]]


def connected(target: str) -> grpc.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    return grpc.insecure_channel(target, options=options)


def gather(target: str, photo: bytes) -> RunContext:
    """Makes the pictures and asks the server for the answers that all later ones must equal."""
    with connected(target) as channel:
        stub = ImageClassifierStub(channel)
        preprocessing = Manifest.from_json(stub.GetModel(pb.GetModelRequest()).model.manifest_json).preprocessing
        pixels = preprocessing(photo)[np.newaxis]
        large = _enlarged(photo)
        answers = {data: top(stub.Classify(pb.ClassifyRequest(image=data))) for data in (photo, large)}
    answers[pixels.tobytes()] = answers[photo]
    bad = (b"", b"<html>", photo[: len(photo) // 2], photo[:30] + bytes(2000), bytes(10**6), _bomb())
    return RunContext(photo, large, pixels.tobytes(), pixels.shape, bad, answers)


def _enlarged(photo: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo)).resize(_LARGE).save(buffer, "JPEG")
    return buffer.getvalue()


def _bomb() -> bytes:
    """A BMP of a billion pixels, of which there are none."""
    header = struct.pack("<IiiHHIIiiII", 40, 40_000, 25_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + bytes(99)


def top(answer: pb.ClassifyResponse) -> tuple[str, float]:
    return answer.predictions[0].label, answer.predictions[0].probability


def differs(expected: tuple[str, float], found: tuple[str, float]) -> str:
    """What is wrong with an answer; '' where nothing is."""
    same = found[0] == expected[0] and abs(found[1] - expected[1]) < _CLOSE
    return "" if same else f"{found[0]} {found[1]:.4f} and not {expected[0]} {expected[1]:.4f}"
