"""Pictures unlike photographs, whose classes are known because they are drawn: calls in a noisy spectrogram.

A class is a course of pitch (level, arched, dipping) and a rate of pulses (slow, fast); mirrored left and right it
stays the same, as augmentation assumes. Where a call lies, how high it is, how long and how loud, how many overtones it
has and what else sounds are drawn anew for each picture.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]

_SIDE = 192  # px
_COURSES = {"level": lambda u: 0.5 + 0 * u, "arch": lambda u: 4 * u * (1 - u), "dip": lambda u: 1 - 4 * u * (1 - u)}
_PULSES = {"slow": 4.0, "fast": 9.0}  # a call
CLASSES = tuple(f"{course}-{pulse}" for course in _COURSES for pulse in _PULSES)


def draw(folder: Path, per_class: int, seed: int) -> None:
    """Write `per_class` JPEG files of 192 × 192 px for each of the six classes into `folder`/class."""
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            rng = np.random.default_rng([seed, CLASSES.index(label), number])
            Image.fromarray(picture(label, rng)).save(folder / label / f"{number:05}.jpg", quality=92)


def picture(label: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """uint8 [192, 192, 3]."""
    course, pulse = label.split("-")
    sound = _noise(rng) + rng.uniform(0.5, 0.9) * _call(course, pulse, rng)
    for _ in range(rng.integers(1, 4)):
        sound += rng.uniform(0.2, 0.6) * _knock(rng)
    level = np.clip(sound / 2.2, 0, 1)
    colours = np.stack([level**0.7, level**1.4, 0.25 + 0.5 * level * (1 - level)], axis=2)
    return (255 * np.clip(colours, 0, 1)).astype(np.uint8)


def _call(course: str, pulse: str, rng: np.random.Generator) -> Floats:
    """The tone and its overtones, interrupted by its pulses."""
    time, height = np.meshgrid(np.linspace(0, 1, _SIDE), np.linspace(1, 0, _SIDE))
    length = rng.uniform(0.45, 0.8)
    start = rng.uniform(0, 1 - length)
    u = np.clip((time - start) / length, 0, 1)
    pitch = rng.uniform(0.08, 0.25) + rng.uniform(0.06, 0.18) * _COURSES[course](u)
    beat = 0.5 + 0.5 * np.cos(2 * np.pi * (_PULSES[pulse] * rng.uniform(0.85, 1.15) * u + rng.uniform()))
    sounding = (time >= start) & (time <= start + length)
    tones = [np.exp(-(((height - order * pitch) / 0.012) ** 2)) / order**0.5 for order in range(1, rng.integers(3, 6))]
    call: Floats = np.sum(tones, axis=0) * beat * sounding
    return call


def _knock(rng: np.random.Generator) -> Floats:
    """A short noise of all pitches, which belongs to no class."""
    time = np.linspace(0, 1, _SIDE)
    shape = np.exp(-(((time - rng.uniform()) / rng.uniform(0.005, 0.03)) ** 2))
    knock: Floats = np.outer(np.linspace(rng.uniform(0, 1), rng.uniform(0, 1), _SIDE), shape)
    return knock


def _noise(rng: np.random.Generator) -> Floats:
    """Stronger at low pitches, as in most rooms."""
    slope = np.linspace(0.5, 1.0, _SIDE)[:, None]
    noise: Floats = 0.55 * slope * rng.rayleigh(0.6, (_SIDE, _SIDE))
    return noise
