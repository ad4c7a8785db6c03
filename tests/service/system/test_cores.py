"""Cores that may be used: the affinity mask and the container's quota, never more than there are."""

import os
from pathlib import Path

import pytest

from service.system import cores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("150000 100000", 1.5),
        ("200000 100000\n", 2.0),
        ("50000 100000", 0.5),
        ("max 100000", None),
        ("-1 100000", None),
        ("", None),
        ("100000", None),
        ("100000 0", None),
        ("100000 x", None),
    ],
)
def test_a_quota_is_read_from_the_text_of_a_cgroup(text: str, expected: float | None) -> None:
    assert cores.quota_of(text) == expected


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files that stand for the kernel's: nothing in them means that the kernel has none."""
    v2, quota, period = (tmp_path / name for name in ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"))
    monkeypatch.setattr(cores, "_CGROUP_V2", v2)
    monkeypatch.setattr(cores, "_CGROUP_V1", (quota, period))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    return v2, quota, period


def test_without_a_quota_every_core_of_the_affinity_mask_counts(cgroup) -> None:
    assert cores.usable_cores() == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [("250000 100000\n", 3), ("100000 100000\n", 1), ("1000 100000\n", 1), ("max 100000\n", 8), ("900000 100000\n", 8)],
)
def test_a_quota_is_rounded_up_and_bounded_by_the_mask(cgroup, text: str, expected: int) -> None:
    cgroup[0].write_text(text)
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("150000\n", 2), ("-1\n", 8)])
def test_the_older_cgroups_are_read_too(cgroup, quota: str, expected: int) -> None:
    cgroup[1].write_text(quota)
    cgroup[2].write_text("100000\n")
    assert cores.usable_cores() == expected


def test_this_machine_has_at_least_one() -> None:
    assert 1 <= cores.usable_cores() <= len(os.sched_getaffinity(0))
