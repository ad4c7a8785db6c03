"""What the deployment files say, read once: the Dockerfile as instructions, the compose files as one structure."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    """`name` in capitals; `text` is everything behind it, continuation lines joined."""

    name: str
    text: str

    def form(self) -> list[str]:
        """The words of an exec-form instruction. Raises `ValueError` on shell form."""
        words: list[str] = json.loads(self.text[self.text.index("[") :])
        return words

    def sources(self) -> list[str]:
        """The paths that a COPY takes from the build context."""
        words = self.text.split()
        return [] if words[0].startswith("--from") else words[:-1]


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    body: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        return [found for found in self.body if found.name == name]

    def one(self, name: str) -> Instruction:
        (found,) = self.all(name)
        return found


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def arguments() -> dict[str, str]:
    """The Dockerfile's build arguments before its first stage, with their defaults."""
    return dict(found.text.split("=", 1) for found in _instructions() if found.name == "ARG" and "=" in found.text)


@pytest.fixture(scope="session")
def stages() -> list[Stage]:
    """The Dockerfile's stages in order; the last one is the image."""
    stages: list[Stage] = []
    for found in _instructions():
        if found.name == "FROM":
            base, _, name = found.text.partition(" AS ")
            stages.append(Stage(name, base, ()))
        elif stages:
            stages[-1] = Stage(stages[-1].name, stages[-1].base, (*stages[-1].body, found))
    return stages


@pytest.fixture(scope="session")
def image(stages: list[Stage]) -> Stage:
    return stages[-1]


@pytest.fixture(scope="session")
def environment(image: Stage) -> dict[str, str]:
    """The image's environment variables."""
    return dict(pair.split("=", 1) for found in image.all("ENV") for pair in found.text.split())


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """docker-compose.yml, with every variable at its default."""
    return _compose("docker-compose.yml")


@pytest.fixture(scope="session")
def gpu_compose(compose: dict[str, Any]) -> dict[str, Any]:
    """docker-compose.yml with docker-compose.gpu.yml over it."""
    merged: dict[str, Any] = _merge(compose, _compose("docker-compose.gpu.yml"))
    return merged


def _instructions() -> list[Instruction]:
    lines = (ROOT / "deploy/service.Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", "")
    return [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def _compose(name: str) -> dict[str, Any]:
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / name).read_text())
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def _merge(below: Any, above: Any) -> Any:
    """As the compose specification merges: mappings by key, sequences appended, everything else replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {key: _merge(below.get(key), above[key]) if key in above else below[key] for key in {**below, **above}}
    if isinstance(below, list) and isinstance(above, list):
        return below + above
    return above
