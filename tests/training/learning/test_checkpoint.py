import random

import numpy as np
import pytest
import torch

from training.errors import RunUnusable
from training.learning import checkpoint

CPU = torch.device("cpu")


def draws():
    return random.random(), np.random.random(), torch.rand(1).item()


def test_parts_facts_and_random_states_come_back(tmp_path):
    layer = torch.nn.Linear(2, 2)
    saved = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"layer": layer}, {"step": 3, "rows": [{"a": 0.5}]})
    expected = draws()
    with torch.no_grad():
        layer.weight.zero_()
    draws()
    assert checkpoint.restore(path, {"layer": layer}, CPU) == {"step": 3, "rows": [{"a": 0.5}]}
    assert torch.equal(layer.weight, saved["weight"])
    assert draws() == expected


def test_without_a_file_there_is_nothing_to_restore(tmp_path):
    assert checkpoint.restore(tmp_path / "checkpoint.pt", {}, CPU) is None


@pytest.mark.parametrize("damage", ["cut", "other network"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"layer": torch.nn.Linear(2, 2)}, {})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RunUnusable, match="the checkpoint cannot be read"):
        checkpoint.restore(path, {"layer": torch.nn.Linear(3, 2)}, CPU)
