"""A backbone's weights: torchvision's published file, a file of the user, or random values."""

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
from training.errors import RecipeInvalid, WeightsUnusable
from training.networks import depthwise, initial
from training.networks.backbones import BACKBONES, Classifier, channels, truncated

_OTHERWISE = "give another file with --weights PATH, or --weights imagenet"


def build(recipe: Recipe, classes: int, weights: str) -> Classifier:
    """A classifier with a new head; `weights` is 'imagenet', 'none' or the path of a state_dict of 1000 classes.

    Seeded by the recipe, whose strategy 'scratch' takes no weights, whatever is given. A network without pretrained
    ones is all new, so `recipe.head_init` holds for the whole of it; only 'kaiming' leaves a published network the
    start that its authors gave it, which is Kaiming's in most. Raises `WeightsUnusable` or `RecipeInvalid`.
    """
    require_usable(recipe, weights)
    weights = "none" if recipe.strategy == "scratch" else weights
    torch.manual_seed(recipe.seed)
    network = _network(recipe)
    if weights == "imagenet":
        _load(network, download(_published(recipe, weights)), recipe.backbone, weights)
    elif weights != "none":
        _load(network, read(Path(weights)), recipe.backbone, weights)
    model = _with_head(network, recipe, classes)
    published = BACKBONES[recipe.backbone].weights_url is not None
    started = weights != "none" or (published and recipe.head_init == "kaiming")
    initial.draw(model.head if started else model, recipe)
    return model


def empty(recipe: Recipe, classes: int) -> Classifier:
    """The network that a finished training of this recipe left weights of; undefined until those are loaded.

    Raises `RecipeInvalid`.
    """
    with torch.device("meta"):  # shapes without values: drawing the dense layers of vgg16 takes a second
        model = _with_head(_network(recipe), recipe, classes)
        if recipe.strategy == "truncate" and recipe.keep_blocks > 0:
            model = truncated(model, recipe.keep_blocks, recipe)
    return model.to_empty(device="cpu")


def require_usable(recipe: Recipe, weights: str) -> None:
    """Check recipe and weights before any photo is read. Raises `RecipeInvalid` or `WeightsUnusable`."""
    smallest = BACKBONES[recipe.backbone].smallest
    for name, side in (("crop", recipe.crop), ("train_size", recipe.train_size)):
        if side < smallest:
            raise RecipeInvalid(name, side, f"at least {smallest} for {recipe.backbone}, which shrinks less to nothing")
    if weights == "none" or recipe.strategy == "scratch":
        return
    _published(recipe, weights)
    if recipe.width != 1:
        raise WeightsUnusable(weights, f"they are of width 1, not {recipe.width:g}", "use --width 1 or --weights none")


def identity(weights: str) -> str:
    """The identity of the weights in the manifest: 'imagenet', 'none', or the SHA-256 of the file.

    Raises `WeightsUnusable`.
    """
    if weights in {"imagenet", "none"}:
        return weights
    try:
        return sha256_of(Path(weights))
    except OSError as exc:
        raise WeightsUnusable(weights, "there is no such file", _OTHERWISE) from exc


def download(url: str, folder: Path | None = None) -> dict[str, Any]:
    """Fetch published weights once into torch's own cache; the file's digest is checked against its name."""
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


def _network(recipe: Recipe) -> nn.Module:
    build = BACKBONES[recipe.backbone].build
    return build() if recipe.width == 1 else build(width_mult=recipe.width)


def _with_head(network: nn.Module, recipe: Recipe, classes: int) -> Classifier:
    features = BACKBONES[recipe.backbone].features(network)
    depthwise.quicken(features)
    return Classifier(features, channels(features), classes, recipe.dropout)


def _published(recipe: Recipe, weights: str) -> str:
    """Where the backbone's weights were published. Raises `WeightsUnusable` where none were."""
    url = BACKBONES[recipe.backbone].weights_url
    if url is None:
        reason = f"{recipe.backbone} is a baseline from random weights, for which none were ever published"
        raise WeightsUnusable(weights, reason, "use --weights none, or another --backbone")
    return url


def _load(network: nn.Module, state: dict[str, Any], backbone: str, weights: str) -> None:
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as exc:
        expected = f"a state_dict of torchvision's {backbone} with 1000 classes is expected"
        raise WeightsUnusable(weights, f"{expected} ({_first_line(exc)})", _OTHERWISE) from exc


def _first_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:200]
