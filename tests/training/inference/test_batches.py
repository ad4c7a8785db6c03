import numpy as np
import pytest
import torch

from bundle.preprocessing import Preprocessing
from training.config import Machine
from training.dataset import data
from training.errors import PhotoChanged
from training.inference import batches
from training.inference.batches import BatchInference, Parallelism
from training.progress import Silent

SMALL = Preprocessing(resize=40, crop=32)


def mean_colour(pixels):
    return pixels.mean((1, 2)).astype(np.float32)


def test_answers_keep_the_order_of_the_photos(photos):
    found = data.scan(photos, Silent()).photos
    answers = BatchInference(photos, Parallelism(2, 5), Silent()).run(found, SMALL, mean_colour, "")
    alone = np.concatenate([mean_colour(SMALL((photos / photo.path).read_bytes())[np.newaxis]) for photo in found])
    assert np.array_equal(answers.outputs, alone)
    assert answers.brightness == pytest.approx(alone.mean(1), abs=1e-3)


@pytest.fixture
def two_threads():
    """torch computes with two threads here, as the tests' own processes do not."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_lanes_leave_the_callers_threads_alone(photos, two_threads):
    found = data.scan(photos, Silent()).photos
    seen = []

    def infer(pixels):
        seen.append(torch.get_num_threads())
        return mean_colour(pixels)

    BatchInference(photos, Parallelism(2, 5), Silent()).run(found, SMALL, infer, "")
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_a_changed_photo_stops_everything(photos, tmp_path, draw):
    path = draw(tmp_path, "red", 0)
    found = data.scan(tmp_path, Silent()).photos
    path.write_bytes(b"")
    with pytest.raises(PhotoChanged):
        list(BatchInference(tmp_path, Parallelism(1, 1), Silent()).stream(found, SMALL, mean_colour))


def test_a_graphics_card_takes_more_at_a_time():
    assert batches.parallelism(Machine(workers=0), torch.device("cpu")) == Parallelism(1, 4)
    assert batches.parallelism(Machine(workers=2), torch.device("cuda")) == Parallelism(2, 64)
