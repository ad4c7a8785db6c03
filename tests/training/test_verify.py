import numpy as np
import pytest

from training import verify
from training.errors import VerificationFailed

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


def test_not_a_number_is_refused():
    with pytest.raises(VerificationFailed, match=r"a\.jpg"):
        verify.compare(NAMES, LABELS, EXPECTED, EXPECTED * np.array([[np.nan], [1]]))
