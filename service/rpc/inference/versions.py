"""Every version that the registry knows: it serves, or it was refused for a reason."""

from dataclasses import dataclass, field
from pathlib import Path

from service.versions.loader import LiveModel
from service.versions.registry import Registry


@dataclass(frozen=True, slots=True, order=True)
class Known:
    """A version may serve and have a reason too: its files were changed, and what they hold now was refused."""

    name: str
    version: int
    model: LiveModel | None = field(default=None, compare=False)
    reason: str = field(default="", compare=False)


def known_versions(registry: Registry) -> list[Known]:
    """By name and number."""
    live = {(model.name, model.version): model for model in registry.live()}
    root = registry.repository.root
    refused = {_split(which): _without(root, why) for which, why in registry.refused.items()}
    return sorted(Known(*which, live.get(which), refused.get(which, "")) for which in live.keys() | refused.keys())


def serving(registry: Registry, name: str) -> list[int]:
    """Versions of one model that answer requests, ascending."""
    return sorted(model.version for model in registry.live() if model.name == name)


def _without(root: Path, reason: str) -> str:
    """The reason as callers may read it: files by their path in the folder of models, not on this machine."""
    for folder in (root.resolve(), root):
        reason = reason.replace(f"{folder}/", "")
    return reason


def _split(which: str) -> tuple[str, int]:
    """'flowers/3', as the registry names a version that it refused."""
    name, _, version = which.rpartition("/")
    return name, int(version)
