"""The number of cores that this process may use, by its affinity mask and cgroup quota, not by the host's count."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_OWN = Path("/proc/self/cgroup")  # a line for each hierarchy: 'number:controllers:path', where version 2 has '0::path'
_V2, _V1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")


def usable_cores() -> int:
    """At least 1. A quota of 1.5 cores counts as 2, since a half-idle core costs more than a lane that waits."""
    available = len(os.sched_getaffinity(0))
    return max(1, min(available, math.ceil(min(_quotas(), default=available))))


def _quotas() -> Iterator[float]:
    """The quotas of this process's cgroup and of all visible ones above it; each of them binds."""
    for line in _read(_OWN).splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        own = PurePosixPath(path.lstrip("/"))
        # A container may see its host's path; then only the last of these folders exists, the mount itself.
        for folder in (own, *own.parents):
            quota = quota_of(_limit(controllers, folder))
            if quota is not None:
                yield quota


def _limit(controllers: str, folder: PurePosixPath) -> str:
    """'QUOTA PERIOD' of a cgroup in the hierarchy with these controllers; version 2 names none."""
    if not controllers:
        return _read(_V2 / folder / "cpu.max")
    if "cpu" not in controllers.split(","):
        return ""
    return " ".join(_read(_V1 / folder / f"cpu.cfs_{what}_us") for what in ("quota", "period"))


def quota_of(text: str) -> float | None:
    """Cores granted by the text 'QUOTA PERIOD' of a cgroup; None where there is no limit ('max' or -1)."""
    quota, _, period = text.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
