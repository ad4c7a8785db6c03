import pytest
import torch

from tests.training import published
from training.config import Recipe
from training.networks import weights
from training.networks.fold import folded


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50", "mobilenet_v3_small"])
def test_folding_keeps_the_function_and_the_original(name, tmp_path):
    file = published.write(published.network(name), tmp_path / "weights.pth")
    model = weights.build(Recipe(backbone=name), 3, str(file)).eval()
    before = weights.digest(model)
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = model(inputs), folded(model)(inputs)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded(model).modules())
    assert weights.digest(model) == before
