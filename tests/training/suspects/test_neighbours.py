import numpy as np
import pytest

from training.progress import Silent
from training.suspects import neighbours
from training.suspects.neighbours import nearest, unit


@pytest.fixture
def small_blocks(monkeypatch):
    """So few rows at once that a small search takes many blocks, the last ones not full."""
    monkeypatch.setattr(neighbours, "_ROWS", 7)
    monkeypatch.setattr(neighbours, "_COLUMNS", 11)


def test_blocks_find_what_one_large_table_finds(small_blocks):
    rows = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    found = nearest(rows, 4, Silent(), "")
    assert np.array_equal(found.rows, np.argsort(distances, 1)[:, :4])
    assert found.distances == pytest.approx(np.sort(distances, 1)[:, :4], abs=1e-4)


def test_no_row_is_its_own_neighbour_even_among_equals(small_blocks):
    found = nearest(np.ones((20, 3), np.float32), 5, Silent(), "")
    assert not (found.rows == np.arange(20)[:, None]).any()
    assert found.distances.max() < 1e-3


def test_there_are_no_more_neighbours_than_others():
    assert nearest(np.eye(3, dtype=np.float32), 10, Silent(), "").rows.shape == (3, 2)


def test_unit_rows_have_length_one_and_nothing_stays_nothing():
    found = unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    assert found.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
