"""Compares the exported graph with the trained model on every golden picture and every photo of the test split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle.precision import PrimaryPrecision
from training.errors import VerificationFailed
from training.inference.batches import Floats

MAX_DIFFERENCE: dict[PrimaryPrecision, float] = {  # of a logit, between torch in float32 and ONNX Runtime on one CPU
    "fp32": 1e-3,  # about 1e-5 is usual
    "fp16": 0.25,  # about 0.05 is usual, most of it from rounding the weights
}
_FP32_TOLERANCES = {
    "CPUExecutionProvider": MAX_DIFFERENCE["fp32"],  # other processors sum in another order
    "CUDAExecutionProvider": 1e-2,  # so do other algorithms
}
_FP16_MARGIN = 4  # a runtime may round every activation too, where this one rounded the weights alone
_MIN_FP16_TOLERANCE = 0.01
_INT8_SHARE = 0.1  # of what rounding to bytes cost the golden logits; saturating kernels were off by 0.7
_MIN_INT8_TOLERANCE = 0.01  # exact kernels with VNNI and (emulated) without gave equal logits


@dataclass(frozen=True)
class Verification:
    """The record `verification.json`: what was compared and the largest difference."""

    golden: int  # pictures
    photos: int  # of the test split
    golden_max_abs_logit_difference: float
    photos_max_abs_logit_difference: float

    def tolerances(self, precision: PrimaryPrecision) -> dict[str, dict[str, float]]:
        """What the manifest allows each execution provider; in fp16 a multiple of what was measured."""
        if precision == "fp32":
            return {provider: {"fp32": tolerance} for provider, tolerance in _FP32_TOLERANCES.items()}
        measured = max(self.golden_max_abs_logit_difference, self.photos_max_abs_logit_difference)
        tolerance = max(_FP16_MARGIN * measured, _MIN_FP16_TOLERANCE)
        return {provider: {"fp16": float(f"{tolerance:.2g}")} for provider in _FP32_TOLERANCES}


def compare(
    names: Sequence[str], labels: Sequence[str], expected: Floats, found: Floats, precision: PrimaryPrecision = "fp32"
) -> float:
    """The largest absolute difference between logits [N, C] of torch in float32 and of ONNX Runtime.

    Raises `VerificationFailed`, naming the worst one, where any logit is off by more than `MAX_DIFFERENCE`, or
    in fp32 any top-1 differs. In fp16 photos between two classes may fall to the other one; the metrics count them.
    """
    limit = MAX_DIFFERENCE[precision]
    difference = np.abs(expected.astype(np.float64) - found).max(1)
    disagree = (expected.argmax(1) != found.argmax(1)) & (precision == "fp32")
    bad = disagree | ~(difference <= limit)  # a NaN is over every limit
    if bad.any():
        worst = int(np.argmax(np.where(bad, np.nan_to_num(difference, nan=np.inf), -1.0)))
        raise VerificationFailed(
            names[worst],
            labels[int(expected[worst].argmax())],
            labels[int(found[worst].argmax())],
            float(difference[worst]),
            limit,
        )
    return float(difference.max())


def int8_tolerance(expected: Floats, found: Floats) -> float:
    """What the manifest allows int8 on a CPU, from golden logits [K, C] of the primary model and of int8 on this one.

    Sums of integers are exact. Only where a sum lies between two bytes may another kernel round it to the other one,
    and a few such values are a small part of what rounding every value to a byte did in the first place.
    """
    return float(f"{max(_INT8_SHARE * float(np.abs(expected - found).max()), _MIN_INT8_TOLERANCE):.2g}")
