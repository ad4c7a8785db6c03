import numpy as np
import pytest

from training.errors import VerificationFailed
from training.exporting import verify

NAMES, LABELS = ["a.jpg", "b.jpg"], ["cat", "dog"]
EXPECTED = np.array([[2.0, 1.0], [0.0, 3.0]], np.float32)


def test_equal_answers_pass_with_their_largest_difference():
    assert verify.compare(NAMES, LABELS, EXPECTED, EXPECTED) == 0
    assert verify.compare(NAMES, LABELS, EXPECTED, EXPECTED + np.float32(1e-4)) == pytest.approx(1e-4, rel=0.01)


def test_a_logit_off_by_too_much_is_refused_by_photo():
    with pytest.raises(VerificationFailed, match=r"b\.jpg is 'dog' for torch and 'dog' .*differ by 5\.00e-01"):
        verify.compare(NAMES, LABELS, EXPECTED, EXPECTED + np.array([[0], [0.5]]))


def test_another_top_1_is_refused_however_small_the_difference():
    expected = np.array([[1.0, 1.00001]], np.float32)
    with pytest.raises(VerificationFailed, match="'dog' for torch and 'cat' for ONNX"):
        verify.compare(["a.jpg"], LABELS, expected, expected[:, ::-1])


def test_in_half_precision_logits_may_be_further_off_and_ties_may_break_the_other_way():
    expected = np.array([[1.0, 1.1]], np.float32)
    assert verify.compare(["a.jpg"], LABELS, expected, expected[:, ::-1], "fp16") == pytest.approx(0.1)
    with pytest.raises(VerificationFailed, match=r"a\.jpg is 'dog' .*differ by 3\.00e-01 where 2e-01 is allowed"):
        verify.compare(["a.jpg"], LABELS, expected, expected + np.array([[0.3, 0]]), "fp16")
    with pytest.raises(VerificationFailed, match=r"a\.jpg"):
        verify.compare(["a.jpg"], LABELS, expected, expected * np.nan, "fp16")


def test_tolerances_in_half_precision_are_a_multiple_of_what_was_measured():
    measured = verify.Verification(16, 300, 0.0123, 0.0456)
    assert measured.tolerances("fp16") == {
        "CPUExecutionProvider": {"fp16": 0.18},
        "CUDAExecutionProvider": {"fp16": 0.18},
    }
    assert verify.Verification(16, 300, 0.0, 0.0).tolerances("fp16")["CPUExecutionProvider"] == {"fp16": 0.01}


def test_tolerances_in_single_precision_are_fixed_and_allow_no_tf32():
    """Nobody measured TF32, and a service leaves it off where the manifest does not name it."""
    tolerances = verify.Verification(16, 300, 1e-5, 1e-5).tolerances("fp32")
    assert tolerances == {"CPUExecutionProvider": {"fp32": 1e-3}, "CUDAExecutionProvider": {"fp32": 1e-2}}


def test_not_a_number_is_refused():
    with pytest.raises(VerificationFailed, match=r"a\.jpg"):
        verify.compare(NAMES, LABELS, EXPECTED, EXPECTED * np.array([[np.nan], [1]]))
