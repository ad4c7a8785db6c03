"""The libraries, codecs and commit that made a bundle."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch
from PIL import features

_LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "onnx", "onnxscript")
_CODECS = ("libjpeg_turbo", "jpg", "zlib", "webp", "libtiff")


def versions() -> dict[str, str]:
    """Library or codec → version, for everything that computes with photos or weights."""
    libraries = {name: metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "anther": metadata.version("anther"), **libraries, **_codecs()}


def computing_versions() -> dict[str, str]:
    """The part of `versions` on which a photo's features depend."""
    libraries = {name: metadata.version(name) for name in ("numpy", "pillow")}
    return {"torch": torch.__version__, **libraries, **_codecs()}


def git_commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit of this code; None where it is not under version control, or was changed since."""
    tracked = _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
    if tracked is None or _git(folder, "status", "--porcelain") != "":
        return None
    return _git(folder, "rev-parse", "HEAD")


def _codecs() -> dict[str, str]:
    found = {name: features.version(name) for name in _CODECS}
    return {f"codec:{name}": str(version) for name, version in found.items() if version}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)  # noqa: S603, S607 - fixed arguments
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository: then there is no commit to name
        return None
    return done.stdout.strip()
