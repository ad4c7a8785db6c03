"""Where a backbone's weights come from: torchvision's published file, a file of one's own, or chance."""

import hashlib
import pickle
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from bundle.repository import sha256_of
from training.config import Recipe
from training.errors import WeightsUnusable
from training.networks.backbones import BACKBONES, Backbone, Classifier

_OTHERWISE = "give another file with --weights PATH, or --weights imagenet"


def build(recipe: Recipe, classes: int, weights: str) -> Classifier:
    """A classifier with a new head; `weights` is 'imagenet', 'none' or the path of a state_dict of 1000 classes.

    Seeded by the recipe. Raises `WeightsUnusable`.
    """
    torch.manual_seed(recipe.seed)
    backbone = BACKBONES[recipe.backbone]
    network = backbone.build()
    if weights == "imagenet":
        _load(network, download(backbone), weights)
    elif weights != "none":
        _load(network, read(Path(weights)), weights)
    return Classifier(backbone.features(network), backbone.width, classes, recipe.dropout)


def empty(recipe: Recipe, classes: int) -> Classifier:
    """The same network for weights of a finished training."""
    return build(recipe, classes, "none")


def identity(weights: str) -> str:
    """What the manifest says of the source: 'imagenet', 'none', or the SHA-256 of the file.

    Raises `WeightsUnusable`.
    """
    if weights in {"imagenet", "none"}:
        return weights
    try:
        return sha256_of(Path(weights))
    except OSError as exc:
        raise WeightsUnusable(weights, "there is no such file", _OTHERWISE) from exc


def download(backbone: Backbone, folder: Path | None = None) -> dict[str, Any]:
    """Fetch the published weights once into torch's own cache; the file's digest is checked against its name."""
    url = backbone.weights_url
    try:
        state = torch.hub.load_state_dict_from_url(
            url,
            model_dir=None if folder is None else str(folder),
            progress=sys.stderr.isatty(),
            check_hash=True,
            weights_only=True,
        )
    except URLError as exc:
        raise WeightsUnusable(
            "imagenet", f"{url} cannot be reached ({exc.reason})", "connect, or give a file with --weights PATH"
        ) from exc
    except (RuntimeError, OSError, pickle.UnpicklingError) as exc:
        raise WeightsUnusable("imagenet", f"{url}: {_first_line(exc)}", "try again, or use --weights PATH") from exc
    return state


def read(path: Path) -> dict[str, Any]:
    """A state_dict from a file, without running code from it. Raises `WeightsUnusable`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise WeightsUnusable(str(path), "there is no such file", _OTHERWISE) from exc
    except Exception as exc:  # torch.load raises almost anything on a file of another kind
        raise WeightsUnusable(str(path), f"it is no file of tensors ({_first_line(exc)})", _OTHERWISE) from exc
    if not isinstance(state, dict):
        raise WeightsUnusable(str(path), f"it holds a {type(state).__name__}, not a state_dict", _OTHERWISE)
    return state


def digest(module: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all weights and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _load(network: nn.Module, state: dict[str, Any], weights: str) -> None:
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as exc:
        expected = f"a state_dict of {type(network).__name__} with 1000 classes is expected"
        raise WeightsUnusable(weights, f"{expected} ({_first_line(exc)})", _OTHERWISE) from exc


def _first_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:200]
