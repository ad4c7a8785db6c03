"""Answers many photos with one thread a core. Each thread reads, preprocesses and infers a few photos at a time.

Small batches stay in the processor's cache and out of the page allocator: 4 photos on one thread cost 13 ms a photo, 32
cost 17 (MobileNetV2 in float32).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.config import Machine
from training.dataset.bounded import mapped
from training.dataset.data import Photo, read_photo
from training.device import workers
from training.networks.normalization import normalized
from training.progress import Reporter

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Infer = Callable[[Pixels], Floats]
"""uint8 [N, H, W, 3] to float32 [N, D]."""
Prepare = Callable[[bytes], Pixels]
"""One encoded photo to uint8 [H, W, 3]: `Preprocessing`, or what wraps one."""


@dataclass(frozen=True)
class Answers:
    """Row i belongs to photo i: `outputs` float32 [N, D] and the mean of the preprocessed pixels, 0 to 255, [N]."""

    outputs: Floats
    brightness: Floats


@dataclass(frozen=True)
class Parallelism:
    """How many threads work at once, and how many photos each takes at a time."""

    threads: int
    batch: int


def parallelism(machine: Machine, device: torch.device) -> Parallelism:
    return Parallelism(max(workers(machine), 1), 4 if device.type == "cpu" else 64)


@dataclass(frozen=True)
class BatchInference:
    """Answers photos whose paths begin at `root`, several batches at once."""

    root: Path
    parallelism: Parallelism
    reporter: Reporter

    def run(self, photos: Sequence[Photo], prepare: Prepare, infer: Infer, task: str) -> Answers:
        """The answers to all photos, with a progress bar that names the task. Raises `PhotoChanged`."""
        total = math.ceil(len(photos) / self.parallelism.batch)
        found = list(self.reporter.track(self.stream(photos, prepare, infer), task, total))
        return Answers(
            np.concatenate([part.outputs for part in found]), np.concatenate([part.brightness for part in found])
        )

    def stream(self, photos: Sequence[Photo], prepare: Prepare, infer: Infer) -> Iterator[Answers]:
        """Answers of consecutive batches, in order. Raises `PhotoChanged`."""

        def one(chunk: Sequence[Photo]) -> Answers:
            pixels = np.stack([prepare(read_photo(self.root, photo)) for photo in chunk])
            return Answers(infer(pixels), pixels.mean((1, 2, 3), dtype=np.float64).astype(np.float32))

        threads, batch = self.parallelism.threads, self.parallelism.batch
        chunks = (photos[start : start + batch] for start in range(0, len(photos), batch))
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from mapped(pool, one, chunks, ahead=2 * threads)


def torch_infer(function: Callable[[torch.Tensor], torch.Tensor], module: nn.Module) -> Infer:
    """Run `function` of a module in eval mode, in float32 on the module's device."""
    module.eval()
    device = next(module.parameters()).device

    def infer(pixels: Pixels) -> Floats:
        with torch.inference_mode():
            inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
            outputs: Floats = function(normalized(inputs)).float().cpu().numpy()
        return outputs

    return infer
