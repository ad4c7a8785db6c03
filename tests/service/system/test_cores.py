"""Cores that may be used: the affinity mask and the container's quota, never more than there are."""

import os
from collections.abc import Callable
from functools import partial
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


class Cgroups:
    """Folders that stand for the kernel's; what is not written is not there."""

    def __init__(self, folder: Path, own: str) -> None:
        self._folder = folder
        (folder / "own").write_text(own)

    def v2(self, path: str, text: str) -> None:
        self._write(self._folder / "v2" / path / "cpu.max", text)

    def v1(self, path: str, quota: str) -> None:
        self._write(self._folder / "v1" / path / "cpu.cfs_quota_us", quota)
        self._write(self._folder / "v1" / path / "cpu.cfs_period_us", "100000\n")

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Cgroups]:
    """`cgroups(own)`: what the kernel says of this process, on a machine of eight cores."""
    for name, file in (("_OWN", "own"), ("_V2", "v2"), ("_V1", "v1")):
        monkeypatch.setattr(cores, name, tmp_path / file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    return partial(Cgroups, tmp_path)


@pytest.mark.parametrize("own", ["", "0::/\n", "5:memory:/a\n1:cpu,cpuacct:/a\n0::/a\n"])
def test_without_a_quota_every_core_of_the_affinity_mask_counts(cgroups, own: str) -> None:
    cgroups(own)
    assert cores.usable_cores() == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [("250000 100000\n", 3), ("100000 100000\n", 1), ("1000 100000\n", 1), ("max 100000\n", 8), ("900000 100000\n", 8)],
)
def test_a_quota_is_rounded_up_and_bounded_by_the_mask(cgroups, text: str, expected: int) -> None:
    cgroups("0::/\n").v2("", text)
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("150000\n", 2), ("-1\n", 8)])
def test_the_older_cgroups_are_read_too(cgroups, quota: str, expected: int) -> None:
    cgroups("4:cpuset:/\n1:cpu,cpuacct:/\n").v1("", quota)
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(
    ("own", "above", "expected"), [("300000", "max", 3), ("300000", "200000", 2), ("max", "500000", 5)]
)
def test_the_limit_of_a_service_or_of_the_group_above_it_binds(cgroups, own: str, above: str, expected: int) -> None:
    found = cgroups("0::/system.slice/anther.service\n")
    found.v2("system.slice/anther.service", f"{own} 100000\n")
    found.v2("system.slice", f"{above} 100000\n")
    assert cores.usable_cores() == expected


def test_the_groups_of_the_older_kind_are_walked_too(cgroups) -> None:
    found = cgroups("3:memory:/\n2:cpu:/kubepods/pod/one\n")
    found.v1("kubepods/pod/one", "-1\n")
    found.v1("kubepods", "400000\n")
    assert cores.usable_cores() == 4


def test_a_container_that_sees_its_hosts_path_finds_its_limit_at_the_mount(cgroups) -> None:
    cgroups("1:cpu:/docker/0123abcd\n").v1("", "200000\n")
    assert cores.usable_cores() == 2


def test_this_machine_has_at_least_one() -> None:
    assert 1 <= cores.usable_cores() <= len(os.sched_getaffinity(0))
