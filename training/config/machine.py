"""Where and how a run computes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes; no field changes what is learned, beyond the arithmetic of the device."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = (
        None  # processes that read and augment photos; None is one a core, 0 reads in the trainer itself
    )
    checkpoint_seconds: float = 120.0  # work that a killed fine-tuning loses at most, against time spent on writing
