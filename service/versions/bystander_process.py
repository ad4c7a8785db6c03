"""The other side of `service.versions.bystander`: reads pictures from a connection and answers with probabilities."""

import json
import sys
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from bundle.preprocessing import Limits
from bundle.repository import Bundle, open_bundle
from service.engines.engine import OnnxEngine, open_on_cpu
from service.versions.bystander import COMPUTED, FAILED

_MOST_MODELS = 4  # held at once; a process that rests holds none


def main() -> None:
    descriptor, max_bytes, max_pixels = map(int, sys.argv[1:])
    serve(Connection(descriptor), Limits(max_bytes, max_pixels))


def serve(connection: Connection, limits: Limits) -> None:
    """Until the other side is gone."""
    while True:
        try:
            model, image = json.loads(connection.recv_bytes()), connection.recv_bytes()
            connection.send_bytes(_answer(model["folder"], model["version"], image, limits))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _answer(folder: str, version: int, image: bytes, limits: Limits) -> bytes:
    try:
        bundle, engine = _opened(folder, version)
        pixels = bundle.manifest.preprocessing(image, limits)
        return COMPUTED + bytes(engine.run((pixels[np.newaxis],)).probabilities[0].tobytes())
    except Exception as exc:
        return FAILED + f"{type(exc).__name__}: {exc}".encode()


@lru_cache(_MOST_MODELS)
def _opened(folder: str, version: int) -> tuple[Bundle, OnnxEngine]:
    """On the CPU, whatever the server runs on: a GPU knows no work that nobody waits for."""
    bundle = open_bundle(Path(folder), version)
    return bundle, open_on_cpu(bundle)


if __name__ == "__main__":
    main()
