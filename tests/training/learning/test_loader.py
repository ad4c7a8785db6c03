import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.config import Recipe
from training.dataset import data
from training.errors import RecipeInvalid
from training.learning import loader
from training.learning.loader import Views
from training.learning.sampling import BatchSampler
from training.progress import Silent

CPU = torch.device("cpu")


BALANCE = st.sampled_from(["none", "sampling"])


@given(st.integers(2, 60), st.integers(2, 12), st.integers(1, 4), BALANCE, st.data())
def test_an_order_can_start_again_at_any_step(photos, batch_size, epochs, balance, draw):
    """The batches from step k on are the same as those of an order that began at 0."""
    recipe = Recipe(batch_size=batch_size, epochs=epochs, balance=balance)
    targets = [index % 7 % 3 for index in range(photos)]
    whole = list(BatchSampler(photos, recipe, targets=targets))
    first = draw.draw(st.integers(0, len(whole)))
    rest = BatchSampler(photos, recipe, first, targets=targets)
    assert list(rest) == whole[first:]
    assert len(rest) == len(whole) - first


def test_the_default_order_is_the_one_of_earlier_releases():
    """A run that they began goes on with the very same batches."""
    assert list(BatchSampler(9, Recipe(batch_size=4, epochs=2, seed=3))) == [
        [(0, 5), (0, 8), (0, 3), (0, 6)],
        [(0, 7), (0, 2), (0, 1), (0, 0)],
        [(1, 1), (1, 5), (1, 4), (1, 3)],
        [(1, 8), (1, 0), (1, 7), (1, 2)],
    ]


@given(st.integers(2, 60), st.integers(2, 12), st.integers(1, 5), BALANCE)
def test_several_processes_together_see_the_batches_of_one(photos, batch_size, world, balance):
    recipe = Recipe(batch_size=max(batch_size, world), epochs=2, balance=balance)
    targets = [index % 5 % 2 for index in range(photos)]
    if photos < world:
        with pytest.raises(RecipeInvalid, match="a photo for each process"):
            BatchSampler(photos, recipe, world=world, targets=targets)
        return
    parts = [list(BatchSampler(photos, recipe, rank=rank, world=world, targets=targets)) for rank in range(world)]
    for whole, *shared in zip(BatchSampler(photos, recipe, targets=targets), *parts, strict=True):
        assert all(shared)
        assert [part[place // world] for place in range(len(whole)) for part in [shared[place % world]]] == whole


def test_balanced_sampling_shows_rare_classes_as_often():
    targets = [0] * 40 + [1] * 8
    keys = [
        key
        for batch in BatchSampler(48, Recipe(batch_size=8, epochs=3, balance="sampling"), targets=targets)
        for key in batch
    ]
    assert len(keys) == 3 * 48
    assert sum(targets[key[1]] for key in keys) == 3 * 24


def test_balanced_sampling_needs_the_classes():
    with pytest.raises(ValueError, match="class of each photo"):
        BatchSampler(8, Recipe(balance="sampling"))


@given(st.integers(2, 60), st.integers(2, 12))
def test_an_epoch_shows_each_photo_at_most_once(photos, batch_size):
    order = BatchSampler(photos, Recipe(batch_size=batch_size, epochs=2))
    keys = [key for batch in order for key in batch]
    assert len(set(keys)) == len(keys) == order.steps * min(batch_size, photos)
    assert photos - len(keys) // 2 < min(batch_size, photos)


def test_epochs_and_seeds_shuffle_differently():
    def indices(seed, epoch):
        return [index for batch in BatchSampler(40, Recipe(seed=seed)) for at, index in batch if at == epoch]

    assert indices(0, 0) != indices(0, 1)
    assert indices(0, 0) != indices(1, 0)
    assert indices(0, 0) == indices(0, 0)


@pytest.fixture
def views(photos):
    found = data.scan(photos, Silent()).photos
    return Views(photos, found, [0] * 16 + [1] * 16 + [2] * 16, Recipe(train_size=32))


def test_a_view_is_uint8_with_its_target(views):
    photo, target = views[(0, 20)]
    assert photo.shape == (3, 32, 32)
    assert photo.dtype == torch.uint8
    assert target == 1


def test_a_photo_shown_again_in_an_epoch_is_another_view(views):
    assert not torch.equal(views[(0, 20)][0], views[(0, 20, 1)][0])
    assert torch.equal(views[(0, 20, 1)][0], views[(0, 20, 1)][0])
    assert views[(0, 20, 1)][1] == 1


def test_workers_and_the_trainer_itself_make_the_same_batches(views):
    """Random views must not depend on who makes them, and making them must not disturb dropout's random state."""
    recipe = Recipe(train_size=32, batch_size=16, epochs=1)
    before = torch.get_rng_state()
    alone, several = (list(loader.loader(views, BatchSampler(48, recipe), workers, CPU)) for workers in (0, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(alone) == len(several) == 3
    for one, other in zip(alone, several, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


# Reads with workers, says it has begun, and waits to be killed.
KILLED = """
import sys
from pathlib import Path
import torch
from training.dataset import data
from training.config import Recipe
from training.learning import loader
from training.learning.sampling import BatchSampler
from training.progress import Silent

if __name__ == "__main__":
    root = Path(sys.argv[1])
    photos = data.scan(root, Silent()).photos
    views = loader.Views(root, photos, [0] * len(photos), Recipe(train_size=32))
    sampler = BatchSampler(len(photos), Recipe(batch_size=2, epochs=1000))
    for _ in loader.loader(views, sampler, 2, torch.device("cpu")):
        print("begun", flush=True)
        sys.stdin.readline()
"""


def test_workers_of_a_killed_trainer_end_too(photos, tmp_path):
    """They are another process's children, and each holds hundreds of megabytes."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    trainer = subprocess.Popen(
        [sys.executable, str(script), str(photos)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    with trainer:
        assert trainer.stdout.readline() == "begun\n"
        helpers = psutil.Process(trainer.pid).children(recursive=True)
        trainer.send_signal(signal.SIGKILL)
    assert len(helpers) >= 3  # the fork server and two workers
    assert psutil.wait_procs(helpers, timeout=60)[1] == []
