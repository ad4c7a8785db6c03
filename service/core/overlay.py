"""Evidence drawn over its image: strong evidence glows, and the image fades where there is none.

The colours are equally far apart for the eye: in Oklab (Ottosson 2020, "A perceptual color space for image processing")
their lightness rises evenly while the hue turns from violet over red to yellow.
"""

import io
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from bundle.preprocessing import Pixels

_Floats = npt.NDArray[np.float32]

_COLOURS = 256
_LIGHTNESS, _HUE, _CHROMA = (0.25, 0.93), (300.0, 470.0), 0.22  # hue in degrees; the chroma as far as screens show it
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_FADED, _DIMMED = 0.65, 0.75  # how grey and how dark the image becomes below the evidence
_COVER, _GAMMA = 0.75, 0.8  # opacity at full evidence; below 1 lets weaker evidence be seen better

_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def overlay_png(pixels: Pixels, evidence: _Floats, full: float) -> bytes:
    """A PNG file as large as `pixels`, uint8 [H, W, 3], with `evidence` [h, w] drawn over it.

    Evidence of `full` and more has the brightest colour, evidence of 0 and less none at all.
    """
    height, width, _ = pixels.shape
    image = Image.fromarray(_blended(pixels, _strength(evidence, full, (width, height))))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # a fifth of the time for a tenth more bytes
    return file.getvalue()


def _strength(evidence: _Floats, full: float, size: tuple[int, int]) -> _Floats:
    """0 to 1 for every pixel."""
    share = np.clip(evidence.astype(np.float64), 0.0, full) / full if full > 0 else np.zeros(evidence.shape)
    return np.asarray(Image.fromarray(share.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def _blended(pixels: Pixels, strength: _Floats) -> Pixels:
    image = pixels.astype(np.float32)
    grey = (image @ _GREY)[..., np.newaxis]
    faded = _DIMMED * (_FADED * grey + (1 - _FADED) * image)
    colour = _colours()[np.rint(strength * (_COLOURS - 1)).astype(int)]
    cover = _COVER * strength[..., np.newaxis] ** _GAMMA
    blended: Pixels = np.rint(faded + cover * (colour - faded)).astype(np.uint8)
    return blended


@cache
def _colours() -> _Floats:
    """[256, 3] in sRGB, 0 to 255, from no evidence to full."""
    lightness = np.linspace(*_LIGHTNESS, _COLOURS)
    hue = np.radians(np.linspace(*_HUE, _COLOURS))
    low, high = np.zeros(_COLOURS), np.full(_COLOURS, _CHROMA)
    for _ in range(20):  # bisection: the most chroma that sRGB holds at this lightness and hue
        middle = (low + high) / 2
        rgb = _linear_rgb(lightness, middle, hue)
        shown = ((rgb >= 0) & (rgb <= 1)).all(axis=1)
        low, high = np.where(shown, middle, low), np.where(shown, high, middle)
    linear = _linear_rgb(lightness, low, hue)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    return (255 * encoded).astype(np.float32)


def _linear_rgb(
    lightness: npt.NDArray[np.float64], chroma: npt.NDArray[np.float64], hue: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    linear: npt.NDArray[np.float64] = (lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T
    return linear
