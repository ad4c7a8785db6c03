"""The drawing of evidence over a picture: its size, its colours, and that more evidence is seen as more."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from service.core.overlay import overlay_png

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def drawn(evidence: object, full: float = 1.0, picture: np.ndarray = PICTURE) -> np.ndarray:
    image = Image.open(io.BytesIO(overlay_png(picture, np.array(evidence, np.float32), full)))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB (IEC 61966-2-1), 0 to 1."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


@given(
    picture=arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    evidence=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(-1e6, 1e6, width=32)
    ),
    full=st.floats(-10, 1e6),
)
def test_the_drawing_is_as_large_as_the_picture_whatever_the_evidence(picture, evidence, full) -> None:
    assert drawn(evidence, full, picture).shape == picture.shape


def test_without_evidence_the_picture_is_seen_faded() -> None:
    for nothing in (drawn([[0.0, -3.0]]), drawn([[5.0]], full=0.0), drawn([[-1.0]], full=-1.0)):
        assert np.array_equal(nothing, drawn([[0.0]]))
    faded = drawn([[0.0]]).astype(int)
    assert np.ptp(faded, axis=2).mean() < np.ptp(PICTURE.astype(int), axis=2).mean() / 2  # greyer
    assert faded.mean() < PICTURE.mean()  # darker
    assert np.corrcoef(faded.mean(2).ravel(), PICTURE.mean(2).ravel())[0, 1] > 0.9  # and still the same


def test_more_than_full_evidence_is_seen_as_full() -> None:
    assert np.array_equal(drawn([[7.0]], full=2.0), drawn([[2.0]], full=2.0))


def test_the_more_evidence_the_brighter() -> None:
    """On a black picture, so that the colours alone are seen: no step of the scale is darker than the one before."""
    black = np.zeros((8, 8, 3), np.uint8)
    seen = np.array([luminance(drawn([[share]], 1.0, black)[0, 0]) for share in np.linspace(0, 1, 101)])
    assert (np.diff(seen) > -1e-3).all()
    assert seen[0] == 0
    assert seen[-1] > 0.4
    assert (np.diff(seen[::10]) > 0).all()


def test_the_colours_go_from_violet_over_red_to_yellow() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    little, some, much = (drawn([[share]], 1.0, black)[0, 0].astype(int) for share in (0.2, 0.5, 1.0))
    assert little[2] > little[1]
    assert some[0] > some[1] + 50
    assert some[0] > some[2] + 50
    assert min(much[0], much[1]) > much[2] + 100


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_evidence_is_drawn_where_it_was_found(row: int, column: int) -> None:
    grey = np.full((20, 20, 3), 100, np.uint8)
    evidence = np.zeros((2, 2))
    evidence[row, column] = 1.0
    difference = np.abs(drawn(evidence, 1.0, grey).astype(int) - drawn([[0.0]], 1.0, grey)).sum(2)
    quarters = difference.reshape(2, 10, 2, 10).sum((1, 3))
    assert np.unravel_index(quarters.argmax(), quarters.shape) == (row, column)
