"""What an encoded image asks for, added up while its header is walked, and refused where its pixels do not explain it.

Seconds are those of one core of the slower of two machines (docs/performance.md); they rank images, and are no promise.
"""

from dataclasses import dataclass

from bundle.errors import ImageAspectRatioRefused, ImageTooCostly, ImageTooManyPixels

MAX_SECONDS = 1.0  # beside the pixels; ordinary files ask for milliseconds
MAX_BYTES = 100 * 10**6  # likewise: texts and profiles of a file of the largest size that is taken
# The central square is at most a hundredth of a longer image, and resizing its short side would take gigabytes.
MAX_ASPECT_RATIO = 100


@dataclass(frozen=True, slots=True)
class Header:
    """Width and height as they are stored, and the time that all pixels of that size take."""

    size: tuple[int, int]
    seconds: float


class Work:
    """Of one file: its size, and what stands beside the pixels - parts, scans, strips, tags, texts."""

    __slots__ = ("_bytes", "_max_pixels", "seconds")

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._bytes = 0
        self.seconds = 0.0

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises `ValueError` where there is no pixel, `ImageTooManyPixels`, `ImageAspectRatioRefused`."""
        if min(size) <= 0:
            raise ValueError("damaged header")
        self.check_pixels(size)
        if max(size) > MAX_ASPECT_RATIO * min(size):
            raise ImageAspectRatioRefused(size, MAX_ASPECT_RATIO)

    def check_pixels(self, size: tuple[int, int]) -> None:
        """Of what is decoded whole, and may be larger than the image. Raises `ImageTooManyPixels`."""
        if size[0] * size[1] > self._max_pixels:
            raise ImageTooManyPixels(size[0] * size[1], self._max_pixels, size)

    def add(self, what: str, seconds: float, size: int = 0) -> None:
        """Raises `ImageTooCostly`, which names `what`."""
        self.seconds += seconds
        self._bytes += size
        if self.seconds > MAX_SECONDS or self._bytes > MAX_BYTES:
            self.refuse(what)

    def refuse(self, what: str) -> None:
        raise ImageTooCostly(f"would take far more than its pixels explain ({what})")
