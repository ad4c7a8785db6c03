"""Draw the example pictures: `python examples/draw.py`. No photo is involved; the same code draws the same flowers."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

_WIDTH, _HEIGHT, _SCALE = 500, 375, 2  # drawn larger and reduced, for smooth edges
Colour = tuple[int, int, int]


def main() -> None:
    """Write one JPEG a flower beside this file."""
    for name, draw in {"sunflowers": _sunflower, "daisy": _daisy, "tulips": _tulips}.items():
        picture = draw(np.random.default_rng(7)).resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)
        picture.save(Path(__file__).with_name(f"{name}.jpg"), quality=90)


def _sunflower(rng: np.random.Generator) -> Image.Image:
    picture = _background(rng, (70, 110, 40), (150, 190, 225))
    _stem(picture, (500, 375), (480, 760), 26)
    for ring, (length, colour) in enumerate([(300, (225, 150, 10)), (270, (245, 180, 15)), (235, (255, 205, 40))]):
        _petals(picture, rng, (500, 350), 24, length, 44, colour, ring * 0.13)
    _disc(picture, rng, (500, 350), 135, (60, 35, 15), (120, 75, 25))
    return _grain(picture, rng)


def _daisy(rng: np.random.Generator) -> Image.Image:
    picture = _background(rng, (50, 95, 35), (90, 140, 60))
    for x, y, size in [(760, 170, 0.6), (330, 300, 1.0), (730, 470, 0.8)]:
        _stem(picture, (x, y), (x + 30, 760), int(12 * size))
        for ring, colour in enumerate([(215, 215, 225), (250, 250, 250)]):
            _petals(picture, rng, (x, y), 20, int(200 * size), int(30 * size), colour, ring * 0.16)
        _disc(picture, rng, (x, y), int(62 * size), (225, 160, 10), (255, 215, 60))
    return _grain(picture, rng)


def _tulips(rng: np.random.Generator) -> Image.Image:
    picture = _background(rng, (60, 110, 45), (130, 170, 110))
    for x, y, colour in [(230, 330, (205, 25, 50)), (520, 250, (220, 40, 60)), (790, 350, (200, 20, 70))]:
        _stem(picture, (x, y + 120), (x - 10, 760), 20)
        _leaf(picture, (x - 10, 740), (x - 110, 380), 50)
        _cup(picture, (x, y), 105, 260, colour)
    return _grain(picture, rng)


def _background(rng: np.random.Generator, low: Colour, high: Colour) -> Image.Image:
    """A blurred meadow: soft blobs that fade from one colour below to another above."""
    height, width = _HEIGHT * _SCALE, _WIDTH * _SCALE
    fade = np.linspace(1.0, 0.0, height)[:, None, None]
    base = np.array(low) * (1 - fade) + np.array(high) * fade + np.zeros((height, width, 3))
    blobs = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height), 3)
    soft: npt.NDArray[np.float64] = np.asarray(blobs.filter(ImageFilter.GaussianBlur(30)), float) - 128
    return Image.fromarray(np.clip(base + soft * 0.35, 0, 255).astype(np.uint8))


def _petals(
    picture: Image.Image, rng: np.random.Generator, centre: tuple[int, int], count: int, length: int, width: int,
    colour: Colour, turn: float,
) -> None:  # fmt: skip
    for index in range(count):
        angle = turn + 2 * math.pi * index / count + rng.normal(0, 0.04)
        reach = length * rng.uniform(0.9, 1.05)
        shade = rng.uniform(0.82, 1.06)
        for inner in (1.0, 0.55):  # a lighter middle gives the petal its fold
            tint = tuple(min(255, int(part * shade * (1.0 if inner == 1.0 else 1.08))) for part in colour)
            ImageDraw.Draw(picture).polygon(_petal(centre, angle, reach, width * inner), fill=tint)


def _petal(centre: tuple[int, int], angle: float, length: float, width: float) -> list[tuple[float, float]]:
    """A pointed oval from the centre outwards."""
    along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    outline = [(t, math.sin(math.pi * t**0.8) * width) for t in np.linspace(0.0, 1.0, 20)]
    sides = [*outline, *((t, -w) for t, w in reversed(outline))]
    return [
        (centre[0] + along[0] * t * length + across[0] * w, centre[1] + along[1] * t * length + across[1] * w)
        for t, w in sides
    ]


def _disc(
    picture: Image.Image, rng: np.random.Generator, centre: tuple[int, int], radius: int, dark: Colour, light: Colour
) -> None:
    """Florets on the golden-angle spiral (Vogel 1979), lighter towards the rim."""
    pen = ImageDraw.Draw(picture)
    pen.ellipse((centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius), fill=dark)
    count = 420
    for index in range(count):
        share = math.sqrt(index / count)
        x = centre[0] + radius * share * math.cos(index * 2.39996)
        y = centre[1] + radius * share * math.sin(index * 2.39996)
        mix = share * rng.uniform(0.5, 1.0)
        size = radius * 0.045
        tint = tuple(int(a + (b - a) * mix) for a, b in zip(dark, light, strict=True))
        pen.ellipse((x - size, y - size, x + size, y + size), fill=tint)


def _cup(picture: Image.Image, centre: tuple[int, int], width: int, height: int, colour: Colour) -> None:
    """A closed tulip: two outer petals behind, one before, each darker at its foot."""
    x, y = centre
    for shift, lean, shade in [(-0.45, -0.16, 0.78), (0.45, 0.16, 0.86), (0.0, 0.0, 1.0)]:
        foot = (int(x + shift * width * 0.4), y + height // 2)
        for inner, glow in ((1.0, 0.85), (0.75, 1.0), (0.4, 1.12)):
            tint = tuple(min(255, int(part * shade * glow)) for part in colour)
            outline = _petal(foot, -math.pi / 2 + lean, height * (0.94 + 0.06 * inner), width * 0.72 * inner)
            ImageDraw.Draw(picture).polygon(outline, fill=tint)


def _stem(picture: Image.Image, top: tuple[int, int], foot: tuple[int, int], width: int) -> None:
    pen = ImageDraw.Draw(picture)
    pen.line((top, foot), fill=(60, 105, 40), width=width)
    pen.line(((top[0] - width // 5, top[1]), (foot[0] - width // 5, foot[1])), fill=(95, 145, 60), width=width // 3)


def _leaf(picture: Image.Image, foot: tuple[int, int], tip: tuple[int, int], width: int) -> None:
    angle = math.atan2(tip[1] - foot[1], tip[0] - foot[0])
    length = math.dist(foot, tip)
    ImageDraw.Draw(picture).polygon(_petal(foot, angle, length, width), fill=(70, 125, 60))
    ImageDraw.Draw(picture).polygon(_petal(foot, angle, length, width * 0.4), fill=(95, 150, 80))


def _grain(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.2)), np.int16)
    noise = rng.normal(0, 7, (*soft.shape[:2], 1))
    return Image.fromarray(np.clip(soft + noise, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
