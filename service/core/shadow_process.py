"""The other side of `service.core.shadow_worker`: reads images from a connection and answers with probabilities."""

import json
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import numpy as np

from bundle.preprocessing import Limits
from bundle.repository import Bundle, open_bundle
from service.config import PrecisionChoice
from service.core.shadow_worker import COMPUTED, FAILED, ShadowWorkerFailed, identity
from service.engines.engine import OnnxEngine, open_on_cpu

_MAX_MODELS = 4  # held at once


def main() -> None:
    descriptor, max_bytes, max_pixels = map(int, sys.argv[1:4])
    serve(Connection(descriptor), Limits(max_bytes, max_pixels), cast("PrecisionChoice", sys.argv[4]))


def serve(connection: Connection, limits: Limits, precision: PrecisionChoice = "fp32") -> None:
    """Answer until the other side closes the connection."""
    while True:
        try:
            model, image = json.loads(connection.recv_bytes()), connection.recv_bytes()
            opened = partial(_opened, model["folder"], model["version"], model["identity"], precision)
            connection.send_bytes(_answer(opened, image, model["shape"], limits))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _answer(
    opened: Callable[[], tuple[Bundle, OnnxEngine]], image: bytes, shape: list[int] | None, limits: Limits
) -> bytes:
    try:
        bundle, engine = opened()
        if shape is None:
            pixels = bundle.manifest.preprocessing(image, limits)
        else:
            pixels = np.frombuffer(image, np.uint8).reshape(shape)
        return COMPUTED + bytes(engine.run((pixels[np.newaxis],)).probabilities[0].tobytes())
    except Exception as exc:
        return FAILED + f"{type(exc).__name__}: {exc}".encode()


@lru_cache(_MAX_MODELS)
def _opened(folder: str, version: int, expected: str, precision: PrecisionChoice) -> tuple[Bundle, OnnxEngine]:
    """On the CPU, whatever the server runs on: a GPU has no low priority."""
    bundle = open_bundle(Path(folder), version)
    if identity(bundle) != expected:
        raise ShadowWorkerFailed(f"{folder} is not what the server loaded; it was published anew")
    return bundle, open_on_cpu(bundle, precision)


if __name__ == "__main__":
    main()
