"""Looks for encoded images that cost more than their header was taken for: `python -m tests.faults.search`.

Each example is examined, and decoded where that is allowed, in a process of its own whose processor time and memory
are counted. Hypothesis steers towards the ratio of what was used to what was said. The worst are printed as code.
"""

import contextlib
import json
import os
import re
import resource
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from PIL import Image

from bundle.errors import ImageRefused
from bundle.preprocessing import Preprocessing, examine
from tests.faults.mutations import mutated
from tests.faults.recipes import RECIPES, shown

CPU_S, ADDRESSES = 30, 6 * 2**30
BYTES_A_PIXEL, MAX_PIXELS, SPARE = 21, 50 * 10**6, 128 * 2**20
SLOW_S = 0.05  # what takes longer is decoded in a process of its own, with a limit of memory for the largest image
RESET_PEAK = "5"  # proc(5), clear_refs
PREPROCESSING = Preprocessing(232, 224)
Image.init()  # here, and not in each child


@dataclass(frozen=True)
class Cost:
    """`end` is OK, the name of a refusal, or killed; `said` seconds were expected, `used` ones were taken."""

    end: str
    examined: float  # seconds of the walk
    said: float
    used: float
    memory: int
    pixels: int

    @property
    def ratio(self) -> float:
        return self.used / (self.said + 0.01)

    @property
    def allowed(self) -> int:
        """Bytes of memory: in a lane by the image's own pixels, in a process of its own by the most that are let in."""
        return SPARE + BYTES_A_PIXEL * (self.pixels if self.said < SLOW_S else MAX_PIXELS)


def cost(data: bytes) -> Cost:
    """In a child, so that nothing of it stays, and an end by the system is seen."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            os.write(write, json.dumps(_counted(data)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return Cost(**json.loads(answer)) if answer else Cost("killed", 0, 0, CPU_S, ADDRESSES, 1)


def _counted(data: bytes) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    addresses = _memory("VmSize") + ADDRESSES  # a process that has torch begins with as many
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    before, started = _peak(), time.process_time()
    walked, said, pixels = started, 0.0, 0
    try:
        examined = examine(data)
        walked, said = time.process_time(), examined.seconds
        pixels = examined.walked.size[0] * examined.walked.size[1]
        PREPROCESSING.resize_and_crop(examined.image())
        end = "OK"
    except (ImageRefused, MemoryError) as exc:
        end = type(exc).__name__
    ended = time.process_time()
    if not said:
        walked = ended
    used = ended - walked
    return vars(Cost(end, walked - started, said, used, _peak() - before, pixels)) | {}


def _peak() -> int:
    return _memory("VmHWM")


def _memory(kind: str) -> int:
    """Bytes of this process."""
    found = re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def faults(found: Cost) -> list[str]:
    """In what an image costs more than it may."""
    wrong = []
    if found.examined > 0.3:
        wrong.append("walk")
    if found.used > 5 * found.said + 0.03:
        wrong.append("estimate")
    if found.used > 1.5 + 60e-9 * found.pixels:
        wrong.append("time")
    if found.memory > found.allowed:
        wrong.append("memory")
    return wrong


def look(format_name: str, seconds: float, examples: Path | None) -> list[tuple[Cost, str]]:
    """The costliest of each kind that this time finds."""
    ends = time.monotonic() + seconds
    worst: dict[str, tuple[float, Cost, str]] = {}
    tried = 0

    @settings(
        max_examples=10**6,
        deadline=None,
        database=DirectoryBasedExampleDatabase(examples) if examples else None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.target),
    )
    @given(RECIPES[format_name], st.none() | st.integers(0, 1000))
    def attempt(recipe: Any, damage: int | None) -> None:
        nonlocal tried
        if time.monotonic() > ends:
            raise TimeoutError
        tried += 1
        data = recipe.build() if damage is None else mutated(damage, [recipe.build()])
        found, text = cost(data), f"{len(data):,} B {shown(recipe)}, damage {damage}"
        target(min(found.ratio, 100.0), label="ratio")
        target(found.used / (1 + found.pixels * 4e-8), label="seconds")
        target(found.memory / (found.pixels + 10**6), label="memory")
        target(found.examined, label="walk")
        scores = {"ratio": found.ratio, "seconds": found.used, "walk": found.examined}
        scores["memory"] = found.memory - 21 * found.pixels
        for name, score in scores.items():
            if name not in worst or score > worst[name][0]:
                worst[name] = (score, found, f"{name} {text}")
        for fault in faults(found):
            click.echo(f"FAULT {fault} {found} {text}")

    with contextlib.suppress(TimeoutError):
        attempt()
    click.echo(f"{format_name}: {tried} examples")
    return [(found, text) for _, found, text in worst.values()]


@click.command()
@click.option("--minutes", default=30.0, help="For all formats together.")
@click.option("--only", type=click.Choice(sorted(RECIPES)), help="One format.")
@click.option("--examples", type=click.Path(path_type=Path), help="A folder that keeps what led on.")
def main(minutes: float, only: str | None, examples: Path | None) -> None:
    warnings.simplefilter("ignore")
    names = [only] if only else sorted(RECIPES)
    for name in names:
        for found, text in look(name, 60 * minutes / len(names), examples):
            click.echo(f"{name} {text} {found}")


if __name__ == "__main__":
    sys.exit(main())
