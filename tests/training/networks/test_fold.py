import torch

from training.config import Recipe
from training.networks import weights
from training.networks.fold import folded


def test_folding_keeps_the_function_and_the_original(backbone_file):
    model = weights.build(Recipe(), 3, str(backbone_file)).eval()
    before = weights.digest(model)
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = model(pictures), folded(model)(pictures)
    assert torch.allclose(found, expected, atol=1e-4)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded(model).modules())
    assert weights.digest(model) == before
