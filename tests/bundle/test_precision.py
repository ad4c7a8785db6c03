"""What the kernel says of a processor decides whether eight bits pay off."""

from pathlib import Path

import pytest

from bundle.precision import multiplies_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni\n", True),
        ("processor : 0\nflags : avx2 avx_vnni\n", True),
        ("Features\t: fp asimd asimddp\n", True),
        ("flags\t\t: fpu avx2 avx512f\nmodel name : no avx_vnni here\n", False),
    ],
)
def test_the_kernel_says_whether_the_processor_multiplies_bytes(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert multiplies_bytes(tmp_path / "cpuinfo") is expected


def test_a_system_that_does_not_say_is_taken_for_one_that_does_not(tmp_path: Path) -> None:
    assert multiplies_bytes(tmp_path / "nowhere") is False
