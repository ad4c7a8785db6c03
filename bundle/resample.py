"""A box out of Pillow's bilinear resize, bit for bit, without computing the rest of the resized picture.

Pillow's own `box=` rounds its coordinates differently; this follows the fixed-point arithmetic of the whole resize
(Pillow 13, `src/libImaging/Resample.c`: 8 bits a channel, 22 fractional bits, and rounding between the two passes, so
that their order shows).
"""

import math

import numpy as np
import numpy.typing as npt

_FRACTION_BITS = 22

_Taps = list[tuple[int, npt.NDArray[np.int64]]]
"""First source index and fixed-point weights of each output pixel."""


def resize_box(
    pixels: npt.NDArray[np.uint8], size: tuple[int, int], box: tuple[int, int, int, int]
) -> npt.NDArray[np.uint8]:
    """Crop `box` (left, top, right, bottom) of the picture resized to `size` (width, height).

    Takes uint8 [H, W, C], gives uint8 [bottom - top, right - left, C].
    """
    left, top, right, bottom = box
    (height, width), (new_width, new_height) = pixels.shape[:2], size
    columns, rows = _taps(width, new_width, left, right), _taps(height, new_height, top, bottom)
    # Before version 13 Pillow always took the horizontal pass first.
    if height - new_height > max(2 * (width - new_width), 0):
        return np.ascontiguousarray(_passes(pixels.swapaxes(0, 1), rows, columns).swapaxes(0, 1))
    return np.ascontiguousarray(_passes(pixels, columns, rows))


def _passes(pixels: npt.NDArray[np.uint8], first: _Taps, second: _Taps) -> npt.NDArray[np.uint8]:
    """Along the second axis, then along the first, of which only the part that the second pass reads is computed."""
    start, stop = second[0][0], max(start + len(weights) for start, weights in second)
    between = _apply(pixels[start:stop].swapaxes(0, 1), first, 0).swapaxes(0, 1)
    return _apply(between, second, start)


def _apply(pixels: npt.NDArray[np.uint8], taps: _Taps, offset: int) -> npt.NDArray[np.uint8]:
    """One pass along the first axis; `offset` is the source index of the first row given."""
    out = np.empty((len(taps), *pixels.shape[1:]), np.uint8)
    for index, (start, weights) in enumerate(taps):
        source = pixels[start - offset : start - offset + len(weights)].astype(np.int64)
        total = np.tensordot(weights, source, axes=1) + (1 << (_FRACTION_BITS - 1))
        out[index] = np.clip(total >> _FRACTION_BITS, 0, 255)
    return out


def _taps(length: int, resized: int, start: int, stop: int) -> _Taps:
    """Of the outputs in [start, stop)."""
    if length == resized:
        return [(index, np.array([1 << _FRACTION_BITS], np.int64)) for index in range(start, stop)]
    scale = length / resized
    support = max(scale, 1.0)
    return [_tap(length, (index + 0.5) * scale, support) for index in range(start, stop)]


def _tap(length: int, center: float, support: float) -> tuple[int, npt.NDArray[np.int64]]:
    first = max(int(center - support + 0.5), 0)
    last = min(int(center + support + 0.5), length)
    triangle = [max(1.0 - abs((x - center + 0.5) * (1.0 / support)), 0.0) for x in range(first, last)]
    total = sum(triangle)
    weights = [math.floor(weight / total * (1 << _FRACTION_BITS) + 0.5) for weight in triangle]
    return first, np.array(weights, np.int64)
