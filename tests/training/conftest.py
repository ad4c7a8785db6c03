"""Tiny photos drawn by code, and one small run that many tests only read."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from anther.files import locked_folder, remove
from bundle.repository import Bundle, Repository
from tests.training.exporters import quick_exports
from training.config import Machine, Recipe
from training.dataset import data, split
from training.progress import Silent
from training.publishing.release import Release
from training.publishing.retrain import retrain
from training.runs import run
from training.runs.records import TrainingRequest

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (210, 40, 50)}
TINY = {"resize": 40, "crop": 32, "train_size": 32, "batch_size": 8, "precision": "fp32", "mixup": 0.0}

Draw = Callable[[Path, str, int], Path]
MakeOnce = Callable[[str, Callable[[Path], None]], Path]

__all__ = ["quick_exports"]  # a fixture that pytest finds here


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """`make_once(name, fill)`: a folder that the first process of the tests has `fill` make, and all of them read."""
    own = tmp_path_factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        home = common / f"common-{name}"
        home.mkdir(exist_ok=True)
        folder, whole = home / name, home / "whole"
        with locked_folder(home):
            if not whole.exists():
                if folder.exists():
                    remove(folder)  # of a process that failed
                folder.mkdir()
                fill(folder)
                whole.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def draw() -> Draw:
    """draw(root, label, number) writes one 48×40 PNG of the label's colour with its own grain, and returns its path."""

    def one(root: Path, label: str, number: int) -> Path:
        colour = COLOURS.get(label, (128, 128, 128))
        grain = np.random.default_rng([len(label), number]).integers(-40, 41, (40, 48, 3))
        path = root / label / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)).save(path)
        return path

    return one


@pytest.fixture(scope="session")
def photos(make_once: MakeOnce, draw: Draw) -> Path:
    """Three classes of 16 photos. Read only."""

    def fill(folder: Path) -> None:
        for label in COLOURS:
            for number in range(16):
                draw(folder, label, number)

    return make_once("photos", fill)


@pytest.fixture(scope="session")
def recipe(photos: Path) -> Callable[..., Recipe]:
    """A recipe for 32 px whose split seed gives every class of `photos` something in each part."""
    found, _ = data.check(data.scan(photos, Silent()))
    digests = [[photo.digest for photo in found if photo.label == label] for label in COLOURS]
    seed = split.usable_seed(digests)

    def make(**fields: object) -> Recipe:
        return Recipe(**{"strategy": "head", "split_seed": seed, **TINY, **fields})  # type: ignore[arg-type]

    return make


@dataclass(frozen=True)
class Finished:
    run: run.Run
    bundle: Bundle
    models: Path
    runs: Path


@pytest.fixture(scope="session")
def finished(make_once: MakeOnce, photos: Path, recipe: Callable[..., Recipe], backbone_file: Path) -> Finished:
    """A retrain on the drawn photos with the head strategy. Read only."""

    def fill(root: Path) -> None:
        request = TrainingRequest(photos, "colours", str(backbone_file), root / "runs")
        retrain(request, recipe(), Machine("cpu", 2), Release(root / "models"), Silent())

    root = make_once("finished", fill)
    (done,) = run.every(root / "runs" / "colours")
    return Finished(done, Repository(root / "models").open("colours"), root / "models", root / "runs")


@pytest.fixture(scope="session")
def backbone_file(make_once: MakeOnce) -> Path:
    """A state_dict as torchvision publishes it, of random weights whose norms know photos of one colour and grain."""

    def fill(folder: Path) -> None:
        torch.manual_seed(0)
        network = torchvision.models.mobilenet_v2(weights=None).train()
        norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0  # take the batch's own statistics
        with torch.no_grad():
            network(torch.randn(64, 3, 1, 1) + 0.3 * torch.randn(64, 3, 32, 32))
        torch.save(network.state_dict(), folder / "mobilenet_v2.pth")

    return make_once("weights", fill) / "mobilenet_v2.pth"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The photos and weights beside the repository, where they are."""
    path = Path(__file__).parents[3] / "shared"
    if not (path / "data" / "flower_photos").is_dir():
        pytest.skip("the flower photos are not beside the repository")
    return path


@pytest.fixture(autouse=True)
def _same_random_state() -> Iterator[None]:
    """No test depends on, or disturbs, torch's random state of another."""
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)
