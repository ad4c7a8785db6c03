"""Is the exported graph the trained model? Asked on every golden picture and on every photo of the test split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.errors import VerificationFailed
from training.lanes import Floats

LARGEST_DIFFERENCE = 1e-3  # of a logit, between torch and ONNX Runtime on one CPU in float32; about 1e-5 is usual
TOLERANCES = {
    "CPUExecutionProvider": {"fp32": LARGEST_DIFFERENCE},  # other processors sum in another order
    "CUDAExecutionProvider": {"fp32": 1e-2},  # TF32 and other algorithms
}


@dataclass(frozen=True)
class Verification:
    """What was compared, and how far apart it was; written as `verification.json`."""

    golden: int  # pictures
    photos: int  # of the test split
    golden_max_abs_logit_difference: float
    photos_max_abs_logit_difference: float


def compare(names: Sequence[str], labels: Sequence[str], expected: Floats, found: Floats) -> float:
    """The largest absolute difference between logits [N, C] of torch and of ONNX Runtime.

    Raises `VerificationFailed`, naming the worst picture, where any top-1 differs or any logit is off by more than
    `LARGEST_DIFFERENCE`.
    """
    difference = np.abs(expected.astype(np.float64) - found).max(1)
    disagree = expected.argmax(1) != found.argmax(1)
    bad = disagree | ~(difference <= LARGEST_DIFFERENCE)  # a NaN is over every limit
    if bad.any():
        worst = int(np.argmax(np.where(bad, np.nan_to_num(difference, nan=np.inf), -1.0)))
        raise VerificationFailed(
            names[worst],
            labels[int(expected[worst].argmax())],
            labels[int(found[worst].argmax())],
            float(difference[worst]),
            LARGEST_DIFFERENCE,
        )
    return float(difference.max())
