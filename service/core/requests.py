"""What a caller asks: an encoded image, or rows of pixels that the caller preprocessed."""

from dataclasses import dataclass

from bundle.preprocessing import Pixels
from service.core.call import Trace


@dataclass(frozen=True, slots=True)
class Target:
    """Which version is to answer.

    `version` 0 is whichever serves. `label` 'stable' or 'canary' asks for that one. `id` is the request's own; its hash
    decides whether the request falls into the canary's share.
    """

    model: str = ""
    version: int = 0
    label: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """An encoded image. `deadline` in seconds of `time.monotonic`; `top_k` 0 is the default; `caller` is its key."""

    image: bytes
    top_k: int = 0
    deadline: float | None = None
    evidence: bool = False
    id: str = ""
    caller: str = ""
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class PixelsRequest:
    """Preprocessed images: uint8 [n, crop, crop, 3]."""

    pixels: Pixels
    deadline: float | None = None
    evidence: bool = False
    id: str = ""
    caller: str = ""
    trace: Trace | None = None


AnyRequest = ImageRequest | PixelsRequest
