import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training import pipeline
from training.config import Machine
from training.dataset import split
from training.errors import ProcessesUnusable
from training.inference.batches import Parallelism
from training.learning import distributed
from training.learning.distributed import ALONE, World
from training.progress import Silent
from training.runs.records import TrainingRequest
from training.runs.run import Run

ROOT = Path(__file__).parents[3]


def start(arguments, folder):
    """Two processes by torchrun, which run `arguments` in `folder`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def few(photos, recipe, tmp_path):
    """The drawn photos with an odd number of them in validation."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    found, _ = pipeline.data.check(pipeline.data.scan(folder, Silent()))
    val = split.split(found, recipe().split_seed).part("val")
    labels = [photo.label for photo in val]
    spare = [photo for photo in val if labels.count(photo.label) > 1]
    if len(val) % 2 == 0:
        (folder / spare[0].path).unlink()
    return folder


def test_two_processes_train_as_one_does(few, recipe, tmp_path):
    """Batches of 7 and a validation of an odd number divide unevenly; the network has no batch norm and no dropout."""
    wanted = recipe(
        strategy="scratch", backbone="small_cnn", epochs=2, batch_size=7, accumulate=2, dropout=0.0, lr=0.05,
        clip_norm=1.0, l1=0.001, balance="weights",
    )  # fmt: skip
    request = TrainingRequest(few, "alone", "none", tmp_path / "runs")
    alone = pipeline.train(request, wanted, Machine("cpu", 0), Silent())
    assert len(alone.split().part("val")) % 2 == 1

    fields = {name: value for name, value in wanted.record().items() if type(value) is not bool}
    options = [part for name, value in fields.items() for part in ("--" + name.replace("_", "-"), value)]
    done = start(
        ["-m", "anther", "train", "--data", few, "--name", "both", "--weights", "none", "--runs", "runs", *options,
         "--device", "cpu", "--workers", 0],
        tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch   1") == 1  # one process speaks
    (path,) = (tmp_path / "runs" / "both").iterdir()  # and one writes
    both = Run(path)
    untrained, *expected = alone.rows("curves.jsonl")
    assert both.rows("curves.jsonl")[0] == untrained
    assert both.rows("curves.jsonl")[1:] == [pytest.approx(row, rel=1e-4) for row in expected]
    weights = both.weights()
    for name, tensor in alone.weights().items():
        assert torch.allclose(weights[name], tensor, rtol=1e-3, atol=1e-5), name


# Each process checks what it gets from the other; then process 1 dies by `kill -9` in the middle of a conversation.
CHILD = """
import os, signal
import torch
from training.learning import distributed, torchrun

place = torchrun.place()
with distributed.joined(place, "cpu") as world:
    assert (world.rank, world.size, world.on_this_machine) == (place.rank, 2, 2)
    assert world.tell({"from": world.rank}) == {"from": 0}
    rows = torch.arange(15.0).reshape(5, 3)
    assert torch.equal(world.gather(rows[world.rank :: 2], 5), rows)
    assert torch.equal(world.gather(rows[:1] if world.leads else rows[:0], 1), rows[:1])
    one, other = torch.full((2, 2), world.rank + 1.0), torch.full((3,), 10.0 * world.rank)
    world.add_up([one, other])
    assert (one == 3).all() and (other == 10).all()
    assert world.total(torch.tensor(0.5)) == 1.0
    norms = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1).eval())
    for norm in norms:
        norm.running_mean.fill_(world.rank)
    world.agree_on_statistics(norms)
    assert [norm.running_mean.item() for norm in norms] == [0.5, world.rank]
    world.seed(0, 7)
    first = torch.rand(1)
    world.seed(0, 7)
    assert torch.equal(torch.rand(1), first)
    drawn = [first.clone()]
    assert world.total(first) != 2 * first.item()  # each draws by itself
    os.write(1, b"all true\\n")  # in one piece, as two of them write
    world.total(first)  # so both have said it
    if not world.leads:
        os.kill(os.getpid(), signal.SIGKILL)
    world.total(first)  # never comes, as the other is gone
print("done")
"""


def test_processes_add_up_each_other_and_one_that_dies_ends_all(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    done = start([tmp_path / "child.py"], tmp_path)
    assert done.stdout.splitlines() == ["all true", "all true"], done.stderr
    assert done.returncode == 1
    assert f"Signal {signal.SIGKILL.value}" in done.stderr


def test_alone_nothing_changes():
    tensor, state = torch.ones(2), torch.get_rng_state()
    ALONE.add_up([tensor])
    ALONE.seed(0, 1)
    ALONE.agree_on_statistics(torch.nn.BatchNorm2d(1))
    assert torch.equal(tensor, torch.ones(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert ALONE.tell("x") == "x"
    assert ALONE.gather(tensor, 2) is tensor
    assert ALONE.total(torch.tensor(2.5)) == 2.5
    assert distributed.world() is ALONE


def test_cores_are_divided_and_none_is_left_without_work():
    several = World(1, 4, 2)
    assert [several.cores(count) for count in (0, 1, 2, 16)] == [0, 1, 1, 8]
    assert several.parallelism(Parallelism(6, 4)) == Parallelism(3, 4)
    assert ALONE.cores(5) == 5
    assert several.share(range(9)) == range(1, 9, 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_process_without_a_device_of_its_own_is_refused():
    with pytest.raises(ProcessesUnusable, match="process 1 of this machine finds 0 CUDA devices"):
        distributed._take_device(0)
