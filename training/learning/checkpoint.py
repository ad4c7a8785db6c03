"""Saves and restores everything that the next training step depends on, in one file."""

import io
import random
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from anther.files import replace
from training.errors import RunUnusable


class Stateful(Protocol):
    """Modules, optimizers, schedules and scalers alike."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


def save(path: Path, parts: dict[str, Stateful], facts: dict[str, Any]) -> None:
    """Write the parts' states, `facts` (plain values and tensors) and the random state of every library."""
    record = {"parts": {name: part.state_dict() for name, part in parts.items()}, "facts": facts, "random": _random()}
    buffer = io.BytesIO()
    torch.save(record, buffer)
    replace(path, buffer.getvalue())


def restore(path: Path, parts: dict[str, Stateful], device: torch.device) -> dict[str, Any] | None:
    """Bring the parts and the random state back and return the facts; None where there is no checkpoint.

    Raises `RunUnusable` where the file is damaged or belongs to another network.
    """
    if not path.exists():
        return None
    try:
        record = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(record["parts"][name])
        _set_random(record["random"])
    except Exception as exc:  # torch raises almost anything on a damaged file
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise RunUnusable(
            path, f"the checkpoint cannot be read ({reason})", "delete it to train from the start"
        ) from exc
    facts: dict[str, Any] = record["facts"]
    return facts


def _random() -> dict[str, Any]:
    numpy_state = dict(np.random.get_state(legacy=False))
    numpy_state["state"] = {"key": numpy_state["state"]["key"].tolist(), "pos": numpy_state["state"]["pos"]}
    return {
        "python": random.getstate(),
        "numpy": numpy_state,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    key = np.array(state["numpy"]["state"]["key"], np.uint32)
    np.random.set_state({**state["numpy"], "state": {"key": key, "pos": state["numpy"]["state"]["pos"]}})
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])
