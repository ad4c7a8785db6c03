"""A model's configuration as Triton's clients read it, made from the bundle and from the server's limits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from anther.open_inference import open_inference_pb2 as pb
from bundle.manifest import CUDA
from bundle.preprocessing import Limits
from service.rpc.inference.metadata import PLATFORM, Tensor, inputs_of, outputs_of
from service.rpc.inference.outputs import FP32
from service.rpc.inference.tensors import BYTES, PIXELS, UINT8
from service.versions.loader import LiveModel

_DATA_TYPES = {BYTES: pb.TYPE_STRING, UINT8: pb.TYPE_UINT8, FP32: pb.TYPE_FP32}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may hold at most."""

    images: int
    request_bytes: int
    image: Limits


def model_config(model: LiveModel, versions: Sequence[int], bounds: Bounds) -> pb.ModelConfig:
    """`versions` are those in service."""
    specific = pb.ModelVersionPolicy.Specific(versions=versions)
    config = pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend="onnxruntime",
        version_policy=pb.ModelVersionPolicy(specific=specific),
        max_batch_size=bounds.images,
        input=map(_input, inputs_of(model)),
        output=map(_output, outputs_of(model)),
        instance_group=[_instances(model)],
        default_model_filename=model.bundle.manifest.file_of(model.precision),
        parameters={name: pb.ModelParameter(string_value=value) for name, value in _facts(model, bounds).items()},
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    if model.engine.batch_sizes[-1] > 1:
        sizes = [size for size in model.engine.batch_sizes if size > 1]
        config.dynamic_batching.CopyFrom(pb.ModelDynamicBatching(preferred_batch_size=sizes))
    return config


def _input(tensor: Tensor) -> pb.ModelInput:
    layout = pb.ModelInput.FORMAT_NHWC if tensor.name == PIXELS else pb.ModelInput.FORMAT_NONE
    return pb.ModelInput(
        name=tensor.name,
        data_type=_DATA_TYPES[tensor.datatype],
        format=layout,
        dims=tensor.shape[1:],
        optional=True,
    )


def _output(tensor: Tensor) -> pb.ModelOutput:
    return pb.ModelOutput(name=tensor.name, data_type=_DATA_TYPES[tensor.datatype], dims=tensor.shape[1:])


def _instances(model: LiveModel) -> pb.ModelInstanceGroup:
    """One session, which every thread calls."""
    on_gpu = model.engine.provider == CUDA
    kind = pb.ModelInstanceGroup.KIND_GPU if on_gpu else pb.ModelInstanceGroup.KIND_CPU
    return pb.ModelInstanceGroup(name=model.name, kind=kind, count=1, gpus=[0] if on_gpu else [])


def _facts(model: LiveModel, bounds: Bounds) -> dict[str, str]:
    manifest = model.bundle.manifest
    return {
        "max_request_bytes": str(bounds.request_bytes),
        "max_image_bytes": str(bounds.image.max_bytes),
        "max_image_pixels": str(bounds.image.max_pixels),
        "architecture": manifest.model.architecture,
        "precision": model.precision,
        "sha256": model.sha256,
        "execution_provider": model.engine.provider,
        "threshold": str(manifest.calibration.threshold),
        "labels": json.dumps(manifest.labels, ensure_ascii=False),
    }
