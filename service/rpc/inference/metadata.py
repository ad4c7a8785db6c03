"""What the server and its models are: names, types and shapes, as the bundle has them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from anther.open_inference import open_inference_pb2 as pb
from service.rpc.inference.outputs import EVIDENCE, FP32, names_of
from service.rpc.inference.tensors import BYTES, IMAGE, PIXELS, UINT8
from service.versions.loader import LiveModel

PLATFORM = "onnxruntime_onnx"  # Triton's name for an ONNX model in ONNX Runtime
VARIES = -1

_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """`shape` begins with the batch's dimension; `VARIES` where a size does."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def inputs_of(model: LiveModel) -> tuple[Tensor, ...]:
    """A request holds one of them. `image` may come as [N] too: Triton's clients know no batch of bare elements."""
    side = model.bundle.manifest.preprocessing.crop
    return Tensor(IMAGE, BYTES, (VARIES, 1)), Tensor(PIXELS, UINT8, (VARIES, side, side, 3))


def outputs_of(model: LiveModel) -> tuple[Tensor, ...]:
    classes = len(model.bundle.manifest.labels)
    sides = {EVIDENCE: (VARIES, VARIES)}  # the bundle does not say
    return tuple(Tensor(name, FP32, (VARIES, classes, *sides.get(name, ()))) for name in names_of(model))


def server_metadata(request_bytes: int) -> pb.ServerMetadataResponse:
    extensions = (*_EXTENSIONS, f"max_request_bytes({request_bytes})")
    return pb.ServerMetadataResponse(name="anther", version=_own_version(), extensions=extensions)


def model_metadata(model: LiveModel, versions: Sequence[int]) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[str(version) for version in versions],
        platform=PLATFORM,
        inputs=map(_described, inputs_of(model)),
        outputs=map(_described, outputs_of(model)),
    )


@functools.cache  # it is read from the disk
def _own_version() -> str:
    return metadata.version("anther")


def _described(tensor: Tensor) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
