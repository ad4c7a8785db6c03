"""Tiny photos drawn by code, and one small run that many tests only read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from bundle.repository import Bundle
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
def photos(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """Three classes of 16 photos. Read only."""
    root = tmp_path_factory.mktemp("photos")
    for label in COLOURS:
        for number in range(16):
            draw(root, label, number)
    return root


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
def finished(
    tmp_path_factory: pytest.TempPathFactory, photos: Path, recipe: Callable[..., Recipe], backbone_file: Path
) -> Finished:
    """A retrain on the drawn photos with the head strategy. Read only."""
    root = tmp_path_factory.mktemp("finished")
    request = TrainingRequest(photos, "colours", str(backbone_file), root / "runs")
    done, bundle = retrain(request, recipe(), Machine("cpu", 2), Release(root / "models"), Silent())
    return Finished(done, bundle, root / "models", root / "runs")


@pytest.fixture(scope="session")
def backbone_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state_dict as torchvision publishes it, of random weights whose norms know photos of one colour and grain."""
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(weights=None).train()
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # take the batch's own statistics
    with torch.no_grad():
        network(torch.randn(64, 3, 1, 1) + 0.3 * torch.randn(64, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(network.state_dict(), path)
    return path


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
