"""A trained classifier as one ONNX graph that takes uint8 pixels and gives calibrated probabilities.

Everything after resizing is inside, so that no runtime can do it differently: normalisation, layout, the network with
its batch norms folded, temperature and softmax.
"""

import warnings
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from bundle.precision import PrimaryPrecision
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.networks.normalization import MEAN, STD

OPSET = 20
OUTPUTS = ("probabilities", "logits", "evidence")


@dataclass(frozen=True)
class Graph:
    """A serialized ModelProto without external data, and its facts for the manifest."""

    data: bytes
    precision: PrimaryPrecision
    opset: int
    ir_version: int
    parameters: int


class Servable(nn.Module):
    """pixels uint8 [N, H, W, 3] → probabilities [N, C], logits [N, C], evidence [N, C, h, w], all float32.

    Evidence is the head as a 1×1 convolution on the last feature map; its mean over h, w plus the bias is the logit,
    because the head is linear (Zhou et al. 2016, "Learning Deep Features for Discriminative Localization").

    The first layer with weights is a convolution in every backbone, and what stands before it only averages. So it may
    be given pixels from which only the mean was subtracted, with the deviation in its weights: the zeros that it pads
    with are the mean's colour in both scales.

    With fp16 the convolutions compute in half precision. The subtraction before them and the mean, temperature and
    softmax after them stay in float32: they cost nothing, and a mean over many or an exponential loses most in 11 bits.
    """

    mean: Tensor

    def __init__(self, model: Classifier, temperature: float, precision: PrimaryPrecision = "fp32") -> None:
        super().__init__()
        plain = folded(model).cpu()
        self.features = plain.features
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1))
        with torch.no_grad():
            _first_convolution(self.features).weight /= 255 * torch.tensor(STD).view(1, 3, 1, 1)
        self.weight = nn.Parameter(plain.head.weight.detach()[:, :, None, None].clone())
        self.bias = nn.Parameter(plain.head.bias.detach().clone())
        self.temperature = temperature
        if precision == "fp16":
            self.features.half()
            self.weight.data = self.weight.data.half()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centered = pixels.float().permute(0, 3, 1, 2) - self.mean  # its deviation is in the first convolution
        evidence = conv2d(self.features(centered.to(self.weight.dtype)), self.weight).float()
        logits = evidence.mean((2, 3)) + self.bias
        return (logits / self.temperature).softmax(1), logits, evidence


def to_onnx(model: Classifier, temperature: float, crop: int, precision: PrimaryPrecision = "fp32") -> Graph:
    """Export for any number of photos of `crop` × `crop` pixels, and check the result with ONNX's own checker."""
    servable = Servable(model, temperature, precision).eval()
    example = torch.zeros(2, crop, crop, 3, dtype=torch.uint8)  # a batch of one would be taken for a constant
    with warnings.catch_warnings():
        # torch.export copies its own tree specifications in a way that it warns of itself.
        warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated", category=FutureWarning)
        program = torch.onnx.export(
            servable,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    proto = program.model_proto
    _remove_traces(proto)
    onnx.checker.check_model(proto, full_check=True)
    opset = next(entry.version for entry in proto.opset_import if not entry.domain)
    parameters = sum(part.numel() for part in model.parameters())
    return Graph(proto.SerializeToString(), precision, opset, proto.ir_version, parameters)


def _first_convolution(features: nn.Module) -> nn.Conv2d:
    return next(module for module in features.modules() if isinstance(module, nn.Conv2d))


def _remove_traces(proto: onnx.ModelProto) -> None:
    """Remove the paths of source files from all nodes: they differ by machine, and so would digests."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
