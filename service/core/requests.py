"""What a caller asks: an encoded image, or rows of pixels that the caller preprocessed."""

from dataclasses import dataclass

from bundle.preprocessing import Pixels
from service.core.call import Trace
from service.errors import InvalidArgument

LONGEST_ID, LONGEST_NAME = 1024, 256  # characters of what a request brings and an answer repeats


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

    def check(self) -> None:
        """Raises `InvalidArgument` where a field is longer than anything that makes sense."""
        if len(self.id) > LONGEST_ID:
            raise InvalidArgument("id", self.id, f"at most {LONGEST_ID:,} characters")
        if len(self.model) > LONGEST_NAME:
            raise InvalidArgument("model", self.model, f"at most {LONGEST_NAME} characters")
        if len(self.label) > LONGEST_NAME:
            raise InvalidArgument("label", self.label, f"at most {LONGEST_NAME} characters")


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
