"""A response's outputs: those that the request names, as numbers or as the classes with the highest values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anther.open_inference import open_inference_pb2 as pb
from service.engines.engine import Outputs
from service.errors import InvalidArgument
from service.rpc.inference.parameters import count_of, refuse_shared_memory
from service.rpc.inference.tensors import BYTES, join
from service.versions.loader import LiveModel

PROBABILITIES, LOGITS, EVIDENCE = "probabilities", "logits", "evidence"
FP32 = "FP32"

_PICK: dict[str, Callable[[Outputs], npt.NDArray[np.float32] | None]] = {
    PROBABILITIES: lambda outputs: outputs.probabilities,
    LOGITS: lambda outputs: outputs.logits,
    EVIDENCE: lambda outputs: outputs.evidence,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output by name; with `classes` over 0 its highest values with their labels, as the classification extension
    has it.
    """

    name: str
    classes: int = 0


# Not the evidence: it is large, and takes the engine longer.
_UNASKED = (Wanted(PROBABILITIES), Wanted(LOGITS))


def names_of(model: LiveModel) -> tuple[str, ...]:
    return (PROBABILITIES, LOGITS, EVIDENCE) if model.bundle.manifest.model.evidence else (PROBABILITIES, LOGITS)


def wanted_of(
    requested: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor], model: LiveModel
) -> tuple[Wanted, ...]:
    """Raises `InvalidArgument` for an output that the model does not have, or not in that form."""
    if not requested:
        return _UNASKED
    names = names_of(model)
    wanted: list[Wanted] = []
    for tensor in requested:
        if tensor.name not in names:
            raise InvalidArgument("outputs", tensor.name, f"one of {', '.join(names)}")
        if any(tensor.name == other.name for other in wanted):
            raise InvalidArgument("outputs", f"{tensor.name} and {tensor.name}", "each output once")
        refuse_shared_memory(tensor.parameters, tensor.name)
        wanted.append(Wanted(tensor.name, _classes(tensor)))
    return tuple(wanted)


def put(
    response: pb.ModelInferResponse, outputs: Outputs, wanted: Sequence[Wanted], model: LiveModel, raw: bool
) -> None:
    """Add the wanted outputs to the response, raw or in its own fields."""
    for each in wanted:
        array = _PICK[each.name](outputs)
        assert array is not None  # `wanted_of` checked it for this model
        if each.classes:
            _put_classes(response, each, array, model.bundle.manifest.labels, raw)
        else:
            _put_numbers(response, each, array, raw)


def _classes(tensor: pb.ModelInferRequest.InferRequestedOutputTensor) -> int:
    classes = count_of(tensor.parameters, "classification", least=1)
    if classes and tensor.name == EVIDENCE:
        expected = f"no such parameter: only {PROBABILITIES} and {LOGITS} rank classes"
        raise InvalidArgument(f"{EVIDENCE}.parameters", "classification", expected)
    return classes


def _put_numbers(response: pb.ModelInferResponse, wanted: Wanted, array: npt.NDArray[np.float32], raw: bool) -> None:
    output = response.outputs.add(name=wanted.name, datatype=FP32, shape=array.shape)
    if raw:
        response.raw_output_contents.append(array.astype("<f4", copy=False).tobytes())
    else:
        output.contents.fp32_contents.extend(array.ravel().tolist())


def _put_classes(
    response: pb.ModelInferResponse, wanted: Wanted, array: npt.NDArray[np.float32], labels: Sequence[str], raw: bool
) -> None:
    count = min(wanted.classes, len(labels))
    elements = [entry for row in array for entry in highest(row, count, labels)]
    output = response.outputs.add(name=wanted.name, datatype=BYTES, shape=(len(array), count))
    if raw:
        response.raw_output_contents.append(join(elements))
    else:
        output.contents.bytes_contents.extend(elements)


def highest(row: npt.NDArray[np.float32], count: int, labels: Sequence[str]) -> list[bytes]:
    """Entries "value:index:label", highest first and of equals the first; a value has the digits that identify it."""
    best = np.argsort(-row, kind="stable")[:count]
    return [f"{row[index]!s}:{index}:{labels[index]}".encode() for index in best.tolist()]
